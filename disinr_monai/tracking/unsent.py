"""What could not be sent to MLflow, kept in the output folder until it can be: ``mlflow_unsent/RUN/record.json``."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from disinr_monai.runtime.files import staged_folder

logger = logging.getLogger(__name__)

FOLDER = "mlflow_unsent"
_RECORD = "record.json"

Message = dict[str, Any]


def without_secrets(uri: str) -> str:
    """An address without user, password and query, as it may be shown and kept."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri).partition("?")[0]


def save_record(folder: Path, opening: Message, messages: list[Message], saved: float, is_over: bool) -> None:
    """Write what is left of one run, in place of what was written before.

    Files that are still to be sent are kept with it, under the names that they get in MLflow: a later run may replace
    them where they lie. They are links where the file system knows links, and cost nothing.

    Args:
        folder: ``output_dir/mlflow_unsent/RUN``.
        opening: what the run is opened with.
        messages: what is to be sent.
        saved: seconds of the run's clock, the end of a run that never says its own.
        is_over: the run said how it ended.

    Raises:
        InputError: the folder cannot be written.
        OSError: likewise, for the folder above.
    """
    folder.parent.mkdir(exist_ok=True)
    with staged_folder(folder, own=("*",)) as staging:
        kept = []
        for number, message in enumerate(messages):
            if message["kind"] == "file":
                if not Path(message["path"]).is_file():
                    continue
                copy = f"{number:04d}-{message['name']}"
                _keep(message["path"], staging / copy)
                message = {**message, "path": copy}
            kept.append(message)
        record = {"opening": opening, "messages": kept, "saved": saved, "is_over": is_over}
        (staging / _RECORD).write_text(json.dumps(record, default=_plain))


def read_records(output_dir: Path, uri: str) -> Iterator[tuple[Path, Message, list[Message]]]:
    """Folder, opening and messages of each run that is still to be sent to ``uri``.

    A run that was killed before it could say how it ended gets ``KILLED`` as its last message.
    """
    for path in sorted((output_dir / FOLDER).glob(f"[!.]*/{_RECORD}")):
        try:
            record = json.loads(path.read_text())
            opening, messages = record["opening"], record["messages"]
            if opening["uri"] != without_secrets(uri):
                continue
            for message in messages:
                if message["kind"] == "file":  # only what lies here: the record says what to send, not from where
                    message["path"] = str(path.parent / Path(message["path"]).name)
            if not record["is_over"]:
                messages.append({"kind": "end", "status": "KILLED", "when": record["saved"]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%s: %s) and is not sent", path, type(error).__name__, error)
            continue
        yield path.parent, opening, messages


def remove_record(folder: Path) -> None:
    """Forget a run that has been sent; the folder of them goes with the last."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def _keep(path: str, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
