"""What an env shows, against worked examples."""

import numpy as np
import pytest
from inspatio_envs.spaces import heading, observation_space, read_codes, read_depth, read_goal, read_grid, read_pose
from scipy.spatial.transform import Rotation

from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.motion.camera import Intrinsics, pose_from
from tests.envs.conftest import make


def turned(rotvec, t_m=(0, 0, 0)):
    return pose_from(Rotation.from_rotvec(rotvec).as_matrix(), t_m)


def test_goal_says_how_far_and_which_way():
    here = turned([0, 0, 0], [1, 0, 1])
    assert read_goal(here, np.array([1.0, 0, 4])) == pytest.approx([3, 1, 0, 0])  # ahead
    assert read_goal(here, np.array([-1.0, 0, 1])) == pytest.approx([2, 0, 1, 0], abs=1e-6)  # left
    assert read_goal(here, np.array([1.0, -0.5, 0])) == pytest.approx([1, -1, 0, 0.5], abs=1e-6)  # behind, higher
    looks_left = turned([0, -np.pi / 2, 0])
    assert read_goal(looks_left, np.array([-2.0, 0, 0])) == pytest.approx([2, 1, 0, 0], abs=1e-6)
    assert read_goal(here, here[:3, 3]) == pytest.approx([0, 1, 0, 0])
    far = read_goal(here, np.array([1e9, 1e9, 0]))
    assert far in observation_space(("goal",), (8, 8), 8, "plain")["goal"]


def test_heading_of_a_tilted_camera():
    assert heading(turned([0.5, 0, 0])) == pytest.approx((0, 1))  # looks up
    for tilt in (-np.pi / 2, np.pi / 2):  # straight down, straight up
        assert heading(turned([tilt, 0, 0])) == pytest.approx((0, 1), abs=1e-6)


def test_pose_is_position_and_quaternion():
    pose = read_pose(turned([0, np.pi / 2, 0], [1, 2, 3]))
    assert pose == pytest.approx([1, 2, 3, 0, np.sqrt(0.5), 0, np.sqrt(0.5)])
    assert read_pose(turned([0, 3.5, 0]))[6] >= 0


def test_pictures_are_bytes():
    depth_m = np.array([[0, 0.001, 5, 10, 50]], np.float32)
    assert read_depth(depth_m, "pictures")[0, :, 0].tolist() == [0, 1, 128, 255, 255]
    assert read_depth(np.array([[0, 500]], np.float32), "plain").tolist() == [[0, 100]]
    codes = np.array([[0, 1, 2]], np.uint8)
    assert read_codes(codes, "pictures")[0, :, 0].tolist() == [0, 127, 255]
    assert read_codes(codes, "plain") is not codes


def wall_map():
    """A camera at the origin, 1 m above the floor, looks at a wall 2 m ahead, 4 m wide and 1 m high."""
    world_map = WorldMap(MapConfig(occupancy_voxel_m=0.1))
    intrinsics = Intrinsics.from_fov(np.radians(90), 161, 81)
    depth_m = np.full((81, 161), 2.05, np.float32)
    known = np.full(depth_m.shape, 2, np.uint8)
    for _ in range(3):
        world_map.insert(np.zeros((81, 161, 3), np.uint8), depth_m, known, intrinsics, np.eye(4), 0.0)
    return world_map


@pytest.mark.parametrize("yaw_rad", [0.0, np.pi / 2, np.pi, -np.pi / 2])
def test_grid_turns_with_the_agent(yaw_rad):
    world_map = wall_map()
    grid = read_grid(world_map, np.eye(4), 1.0, 50, 0.1)
    assert grid.shape == (50, 50)
    assert (grid[4, 10:40] == 2).all()  # the wall: 2.0 to 2.1 m ahead of the centre
    assert (grid[5:20, 24:26] == 1).all()  # free up to it
    assert (grid[27:] == 0).all()  # behind nobody has looked
    assert (grid[:4] == 0).all()
    seen = read_grid(world_map, turned([0, yaw_rad, 0]), 1.0, 50, 0.1)
    quarters = round(yaw_rad / (np.pi / 2))  # to the right: the world turns left
    expected = np.rot90(grid, quarters)
    assert np.mean(seen == expected) > 0.99  # cell edges fall on sampling points


def test_grid_of_an_env_is_the_plan_of_its_map():
    env = make(observations=["grid"], grid_cells=80).unwrapped
    observation, _ = env.reset(seed=0)
    plan = env.world.map.planning_grid(floor_y_m=env.place.floor_y_m)
    cell_m = 0.1
    ahead = (40 - 0.5 - np.arange(80)) * cell_m
    x_ros, y_ros = np.meshgrid(ahead, ahead, indexing="ij")  # the first camera is the origin
    row, column = np.moveaxis(plan.cell_of(np.stack([x_ros, y_ros], axis=-1)), -1, 0)
    is_inside = (row >= 0) & (column >= 0) & (row < plan.cells.shape[0]) & (column < plan.cells.shape[1])
    expected = np.zeros((80, 80), np.uint8)
    values = plan.cells[row[is_inside], column[is_inside]]
    expected[is_inside] = np.select([values == 0, values == 100], [1, 2], 0)
    assert np.array_equal(observation["grid"], expected)
    assert set(np.unique(expected)) == {0, 1, 2}
