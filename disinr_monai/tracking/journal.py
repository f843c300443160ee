"""Write-ahead journal of the messages to MLflow: none is lost, none counts twice, and the run never waits."""

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
    """Messages of one run on disk, in a folder of their own until all have been sent.

    Each line of its file is JSON: the opening of the run, a message with its number, or the numbers of messages that
    the store has accepted. Files to send lie beside it, as hard links if possible, because a later run may replace
    the originals. A failing disk stops nothing; what could not be written is written with the next line.

    Args:
        folder: ``output_dir/mlflow_journal/RUN``.
        opening: of the run, see :meth:`Client.find_or_make`; None reads the journal of an earlier run.

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
        """Record a message to send, with its time in seconds since 1970."""
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
        """Numbers and content of the next message to send; consecutive metrics become one message."""
        numbers, metrics = [], []
        for number, message in self.left.items():
            if message["kind"] != "metrics" or len(metrics) >= METRICS_PER_CALL:
                break
            numbers.append(number)
            metrics += message["metrics"]
        return (numbers, {"kind": "metrics", "metrics": metrics}) if numbers else ([number], message)

    def sent(self, numbers: list[int]) -> None:
        """Record that the store has accepted messages."""
        self._write({"sent": numbers})
        for number in numbers:
            del self.left[number]

    def defer(self, numbers: list[int]) -> None:
        """Move messages to the end of the queue."""
        self.left |= {number: self.left.pop(number) for number in numbers}

    def remove(self) -> None:
        """Delete the journal of a run that has been sent, and the folder of journals if it was the last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _read(self) -> Message:
        opening, is_over = None, False
        for line in (self.folder / FILE).read_text().split("\n"):
            with suppress(ValueError):  # an incomplete line: the disk was full, or the machine went down
                record = json.loads(line)
                if "opening" in record:
                    opening, when = record["opening"], record["opening"]["when"]
                elif "message" in record:
                    self._number, message, when = record["number"], record["message"], record["when"]
                    if message["kind"] == "file":  # only files of this folder are sent, wherever the journal points
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
    """Send messages to MLflow in the background, and retry after failures of the store.

    Each is first written to a :class:`Journal`. A message that fails moves to the end of the queue, so that it cannot
    block others, and the next is tried after a pause of 1, 2, 4 … 30 s. One warning says that the store fails, and one
    line that it works again. Messages left by an earlier run, also by a killed one, are sent first by the next run
    with this folder and store. A message that the store rejects for good is dropped, with one warning.

    Args:
        output_dir: folder of the run; no other process writes there.
        uri: of the store.
        opening: of the run: ``experiment``, ``name``, ``stamp`` and ``when``, see :class:`Client`.
        clock: seconds since 1970, for time stamps only.
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
        """Queue a message of this run."""
        with self._changed:
            self._own.append(message, self.clock())
            self._changed.notify_all()

    def finish(self, message: Message) -> None:
        """Queue the last message and wait for all: ``FLUSH_SECONDS``, or ``PATIENCE`` while the store fails."""
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
            self._stopped = True  # a thread that still waits for an answer touches no file from here on
            self._changed.notify_all()
        if not self._own.left:
            self._own.remove()
            return
        rest = f"the rest is kept in {self._own.folder} and sent by the next run with this output_dir"
        if self._own.trouble is not None:
            rest = f"nor can the rest be kept ({self._own.trouble})"
        self._tell(logging.WARNING, "not all of this run could be sent; %s", rest)

    # The background thread.

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
        """Wait for a journal with something to send; None at the end."""
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
        """Log a line as given the first time, for debugging later."""
        logger.log(logging.DEBUG if text in self._told else level, f"MLflow at %s {text}", self._address, *arguments)
        self._told.add(text)
