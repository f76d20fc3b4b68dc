import numpy as np
import pytest

from inspatio_sim.mapping import WorldMap
from inspatio_sim.mapping.storage import NUM_BLOCKS
from inspatio_sim.motion.camera import Intrinsics
from tests.mapping.synthetic import INTRINSICS, ROOM, colours, insert, known, look, room_depth

BALL = ((-0.3, -0.3, 1.0), (0.3, 0.3, 1.4))  # hangs in the air
CRATE = ((-0.3, 0.6, 0.9), (0.3, 1.1, 1.5))  # stands on the floor


def inside(points_m, box, margin_m=0.0):
    return ((points_m > np.array(box[0]) - margin_m) & (points_m < np.array(box[1]) + margin_m)).all(axis=1)


def test_occupied_cells_are_where_the_walls_are_and_free_ones_are_not():
    world_map = WorldMap()
    yaws = np.arange(0, 2 * np.pi, 0.3)
    for yaw in yaws:
        insert(world_map, look(yaw))
    half_m = world_map.config.occupancy_voxel_m / 2
    occupied = world_map.occupied_voxels()
    wall_m = np.minimum(np.abs(occupied - ROOM[0]), np.abs(occupied - ROOM[1])).min(axis=1)
    assert wall_m.max() <= half_m + 1e-6  # every occupied cell is crossed by a wall
    free = world_map.free_voxels()
    assert inside(free, ROOM).all()
    space_m = np.random.default_rng(0).uniform(*ROOM, (5000, 3))
    space_m = space_m[inside(space_m, ROOM, -0.08)]
    u, v = INTRINSICS.width_px / 2 / INTRINSICS.fx_px, INTRINSICS.height_px / 2 / INTRINSICS.fy_px
    is_seen = np.zeros(len(space_m), dtype=bool)
    for yaw in yaws:
        x, y, z = (space_m @ look(yaw)[:3, :3]).T
        is_seen |= (np.abs(x) < u * z) & (np.abs(y) < v * z) & (z > 0.2)
    assert (world_map.occupancy_at(space_m[is_seen]) < 0).mean() > 0.97
    assert (world_map.occupancy_at(space_m[~is_seen]) < 0).mean() < 0.25  # cells at the rim are half seen
    far_wall = np.array([[x, y, 2.001] for x in np.linspace(-1, 1, 9) for y in np.linspace(-0.5, 0.5, 5)])
    assert (world_map.occupancy_at(far_wall) > 0).all()
    assert np.isnan(world_map.occupancy_at([[0, 0, 2.3], [0, -1.0, 0.0], [1e9, 0, 0]])).all()


@pytest.mark.parametrize("box", [BALL, CRATE])
def test_a_thing_that_left_is_forgotten_within_ten_frames(box):
    world_map, T = WorldMap(), look(0, pitch_rad=0.4 if box is CRATE else 0.0)
    for i in range(20):
        insert(world_map, T, boxes=[box], time_s=float(i))
    assert inside(world_map.point_cloud().position_m, box, 0.01).sum() > 500
    for i in range(10):
        insert(world_map, T, time_s=20.0 + i)
    floor_m = 0.03  # so near to the floor nobody can tell the two apart
    visible = ((box[0][0], box[0][1], box[0][2]), (box[1][0], min(box[1][1], 1.1 - floor_m), box[1][2]))
    cloud = world_map.point_cloud()
    assert not inside(cloud.position_m, visible, 0.001).any()
    assert not inside(world_map.occupied_voxels(), visible, -0.08).any()


def test_a_moving_thing_leaves_no_trail():
    world_map = WorldMap()
    for i in range(40):
        x = -1.0 + 0.05 * min(i, 30)
        insert(world_map, look(0), boxes=[((x - 0.2, -0.2, 1.0), (x + 0.2, 0.2, 1.2))], time_s=float(i))
    trail = ((-1.2, -0.3, 0.9), (0.2, 0.3, 1.3))
    assert not inside(world_map.point_cloud().position_m, trail).any()
    still = ((0.3, -0.3, 0.9), (0.71, 0.3, 1.3))
    assert inside(world_map.point_cloud().position_m, still).sum() > 100


