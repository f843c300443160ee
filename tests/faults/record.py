"""What the fault tests did, for the tables at the end of a test run and in ``docs/reliability.md``."""

from __future__ import annotations

from dataclasses import dataclass


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


FAULTS: list[Fault] = []
INPUTS: list[Inputs] = []


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
    return lines
