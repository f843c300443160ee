"""What the speed suite measures: a scan, the settings of the bundle, a row of the result."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from disinr_monai.data import list_cases
from disinr_monai.data.simulate.phantoms import write_phantoms

ROOT = Path(__file__).resolve().parents[1]


def settings(task: str, n: int, maps: str = "espirit") -> ConfigParser:
    """The configs of `run inference`, at another matrix size."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / f"{name}.json") for name in ("inference", task)])
    parser["bundle_root"], parser["image_size"], parser["quiet"] = str(ROOT), n, True
    if task == "mri":
        parser["maps"] = maps
        parser["acs"] = min(24, n // 4)
    return parser


def first_case(parser: ConfigParser, dataset_dir: str | None, n: int) -> dict[str, Any]:
    """The first scan of a folder, or a phantom."""
    task = parser["modality"]
    with tempfile.TemporaryDirectory() as folder:
        if dataset_dir is None:
            write_phantoms(folder, task, 1, size=2 * n)
        case = list_cases(dataset_dir or folder, task, 1)[0]
        return parser.get_parsed_content("acquire")(case)


def row(task: str, setting: str, method: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"task": task, "setting": setting, "method": method, "subject": "speed", "seconds": seconds, **more}
