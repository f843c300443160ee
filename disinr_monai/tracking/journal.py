"""A write-ahead journal of what is sent to MLflow: no message is lost, none counts twice, and the run never waits."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from disinr_monai.tracking.mlflow_client import METRICS_PER_CALL, Client, Message, RunIds, is_refusal, without_secrets

logger = logging.getLogger(__name__)

FOLDER, FILE = "mlflow_journal", "journal.jsonl"
FLUSH_SECONDS = 120.0
PATIENCE = 10.0
_LONGEST_PAUSE = 30


class Journal:
    """The messages of one run, in a folder of their own from before they are sent until all are.

    Each line of its file is JSON: how the run is opened, a message with its number, or the numbers of messages that the
    store has taken. Files to be sent lie beside it, as links where the file system knows links: a later run may replace
    them in their own place. A disk that fails stops nothing; what it did not take is written with the next line.

    Args:
        folder: ``output_dir/mlflow_journal/RUN``.
        opening: how the run is opened, see :class:`Client`; not given: the journal of an earlier run is read.

    Raises:
        Exception: an earlier run's journal is damaged.
    """

    def __init__(self, folder: Path, opening: Message | None = None) -> None:
        self.folder = folder
        self.ids: RunIds | None = None
        self.left: dict[int, Message] = {}
        self.trouble: OSError | None = None
        self._unwritten, self._number = b"", 0
        if opening is not None:
            self._write({"opening": opening})
        self.opening = opening or self._read()

    def append(self, message: Message, when: float) -> None:
        """Write down a message that is to be sent, at a time in seconds since 1970."""
        record = message
        if message["kind"] == "file":
            kept = self.folder / f"{self._number:04d}-{message['name']}"
            record = message | {"path": kept.name}
            with suppress(OSError):  # then it is sent from where it lies
                try:
                    os.link(message["path"], kept)
                except OSError:
                    shutil.copyfile(message["path"], kept)
                message = message | {"path": str(kept)}
        self.left[self._number] = message
        self._write({"number": self._number, "message": record, "when": when})
        self._number += 1

    def next(self) -> tuple[list[int], Message]:
        """Numbers and content of what is to be sent next; metrics that follow each other become one message."""
        numbers, metrics = [], []
        for number, message in self.left.items():
            if message["kind"] != "metrics" or len(metrics) >= METRICS_PER_CALL:
                break
            numbers.append(number)
            metrics += message["metrics"]
        return (numbers, {"kind": "metrics", "metrics": metrics}) if numbers else ([number], message)

    def sent(self, numbers: list[int]) -> None:
        """Write down that the store has taken messages."""
        self._write({"sent": numbers})
        for number in numbers:
            del self.left[number]

    def defer(self, numbers: list[int]) -> None:
        """Put messages behind all others."""
        self.left |= {number: self.left.pop(number) for number in numbers}

    def remove(self) -> None:
        """Delete the journal of a run that has been sent; the folder of journals goes with the last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _read(self) -> Message:
        opening, is_over = None, False
        for line in (self.folder / FILE).read_text().split("\n"):
            with suppress(ValueError):  # half a line: the disk was full, or the machine went down
                record = json.loads(line)
                if "opening" in record:
                    opening, when = record["opening"], record["opening"]["when"]
                elif "message" in record:
                    self._number, message, when = record["number"], record["message"], record["when"]
                    if message["kind"] == "file":  # only what lies here: it says what to send, not from where
                        message["path"] = str(self.folder / Path(message["path"]).name)
                    self.left[self._number] = message
                    is_over = is_over or message["kind"] == "end"
                for number in record.get("sent", ()):
                    self.left.pop(number, None)
        if opening is None:
            raise ValueError("expected the opening of a run")
        self._number += 1
        if not is_over:
            self.append({"kind": "end", "status": "KILLED", "when": when}, when)
        return opening

    def _write(self, record: dict[str, Any]) -> None:
        plain = json.dumps(record, default=lambda value: value.item() if hasattr(value, "item") else str(value))
        self._unwritten += b"\n" + plain.encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / FILE).open("ab") as file:
                file.write(self._unwritten)
        except OSError as error:
            self.trouble = error
        else:
            self._unwritten, self.trouble = b"", None


