"""Federated pre-training, simulated on one machine: sites with other subjects each share the pair and nothing else.

    python scripts/federated.py --task ct --dataset_dir DIR --sites 3 --rounds 20 --output federated.json

The subjects of DIR are split: some are kept for the test, the others are dealt out to the sites. Every site is a
client of MONAI's `MonaiAlgo` with its own scans; the server averages the changes of the pair, weighted by cases. Then
the same network is pre-trained on the scans of all sites together (pooled) and on those of each site alone, with the
same number of visits to every scan. Each pair is frozen and fitted to the test subjects as in the paper: no learned
prior, no regulariser, by default noise-free.

Options that are not listed below go to the bundle (`--image_size 128`, `--n_views 60`, `--photons 1e5`, ...).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from benchmark import config_files, evaluate, override_options, run
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from study import PAPER
from tqdm import tqdm

from disinr_monai.checkpoints.released import save_shared
from disinr_monai.data import deal_subjects, list_cases, split_subjects
from disinr_monai.errors import InputError
from disinr_monai.networks import Field
from disinr_monai.output.tables import summarise, write_json
from disinr_monai.runtime.federated import SHARED, Pair, average
from disinr_monai.runtime.overrides import known_keys
from disinr_monai.runtime.versions import versions

ROOT = Path(__file__).resolve().parents[1]


def site_configs(task: str) -> list[str]:
    """Configs of a site, relative to the bundle."""
    return ["configs/train.json", f"configs/{task}.json", "configs/federated.json"]


def new_site(name: str, task: str, local_epochs: int, options: dict[str, Any]) -> MonaiAlgo:
    """A client with its own scans (``dataset_dir`` among the options)."""
    site = MonaiAlgo(
        bundle_root=str(ROOT),
        local_epochs=local_epochs,
        config_train_filename=site_configs(task),
        train_kwargs=options,
        config_evaluate_filename=None,
        config_filters_filename="configs/federated_filters.json",
    )
    with warnings.catch_warnings():
        # MONAI warns that configs are code: these are our own files.
        warnings.filterwarnings("ignore", message="executing the bundle config")
        site.initialize({ExtraItems.CLIENT_NAME: name})
    return site


def new_network(task: str, options: dict[str, Any]) -> Field:
    """The server's network: it has no scans."""
    options = {k: v for k, v in options.items() if k != "dataset_dir"}
    files = [str(ROOT / file) for file in site_configs(task)]
    work = ConfigWorkflow(files, workflow_type="train", logging_file=False, **{**options, "n_subjects": 1})
    return work.parser.get_parsed_content("network_def")


def pair_of(network: Field) -> Pair:
    """Its shared tensors by the names that they have in messages."""
    return {f"{SHARED}{name}": value.detach().clone() for name, value in network.shared.state_dict().items()}


def federate(sites: list[MonaiAlgo], pair: Pair, n_rounds: int, quiet: bool) -> tuple[Pair, list[ExchangeObject]]:
    """All rounds; returns the pair and the messages of the last one."""
    messages: list[ExchangeObject] = []
    for _ in tqdm(range(n_rounds), desc="rounds", disable=quiet):
        messages = []
        for site in sites:
            site.train(ExchangeObject(weights=pair, weight_type=WeightType.WEIGHTS))
            messages.append(site.get_weights())
        pair = average(pair, messages)
    return pair, messages


