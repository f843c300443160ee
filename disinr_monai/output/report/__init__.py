"""The HTML report of a run: ``report.html``, one file that loads nothing."""

from disinr_monai.output.report.report import Report

__all__ = ["Report"]
