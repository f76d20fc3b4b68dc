"""Driving through the planner, in the demo room and in maps with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from inspatio_sim.mapping.grid import PlanningGrid
from inspatio_sim.scenario.model import WorldSpec
from inspatio_sim.scenario.waypoints import NoWay, _next_corner, drive_to
from inspatio_sim.scenario.worlds import WorldMaker
from inspatio_sim.world.world import World


@pytest.fixture(scope="module")
def made(maker: WorldMaker) -> World:
    return maker.make(WorldSpec(size_px=(48, 80), frames=6, camera="static", collisions="stop"))


def drive(world: World, goal_xz_m: tuple[float, float], radius_m: float = 0.25) -> list[np.ndarray]:
    poses = []
    for motion in drive_to(world, goal_xz_m, radius_m):
        assert not world.step(motion).has_collided
        poses.append(world.T_world_camera)
    return poses


def test_arrives_level_and_looking_ahead(made):
    made.reset()
    poses = drive(made, (0.6, 1.5))
    np.testing.assert_allclose(poses[-1][:3, 3], [0.6, 0, 1.5], atol=0.01)
    assert all(abs(T[1, 3]) < 1e-9 for T in poses)
    assert all(abs(T[1, 2]) < 1e-9 for T in poses)  # it never looks up or down
    way = poses[-1][:3, 3] - poses[-2][:3, 3]
    np.testing.assert_allclose(poses[-1][:3, 2], way / np.linalg.norm(way), atol=1e-6)
    assert drive(made, (0.6, 1.5)) == []


def test_keeps_pitch_and_height(made):
    T_start = np.eye(4)
    angle_rad = np.radians(-20)  # looks down
    T_start[1:3, 1:3] = [[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]]
    made.reset(T_world_camera=T_start)
    poses = drive(made, (0.2, 1.0))
    np.testing.assert_allclose([T[1, 3] for T in poses], 0, atol=1e-9)
    np.testing.assert_allclose([T[1, 2] for T in poses], T_start[1, 2], atol=1e-9)


@pytest.mark.parametrize(
    ("goal_xz_m", "why"),
    [
        ((1.3, 2.6), "an obstacle is"),
        ((0.0, -1.5), "never seen|outside the map"),
        ((0.0, 50.0), "outside the map"),
    ],
)
def test_says_why_there_is_no_way(made, goal_xz_m, why):
    made.reset()
    with pytest.raises(NoWay, match=why):
        drive(made, goal_xz_m)


def grid_with_wall() -> PlanningGrid:
    """4 x 4 m, free; a wall at x_ros = 2 m with a gap at the left end (y_ros > 3 m)."""
    cells = np.zeros((40, 40), np.int8)
    cells[:30, 20] = 100
    return PlanningGrid(cells=cells, resolution_m=0.1, origin_m=(0.0, 0.0))


def test_goes_round_a_wall_by_straight_legs():
    grid = grid_with_wall()
    position_m, goal_m = np.array([1.0, 1.0]), np.array([3.0, 1.0])
    walked_m = [position_m]
    for _ in range(40):
        if np.linalg.norm(goal_m - position_m) < 0.01:
            break
        position_m = _next_corner(grid, position_m, goal_m, 0.2, False)
        walked_m.append(position_m)
    path_m = np.array(walked_m)
    legs_m = np.linalg.norm(np.diff(path_m, axis=0), axis=1)
    assert legs_m.max() <= 0.5 + 1e-9
    np.testing.assert_allclose(path_m[-1], goal_m)
    shortest_m = 2 * np.hypot(1.0, 2.2)  # touching the circle around the wall's end makes it a little longer
    assert 0.95 * shortest_m < legs_m.sum() < 1.15 * shortest_m
    starts_m, ends_m = path_m[:-1, None], path_m[1:, None]
    dense_m = (starts_m + np.linspace(0, 1, 20)[:, None] * (ends_m - starts_m)).reshape(-1, 2)
    wall_m = np.array([[2.05, 0.05 + 0.1 * i] for i in range(30)])
    clearance_m = np.linalg.norm(dense_m[:, None] - wall_m, axis=-1).min()
    assert clearance_m > 0.2 - 0.1  # the radius, less a cell


def test_leaves_a_place_too_near_to_a_wall():
    grid = grid_with_wall()
    corner_m = _next_corner(grid, np.array([1.9, 1.0]), np.array([1.0, 1.0]), 0.3, False)
    assert corner_m[0] < 1.9


def test_a_straight_line_through_the_unknown_only_if_asked():
    cells = np.zeros((20, 20), np.int8)
    cells[:, 10] = -1
    grid = PlanningGrid(cells=cells, resolution_m=0.1, origin_m=(0.0, 0.0))
    start_m, goal_m = np.array([0.85, 1.0]), np.array([1.25, 1.0])
    np.testing.assert_allclose(_next_corner(grid, start_m, goal_m, 0.0, True), goal_m)
    with pytest.raises(NoWay, match="obstacles or unseen space lie between"):
        _next_corner(grid, start_m, goal_m, 0.0, False)
