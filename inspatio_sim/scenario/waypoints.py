"""Drive the camera to a place on the floor: plan on the current map, turn, go to the next corner, plan again."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.mapping.grid import FREE, OCCUPIED, UNKNOWN, PlanningGrid, ros_from_world
from inspatio_sim.motion.camera import MAX_STEP_M, PoseDelta, inverse, pose_from
from inspatio_sim.world.world import World

ARRIVED_M = 0.01
REPLAN_M = 0.5  # maximum distance on one plan, so that new observations count
MIN_TURN_RAD = math.radians(0.5)
STUCK_M = 1e-3  # a forward motion shorter than this is stuck
MAX_STUCK = 3  # stuck motions before giving up
MAX_LEGS = 1000
SIGHT_STEP = 0.25  # in cells, between the samples of a line of sight


class NoWay(Exception):
    """The camera cannot reach the place; the message says why."""


def drive_to(
    world: World, goal_xz_m: tuple[float, float], radius_m: float, *, is_unknown_free: bool = False
) -> Iterator[PoseDelta]:
    """Motions that take the camera to a place; make each before you request the next.

    Turns are about the world's vertical and forward motions are level, so the camera keeps its height and pitch.

    Args:
        world: its camera pose and map are read before every motion.
        goal_xz_m: world x and z.
        radius_m: clearance to obstacles.
        is_unknown_free: paths may cross unseen space.

    Raises:
        NoWay: there is no path, or the camera gets stuck on it.
    """
    goal_m = np.array([goal_xz_m[1], -goal_xz_m[0]])  # ROS axes
    num_stuck = 0
    for _ in range(MAX_LEGS):
        position_m = ros_from_world(world.T_world_camera[:3, 3])
        if np.linalg.norm(goal_m - position_m) <= ARRIVED_M:
            return
        corner_m = _next_corner(world.map.planning_grid(), position_m, goal_m, radius_m, is_unknown_free)
        turn = _turn_towards(world.T_world_camera, corner_m - position_m)
        if turn.angle_rad > MIN_TURN_RAD:
            yield turn
        yield _forward(world.T_world_camera, corner_m - position_m)
        moved_m = float(np.linalg.norm(ros_from_world(world.T_world_camera[:3, 3]) - position_m))
        num_stuck = num_stuck + 1 if moved_m < STUCK_M else 0
        if num_stuck >= MAX_STUCK:
            break
    raise NoWay(f"no path to {_said(goal_xz_m)}: stuck at {_said(_xz(world))}, although the map has a path from there")


def _next_corner(
    grid: PlanningGrid, start_m: NDArray, goal_m: NDArray, radius_m: float, is_unknown_free: bool
) -> NDArray[np.float64]:
    """The farthest visible point of the shortest path, at most `REPLAN_M` away. [2]"""
    try:
        path_m = grid.plan(start_m, goal_m, robot_radius_m=radius_m, is_unknown_free=is_unknown_free)
    except InputError as error:
        raise NoWay(f"no path to {_said(_xz_of(goal_m))}: it lies outside the map") from error
    if path_m is None:
        raise NoWay(f"no path to {_said(_xz_of(goal_m))}: {_why(grid, goal_m, radius_m, is_unknown_free)}")
    cells = grid.inflated(radius_m).cells
    is_open = (cells == FREE) | (is_unknown_free & (cells == UNKNOWN))
    path_m = path_m[np.linalg.norm(path_m - start_m, axis=1) > ARRIVED_M]  # at least the goal
    corner_m = path_m[0]  # visible or not, so that a camera too near a wall can leave
    for point_m in path_m[1:]:
        if not _in_sight(grid, is_open, start_m, point_m):
            break
        corner_m = point_m
    way_m = corner_m - start_m
    length_m = float(np.linalg.norm(way_m))
    return start_m + way_m * min(1.0, REPLAN_M / length_m)


def _in_sight(grid: PlanningGrid, is_open: NDArray[np.bool_], start_m: NDArray, end_m: NDArray) -> bool:
    length_m = float(np.linalg.norm(end_m - start_m))
    num_points = 2 + math.ceil(length_m / (SIGHT_STEP * grid.resolution_m))
    points_m = start_m + np.linspace(0, 1, num_points)[1:, None] * (end_m - start_m)
    rows, columns = grid.cell_of(points_m).T
    is_inside = (rows >= 0) & (rows < is_open.shape[0]) & (columns >= 0) & (columns < is_open.shape[1])
    return bool(is_inside.all() and is_open[rows, columns].all())


def _why(grid: PlanningGrid, goal_m: NDArray, radius_m: float, is_unknown_free: bool) -> str:
    cell = tuple(grid.cell_of(goal_m))
    if grid.cells[cell] == OCCUPIED:
        return "an obstacle is there"
    if grid.inflated(radius_m).cells[cell] == OCCUPIED:
        return f"an obstacle is nearer to it than {radius_m:g} m"
    if grid.cells[cell] == UNKNOWN and not is_unknown_free:
        return "that place was never seen (look there first, or set unknown: free)"
    return "obstacles or unseen space lie between"


def _turn_towards(T_world_camera: NDArray, way_m: NDArray) -> PoseDelta:
    """Turn on the spot about the world's vertical until the camera looks along `way_m` (ROS axes)."""
    ahead_m = ros_from_world(T_world_camera[:3, 2])
    if np.linalg.norm(ahead_m) < 1e-6:  # it looks straight up or down
        return PoseDelta.identity()
    left_rad = math.atan2(way_m[1], way_m[0]) - math.atan2(ahead_m[1], ahead_m[0])
    left_rad = math.remainder(left_rad, 2 * math.pi)
    R_world = Rotation.from_rotvec([0.0, -left_rad, 0.0]).as_matrix()  # y is down
    T_turned = pose_from(R_world @ T_world_camera[:3, :3], T_world_camera[:3, 3])
    return PoseDelta.from_matrix(inverse(T_world_camera) @ T_turned)


def _forward(T_world_camera: NDArray, way_m: NDArray) -> PoseDelta:
    """Go straight and level by `way_m` (ROS axes)."""
    way_world_m = np.array([-way_m[1], 0.0, way_m[0]])
    assert np.linalg.norm(way_m) <= MAX_STEP_M, "a leg is at most REPLAN_M"
    return PoseDelta(np.concatenate([T_world_camera[:3, :3].T @ way_world_m, np.zeros(3)]))


def _xz(world: World) -> tuple[float, float]:
    x, _, z = world.T_world_camera[:3, 3]
    return float(x), float(z)


def _xz_of(point_m: NDArray) -> tuple[float, float]:
    return float(-point_m[1]), float(point_m[0])


def _said(xz_m: tuple[float, float]) -> str:
    return f"x = {xz_m[0] + 0.0:.2f}, z = {xz_m[1] + 0.0:.2f} m"
