"""Workflows of the repository's configs in this process, tiny enough for the default suite."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
PHASES = {"train": ("train",), "inference": ("inference",), "evaluate": ("inference", "evaluate")}
TINY = {"image_size": 32, "slices_per_subject": 1, "n_views": 12, "acs": 12, "acceleration": 2, "n_detectors": 64}
TINY |= {"detector_spacing": 12.0, "pixel_spacing": 8.0}


def config_files(*names: str, configs: Path = CONFIGS) -> list[str]:
    """Paths of the repository's configs by name."""
    return [str(configs / f"{name}.json") for name in names]


def workflow(
    phase: str,
    overlays: list[str],
    modality: str,
    phantoms: Path,
    out: Path,
    configs: Path = CONFIGS,
    tiny: Mapping[str, Any] = TINY,
    **options,
) -> ConfigWorkflow:
    """A workflow of ``phantoms / modality``, not yet initialised."""
    names = [*PHASES[phase], modality, *overlays, "quick"]
    defined = json.loads((CONFIGS / f"{modality}.json").read_text()).keys()
    config = {key: value for key, value in tiny.items() if key in defined}
    if phase != "train":
        config["n_iterations"] = 3
    config |= {"dataset_dir": str(phantoms / modality), "output_dir": str(out), "quiet": True, "bundle_root": str(ROOT)}
    kind = "train" if phase == "train" else "infer"
    return ConfigWorkflow(
        config_files(*names, configs=configs), workflow_type=kind, logging_file=False, **{**config, **options}
    )


def run(*args, **options) -> ConfigWorkflow:
    """The same, run to its end."""
    return finish(workflow(*args, **options))


def finish(work: ConfigWorkflow) -> ConfigWorkflow:
    """The workflow, run to its end."""
    work.initialize()
    work.run()
    work.finalize()
    return work
