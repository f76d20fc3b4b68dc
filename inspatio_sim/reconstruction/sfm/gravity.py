"""Which way is down in a reconstruction, told from how people hold cameras and from the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_TILT_RAD = np.radians(65)  # a plane tilted further from the cameras' down is a wall
MIN_GROUND_SHARE = 0.35  # of the points must lie on the ground plane before it is believed
GROUND_THICKNESS = 0.01  # of the median distance to the cameras
NUM_TRIALS = 400
PITCH_PRIOR = 0.03  # how strongly the mean down axis holds what the horizon leaves open


def gravity_direction(T_world_camera: Array, points: Array, seed: int = 0) -> Array:
    """The unit vector of gravity in world axes. [3]

    A ground plane that carries many of the points decides. Without one: cameras are held without
    roll, so down is orthogonal to their x axes, and otherwise close to their mean y axis.

    Args:
        T_world_camera: camera poses. [T, 4, 4]
        points: sparse points of the scene, in world axes. [N, 3]
        seed: of the search for the plane.
    """
    down = upright_direction(T_world_camera)
    normal = ground_normal(T_world_camera[:, :3, 3], points, down, seed)
    return down if normal is None else normal


def upright_direction(T_world_camera: Array) -> Array:
    """Down, from level horizons: minimises sum (x_i . g)^2 + prior |g - mean y|^2 over the cameras. [3]"""
    x_axes, y_axes = T_world_camera[:, :3, 0], T_world_camera[:, :3, 1]
    mean_down = y_axes.mean(0) / np.linalg.norm(y_axes.mean(0))
    A = x_axes.T @ x_axes / len(x_axes) + PITCH_PRIOR * np.eye(3)
    g = np.linalg.solve(A, PITCH_PRIOR * mean_down)
    return g / np.linalg.norm(g)


def ground_normal(centres: Array, points: Array, down: Array, seed: int) -> Array | None:
    """Normal of the dominant plane below the cameras, pointing down; None if there is none. [3]

    RANSAC over triples of points, then least squares on the plane's own points.
    """
    if len(points) < 50:
        return None
    distance = np.median(np.linalg.norm(points - np.median(centres, axis=0), axis=1))
    tolerance = GROUND_THICKNESS * distance
    rng = np.random.default_rng(seed)
    a, b, c = points[rng.integers(0, len(points), (3, NUM_TRIALS))]
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    normals = normals[lengths > 0] / lengths[lengths > 0, None]
    anchors = a[lengths > 0]
    normals *= np.where(normals @ down < 0, -1.0, 1.0)[:, None]
    offsets = np.einsum("ij,ij->i", normals, anchors)
    is_candidate = normals @ down > np.cos(MAX_TILT_RAD)
    is_candidate &= np.all(centres @ normals.T < offsets, axis=0)  # every camera above it
    if not is_candidate.any():
        return None
    normals, offsets = normals[is_candidate], offsets[is_candidate]
    counts = (np.abs(points @ normals.T - offsets) < tolerance).sum(0)
    best = int(counts.argmax())
    if counts[best] < MIN_GROUND_SHARE * len(points):
        return None
    normal, offset = normals[best], offsets[best]
    for _ in range(3):
        on_plane = points[np.abs(points @ normal - offset) < tolerance]
        if len(on_plane) < 3:
            return None
        refined = np.linalg.svd(on_plane - on_plane.mean(0), full_matrices=False)[2][2]
        normal = refined if refined @ down > 0 else -refined
        offset = float(normal @ on_plane.mean(0))
    return normal


def leveling_rotation(down: Array, forward: Array) -> Array:
    """Rotation into a world whose y axis is `down` and whose z axis is `forward` made level. [3, 3]"""
    y = down / np.linalg.norm(down)
    z = forward - (forward @ y) * y
    if np.linalg.norm(z) < 1e-6:  # the camera looks straight down or up
        z = np.eye(3)[int(np.abs(y).argmin())]
        z = z - (z @ y) * y
    z = z / np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z])
