"""Atomic files and folders, and output folders reserved for one run."""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinr_monai.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

_TORCH_CANNOT_WRITE = ("inline_container", "PytorchStreamWriter", "iostream error")  # words of torch for a full disk


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends well and vanishes otherwise.

    Raises:
        InputError: the file system refuses (full, read-only, gone).
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:])  # writers go by the ending, .nii.gz has two
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name.removesuffix(suffix)}-", suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; the user's own default is wanted
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error.strerror or str(error)) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in _TORCH_CANNOT_WRITE):
            raise
        raise _cannot_write(path, "the disk is full or gone") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: cannot be written ({reason}); free some space or give another --output_dir")


# Temporary names of atomic_path, only for the files of this package: a user's own may look alike.
_HALF_FILE = re.compile(r"\.(metrics|report|model|private_\w+)-[a-z0-9_]{8}\.\w+")
_CLAIMED: dict[tuple[int, int], int] = {}


def claim_output_dir(folder: str | Path) -> None:
    """Lock an output folder until this process ends, and remove temporary files that a killed run left there.

    The lock is on the folder itself, writes nothing, and is released by the system even after a kill. A system or file
    system without such locks is not checked.

    Raises:
        InputError: another run has the folder.
    """
    if fcntl is None:
        return
    handle = os.open(folder, os.O_RDONLY)
    found = os.fstat(handle)
    if (found.st_dev, found.st_ino) in _CLAIMED:  # a run after another in one process
        os.close(handle)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"output_dir: {folder} is in use by another run; wait for it to end or give another folder"
        ) from None
    except OSError as error:  # a file system without locks
        os.close(handle)
        logger.debug("no lock on %s: %s", folder, error)
        return
    _CLAIMED[found.st_dev, found.st_ino] = handle
    for leftover in Path(folder).glob(".*-????????.*"):
        # Other ranks of this run, which hold no lock, write tables of their own.
        if _HALF_FILE.fullmatch(leftover.name) and "rank" not in leftover.name.lower() and leftover.is_file():
            leftover.unlink(missing_ok=True)


@contextmanager
def staged_folder(folder: str | Path, own: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` whose files move there when the block ends well, and vanish otherwise.

    A new folder appears whole. In one that is already there each file is replaced at once, what else lies there stays,
    and files that an earlier run left under one of the patterns ``own`` go, so that results of two runs do not mix.

    Raises:
        InputError: it cannot be written (read-only, full).
    """
    folder = Path(folder)
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}-????????"):  # of a kill
        shutil.rmtree(leftover, ignore_errors=True)
    prefix = f".{folder.name}-"
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as name:
            staging = Path(name)
            yield staging
            mask = os.umask(0)
            os.umask(mask)
            staging.chmod(0o777 & ~mask)
            _move_into(staging, folder, own)
    except OSError as error:
        raise _not_writable(folder.parent, error) from None


def _move_into(staging: Path, folder: Path, own: tuple[str, ...]) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    fresh = [file for file in staging.rglob("*") if file.is_file()]
    kept = {folder / file.relative_to(staging) for file in fresh}
    for file in fresh:
        target = folder / file.relative_to(staging)
        target.parent.mkdir(exist_ok=True)
        file.replace(target)
    for pattern in own:
        for stale in set(folder.glob(pattern)) - kept:
            stale.unlink()


def _not_writable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"output_dir: cannot write to {folder} ({error.strerror or error}); give a folder you may write to, with space"
    )


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
        raise _not_writable(folder, error) from None
    return folder