@pytest.mark.parametrize("size_px", [(320, 180), (160, 96), (64, 48)])
def test_floor_and_walls_at_a_grazing_angle_are_kept(size_px):
    """A camera low over the floor of a corridor, close to one wall, looking along it and walking."""
    intrinsics = Intrinsics.from_fov(np.deg2rad(80), *size_px)
    corridor = ((-0.3, -1.5, -1.0), (2.0, 0.35, 12.0))
    world_map = WorldMap()
    hit = set()
    for i in range(15):
        insert(world_map, look(0.0, (0, 0, 0.1 * i)), room=corridor, intrinsics=intrinsics)
        hit |= {tuple(cell) for cell in np.round(world_map.occupied_voxels() / 0.04).astype(int)}
    now = {tuple(cell) for cell in np.round(world_map.occupied_voxels() / 0.04).astype(int)}
    assert len(hit) > 500
    assert hit == now


def test_noise_of_one_percent_does_not_eat_a_wall():
    rng = np.random.default_rng(0)
    world_map, T = WorldMap(), look(0)
    clean_m = room_depth(T)
    for i in range(30):
        depth_m = (clean_m * (1 + 0.01 * rng.standard_normal(clean_m.shape))).astype(np.float32)
        world_map.insert(colours(T, clean_m), depth_m, known(2), INTRINSICS, T, float(i))
    wall = np.array([[x, y, 2.0] for x in np.linspace(-1, 1, 21) for y in np.linspace(-0.7, 0.7, 15)])
    near, far = world_map.occupancy_at(wall - [0, 0, 0.04]), world_map.occupancy_at(wall + [0, 0, 0.04])
    assert (np.fmax(near, far) > 0).all()


def test_generated_free_space_does_not_touch_what_the_reference_saw():
    world_map = WorldMap()
    for _ in range(3):
        insert(world_map, look(0), boxes=[BALL])
    before = world_map.state()
    for _ in range(12):
        insert(world_map, look(0), source=0)
    cloud = world_map.point_cloud()
    on_ball = inside(cloud.position_m, BALL, 0.01)
    kept = before["position_m"][~np.isnan(before["position_m"][:, 0])]
    assert on_ball.sum() == inside(kept, BALL, 0.01).sum() > 100
    assert (world_map.occupancy_at([[0, 0, 1.001]]) > 0).all()


def test_generated_things_vanish_when_the_reference_looks_through_them():
    world_map = WorldMap()
    insert(world_map, look(0), boxes=[BALL], source=0)
    assert inside(world_map.point_cloud().position_m, BALL, 0.01).any()
    for _ in range(2):
        insert(world_map, look(0))
    assert not inside(world_map.point_cloud().position_m, BALL, 0.001).any()


def test_work_and_memory_do_not_grow_on_known_ground():
    """Counted, not timed: going round in a known room adds nothing, and freed rows are used again."""
    world_map = WorldMap()

    def lap(number: int) -> None:
        for i in range(12):
            x = 0.5 * np.cos(0.5 * i + number)
            box = ((x - 0.1, -0.1, 0.9), (x + 0.1, 0.1, 1.1))
            insert(world_map, look(2 * np.pi * i / 12), boxes=[box] if i == 0 else [], time_s=12.0 * number + i)

    for number in range(4):
        lap(number)
    blocks, bytes_before = int(world_map.storage.counts[NUM_BLOCKS]), world_map.memory_bytes
    for number in range(4, 10):
        lap(number)
    assert world_map.storage.counts[NUM_BLOCKS] == blocks
    assert world_map.memory_bytes == bytes_before