class Delivery:
    """Bring messages to MLflow in the background, through failures of the store.

    Each is first written to a :class:`Journal`. One that fails goes to the end of the line, so that it cannot hold up
    others, and after a pause of 1, 2, 4 … 30 s the next is tried. The user is told once that the store fails, and once
    that it works again. What a run leaves in its journal, also one that was killed, the next run with this folder and
    store sends before its own. A message that the store refuses for good is dropped, with one warning.

    Args:
        output_dir: folder of the run; no other process writes there.
        uri: of the store.
        opening: of the run: ``experiment``, ``name``, ``stamp`` and ``when``, see :class:`Client`.
        clock: seconds since 1970, the time that is written down; nothing is decided by it.
    """

    def __init__(self, output_dir: Path, uri: str, opening: Message, clock: Callable[[], float]) -> None:
        self.folder, self.uri, self.clock = output_dir / FOLDER, uri, clock
        self._address = without_secrets(uri)
        self._client = Client(uri)
        self._own = Journal(self.folder / opening["stamp"], {**opening, "uri": self._address})
        self._journals = [self._own]
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._told: set[str] = set()
        self._failures, self._last_success = 0, 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Send a message of this run, some time; returns at once."""
        with self._changed:
            self._own.append(message, self.clock())
            self._changed.notify_all()

    def finish(self, message: Message) -> None:
        """Send the last message and wait for all: ``FLUSH_SECONDS``, and ``PATIENCE`` while the store fails."""
        self.put(message)
        began = self._last_success = time.monotonic()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        while self._thread.is_alive() and time.monotonic() - began < FLUSH_SECONDS:
            if self._failures and time.monotonic() - self._last_success > PATIENCE:
                break
            self._thread.join(0.1)
        with self._changed:
            self._stopped = True  # from here on the thread, if it still waits for an answer, touches no file
            self._changed.notify_all()
        if not self._own.left:
            self._own.remove()
            return
        rest = f"the rest is kept in {self._own.folder} and sent by the next run with this output_dir"
        if self._own.trouble is not None:
            rest = f"nor can the rest be kept ({self._own.trouble})"
        self._tell(logging.WARNING, "not all of this run could be sent; %s", rest)

    # What the background thread does.

    def _work(self) -> None:
        try:
            earlier = [journal for path in sorted(self.folder.glob(f"[!.]*/{FILE}")) for journal in self._read(path)]
            with self._changed:
                self._journals[:0] = earlier
            while (journal := self._next()) is not None:
                self._send(journal)
        except Exception:
            logger.exception("the thread that sends to MLflow has ended")

    def _read(self, path: Path) -> list[Journal]:
        if path.parent == self._own.folder:
            return []
        try:
            journal = Journal(path.parent)
            if journal.opening["uri"] != self._address:
                return []
            if not journal.left:
                journal.remove()  # the run was killed before it could
            return [journal]
        except Exception as error:
            logger.warning("%s cannot be read (%s: %s) and is not sent", path, type(error).__name__, error)
            return []

    def _next(self) -> Journal | None:
        """The next journal with something to send, waited for."""
        with self._changed:
            while not self._stopped:
                journal = next((journal for journal in self._journals if journal.left), None)
                if journal is not None or self._closing:
                    return journal
                self._changed.wait()
            return None

    def _send(self, journal: Journal) -> None:
        with self._changed:
            numbers, message = journal.next()
        try:
            journal.ids = journal.ids or self._client.find_or_make(journal.opening)
            self._client.send(journal.ids, message)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].replace(self.uri, self._address)[:300]
            if not is_refusal(error):
                self._tell(
                    logging.WARNING, "failed (%s); the run goes on without it and keeps what is to be sent", reason
                )
                self._wait(journal, numbers)
            elif journal.ids is None:
                about = journal.opening["name"]
                self._tell(logging.WARNING, "refuses the run %s (%s); it is tried again next time", about, reason)
                self._journals.remove(journal)
            else:
                about = message["kind"]
                self._tell(logging.WARNING, "refuses some of this run (%s: %s); the rest is sent", about, reason)
                self._done(journal, numbers)
        else:
            if self._failures:
                self._tell(logging.INFO, "works again; nothing is lost")
            self._failures, self._last_success = 0, time.monotonic()
            self._done(journal, numbers)

    def _done(self, journal: Journal, numbers: list[int]) -> None:
        with self._changed:
            if self._stopped:
                return
            journal.sent(numbers)
        if journal is not self._own and not journal.left:
            journal.remove()
            logger.info("MLflow at %s: the rest of the earlier run %s is sent", self._address, journal.opening["name"])

    def _wait(self, journal: Journal, numbers: list[int]) -> None:
        with self._changed:
            journal.defer(numbers)
            self._journals.remove(journal)
            self._journals.append(journal)
            closing, pause = self._closing, 1 if self._closing else min(2**self._failures, _LONGEST_PAUSE)
            self._failures += 1
            self._changed.wait_for(lambda: self._stopped or self._closing != closing, pause)

    def _tell(self, level: int, text: str, *arguments: object) -> None:
        """Log a line, the first time; later it interests only who looks for errors."""
        logger.log(logging.DEBUG if text in self._told else level, f"MLflow at %s {text}", self._address, *arguments)
        self._told.add(text)
