from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from disinr_monai.self_check.residual import poor_fit

logger = logging.getLogger(__name__)


class SelfCheck:
    """Collect what a result is to be marked with.

    * what its method found itself (``marks``: a scan out of the prior's domain, early stopping that never set in);
    * a residual that noise does not explain (:func:`~disinr_monai.self_check.residual.poor_fit`);
    * orientation, lengths or scale that the file does not hold (``info["unverified"]``). All scans of a folder mostly
      lack the same, so each of these is a warning only once a run, and a mark on every case.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin a run: nothing has been said."""
        self._told.clear()

    def __call__(self, case: Mapping[str, Any], inferer: Any) -> list[str]:
        """The marks of a case that ``inferer`` has just reconstructed; those that are new are logged."""
        marks = list(inferer.marks)
        misfit = poor_fit(inferer.residual) if inferer.residual is not None and inferer.fits_data else ""
        if misfit:
            marks.append(misfit)
            logger.warning("%s: %s", case["name"], misfit)
        for lacking in case["info"].get("unverified", ()):
            marks.append(f"not verified: {lacking}")
            if lacking not in self._told:
                self._told.add(lacking)
                logger.warning("%s: not verified: %s (said once; the report marks every case)", case["name"], lacking)
        return marks
