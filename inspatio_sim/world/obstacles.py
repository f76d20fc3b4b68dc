"""How obstacles stop a motion or make it slide."""

from __future__ import annotations

from typing import Literal

import numpy as np

from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import Array, PoseDelta, inverse, pose_from

Collisions = Literal["off", "stop", "slide"]

MAX_SLIDES = 3  # surfaces one motion may slide along: a corner has two, or three with the floor
SKIN_M = 1e-3  # distance kept to a surface, so that sliding along it does not touch it


def avoid_obstacles(
    motion: PoseDelta, T_world_camera: Array, world_map: WorldMap, collisions: Collisions, body_radius_m: float
) -> tuple[PoseDelta, bool]:
    """Cut a motion short at the first obstacle, or let it slide along; turning is always free.

    Args:
        motion: the requested motion, in the camera frame.
        T_world_camera: where it begins. [4, 4]
        world_map: the obstacles; unknown space is free.
        collisions: what happens at an obstacle.
        body_radius_m: radius of the collision sphere around the camera.

    Returns:
        The collision-free motion, and whether it is shorter than requested.
    """
    if collisions == "off" or motion.distance_m == 0:
        return motion, False
    T_end = T_world_camera @ motion.T_old_new
    position_m, wanted_m = T_world_camera[:3, 3], T_end[:3, 3]
    has_collided = False
    for _ in range(MAX_SLIDES if collisions == "slide" else 1):
        sweep = world_map.sweep_sphere(position_m, wanted_m, body_radius_m)
        way_m = wanted_m - position_m
        if sweep.fraction >= 1:
            position_m = wanted_m
            break
        has_collided = True
        assert sweep.normal is not None, "a sweep that ends early touched something"
        free_m = max(0.0, sweep.fraction * float(np.linalg.norm(way_m)) - SKIN_M)
        position_m = position_m + way_m / np.linalg.norm(way_m) * free_m
        rest_m = wanted_m - position_m
        rest_m = rest_m - min(0.0, float(rest_m @ sweep.normal)) * sweep.normal
        wanted_m = position_m + rest_m
        if np.linalg.norm(rest_m) < SKIN_M:
            break
    if not has_collided:
        return motion, False
    T_stopped = pose_from(T_end[:3, :3], position_m)
    return PoseDelta.from_matrix(inverse(T_world_camera) @ T_stopped), True
