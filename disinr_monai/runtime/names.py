"""Neutral names in place of the names of persons and files."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from disinr_monai.errors import InputError
from disinr_monai.runtime.files import atomic_path
from disinr_monai.runtime.run import RUN

TABLE = "private_names.csv"
_SHORTEST = 4
"""A shorter name alone (a folder called ``a``) is no identifier and may be part of any word."""


def case_seed(seed: int, name: str) -> int:
    """Seed of one case: the same on every machine and in any order, different for every case and ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


class Names:
    """Neutral names of listed cases, ``case-001`` of ``subject-001``, and their use in texts, tables and cases.

    As a transform it renames a measured case, if neutral names are wanted everywhere. It comes after the acquisition,
    whose simulated noise and coils depend on the true name: the image of a scan is the same with and without.

    ``anonymize`` says where they are used:

    * None: in whatever leaves the user's own disk, i.e. on an MLflow server. Results on disk keep the names of their
      files, without which nobody could tell them apart, and DICOM output the patient of its source.
    * True: everywhere: folder names, tables, report, logs, MLflow, DICOM. ``private_names.csv`` says who is who.
    * False: nowhere.

    Args:
        cases: as :func:`disinr_monai.data.list_cases` gives them.
        paths: folders and files of the run that must not be named either (``dataset_dir``, ``output_dir`` ...).
        anonymize: see above; ``"true"``, ``"false"`` and ``"null"`` as text too.

    Raises:
        InputError: another ``anonymize``.
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Any]] = (),
        paths: Iterable[str | Path | None] = (),
        anonymize: bool | str | None = None,
    ) -> None:
        text = str(anonymize).strip().lower()
        if text not in ("true", "false", "none", "null"):
            raise InputError(f"anonymize: expected true, false or nothing, found {anonymize!r}")
        self.everywhere, self.on_servers = text == "true", text != "false"
        self.cases: dict[str, str] = {}
        self.subjects: dict[str, str] = {}
        self._paths: dict[str, list[str]] = {}
        for number, case in enumerate(cases, start=1):
            path = case.get("path", "")
            alias = self.cases[str(case["name"])] = f"case-{number:03d}"
            self.subjects.setdefault(str(case["subject"]), f"subject-{len(self.subjects) + 1:03d}")
            self._paths[alias] = [str(path)] if isinstance(path, (str, Path)) else [str(file) for file in path]
        self._hidden = {form for path in paths if path for form in (str(path), str(Path(path).resolve()))}
        if self.everywhere:
            RUN.hide_names(self.text)

    @cached_property
    def _words(self) -> dict[str, str]:
        """Words that identify somebody, and their replacements."""
        words = {**self.cases, **self.subjects}
        for alias, files in self._paths.items():
            for file in map(Path, files):
                stem = file.name.removesuffix(".gz").rpartition(".")[0] or file.name
                for word in (file.name, stem, *_folders(file), *_folders(file.parent)):
                    words.setdefault(word, alias)
        words |= {path: "(hidden)" for path in self._hidden if len(Path(path).parts) > 1}
        return {word: alias for word, alias in words.items() if len(word) >= _SHORTEST}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        longest_first = "|".join(re.escape(word) for word in sorted(self._words, key=len, reverse=True))
        return re.compile(f"(?<![A-Za-z0-9])({longest_first})(?![A-Za-z0-9])") if longest_first else None

    def text(self, text: str) -> str:
        """Replace the names, files and folders of the run in a text."""
        return self._pattern.sub(lambda found: self._words[found[0]], text) if self._pattern else text

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Replace names in the values of flat settings, and hide every path of this machine."""
        return {key: self._value(value) for key, value in settings.items()}

    def _value(self, value: Any) -> Any:
        if not isinstance(value, (str, Path)):
            return value
        if str(value) in self._hidden or re.match(r"/|[A-Za-z]:[\\/]|sqlite:///", str(value)):
            return "(hidden)"
        return self.text(str(value))

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Rename a measured case, if neutral names are wanted everywhere."""
        if not self.everywhere:
            return dict(case)
        result = {**case, "name": self.cases[case["name"]], "subject": self.subjects[case["subject"]]}
        if "error" in case:
            result["error"] = self.text(case["error"])
        if "info" in case:
            result["info"] = self.settings({key: value for key, value in case["info"].items() if key != "source"})
        return result

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the names in a row of ``metrics.csv``."""
        case, subject = str(row["case"]), str(row["subject"])
        return {**row, "case": self.cases.get(case, case), "subject": self.subjects.get(subject, subject)}

    def write_table(self, output_dir: str | Path, elsewhere: bool = False) -> None:
        """Write ``private_names.csv``: neutral name, name and source of each case, if names are hidden anywhere.

        Args:
            output_dir: the user's own folder.
            elsewhere: the run is also logged to a server.
        """
        if not self.everywhere and not (self.on_servers and elsewhere):
            return
        with atomic_path(Path(output_dir) / TABLE) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["alias", "name", "source"])
            for name, alias in self.cases.items():
                files = self._paths[alias]
                writer.writerow([alias, name, files[0] if len(files) == 1 else str(Path(files[0]).parent)])


def _folders(path: Path) -> list[str]:
    """A path as given and in full; one word alone (a folder called ``data``) is left out, it may be any word."""
    return [str(form) for form in (path, path.resolve()) if len(form.parts) > 1]
