"""What ``torch.save`` wrote: whole, and no larger than the file, before anything of it is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path


def archive_damage(path: str | Path) -> str:
    """What is wrong with the archive; empty if nothing is.

    PyTorch reads past the checksums of its archives, so a flipped bit would become a wrong weight without a word, and
    it unpacks compressed members, which it never writes, to whatever size they announce.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                return "it is compressed, as PyTorch's files never are"
            if sum(member.file_size for member in members) > Path(path).stat().st_size:
                return "it announces more than it holds"
            if len({member.filename for member in members}) < len(members):
                return "it holds two members of one name"
            wrong = archive.testzip()
            return "" if wrong is None else f"{wrong!r} does not fit its checksum"
    except Exception as error:  # zipfile lets struct, OS and its own errors through
        return next(iter(str(error).splitlines()), "") or type(error).__name__
