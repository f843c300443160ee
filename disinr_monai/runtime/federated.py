"""Federated pre-training: sites exchange the pair through MONAI's ``MonaiAlgo``; scans and subject encoders stay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.fl.utils.constants import FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.fl.utils.filters import Filter
from torch import Tensor

from disinr_monai.errors import InputError

SHARED = "shared."
Pair = dict[str, Tensor]


class KeepShared(Filter):
    """Filter of messages that passes the shared pair only, as ``MonaiAlgo`` would send every subject encoder.

    A message keeps the tensors named ``shared.*`` and the number of steps they were trained for. Names of clients and
    files, optimiser states, metrics and other statistics are dropped. Incoming messages are filtered, too: a server
    cannot write a subject encoder.

    Args:
        max_norm: limit the norm of an update (all tensors together) by scaling it down; None for no limit. It bounds
            what one site can do to the pair; it is no differential privacy.

    Raises:
        InputError: nothing shared in the message, or a value that is not finite.
    """

    def __init__(self, max_norm: float | None = None) -> None:
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"KeepShared: max_norm must be positive, found {max_norm}")
        self.max_norm = max_norm

    def __call__(self, data: ExchangeObject, extra: dict | None = None) -> ExchangeObject:
        weights = {k: torch.as_tensor(v).detach() for k, v in (data.weights or {}).items() if k.startswith(SHARED)}
        if not weights:
            raise InputError("federated message: expected tensors named shared.*, found none; use a method with a pair")
        norm = _norm(weights)
        if not math.isfinite(norm):
            raise InputError("federated message: a value is not finite; lower the learning rate or turn amp off")
        if self.max_norm is not None and data.weight_type == WeightType.WEIGHT_DIFF and norm > self.max_norm:
            weights = {name: value * (self.max_norm / norm) for name, value in weights.items()}
        steps = (data.statistics or {}).get(FlStatistics.NUM_EXECUTED_ITERATIONS)
        statistics = None if steps is None else {FlStatistics.NUM_EXECUTED_ITERATIONS: int(steps)}
        return ExchangeObject(weights=weights, weight_type=data.weight_type, statistics=statistics)


def average(pair: Pair, messages: Sequence[ExchangeObject], max_norm: float | None = None) -> Pair:
    r"""Average the messages of all sites: federated averaging (McMahan et al., AISTATS 2017).

    .. math:: \theta \leftarrow \theta + \sum_k \frac{n_k}{n} \Delta_k, \qquad n = \sum_k n_k

    with :math:`\Delta_k` the change of the pair at site :math:`k` and :math:`n_k` its steps of the round, which with
    one case a step and equally many local epochs are proportional to its cases.

    Args:
        pair: tensors ``shared.*`` as they were sent to the sites.
        messages: weight differences of the sites, from :class:`KeepShared`.
        max_norm: refuse a message whose change is larger.

    Raises:
        InputError: a message has other names or shapes, is not finite, is no weight difference, has no steps or is
            larger than ``max_norm``; names the message by its place.
    """
    if not messages:
        raise InputError("federated round: expected at least one message, found none")
    steps = [_check(pair, message, place, max_norm) for place, message in enumerate(messages)]
    result = {}
    for name, value in pair.items():
        change = sum(m.weights[name].to(value) * (n / sum(steps)) for m, n in zip(messages, steps, strict=True))
        result[name] = value + change
    return result


def _check(pair: Pair, message: ExchangeObject, place: int, max_norm: float | None) -> int:
    """Check a message and return its number of steps."""
    where = f"federated message {place}"
    weights = message.weights or {}
    if message.weight_type != WeightType.WEIGHT_DIFF:
        raise InputError(f"{where}: expected weight differences (send_weight_diff), found {message.weight_type}")
    found, expected = ({k: tuple(v.shape) for k, v in w.items()} for w in (weights, pair))
    if found != expected:
        name = sorted(set(found.items()) ^ set(expected.items()))[0][0]
        raise InputError(f"{where}: {name} has shape {found.get(name)}, expected {expected.get(name)}")
    norm = _norm(weights)
    if not norm <= (math.inf if max_norm is None else max_norm) or math.isinf(norm):
        raise InputError(f"{where}: its change has norm {norm:.3g}, expected at most {max_norm}")
    steps = (message.statistics or {}).get(FlStatistics.NUM_EXECUTED_ITERATIONS, 0)
    if steps < 1:
        raise InputError(f"{where}: expected the number of its steps, found {steps}")
    return int(steps)


def _norm(weights: Pair) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in weights.values()))
