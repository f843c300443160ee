"""Coil sensitivity maps from calibration samples."""
