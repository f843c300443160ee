"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinr_monai.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends well and vanishes otherwise."""
    path = Path(path)
    suffix = "".join(path.suffixes[-2:])  # writers go by the ending, .nii.gz has two
    handle, name = tempfile.mkstemp(prefix=f".{path.name.removesuffix(suffix)}-", suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; the user's own default is wanted
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def prepare_output_dir(output_dir: str | Path) -> Path:
    """Create the output folder and make sure that files can be written there.

    Raises:
        InputError: it is a file, or cannot be created or written.
    """
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"output_dir: cannot write to {folder} ({reason}); give a folder you may write to") from None
    return folder
