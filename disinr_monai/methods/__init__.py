"""Reconstruction methods, each a MONAI inferer with its settings as keywords."""
