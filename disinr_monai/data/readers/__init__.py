"""Readers of the raw measurements and images that scanners and packages write."""
