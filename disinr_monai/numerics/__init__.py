"""Solvers, sparse matrices and the disk cache, independent of images and scans."""
