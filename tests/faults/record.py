"""What the fault tests did, for the table at the end of a test run and in ``docs/reliability.md``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Fault:
    """Faults of one kind: how many were injected, how many survived, what is lost at most."""

    kind: str
    injected: int
    survived: int
    lost: str


FAULTS: list[Fault] = []


def record(kind: str, injected: int, survived: int, lost: str = "nothing") -> None:
    """Add to the table; the same kind adds up."""
    for fault in FAULTS:
        if fault.kind == kind:
            fault.injected, fault.survived = fault.injected + injected, fault.survived + survived
            return
    FAULTS.append(Fault(kind, injected, survived, lost))


def table() -> list[str]:
    """The table as Markdown lines."""
    lines = ["| fault or input | injected | survived | lost at most |", "|---|---|---|---|"]
    lines += [f"| {f.kind} | {f.injected:,} | {f.survived:,} | {f.lost} |" for f in FAULTS]
    return lines
