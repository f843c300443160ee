import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import write_hdf5

__all__ = ["write_hdf5"]


_DATA = Path(os.environ.get("DISINR_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def report(tmp_path):
    """Write the input of one report and give its folder."""

    def write(number: int) -> Path:
        script = _DATA.parent / "field_reports" / f"case_{number:02d}.py"
        if not script.is_file():
            pytest.skip(f"{script} is absent (set DISINR_DATA)")
        subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
        return tmp_path

    return write
