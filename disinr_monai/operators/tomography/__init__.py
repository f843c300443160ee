"""Beams of computed tomography and PET."""