class Comparison:
    """Trains and judges the pairs.

    Args:
        arguments: of the command line.
        options: overrides of the bundle.
        folder: for everything in between.
    """

    def __init__(self, arguments: argparse.Namespace, options: dict[str, Any], folder: Path) -> None:
        self.arguments, self.task, self.folder = arguments, arguments.task, folder
        self.epochs = arguments.rounds * arguments.local_epochs
        self.options = {"seed": arguments.seed, "quiet": True, **PAPER[self.task], **options, "bundle_root": str(ROOT)}
        parts = split_subjects(arguments.dataset_dir, self.task, folder, self._n_pretraining(), arguments.seed)
        self.n_test = len(parts["test"])
        self.pooled = folder / "pretraining"
        self.subjects = deal_subjects(self.pooled, self.task, folder / "sites", arguments.sites, arguments.seed)
        self.rows: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}

    def _n_pretraining(self) -> int:
        n = len({case["subject"] for case in list_cases(self.arguments.dataset_dir, self.task, 1)})
        return n - (self.arguments.n_test or max(n // 4, 1))

    def site_dir(self, site: str) -> Path:
        """The scans of one site."""
        return self.folder / "sites" / site

    def known(self, **more: Any) -> dict[str, Any]:
        """Options that pre-training knows."""
        known = known_keys(ROOT / file for file in site_configs(self.task))
        return {k: v for k, v in {**self.options, **more}.items() if k.split("#")[0] in known}

    def federated(self) -> list[ExchangeObject]:
        """Federated pre-training, and the start of it for comparison."""
        network = new_network(self.task, self.known())
        self.judge("not trained", self.save("start", network), 0, 0)
        sites = []
        for name in self.subjects:
            out = str(self.folder / "out" / name)
            options = self.known(dataset_dir=str(self.site_dir(name)), output_dir=out, max_epochs=self.epochs)
            sites.append(new_site(name, self.task, self.arguments.local_epochs, options))
        pair, messages = federate(sites, pair_of(network), self.arguments.rounds, self.arguments.quiet)
        network.shared.load_state_dict({name.removeprefix(SHARED): value for name, value in pair.items()})
        n_steps = sum(site.trainer.state.iteration for site in sites)
        for site in sites:
            site.finalize()
        checkpoint = self.save("federated", network)
        self.judge("federated", checkpoint, n_steps // self.epochs, n_steps)
        return messages

    def save(self, name: str, network: Field) -> str:
        """A released checkpoint; the start of its subject encoder is untrained, as the server has no other."""
        path = self.folder / name / "model.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        n_subjects = sum(map(len, self.subjects.values()))
        info = {"seed": self.arguments.seed, "n_sites": self.arguments.sites, "n_subjects": n_subjects}
        save_shared(path, network, self.task, {**info, "versions": versions()}, "untrained", n_subjects)
        return str(path)

    def alone(self, label: str, source: Path) -> None:
        """Pre-training on one folder in the usual way."""
        out = self.folder / label.replace(" ", "_")
        options = {**self.options, "dataset_dir": str(source), "max_epochs": self.epochs, "subject_start": "untrained"}
        run("train", self.task, "disinr", options, out)
        n_cases = len(list_cases(source, self.task, int(self.options.get("slices_per_subject", 4))))
        self.judge(label, str(out / "model.pt"), n_cases, n_cases * self.epochs)

    def judge(self, label: str, checkpoint: str, n_cases: int, n_steps: int) -> None:
        """Fit a subject encoder beside the frozen pair to every test scan."""
        options = {**self.options, "dataset_dir": str(self.folder / "test"), "checkpoint": checkpoint}
        out = self.folder / "evaluate" / label.replace(" ", "_")
        rows = [{**row, "method": label} for row in evaluate(self.task, "disinr_paper", {}, options, out)]
        self.rows += rows
        self.runs[label] = {"n_cases": n_cases, "n_steps": n_steps, **summarise(rows)[label]}
        if not self.arguments.quiet:
            print(f"{label}: {self.runs[label]['psnr']:.2f} dB", flush=True)

    def table(self) -> str:
        """The comparison as aligned text; ± is the standard deviation over test subjects."""
        lines = [f"{'pre-training':<14}{'scans':>7}{'steps':>8}{'PSNR dB':>16}{'SSIM':>18}"]
        for label, one in self.runs.items():
            psnr, ssim = (f"{one[k]:.{d}f} ± {one[f'{k}_std']:.{d}f}" for k, d in (("psnr", 2), ("ssim", 4)))
            lines.append(f"{label:<14}{one['n_cases']:>7}{one['n_steps']:>8}{psnr:>16}{ssim:>18}")
        return "\n".join(lines)


def describe(messages: list[ExchangeObject]) -> dict[str, Any]:
    """What left a site in the last round."""
    message = messages[0]
    size = sum(value.numel() * value.element_size() for value in message.weights.values())
    return {"tensors": sorted(message.weights), "megabytes": size / 1e6, "statistics": message.statistics}


def simulate(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    """Run all and write the result.

    Raises:
        InputError: what a user can get wrong.
    """
    if arguments.rounds < 1 or arguments.local_epochs < 1:
        raise InputError(
            f"rounds, local_epochs: expected at least 1, found {arguments.rounds}, {arguments.local_epochs}"
        )
    runs = (("train", "disinr"), ("evaluate", "disinr_paper"))
    known = set().union(*(known_keys(config_files(phase, arguments.task, method)) for phase, method in runs))
    known -= {"dataset_dir", "output_dir", "max_epochs", "batch_size", "checkpoint"}
    for key in options:
        if key.split("#")[0] not in known:
            raise InputError(f"{key}: no such option of this script or key in the configs that may be set here")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.output_dir or temporary)
        comparison = Comparison(arguments, options, folder)
        sent = describe(comparison.federated())
        comparison.alone("pooled", comparison.pooled)
        for site in comparison.subjects:
            comparison.alone(f"{site} alone", comparison.site_dir(site))
    print(
        f"{comparison.n_test} test subjects, {arguments.sites} sites, {arguments.rounds} rounds of "
        f"{arguments.local_epochs} epochs"
    )
    print(comparison.table())
    print(f"a site sends {len(sent['tensors'])} tensors a round, {sent['megabytes']:.1f} MB, and {sent['statistics']}")
    setting = {"task": arguments.task, "rounds": arguments.rounds, "local_epochs": arguments.local_epochs, **options}
    content = {"setting": setting, "message": sent, "runs": comparison.runs, "rows": comparison.rows}
    write_json(arguments.output, content, arguments.seed)
    print(f"written to {arguments.output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("mri", "ct"), required=True)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local_epochs", type=int, default=1, help="visits to every scan of a site in a round")
    parser.add_argument("--n_test", type=int, help="subjects kept for the test, a quarter by default")
    parser.add_argument("--output", default="federated.json")
    parser.add_argument("--output_dir", help="keep checkpoints, images and the federated model.pt here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    arguments, rest = parser.parse_known_args()
    for name in ("monai.fl.client.monai_algo", "monai.networks.utils", "monai.bundle.workflows"):
        logging.getLogger(name).setLevel(logging.ERROR)  # every round, every site
    torch.manual_seed(arguments.seed)
    try:
        simulate(arguments, override_options(rest))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
