"""Which frames of a static reference show what a camera sees."""

from __future__ import annotations

import numpy as np

from inspatio_sim.motion.camera import Array, inverse
from inspatio_sim.reference.reference import Reference

GRID = 12, 20  # rows and columns of rays that sample the camera's image
NEARNESS = 1e-3  # weight of the direction against the share seen; breaks ties
MAX_VIEWS = 4
MIN_SHARE = 0.005  # share of the image that another view must add


def views_seen(reference: Reference, T_world_camera: Array, distance_m: float) -> list[int]:
    """Choose frames that cover the camera's image: first the one that shows most of it, then those that add most.

    Ties go to the frame with the most similar direction.

    Args:
        reference: frames to choose from.
        T_world_camera: where the camera is. [4, 4]
        distance_m: assumed z-depth of the scene.

    Returns:
        One to `MAX_VIEWS` indices.
    """
    camera = reference.intrinsics
    rows, columns = ((np.arange(n) + 0.5) / n for n in GRID)
    x = (columns * camera.width_px - 0.5 - camera.cx_px) / camera.fx_px
    y = (rows * camera.height_px - 0.5 - camera.cy_px) / camera.fy_px
    grid = np.stack([*np.meshgrid(x, y), np.ones(GRID)]).reshape(3, -1) * distance_m
    T_view_camera = inverse(reference.T_world_camera) @ T_world_camera
    points = T_view_camera[:, :3, :3] @ grid + T_view_camera[:, :3, 3:]  # [T, 3, N]
    is_ahead = points[:, 2] > 1e-3
    z = np.where(is_ahead, points[:, 2], 1.0)
    u, v = points[:, 0] / z * camera.fx_px + camera.cx_px, points[:, 1] / z * camera.fy_px + camera.cy_px
    is_seen = is_ahead & (u >= -0.5) & (u < camera.width_px - 0.5) & (v >= -0.5) & (v < camera.height_px - 0.5)
    nearness = NEARNESS * T_view_camera[:, 2, 2]
    chosen: list[int] = []
    is_missing = np.ones(is_seen.shape[1], bool)
    while len(chosen) < MAX_VIEWS:
        added = (is_seen & is_missing).mean(axis=1)
        best = int(np.argmax(added + nearness))
        if chosen and added[best] < MIN_SHARE:
            break
        chosen.append(best)
        is_missing &= ~is_seen[best]
    return chosen
