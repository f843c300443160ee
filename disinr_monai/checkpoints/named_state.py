"""State of pre-training by tensor names, so that any number of processes can resume from it.

Every process numbers its own subject encoders from 0; in a file they have the number of their case among all cases.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from disinr_monai.runtime.distributed import rank, world_size

_OWN = "subjects."


def to_global(name: str) -> str:
    """Name of a tensor of this process's network among all processes."""
    if not name.startswith(_OWN):
        return name
    _, number, rest = name.split(".", 2)
    return f"{_OWN}{int(number) * world_size() + rank()}.{rest}"


def is_own(name: str) -> bool:
    """Tell whether a tensor belongs to one subject."""
    return name.startswith(_OWN)


def network_state(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All shared tensors and those of the subjects that are trained, by global name."""
    trained = {name.rsplit(".", 1)[0] for name in _trained_names(network, optimizer)}
    return {
        to_global(name): value
        for name, value in network.state_dict().items()
        if not is_own(name) or name.rsplit(".", 1)[0] in trained
    }


def load_network_state(network: nn.Module, optimizer: Optimizer, state: dict[str, Tensor]) -> None:
    """Load the tensors of this process from the states of all.

    Raises:
        RuntimeError: a tensor is missing or has another shape.
    """
    wanted = set(network_state(network, optimizer))
    if missing := sorted(wanted - state.keys()):
        raise RuntimeError(f"no {missing[0]} in it")
    local = {name: state[to_global(name)] for name in network.state_dict() if to_global(name) in wanted}
    network.load_state_dict(local, strict=False)


def optimizer_state(network: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimiser's state with global names instead of numbers of parameters."""
    names, packed = _trained_names(network, optimizer), optimizer.state_dict()
    groups = [{key: value for key, value in group.items() if key != "params"} for group in packed["param_groups"]]
    return {"state": {to_global(names[i]): value for i, value in packed["state"].items()}, "groups": groups}


def load_optimizer_state(network: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the optimiser state of this process from the states of all.

    Raises:
        ValueError: another number of parameter groups.
    """
    names, own = _trained_names(network, optimizer), optimizer.state_dict()["param_groups"]
    groups = [{**group, "params": mine["params"]} for group, mine in zip(state["groups"], own, strict=True)]
    numbers = {i: state["state"][to_global(name)] for i, name in enumerate(names) if to_global(name) in state["state"]}
    optimizer.load_state_dict({"state": numbers, "param_groups": groups})


def _trained_names(network: nn.Module, optimizer: Optimizer) -> list[str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
