"""Simulated measurements, sampling patterns and phantoms."""
