"""Commands, limits, ramps, timeouts, and driving to a goal: numbers only, no ROS."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspatio_ros.driving import (
    DriveConfig,
    Driver,
    Velocity,
    base_axes,
    floor_pose,
    limited,
    look_ahead,
    plan_path,
    ramped,
)

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid
from inspatio_sim.motion.camera import Array, CameraPath, PoseDelta, se3_exp

FRAME_S = 0.1
speeds = st.floats(-3, 3)
velocities = st.builds(Velocity, speeds, speeds, speeds)


def no_grid() -> PlanningGrid:
    raise AssertionError("no plan was needed")


def open_room(side_m: float = 6.0, cell_m: float = 0.1) -> PlanningGrid:
    """Free, with a wall around, its middle the origin."""
    num = round(side_m / cell_m)
    cells = np.zeros((num, num), dtype=np.int8)
    cells[[0, -1]] = cells[:, [0, -1]] = 100
    return PlanningGrid(cells=cells, resolution_m=cell_m, origin_m=(-side_m / 2, -side_m / 2))


class Base:
    """A driver with a camera that obeys it, in a room without obstacles of its own."""

    def __init__(self, config: DriveConfig | None = None, T_world_camera: Array | None = None) -> None:
        self.driver = Driver(config)
        self.path = CameraPath(T_world_camera)
        self.time_s = 0.0
        self.grid = no_grid

    def command(self, *velocity: float) -> None:
        self.driver.command(Velocity(*velocity), self.time_s, 0.0)

    def block(self, num_frames: int = 1) -> list[PoseDelta]:
        motion = self.driver.begin_block(self.path.T_world_camera, self.time_s, num_frames, FRAME_S, self.grid)
        for delta in motion.deltas:
            self.path.advance(delta)
        self.time_s += num_frames * FRAME_S
        return motion.deltas

    @property
    def pose(self) -> tuple[float, float, float]:
        return floor_pose(self.path.T_world_camera)


@settings(deadline=None, max_examples=50)
@given(velocities, st.sampled_from(["unicycle", "holonomic"]))
def test_limits_keep_the_direction(wanted, drive):
    config = DriveConfig(drive=drive)
    got = limited(wanted, config)
    assert math.hypot(got.x_mps, got.y_mps) <= config.max_speed_mps + 1e-9
    assert abs(got.turn_radps) <= config.max_turn_rate_radps
    if drive == "unicycle":
        assert got.y_mps == 0
        assert got.x_mps == pytest.approx(np.clip(wanted.x_mps, -0.5, 0.5))
    else:
        assert got.x_mps * wanted.y_mps == pytest.approx(got.y_mps * wanted.x_mps, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(velocities, velocities)
def test_ramps_end_at_what_is_wanted(now, wanted):
    config = DriveConfig(max_acceleration_mps2=2.0, max_turn_acceleration_radps2=2.0)
    for _ in range(100):
        after = ramped(now, wanted, config, FRAME_S)
        assert math.hypot(after.x_mps - now.x_mps, after.y_mps - now.y_mps) <= 0.2 + 1e-9
        assert abs(after.turn_radps - now.turn_radps) <= 0.2 + 1e-9
        now = after
    assert now == pytest.approx(wanted, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6))
def test_base_axes_are_level_and_right_handed(twist):
    T = se3_exp(np.array(twist))
    axes = T[:3, :3] @ base_axes(T)  # forward, left and up, in the world
    np.testing.assert_allclose(axes[:, 2], [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1)


def test_forward_is_where_the_camera_looks_though_it_looks_down():
    pitch = se3_exp(np.array([0, 0, 0, -0.6, 0, 0]))
    base = Base(T_world_camera=pitch)
    for _ in range(20):
        base.command(0.5, 0.0, 0.0)
        base.block()
    x_m, y_m, yaw_rad = base.pose
    assert x_m > 0.8
    assert (y_m, yaw_rad) == pytest.approx((0, 0), abs=1e-9)
    assert base.path.T_world_camera[1, 3] == pytest.approx(0, abs=1e-9)


def test_turning_left_is_positive_and_keeps_the_pitch():
    base = Base(T_world_camera=se3_exp(np.array([0, 0, 0, -0.6, 0, 0])))
    looks_down = base.path.T_world_camera[1, 2]
    for _ in range(20):
        base.command(0.0, 0.0, 1.0)
        base.block()
    assert 1.5 < base.pose[2] < 2.0
    assert base.path.T_world_camera[1, 2] == pytest.approx(looks_down, abs=1e-9)
    np.testing.assert_allclose(base.path.T_world_camera[:3, 3], 0, atol=1e-9)


def test_holonomic_goes_left():
    base = Base(DriveConfig(drive="holonomic"))
    for _ in range(10):
        base.command(0.0, 0.4, 0.0)
        base.block()
    assert base.pose[1] > 0.2
    assert base.pose[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(bad):
    base = Base()
    base.command(0.5, 0.0, 0.0)
    with pytest.raises(InputError, match="NaN or inf"):
        base.command(bad, 0.0, 0.0)
    with pytest.raises(InputError, match="NaN or inf"):
        base.driver.go_to(0.0, bad, None, 0.0)
    assert base.block()[0].distance_m > 0  # the command before counts still


def test_command_ends_after_its_timeout_but_lasts_a_block():
    base = Base(DriveConfig(cmd_vel_timeout_s=0.5, max_acceleration_mps2=100))
    base.command(0.5, 0.0, 0.0)
    moves = [base.block()[0].distance_m for _ in range(8)]
    np.testing.assert_allclose(moves, [0.05] * 5 + [0.0] * 3, atol=1e-9)
    base.command(0.5, 0.0, 0.0)
    assert [delta.distance_m for delta in base.block(num_frames=8)] == pytest.approx([0.05] * 8)
    assert base.block()[0].distance_m == 0


def test_block_ramps_frame_by_frame():
    base = Base(DriveConfig(max_acceleration_mps2=1.0))
    base.command(0.5, 0.0, 0.0)
    moves = [delta.distance_m for delta in base.block(num_frames=7)]
    np.testing.assert_allclose(moves, [0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.05], atol=1e-9)


def test_latest_command_wins_and_its_note_comes_back():
    driver = Driver()
    driver.command(Velocity(0.1, 0, 0), 0.0, 1.0, "first")
    driver.command(Velocity(0.2, 0, 0), 0.0, 2.0, "second")
    motion = driver.begin_block(np.eye(4), 0.0, 1, FRAME_S, no_grid)
    assert (motion.received_s, motion.note) == (1.0, "second")
    motion = driver.begin_block(np.eye(4), FRAME_S, 1, FRAME_S, no_grid)
    assert (motion.received_s, motion.note) == (None, None)


def test_waiting_for_a_command():
    driver = Driver()
    assert not driver.wait_for_command(0.01)
    driver.command(Velocity(0, 0, 0), 0.0, 0.0)
    assert driver.wait_for_command(0.01)
    driver.begin_block(np.eye(4), 0.0, 1, FRAME_S, no_grid)
    assert not driver.wait_for_command(0.01)


def test_six_dof_motions_have_a_block_each():
    base = Base()
    up, turn = PoseDelta(np.array([0, -0.2, 0, 0, 0, 0])), PoseDelta(np.array([0, 0, 0, 0.1, 0.2, 0.3]))
    base.driver.nudge(up, 0.0)
    base.driver.nudge(turn, 0.0)
    base.block(num_frames=4)
    np.testing.assert_allclose(base.path.T_world_camera[:3, 3], [0, -0.2, 0], atol=1e-12)
    base.block(num_frames=4)
    np.testing.assert_allclose(base.path.T_world_camera[:3, :3], turn.T_old_new[:3, :3], atol=1e-12)
    assert base.block()[0].distance_m == 0


def test_collision_takes_the_speed():
    base = Base(DriveConfig(max_acceleration_mps2=1.0))
    for _ in range(10):
        base.command(0.5, 0.0, 0.0)
        base.block()
    T = base.path.T_world_camera
    base.driver.collided(T, T, FRAME_S)  # it did not move
    base.command(0.5, 0.0, 0.0)
    assert base.block()[0].distance_m == pytest.approx(0.01)


def test_goes_on_in_the_same_way_after_restoring():
    base = Base()
    base.grid = open_room
    base.driver.go_to(1.5, 1.0, 0.5, 0.0)
    for _ in range(5):
        base.block()
    state, T, time_s = base.driver.state(base.time_s), base.path.T_world_camera.copy(), base.time_s
    first = [base.block()[0].twist for _ in range(20)]
    again = Base(T_world_camera=T)
    again.path.T_world_camera = T
    again.grid, again.time_s = open_room, time_s + 100
    again.driver.load_state(state, time_s + 100)
    np.testing.assert_allclose([again.block()[0].twist for _ in range(20)], first, atol=1e-9)


@pytest.mark.parametrize("goal", [(2.0, 0.0, 0.0), (-1.5, 1.0, math.pi / 2), (0.3, -2.0, None)])
@pytest.mark.parametrize("num_frames", [1, 12])
def test_goal_is_reached_with_its_heading(goal, num_frames):
    base = Base()
    base.grid = open_room
    base.driver.go_to(*goal, 0.0)
    for _ in range(math.ceil(300 / num_frames)):
        base.block(num_frames)
        if not base.driver.is_going:
            break
    asked = base.driver.goal
    assert asked is not None
    assert asked.state == "reached"
    base.block(num_frames)
    base.block(num_frames)
    x_m, y_m, yaw_rad = base.pose
    assert math.hypot(x_m - goal[0], y_m - goal[1]) < 0.15
    if goal[2] is not None:
        assert abs(math.remainder(yaw_rad - goal[2], 2 * math.pi)) < 0.25


def test_goal_behind_a_wall_is_driven_to_around_it():
    grid = open_room()
    cells = grid.cells.copy()
    cells[30:, 40] = 100  # a wall across the left half, at x = 1
    wall = replace(grid, cells=cells)
    base = Base()
    base.grid = lambda: wall
    base.driver.go_to(2.0, 1.0, None, 0.0)
    ways = []
    for _ in range(400):
        base.block()
        ways.append(base.pose[:2])
        if not base.driver.is_going:
            break
    assert base.driver.goal is not None
    assert base.driver.goal.state == "reached"
    row, column = wall.cell_of(np.array(ways)).T
    assert not (wall.inflated(0.1).cells[row, column] == 100).any()


def test_goal_without_a_way_is_said_to_be_unreachable():
    grid = open_room()
    cells = grid.cells.copy()
    cells[:, 40] = 100
    base = Base()
    base.grid = lambda: replace(grid, cells=cells)
    base.driver.go_to(2.0, 0.0, None, 0.0)
    base.block()
    assert base.driver.goal is not None
    assert base.driver.goal.state == "unreachable"
    assert base.block()[0].distance_m == 0
    assert not base.driver.cancel()


def test_goal_that_gets_no_nearer_is_given_up():
    base = Base()
    base.grid = open_room
    base.driver.go_to(2.0, 0.0, None, 0.0)
    for _ in range(150):
        base.block()
        base.path = CameraPath()  # something holds it
    assert base.driver.goal is not None
    assert base.driver.goal.state == "stuck"


@pytest.mark.parametrize("end", ["command", "nudge", "cancel", "reset", "goal"])
def test_goal_is_ended_by(end):
    base = Base()
    base.grid = open_room
    base.driver.go_to(2.0, 0.0, None, 0.0)
    base.block()
    goal = base.driver.goal
    if end == "command":
        base.command(0.0, 0.0, 0.0)
    elif end == "nudge":
        base.driver.nudge(PoseDelta.identity(), 0.0)
    elif end == "cancel":
        assert base.driver.cancel()
    elif end == "reset":
        base.driver.reset()
    else:
        base.driver.go_to(1.0, 0.0, None, 0.0)
        assert base.driver.is_going
        assert base.driver.goal is not goal
        return
    assert not base.driver.is_going
    assert base.driver.goal is not None
    assert base.driver.goal.state == "cancelled"


def test_paths_prefer_what_is_known_and_leave_walls():
    grid = open_room()
    cells = grid.cells.copy()
    cells[20:40, 30:50] = -1  # ahead nobody has looked, but there is a way around
    half = replace(grid, cells=cells)
    path_m = plan_path(half, (0.0, -2.5), (0.0, 2.5), 0.15, through_unknown=True)
    assert path_m is not None
    row, column = half.cell_of(path_m).T
    assert (half.cells[row, column] == 0).all()
    beyond = plan_path(half, (0.0, 0.0), (20.0, 0.0), 0.15, through_unknown=True)
    assert beyond is None  # the room is closed
    at_wall = plan_path(grid, (2.85, 0.0), (0.0, 0.0), 0.15, through_unknown=False)
    assert at_wall is not None
    assert plan_path(grid, (0.0, 0.0), (500.0, 0.0), 0.15, through_unknown=True) is None


def test_look_ahead_runs_along_the_path():
    path_m = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    point, to_go_m = look_ahead(path_m, (0.8, 0.1), 0.5)
    np.testing.assert_allclose(point, [1.0, 0.3])
    assert to_go_m == pytest.approx(1.2 + 0.1)
    point, to_go_m = look_ahead(path_m, (1.0, 1.0), 0.5)
    np.testing.assert_allclose(point, [1.0, 1.0])
    assert to_go_m == pytest.approx(0)
