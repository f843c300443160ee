from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from disinr_monai.errors import InputError
from disinr_monai.tracking.mlflow_client import RunIds, Sender, is_refusal
from disinr_monai.tracking.unsent import FOLDER, Message, read_records, remove_record, save_record, without_secrets

logger = logging.getLogger(__name__)

METRICS_PER_CALL = 1000  # MLflow's limit
FLUSH_SECONDS = 120.0
PATIENCE = 10.0
_LONGEST_PAUSE = 30.0
_WORTH_KEEPING = 4.0  # seconds of pause: a shorter trouble is not written to disk


@dataclass(eq=False)
class _Run:
    """One run in the store: that of this process, or one that an earlier process could not send."""

    opening: Message
    folder: Path
    is_earlier: bool
    may_exist: bool
    is_on_disk: bool
    ids: RunIds | None = None
    is_refused: bool = False


class Delivery:
    """Brings messages to MLflow in the background, through failures of the store, and loses none of them.

    A message that fails goes to the end of the line, so that it cannot hold up others, and after a pause of 1, 2, 4 …
    30 s the next is tried. The user is told once that the store fails, and once that it works again. What is left at
    the end of the run, or while the store is away, is kept in ``output_dir/mlflow_unsent``, and the next run with this
    folder and store sends it before its own. A message that the store refuses for good is dropped, with one warning.

    Args:
        output_dir: folder of the run.
        uri: of the store.
        clock: seconds since 1970, the time that is written down; nothing is decided by it.
    """

    def __init__(self, output_dir: Path, uri: str, clock: Callable[[], float] = time.time) -> None:
        self.output_dir, self.uri, self.clock = output_dir, uri, clock
        self._address = without_secrets(uri)
        self._sender = Sender(uri)
        self._pending: deque[tuple[_Run, Message]] = deque()
        self._sending: tuple[_Run, Message] | None = None
        self._changed = threading.Condition()
        self._files = threading.Lock()
        self._closing = self._stopped = self._failing = False
        self._told: set[str] = set()
        self._pause, self._last_success = 1.0, 0.0
        self._thread: threading.Thread | None = None
        self._run: _Run | None = None

    def start(self, opening: Message, details: Callable[[], Message]) -> None:
        """Open a run.

        Args:
            opening: ``experiment``, ``name``, ``stamp`` and ``when``, see :class:`Sender`.
            details: gives the message ``open``; called in the background, it may take its time.
        """
        folder = self.output_dir / FOLDER / opening["stamp"]
        self._run = _Run({**opening, "uri": self._address}, folder, False, False, False)
        self._thread = threading.Thread(target=self._work, args=(details,), name="mlflow", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Send a message of this run, some time; returns at once."""
        with self._changed:
            self._pending.append((self._run, message))
            self._changed.notify_all()

    def finish(self, message: Message) -> None:
        """Send the last message and wait for all: ``FLUSH_SECONDS``, and ``PATIENCE`` while the store fails."""
        self.put(message)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        began = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.1)
            now = time.monotonic()
            in_vain = self._failing and now - max(began, self._last_success) > PATIENCE
            if in_vain or now - began > FLUSH_SECONDS:
                break
        self._keep_the_rest()

    def _keep_the_rest(self) -> None:
        with self._files:  # from here on the thread, if it still waits for an answer, touches no file
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            left = self._left(self._run)
            if not left:
                return
            try:
                save_record(self._run.folder, self._run.opening, left, self.clock(), is_over=True)
                logger.warning(
                    "MLflow at %s: not all of this run could be sent; the rest is kept in %s and sent by the next run "
                    "with this output_dir",
                    self._address, self._run.folder,
                )  # fmt: skip
            except (InputError, OSError) as error:
                logger.warning("MLflow at %s: not all of this run could be sent, nor kept: %s", self._address, error)

    def _left(self, run: _Run) -> list[Message]:
        with self._changed:
            entries = [*([self._sending] if self._sending else []), *self._pending]
            return [message for owner, message in entries if owner is run]

    # What the background thread does.

    def _work(self, details: Callable[[], Message]) -> None:
        try:
            first = details()
            earlier = []
            for folder, opening, messages in read_records(self.output_dir, self.uri):
                run = _Run(opening, folder, is_earlier=True, may_exist=True, is_on_disk=True)
                earlier += [(run, message) for message in messages]
            with self._changed:
                self._pending.extendleft(reversed([*earlier, (self._run, first)]))
            while (entry := self._next()) is not None:
                self._try(*entry)
        except Exception:
            logger.exception("the thread that sends to MLflow has ended")

    def _next(self) -> tuple[_Run, Message] | None:
        """The next message that may be sent, waited for; metrics that follow each other become one."""
        with self._changed:
            while not self._stopped:
                at = next((i for i, (run, _) in enumerate(self._pending) if not run.is_refused), None)
                if at is not None:
                    run, message = self._pending[at]
                    del self._pending[at]
                    if message["kind"] == "metrics" and "part" not in message:
                        message = {**message, "metrics": [*message["metrics"], *self._more_metrics(at, run, message)]}
                    self._sending = (run, message)
                    return self._sending
                if self._closing:
                    return None
                self._changed.wait()
            return None

    def _more_metrics(self, at: int, run: _Run, message: Message) -> list[tuple[str, float, int, float]]:
        more, room = [], METRICS_PER_CALL - len(message["metrics"])
        while at < len(self._pending):
            owner, other = self._pending[at]
            if owner is not run or other["kind"] != "metrics" or "part" in other:
                break
            if len(other["metrics"]) > room - len(more):
                break
            more += other["metrics"]
            del self._pending[at]
        return more

    def _try(self, run: _Run, message: Message) -> None:
        try:
            if run.ids is None:
                may_exist, run.may_exist = run.may_exist, True
                run.ids = self._sender.find_or_make(run.opening, may_exist)
            self._sender.send(run.ids, message)
        except Exception as error:
            self._failed(run, message, error)
        else:
            self._sent(run)

    def _sent(self, run: _Run) -> None:
        with self._changed:
            self._sending = None
            self._last_success, self._pause = time.monotonic(), 1.0
            was_failing, self._failing = self._failing, False
        if was_failing:
            self._tell("back", logging.INFO, "MLflow at %s works again; nothing is lost", self._address)
        self._forget_if_done(run)

    def _forget_if_done(self, run: _Run) -> None:
        if not run.is_on_disk or self._left(run):
            return
        with self._files:
            if self._stopped:
                return
            remove_record(run.folder)
            run.is_on_disk = False
        if run.is_earlier:
            logger.info("MLflow at %s: the rest of the earlier run %s is sent", self._address, run.opening["name"])

    def _failed(self, run: _Run, message: Message, error: Exception) -> None:
        refused = is_refusal(error)
        with self._changed:
            self._sending = None
            if refused and run.ids is None:
                run.is_refused = True  # nothing of it can be sent; it is kept for another day
            if not refused or run.is_refused:
                self._pending.append((run, message))
            elif len(message.get("metrics", ())) > 1:  # one of them is wrong: halves, until it is found
                middle = len(message["metrics"]) // 2
                for part in (message["metrics"][middle:], message["metrics"][:middle]):
                    self._pending.appendleft((run, {**message, "metrics": part, "part": True}))
            self._failing = self._failing or not refused
        reason = self._reason(error)
        if not refused:
            self._tell(
                "failed", logging.WARNING,
                "MLflow at %s failed (%s); the run goes on without it and keeps what is to be sent",
                self._address, reason,
            )  # fmt: skip
            self._wait()
        elif run.is_refused:
            self._tell(
                "refused run", logging.WARNING, "MLflow at %s refuses the run %s (%s); it is tried again next time",
                self._address, run.opening["name"], reason,
            )  # fmt: skip
        else:
            self._tell(
                "refused", logging.WARNING, "MLflow at %s refuses some of this run (%s: %s); the rest is sent",
                self._address, message["kind"], reason,
            )  # fmt: skip
            self._forget_if_done(run)

    def _wait(self) -> None:
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        if pause >= _WORTH_KEEPING:
            self._keep_for_now()
        with self._changed:
            if self._closing:
                self._changed.wait_for(lambda: self._stopped, 1.0)
            else:
                self._changed.wait_for(lambda: self._closing, pause)

    def _keep_for_now(self) -> None:
        """Whatever happens to this process, what the store has not taken yet is on disk."""
        run = self._run
        with self._files:
            if self._stopped:
                return
            try:
                save_record(run.folder, run.opening, self._left(run), self.clock(), is_over=False)
                run.is_on_disk = True
            except (InputError, OSError) as error:
                logger.debug("what MLflow has not taken cannot be kept now: %s", error)

    def _reason(self, error: Exception) -> str:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return text.replace(self.uri, self._address)[:300]

    def _tell(self, what: str, level: int, text: str, *arguments: object) -> None:
        logger.log(logging.DEBUG if what in self._told else level, text, *arguments)
        self._told.add(what)
