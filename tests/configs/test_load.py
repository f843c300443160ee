"""Memory does not grow with the number of scans in one process: 500 slices in one run, and an hour of many runs.

`DISINR_SOAK_SECONDS` sets the length of the second.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.faults.record import record, record_curve

GROWTH_MB = 60
SOAK_SECONDS = float(os.environ.get("DISINR_SOAK_SECONDS", "3600"))
_needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _curve(tmp_path, what, number, timeout):
    command = [sys.executable, "-m", "tests.load", what, str(tmp_path), str(number)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr[-2000:]
    curve = np.array(json.loads((tmp_path / "curve.json").read_text()))
    shown = np.unique(np.linspace(1, len(curve), 12).astype(int))
    record_curve(what.replace("_", " "), [(int(n), *map(float, curve[n - 1])) for n in shown])
    return curve[:, 1]


@pytest.mark.slow
@_needs_proc
def test_500_slices_in_one_process(tmp_path):
    memory = _curve(tmp_path, "many_slices", 500, 3600)
    assert len(memory) == 500
    growth = memory[-10:].max() - memory[45:55].min()
    assert growth < GROWTH_MB
    record("500 slices in one process", 1, 1, f"less than {GROWTH_MB} MB of growth")


@pytest.mark.slow
@_needs_proc
def test_soak(tmp_path):
    memory = _curve(tmp_path, "soak", SOAK_SECONDS, SOAK_SECONDS + 900)
    # The first third fills caches of bounded size; after it the level may not rise.
    n = len(memory)
    early, late = np.median(memory[n // 3 : n // 2]), np.median(memory[-(n // 6) :])
    assert late - early < GROWTH_MB
    record("soak", 1, 1, f"less than {GROWTH_MB} MB of growth")
