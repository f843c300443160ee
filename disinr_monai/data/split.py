from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from disinr_monai.data.cases import list_cases
from disinr_monai.errors import InputError


def split_subjects(
    dataset_dir: str | Path,
    modality: str,
    output_dir: str | Path,
    n_pretraining: int | None = None,
    seed: int = 0,
    only: Sequence[str] = (),
    test: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Split a folder of scans by subject: links in ``output_dir/pretraining`` and ``output_dir/test``.

    Args:
        dataset_dir: folder of scans.
        modality: a key of :data:`disinr_monai.modality.MODALITIES`.
        output_dir: folder of the two parts.
        n_pretraining: number of pre-training subjects, drawn at random; half of them by default.
        seed: of the draw.
        only: keep subjects whose name contains one of these.
        test: subjects (or parts of names) that must be test subjects; no others then are.

    Returns:
        The subjects of ``"pretraining"`` and ``"test"``.

    Raises:
        InputError: no scans, or fewer than two subjects, or one part would be empty.
    """
    root = Path(dataset_dir)
    files = _files_by_subject(root, modality, only)
    if len(files) < 2:
        raise InputError(f"{root}: expected scans of at least two subjects to split, found {len(files)}")

    fixed = [s for s in files if any(part in s for part in test)]
    others = sorted(s for s in files if s not in fixed)
    random.Random(seed).shuffle(others)
    n = len(files) // 2 if n_pretraining is None else n_pretraining
    parts = {"pretraining": others[: max(n, 0)], "test": fixed if test else others[max(n, 0) :]}
    for part, subjects in parts.items():
        if not subjects:
            raise InputError(f"n_pretraining: expected 1 to {len(others) - 1}, found {n}: no {part} subject is left")
        _link(files, subjects, root, Path(output_dir) / part)
    return parts


def deal_subjects(
    dataset_dir: str | Path, modality: str, output_dir: str | Path, n_parts: int, seed: int = 0
) -> dict[str, list[str]]:
    """Deal the subjects of a folder out to ``n_parts`` folders of links, ``output_dir/site1`` and so on.

    Returns:
        The subjects of each part, in random order; their numbers differ by one at most.

    Raises:
        InputError: fewer subjects than parts.
    """
    root = Path(dataset_dir)
    files = _files_by_subject(root, modality)
    if not 1 <= n_parts <= len(files):
        raise InputError(f"sites: expected 1 to {len(files)}, one subject each at least, found {n_parts}")
    subjects = sorted(files)
    random.Random(seed).shuffle(subjects)
    parts = {f"site{i + 1}": subjects[i::n_parts] for i in range(n_parts)}
    for part, own in parts.items():
        _link(files, own, root, Path(output_dir) / part)
    return parts


def _files_by_subject(root: Path, modality: str, only: Sequence[str] = ()) -> dict[str, set[Path]]:
    files: dict[str, set[Path]] = {}
    for case in list_cases(root, modality, slices_per_subject=1):
        if only and not any(part in case["subject"] for part in only):
            continue
        paths = case["path"] if isinstance(case["path"], list) else [case["path"]]
        files.setdefault(case["subject"], set()).update(Path(p) for p in paths)
    return files


def _link(files: dict[str, set[Path]], subjects: Sequence[str], root: Path, folder: Path) -> None:
    for subject in subjects:
        for path in files[subject]:
            link = folder / (path.relative_to(root) if root.is_dir() else path.name)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
