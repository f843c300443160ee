"""TEMPORARY until the pet branch has it."""
import numpy as np
def parallel_rays(angles, n_detectors, detector_spacing, n_subrays, detector_offset=0.0):
    n_points = n_detectors * n_subrays
    u = (np.arange(n_points) - (n_points - 1) / 2) * (detector_spacing / n_subrays) + detector_offset
    normal = np.stack((-np.sin(angles), np.cos(angles)), axis=-1)[:, None]
    axis = np.stack((np.cos(angles), np.sin(angles)), axis=-1)[:, None]
    points = u[None, :, None] * axis
    return points, np.broadcast_to(normal, points.shape)
