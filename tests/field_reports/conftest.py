from __future__ import annotations

from tests.data.conftest import write_hdf5

__all__ = ["write_hdf5"]
