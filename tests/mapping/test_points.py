import numpy as np
import pytest

from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.motion.camera import Intrinsics
from tests.mapping.plain_insert import PlainMap
from tests.mapping.synthetic import INTRINSICS, colours, insert, known, look, room_depth

SMALL = Intrinsics.from_fov(np.deg2rad(70), 24, 18)


def rows_by_cell(world_map):
    """Rows of the pool that exist, by the integer coordinates of their point cell."""
    storage, rows = world_map.storage, {}
    for block in range(storage.counts[0]):
        key = int(storage.block_key[block])
        corner = [((key >> shift) & (2**21 - 1)) - 2**20 for shift in (42, 21, 0)]
        for cell in np.nonzero(storage.brick[block] >= 0)[0]:
            points = storage.brick_point[storage.brick[block, cell]]
            for slot in np.nonzero(points >= 0)[0]:
                place = tuple(
                    64 * corner[i] + 8 * (int(cell) >> shift & 7) + (int(slot) >> shift & 7)
                    for i, shift in enumerate((6, 3, 0))
                )
                step = 8 // world_map.config.points_per_edge
                rows[tuple(i // step for i in place)] = int(points[slot])
    return rows


@pytest.fixture
def insertion_only(monkeypatch):
    monkeypatch.setattr(WorldMap, "_carve", lambda *args: None)


@pytest.mark.usefixtures("insertion_only")
@pytest.mark.parametrize(("max_range_m", "points_per_edge"), [(2.5, 8), (10.0, 8), (10.0, 4), (10.0, 1)])
def test_insert_equals_the_plain_reference_exactly(max_range_m, points_per_edge):
    rng = np.random.default_rng(1)
    config = MapConfig(occupancy_voxel_m=0.3, max_range_m=max_range_m, points_per_edge=points_per_edge)
    fast, plain = WorldMap(config), PlainMap(config)
    for i in range(6):
        T = look(0.4 * i, (0.1 * i, 0, 0), 0.1)
        depth_m = room_depth(T, boxes=[((-0.5, -0.2, 1.0), (0.5, 1.1, 1.4))], intrinsics=SMALL)
        depth_m[rng.random(depth_m.shape) < 0.1] = 0
        source = rng.integers(0, 3, depth_m.shape).astype(np.uint8)
        rgb_u8 = rng.integers(0, 256, (*depth_m.shape, 3)).astype(np.uint8)
        for each in (fast, plain):
            each.insert(rgb_u8, depth_m, source, SMALL, T, float(i))

    rows = rows_by_cell(fast)
    assert rows.keys() == plain.points.keys()
    assert len(rows) == fast.num_points > (500 if points_per_edge == 8 else 100)
    for place, (position_m, rgb, confidence, last_seen_s, source) in plain.points.items():
        row = rows[place]
        np.testing.assert_array_equal(fast.storage.position_m[row], position_m)
        np.testing.assert_array_equal(fast.storage.rgb_mean[row], rgb)
        assert fast.storage.confidence[row] == confidence
        assert fast.storage.last_seen_s[row] == last_seen_s
        assert fast.storage.point_source[row] == source
    places = np.array(list(plain.cells))
    odds = fast.occupancy_at((places + 0.5) * config.occupancy_voxel_m)
    np.testing.assert_array_equal(odds, [cell[0] for cell in plain.cells.values()])
    assert len(fast.occupied_voxels()) == len(plain.cells)


def test_points_lie_on_the_surface_and_carry_its_colour():
    world_map = WorldMap()
    insert(world_map, look(0.3))
    cloud = world_map.point_cloud()
    distance_m = np.abs(np.abs(cloud.position_m - np.array([0, -0.1, 0])) - np.array([2.0, 1.2, 2.0])).min(axis=1)
    assert distance_m.max() < 1e-5
    expected = 127 + 100 * np.sin(3 * cloud.position_m.astype(np.float64))
    assert np.abs(cloud.rgb_u8 - expected).max() < 6
    assert (cloud.source == 2).all()
    assert (cloud.last_seen_s == 0).all()


def test_map_pixels_are_no_news():
    world_map = WorldMap()
    depth_m = room_depth(look(0))
    world_map.insert(colours(look(0), depth_m), depth_m, known(1), INTRINSICS, look(0), 0.0)
    assert world_map.num_points == 0
    assert len(world_map.occupied_voxels()) == 0
    assert np.abs(world_map.free_voxels()).max() < 0.25  # only where the camera itself is


def test_reference_replaces_generated_points_and_not_the_other_way_round():
    world_map, T = WorldMap(), look(0)
    depth_m = room_depth(T)
    red, blue = (np.full((64, 96, 3), colour, dtype=np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    world_map.insert(red, depth_m, known(0), INTRINSICS, T, 0.0)
    assert (world_map.point_cloud().source == 1).all()
    odds_generated = world_map.occupancy_at([[0, 0, 2.001]])[0]
    world_map.insert(blue, depth_m, known(2), INTRINSICS, T, 1.0)
    cloud = world_map.point_cloud()
    assert (cloud.source == 2).all()
    assert (cloud.rgb_u8 == (0, 0, 200)).all()
    assert 0 < odds_generated < world_map.occupancy_at([[0, 0, 2.001]])[0]
    before = world_map.state()
    world_map.insert(red, depth_m, known(0), INTRINSICS, T, 2.0)
    after = world_map.state()
    for name in ("rgb_u8", "position_m", "last_seen_s", "confidence", "log_odds", "point_source"):
        np.testing.assert_array_equal(before[name], after[name])


def test_a_place_looks_the_same_when_it_is_rendered():
    world_map = WorldMap()
    for yaw in (-0.2, 0.0, 0.2):
        insert(world_map, look(yaw))
    T = look(0.1, (0.05, 0, 0.05))
    depth_m = room_depth(T)
    render = world_map.render(INTRINSICS, T)
    assert render.is_known.mean() > 0.9
    error_m = np.abs(render.depth_m - depth_m)[render.is_known]
    assert np.median(error_m) < 0.01
    error_u8 = np.abs(render.rgb_u8.astype(int) - colours(T, depth_m))[render.is_known]
    assert np.median(error_u8) <= 4


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rgb_u8", np.zeros((64, 95, 3), np.uint8), "rgb is uint8"),
        ("depth_m", np.full((64, 96), np.nan, np.float32), "depth has NaN"),
        ("depth_m", np.full((64, 96), -1, np.float32), "depth has NaN"),
        ("depth_m", np.zeros((64, 96)), "depth is float64"),
        ("known", np.full((64, 96), 3, np.uint8), "known is uint8"),
        ("T_world_camera", np.diag([1.0, 1, -1, 1]), "left-handed"),
        ("T_world_camera", look(0, (1e7, 0, 0)), "camera is at"),
        ("time_s", np.nan, "time_s=nan"),
    ],
)
def test_bad_frames_are_refused_and_change_nothing(name, value, message):
    world_map, depth_m = WorldMap(), room_depth(look(0))
    frame = {
        "rgb_u8": colours(look(0), depth_m), "depth_m": depth_m, "known": known(2), "intrinsics": INTRINSICS,
        "T_world_camera": look(0), "time_s": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        world_map.insert(**(frame | {name: value}))
    assert world_map.num_frames == world_map.num_points == 0
