"""One iteration of a fit, and its parts, ready to be timed: the package's networks and the plain one."""

from __future__ import annotations

import copy
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.plain import PlainDisINR
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.networks import DisINR, HashGridEncoder, NaiveINR
from disinr_monai.networks.hash_grid import compact_grids

Part = Callable[[], Any]


def encoder(**options: Any) -> HashGridEncoder:
    return HashGridEncoder(in_dim=2, **options)


class Step:
    """One iteration of `method` (``disinr``, ``ngp`` or ``plain``) on one case.

    Args:
        method: what is fitted.
        case: with scan and points.
        loss: the measurement loss.
        network: the start; a fresh one of the published size if not given.
        amp: bfloat16 (not for ``plain``); None: where it is faster.
        lr: Adam's learning rate.
    """

    def __init__(
        self,
        method: str,
        case: dict[str, Any],
        loss: MeasurementLoss,
        network: nn.Module | None = None,
        amp: bool | None = None,
        lr: float = 1e-3,
    ) -> None:
        self.case, self.loss = case, loss
        self.shape = case["scan"].operator.domain_shape
        self.flat = case["points"].flatten(1).t().contiguous()
        if network is None:
            network = (NaiveINR if method == "ngp" else DisINR)(encoder, self.shape[0])
        if method == "plain":
            plain = PlainDisINR(network)
            self.parameters = list(plain.subject.parameters())
            self.optimizer = torch.optim.Adam(self.parameters, lr=lr)
            self.render, self.encode = lambda: plain(self.flat), lambda: plain.subject[0](self.flat)
            plain_features: Tensor = self.encode().detach()
            shared = plain.shared(self.flat)
            tail = lambda f: plain.decoder(torch.cat((shared, plain.subject[1:](f)), dim=-1))  # noqa: E731
            self.features, self.tail = plain_features, tail
            # The shared encoder is not cached: that is part of what plain code does.
            self.constant = lambda: plain.shared(self.flat)
            return
        network.set_amp(amp)
        field = copy.deepcopy(network).requires_grad_(False)
        for parameter in field.fitted_at_test():
            parameter.requires_grad_(True)
        compact_grids(field, self.flat)
        self.parameters = list(field.fitted_at_test())
        prepared = field.prepare(self.flat)
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        self.render = lambda: field.render(self.flat, prepared)
        subject = field.subjects[0]
        self.grid = subject.grid
        self.encode = lambda: subject.inputs(self.flat)
        self.features = self.encode().detach()
        given = copy.copy(field)
        given._modules = {**field._modules, "subjects": nn.ModuleList([_Given(subject)])}
        self.tail = lambda f: given.subjects[0].put(f) or given.render(self.flat, prepared)
        self.constant = None

    def __call__(self) -> Tensor:
        """One whole iteration; the image before it."""
        self.optimizer.zero_grad(set_to_none=True)
        image = self.image()
        self.loss_of(image).backward()
        self.optimizer.step()
        return image.detach()

    def image(self) -> Tensor:
        return self.render().t().reshape(self.shape)

    def loss_of(self, image: Tensor) -> Tensor:
        return self.loss.one(image, self.case["scan"])

    def parts(self) -> dict[str, Part]:
        """What an iteration consists of, each forward and backward alone."""
        features = self.features.clone().requires_grad_()
        image = self.image().detach().requires_grad_()
        gradient = torch.full((len(self.flat), self.shape[0]), 1e-5)
        rows = torch.full_like(self.features, 1e-5)

        def encode() -> None:
            if self.constant is not None:
                self.constant()
            self._backward(self.encode(), rows)

        self.loss_of(self.image()).backward()  # gradients for the optimiser's part
        return {
            "encode": encode,
            "mlp": lambda: self._backward(self.tail(features), gradient),
            "operator": lambda: self.loss_of(image).backward(),
            "optimiser": self.optimizer.step,
        }

    def _backward(self, values: Tensor, gradient: Tensor) -> None:
        values.backward(gradient)


class _Given(nn.Module):
    """A subject encoder whose features before the perceptron are given: the perceptron alone is timed."""

    def __init__(self, subject: nn.Module) -> None:
        super().__init__()
        if hasattr(subject, "mlp"):
            self.mlp = subject.mlp

    def put(self, features: Tensor) -> None:
        """Give the features."""
        self.features = features

    def inputs(self, points: Tensor) -> Tensor:
        return self.features

    def forward(self, points: Tensor) -> Tensor:
        return self.mlp(self.features)


def clock() -> float:
    """Seconds; with one thread those of the processor, so that other work on the machine counts less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def interleaved(parts: dict[Any, Part], rounds: int) -> dict[Any, float]:
    """Median seconds of each part, taken in turns so that other work on the machine hits all alike."""
    times: dict[Any, list[float]] = {key: [] for key in parts}
    for part in parts.values():
        part()
    for _ in range(rounds):
        for key, part in parts.items():
            start = clock()
            part()
            times[key].append(clock() - start)
    return {key: statistics.median(values) for key, values in times.items()}


def peak_memory_mb() -> float:
    """Most memory that this process has had.

    Not ``ru_maxrss`` where Linux tells better: a child process inherits that number from its parent.
    """
    return _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )


def own_memory_mb() -> float:
    """Memory that this process has now and that is no file's (Linux; elsewhere 0)."""
    return _status_mb("RssAnon")


def _status_mb(name: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
