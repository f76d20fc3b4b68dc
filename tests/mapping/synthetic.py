"""Depth images with a closed form: the inside of a box, with boxes in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.motion.camera import Intrinsics, pose_from

INTRINSICS = Intrinsics.from_fov(np.deg2rad(80), 96, 64)
ROOM = ((-2.0, -1.3, -2.0), (2.0, 1.1, 2.0))


def look(yaw_rad: float, position_m: ArrayLike = (0, 0, 0), pitch_rad: float = 0.0) -> NDArray[np.float64]:
    """Turned right by yaw, then down by pitch."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    cp, sp = np.cos(pitch_rad), np.sin(pitch_rad)
    yaw = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return pose_from(R=yaw @ pitch, t_m=position_m)


def rays(intrinsics: Intrinsics, T_world_camera: NDArray) -> NDArray[np.float64]:
    """World directions with a z of 1 in the camera. [H, W, 3]"""
    v, u = np.mgrid[: intrinsics.height_px, : intrinsics.width_px]
    x, y = (u - intrinsics.cx_px) / intrinsics.fx_px, (v - intrinsics.cy_px) / intrinsics.fy_px
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ T_world_camera[:3, :3].T


def room_depth(T_world_camera: NDArray, *, room=ROOM, boxes=(), intrinsics: Intrinsics = INTRINSICS) -> NDArray:
    """Exact z-depth inside `room`; rooms and boxes are (low, high) corners. [H, W] float32"""
    direction, origin = rays(intrinsics, T_world_camera), T_world_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        faces = [(np.asarray(corner) - origin) / direction for corner in room]
        depth_m = np.fmax(*faces).min(axis=-1)
        for box in boxes:
            near, far = ((np.asarray(corner) - origin) / direction for corner in box)
            enter, leave = np.fmin(near, far).max(axis=-1), np.fmax(near, far).min(axis=-1)
            is_hit = (enter < leave) & (enter > 0)
            depth_m = np.where(is_hit, np.minimum(depth_m, enter), depth_m)
    return depth_m.astype(np.float32)


def colours(T_world_camera: NDArray, depth_m: NDArray, intrinsics: Intrinsics = INTRINSICS) -> NDArray[np.uint8]:
    """A smooth pattern fixed in the world. [H, W, 3]"""
    points = rays(intrinsics, T_world_camera) * depth_m[..., None] + T_world_camera[:3, 3]
    return (127 + 100 * np.sin(3 * points)).astype(np.uint8)


def known(value: int, intrinsics: Intrinsics = INTRINSICS) -> NDArray[np.uint8]:
    return np.full((intrinsics.height_px, intrinsics.width_px), value, dtype=np.uint8)


def insert(world_map, T_world_camera, *, time_s=0.0, source=2, intrinsics=INTRINSICS, **scene) -> None:
    """Show the map one frame of a room."""
    depth_m = room_depth(T_world_camera, intrinsics=intrinsics, **scene)
    world_map.insert(
        colours(T_world_camera, depth_m, intrinsics), depth_m, known(source, intrinsics), intrinsics, T_world_camera,
        time_s,
    )  # fmt: skip
