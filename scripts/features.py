"""Pictures of what the shared and the subject encoder know: the first three principal components as colours.

    python scripts/features.py --task ct --dataset_dir TEST --output features.png

adapts the pair (`--checkpoint`, default: the shipped one) to the first scan of TEST and shows the features of the
frozen shared encoder, those of the adapted subject encoder, and the image. Other options go to the bundle.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from benchmark import ROOT, config_files, override_options
from monai.bundle import ConfigWorkflow
from torch import Tensor

from disinr_monai.output.metrics import to_display
from disinr_monai.runtime.files import atomic_path


def principal_colours(features: Tensor, shape: tuple[int, int]) -> Tensor:
    """Three principal components of features ``(n, F)``, each from its 1st to its 99th percentile, ``(H, W, 3)``."""
    centred = (features - features.mean(0)).double()
    directions = torch.linalg.eigh(centred.t() @ centred)[1][:, -3:].flip(1)
    # The sign of an axis is arbitrary: the largest weight shall be positive.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    values = centred @ (directions * signs)
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99], dtype=values.dtype), dim=0)
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).reshape(*shape, 3).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("mri", "ct", "pet"), required=True)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output", default="features.png")
    arguments, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        workflow = ConfigWorkflow(
            config_files("evaluate", arguments.task, "disinr_paper"),
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(ROOT),
            dataset_dir=arguments.dataset_dir,
            output_dir=folder,
            **override_options(rest),
        )
        workflow.initialize()
        network, adaptation = (workflow.parser.get_parsed_content(key) for key in ("network", "inferer"))
        case = workflow.parser.get_parsed_content("dataset")[0]
        image = adaptation(case["points"][None], network, case=case)
    if image is None:
        raise SystemExit(f"error: {adaptation.error}")
    field, flat, shape = adaptation.fitted, case["points"].flatten(1).t().contiguous(), case["points"].shape[1:]
    with torch.no_grad():
        pictures = {
            "shared encoder": principal_colours(field.shared["encoder"](flat), shape),
            "subject encoder": principal_colours(field.subjects[0](flat), shape),
            "image": to_display(image[0], arguments.task, case["image_scale"])[0],
        }
    save(Path(arguments.output), pictures)
    print(f"written to {arguments.output}")


def save(path: Path, pictures: dict[str, Tensor]) -> None:
    """Side by side, with their names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(pictures), 4.3), layout="constrained")
    for axes, (name, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture.cpu(), cmap="gray")
        axes.set_title(name)
        axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    main()
