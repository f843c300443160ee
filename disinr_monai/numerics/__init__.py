"""Solvers, sparse matrices and the disk cache; nothing here knows of images or scans."""
