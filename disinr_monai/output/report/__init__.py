"""The page that a person reads after a run: ``report.html``, one file, no network."""

from disinr_monai.output.report.report import Report

__all__ = ["Report"]
