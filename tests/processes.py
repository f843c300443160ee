"""Pre-training by many processes, in memory and from the command line, and what two runs of it have in common."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents, SupervisedTrainer
from monai.handlers import LrScheduleHandler

from disinr_monai.checkpoints.named_state import to_global
from disinr_monai.data import EpochSampler
from disinr_monai.handlers import AverageSharedGradients, ResumeCheckpoint, SaveShared
from disinr_monai.handlers.resume import FILE_NAME
from disinr_monai.networks import DisINR
from disinr_monai.runtime import distributed
from disinr_monai.runtime.distributed import shard
from tests.conftest import ROOT
from tests.engines import trainer
from tests.problems import mri_case, small_network

TRAIN = "'configs/train.json','configs/mri.json'"
SMALL = ["--encoder#n_levels", "4", "--encoder#log2_hashmap_size", "10", "--encoder#n_features_per_level", "2"]
SMALL += ["--encoder#out_dim", "16", "--encoder#hidden_dim", "16", "--network_def#hidden_dim", "16"]
OPTIONS = ["--image_size", "32", "--acs", "12", "--amp", "false", "--quiet", "true"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS += ["--device", "cpu", *SMALL]


def command(n_processes: int, phase: str, data: Path, out: Path, *more: str) -> list[str]:
    """A bundle command; without torchrun and overlay for ``n_processes`` 0."""
    phases = {"training": ["train"], "evaluate": ["inference", "evaluate"]}.get(phase, [phase])
    configs = [f"'configs/{name}.json'" for name in (*phases, "mri")]
    start = [sys.executable]
    if n_processes:
        configs.append(f"'configs/multi_gpu_{'train' if phase == 'training' else 'evaluate'}.json'")
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    start += ["-m", "monai.bundle", "run", phase, "--config_file", f"[{','.join(configs)}]", *OPTIONS]
    if phase == "training":
        start += ["--checkpoint_seconds", "0"]
    return [*start, "--dataset_dir", str(data), "--output_dir", str(out), *more]


def run(*arguments, expect: int = 0) -> str:
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=900, env=ENV)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stderr


def released(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model.pt", weights_only=True)["model"]


def subjects(out: Path) -> dict[str, torch.Tensor]:
    """All subject encoders of a resume checkpoint, by the number of their case."""
    state = torch.load(out / FILE_NAME, weights_only=True)
    for part in state["parts"]:
        state["network"] |= torch.load(out / part, weights_only=True)["network"]
    return {name: value for name, value in state["network"].items() if name.startswith("subjects.")}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest relative error of a tensor, in its norm."""
    assert a.keys() == b.keys()
    return max(float((a[k].float() - b[k].float()).norm() / b[k].float().norm().clamp(min=1e-12)) for k in a)


# Of the weights of whole runs, relative: 1e-5 and less in most, 8e-3 in one; gradients are compared strictly.
TOLERANCE = 5e-2
CASES = [mri_case(shift=0.05 * i, seed=i, index=i) for i in range(5)]


class Record:
    """Keep the weights and the averaged gradient of every step."""

    def __init__(self, network: DisINR) -> None:
        self.network, self.steps = network, []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        step = {"loss": torch.as_tensor(engine.state.output["loss"]).detach(), "weights": {}, "gradients": {}}
        step["cases"] = [case["index"] for case in engine.state.batch]
        for name, parameter in self.network.named_parameters():
            step["weights"][to_global(name)] = parameter.detach().clone()
            if parameter.grad is not None:
                step["gradients"][to_global(name)] = parameter.grad.clone()
        self.steps.append(step)


def train(folder: Path, max_epochs: int, resume: bool = False, batch_size: int = 2) -> SupervisedTrainer:
    """Five subjects, two or four a step: the last batch of an epoch holds one, and all processes but one none of it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = shard(CASES)
    network = small_network(n_subjects=len(own))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    sampler = EpochSampler(CASES, 3, batch_size)
    record = Record(network)
    handlers = [
        AverageSharedGradients(network, sampler),
        record,
        sampler,
        LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
        ResumeCheckpoint(str(folder), network, optimizer, scheduler, {}, interval_seconds=0, resume=resume),
        SaveShared(str(folder), network, "mri", start="mean", n_persons=8),
    ]
    engine = trainer(network, optimizer, own, max_epochs, handlers, sampler=sampler)
    engine.run()
    torch.save(record.steps, folder / f"steps{distributed.rank()}.pt")
    return engine
