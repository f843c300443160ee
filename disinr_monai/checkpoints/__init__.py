"""Weights on disk: released pairs, resume checkpoints, safe loading."""
