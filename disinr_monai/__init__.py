"""Disentangled implicit neural representations for medical image reconstruction, as MONAI bundles."""

__version__ = "0.1.0"
