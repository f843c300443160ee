"""What the fault tests did, for the tables at the end of a test run and in ``docs/reliability.md``."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Fault:
    """Faults of one kind: how many were injected, how many survived, what is lost at most."""

    kind: str
    injected: int
    survived: int
    lost: str


@dataclass
class Inputs:
    """Inputs of one kind: how many were made up, and how many led to anything but a result or one line."""

    kind: str
    fuzzed: int
    crashes: int


@dataclass
class Curve:
    """Resident memory of one process: (slices done, seconds, MB)."""

    kind: str
    points: list[tuple[int, float, float]]


FAULTS: list[Fault] = []
INPUTS: list[Inputs] = []
CURVES: list[Curve] = []


def record(kind: str, injected: int, survived: int, lost: str = "nothing") -> None:
    """Add to the table of faults; the same kind adds up."""
    for fault in FAULTS:
        if fault.kind == kind:
            fault.injected, fault.survived = fault.injected + injected, fault.survived + survived
            return
    FAULTS.append(Fault(kind, injected, survived, lost))


def record_inputs(kind: str, fuzzed: int, crashes: int) -> None:
    """Add to the table of inputs; the same kind adds up."""
    for inputs in INPUTS:
        if inputs.kind == kind:
            inputs.fuzzed, inputs.crashes = inputs.fuzzed + fuzzed, inputs.crashes + crashes
            return
    INPUTS.append(Inputs(kind, fuzzed, crashes))


def record_curve(kind: str, points: list[tuple[int, float, float]]) -> None:
    """Add a table of memory over time."""
    CURVES.append(Curve(kind, points))


def send() -> dict[str, list[dict[str, Any]]]:
    """Everything recorded in this process, in plain types (for the process that started it)."""
    return {
        "faults": [asdict(f) for f in FAULTS],
        "inputs": [asdict(i) for i in INPUTS],
        "curves": [asdict(c) for c in CURVES],
    }


def receive(sent: dict[str, list[dict[str, Any]]]) -> None:
    """Add what another process recorded."""
    for fault in sent["faults"]:
        record(**fault)
    for inputs in sent["inputs"]:
        record_inputs(**inputs)
    for curve in sent["curves"]:
        record_curve(**curve)


def table() -> list[str]:
    """The tables as Markdown lines."""
    lines = []
    if FAULTS:
        lines += ["| fault or input | injected | survived | lost at most |", "|---|---|---|---|"]
        lines += [f"| {f.kind} | {f.injected:,} | {f.survived:,} | {f.lost} |" for f in FAULTS]
    if INPUTS:
        lines += [""] if lines else []
        lines += ["| input | inputs fuzzed | crashes |", "|---|---|---|"]
        lines += [f"| {i.kind} | {i.fuzzed:,} | {i.crashes:,} |" for i in INPUTS]
    for curve in CURVES:
        lines += [""] if lines else []
        lines += [f"| {curve.kind}: slices done | s | resident memory (MB) |", "|---|---|---|"]
        lines += [f"| {n:,} | {seconds:,.0f} | {memory:,.1f} |" for n, seconds, memory in curve.points]
    return lines
