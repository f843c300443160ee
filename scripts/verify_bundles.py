"""Check built bundles as MONAI's tools and its Model Zoo do, each in its own process and an empty working directory.

    python scripts/verify_bundles.py [build/bundles/NAME ...]

- `verify_metadata`; the schema is `$DISINR_SCHEMA`, or else is downloaded from the address in the metadata;
- `verify_net_in_out`, `ckpt_export` of `models/model.pt`, and that the TorchScript gives the network's image;
- the properties that workflows must have; training, inference and evaluation are set up on phantoms, inference runs;
- the zoo's own `ci/verify_bundle.py`, as it is, if `$MODEL_ZOO` is a checkout of Project-MONAI/model-zoo.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PHASES = {"train": "train", "inference": "infer", "evaluate": "infer"}


def verify(bundle: Path) -> None:
    """All of MONAI's checks of one bundle; the working directory must be a scratch folder."""
    import torch
    from monai.bundle import ConfigParser, ckpt_export, verify_net_in_out

    logging.disable(logging.INFO)
    sys.path.insert(0, str(bundle))
    inference, meta = str(bundle / "configs" / "inference.json"), str(bundle / "configs" / "metadata.json")
    print(f"metadata: {check_metadata(meta)}", flush=True)
    verify_net_in_out("network_def", meta_file=meta, config_file=inference, device="cpu")
    print("network: inputs and outputs as in the metadata", flush=True)
    weights = bundle / "models" / "model.pt"
    if weights.is_file():
        ckpt_export("network_def", "field.ts", str(weights), meta, inference, bundle_root=str(bundle))
        parser = ConfigParser()
        parser.read_config(inference)
        network = parser.get_parsed_content("network_def")
        network.load_state_dict(torch.load(weights, weights_only=True))
        points = 2 * torch.rand(1, network.in_dim, 16, 16) - 1
        with torch.no_grad():
            torch.testing.assert_close(torch.jit.load("field.ts")(points), network(points), rtol=1e-3, atol=1e-4)
        print("export: TorchScript renders the same image", flush=True)
    else:
        print("export: SKIPPED, the bundle has no weights", flush=True)
    print(f"workflows: {check_workflows(bundle, weights.is_file())}", flush=True)


def check_metadata(meta: str) -> str:
    """`verify_metadata`, where the schema is at hand or can be fetched."""
    from monai.bundle import verify_metadata

    here, given = Path("schema.json"), os.environ.get("DISINR_SCHEMA")
    if given:
        shutil.copy(given, here)
    try:
        verify_metadata(meta_file=meta, filepath=str(here))
    except (urllib.error.URLError, OSError) as error:
        return f"SKIPPED verify_metadata, its schema cannot be fetched ({error}); set DISINR_SCHEMA to a copy"
    return "valid"


def check_workflows(bundle: Path, has_weights: bool) -> str:
    """Set up every phase on phantoms, check the properties MONAI requires, and run inference."""
    from monai.bundle import ConfigParser, ConfigWorkflow

    from disinr_monai.data.simulate.phantoms import write_phantoms
    from disinr_monai.errors import InputError

    modality = ConfigParser.load_config_file(str(bundle / "configs" / "inference.json"))["modality"]
    try:
        write_phantoms("scans", modality, n_subjects=2, size=64)
    except InputError as error:
        return f"SKIPPED, {error}"
    done = []
    for phase, kind in PHASES.items():
        if kind == "infer" and not has_weights:
            continue
        file = str(bundle / "configs" / f"{phase}.json")
        small = {"image_size": 64} if "image_size" in ConfigParser.load_config_file(file) else {}  # volumes have none
        workflow: Any = ConfigWorkflow(
            file,
            workflow_type=kind,
            logging_file=False,
            dataset_dir="scans",
            output_dir=phase,
            device="cpu",
            quiet=True,
            **small,
        )
        workflow.initialize()
        if missing := workflow.check_properties():
            raise SystemExit(f"error: {bundle.name}: configs/{phase}.json lacks {missing}")
        if phase == "inference":
            workflow.run()
            if len(list(Path(phase).glob("*/*_recon.nii.gz"))) != 2:
                raise SystemExit(f"error: {bundle.name}: inference on two phantoms did not write two images")
        workflow.finalize()
        done.append(phase)
    return f"properties of {', '.join(done)}" + "; inference runs" * has_weights


def verify_in_zoo(bundle: Path, zoo: Path, scratch: Path) -> None:
    """The zoo's script on a copy of the bundle in a copy of what it needs of the checkout."""
    if not (bundle / "models" / "model.pt").is_file():
        print("zoo: SKIPPED, its script wants weights and the bundle has none", flush=True)
        return
    shutil.copytree(zoo / "ci", scratch / "ci")
    (scratch / "models").mkdir()
    shutil.copy(zoo / "models" / "model_info.json", scratch / "models")
    shutil.copytree(bundle, scratch / "models" / bundle.name)
    if given := os.environ.get("DISINR_SCHEMA"):
        (scratch / "models" / bundle.name / "eval").mkdir()
        shutil.copy(given, scratch / "models" / bundle.name / "eval" / "schema.json")
    run([sys.executable, "ci/verify_bundle.py", "-b", bundle.name], scratch)


def run(command: list[str], folder: Path) -> None:
    """A command in a folder, without the repository on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        raise SystemExit(f"error: {' '.join(command[1:])} failed")


def main() -> int:
    """Command line."""
    if sys.argv[1:2] == ["--one"]:
        verify(Path(sys.argv[2]))
        return 0
    given = sys.argv[1:] or sorted(str(p.parents[1]) for p in (ROOT / "build" / "bundles").glob("*/configs/train.json"))
    schema = ROOT.parent / "shared" / "reference" / "meta_schema_20240725.json"
    if schema.is_file():
        os.environ.setdefault("DISINR_SCHEMA", str(schema))
    if os.environ.get("DISINR_SCHEMA"):
        os.environ["DISINR_SCHEMA"] = str(Path(os.environ["DISINR_SCHEMA"]).resolve())
    if not given:
        sys.stderr.write("error: build/bundles: no bundles there; run `make bundles` first\n")
        return 1
    for name in given:
        bundle = Path(name).resolve()
        print(f"== {bundle.name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            run([sys.executable, str(Path(__file__).resolve()), "--one", str(bundle)], Path(folder))
        if zoo := os.environ.get("MODEL_ZOO"):
            with tempfile.TemporaryDirectory() as folder:
                verify_in_zoo(bundle, Path(zoo).resolve(), Path(folder))
    print(f"{len(given)} bundles verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
