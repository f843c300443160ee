"""Tensors in memory-mapped files, for parts of a network that do not fit in memory together."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from disinr_monai.errors import InputError
from disinr_monai.runtime.memory import return_freed_memory

_MOMENTS = ("exp_avg", "exp_avg_sq")


class DiskTensors:
    """Factory of tensors backed by an unlinked memory-mapped file: no other process can open it.

    Pages are read on use and written back when memory is short; the space is freed with the last tensor or at the end
    of the process, also after a kill.

    Args:
        folder: where the files are made.

    Raises:
        InputError: nothing can be written there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def empty_like(self, tensor: Tensor) -> Tensor:
        """Zeros of the shape and dtype of ``tensor``."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".private_subject_")
            os.close(handle)
        except OSError as error:
            raise InputError(f"subjects_on_disk: {self.folder} cannot be written ({error.strerror})") from None
        try:
            flat = torch.from_file(name, shared=True, size=max(tensor.numel(), 1), dtype=tensor.dtype)
        finally:
            with contextlib.suppress(OSError):  # where a mapped file keeps its name it goes with the folder
                Path(name).unlink()
        return flat[: tensor.numel()].view(tensor.shape)

    def move(self, module: nn.Module) -> nn.Module:
        """Move a module's parameters to disk, in place."""
        for parameter in module.parameters():
            parameter.data = self.empty_like(parameter).copy_(parameter.data)
        # The next subject's table seldom fits into the hole that this one's leaves, as smaller tensors settle there.
        return_freed_memory()
        return module

    def move_adam(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Move Adam's moments of these parameters to disk, now and after each ``load_state_dict``."""
        places = {p: {name: self.empty_like(p) for name in _MOMENTS} for p in parameters}

        def settle(optimizer: Optimizer) -> None:
            for parameter, own in places.items():
                state = optimizer.state[parameter]
                state.setdefault("step", torch.zeros((), dtype=torch.float32))
                for name, place in own.items():
                    if name in state and state[name] is not place:
                        place.copy_(state[name])
                    state[name] = place

        settle(optimizer)
        optimizer.register_load_state_dict_post_hook(settle)


def subject_place(on_disk: bool, output_dir: str) -> Callable[[nn.Module], nn.Module] | None:
    """Function that moves subject encoders to unlinked files in ``output_dir``; None keeps them in memory."""
    return DiskTensors(output_dir).move if on_disk else None


def place_moments(on_disk: bool, output_dir: str, network: nn.Module, optimizer: Optimizer) -> None:
    """Move Adam's moments of the subject encoders to disk like the encoders.

    Raises:
        InputError: another network than DisINR, or another device than the CPU.
    """
    if not on_disk:
        return
    parameters = list(network.subjects.parameters())
    if not network.subjects_on_disk or any(p.device.type != "cpu" for p in parameters):
        found = f"{type(network).__name__} on {next(network.parameters()).device}"
        raise InputError(f"subjects_on_disk: expected DisINR on the CPU, found {found}; set it to false")
    DiskTensors(output_dir).move_adam(optimizer, parameters)
