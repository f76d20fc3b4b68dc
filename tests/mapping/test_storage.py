import numpy as np
import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.mapping.storage import pack_key, unpack_key
from tests.mapping.synthetic import INTRINSICS, insert, look


def walk(world_map, first, stop):
    for i in range(first, stop):
        box = ((-0.2 + 0.1 * i, -0.2, 1.0), (0.1 + 0.1 * i, 0.2, 1.2))
        insert(world_map, look(0.15 * i, (0.02 * i, 0, 0)), boxes=[box], time_s=float(i), source=2 * (i % 3 > 0))


def assert_same(state, other):
    assert state.keys() == other.keys()
    for name in state:
        np.testing.assert_array_equal(state[name], other[name], err_msg=name)


@pytest.mark.parametrize("point", [(0, 0, 0), (-1, 2, -3), (2**20 - 1, -(2**20), 5)])
def test_keys_round_trip(point):
    assert unpack_key(pack_key(*point)) == point


def test_state_and_go_on_equals_go_on():
    straight, resumed = WorldMap(), WorldMap()
    walk(straight, 0, 8)
    resumed.load_state(straight.state())
    assert_same(straight.state(), resumed.state())
    for each in (straight, resumed):
        walk(each, 8, 16)
    assert_same(straight.state(), resumed.state())
    a, b = (each.render(INTRINSICS, look(0.5)) for each in (straight, resumed))
    np.testing.assert_array_equal(a.rgb_u8, b.rgb_u8)
    np.testing.assert_array_equal(a.index, b.index)


def test_a_state_does_not_change_when_the_map_goes_on():
    world_map = WorldMap()
    walk(world_map, 0, 3)
    state = world_map.state()
    kept = {name: values.copy() for name, values in state.items()}
    walk(world_map, 3, 6)
    assert_same(state, kept)


def test_save_and_load_go_on_bit_exactly(tmp_path):
    straight = WorldMap(MapConfig(occupancy_voxel_m=0.12, generated_weight=0.3, points_per_edge=4))
    walk(straight, 0, 5)
    straight.save(tmp_path / "map.npz")
    resumed = WorldMap.load(tmp_path / "map.npz")
    assert resumed.config == straight.config
    for each in (straight, resumed):
        walk(each, 5, 9)
    assert_same(straight.state(), resumed.state())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("log_odds", None, "no array 'log_odds'"),
        ("log_odds", lambda values: values.astype(np.float64), "'log_odds' is float64"),
        ("position_m", lambda values: values[:-1], "'position_m' is float32"),
        ("brick_point", lambda values: values + 10**8, "'brick_point' points outside the map"),
        ("counts", lambda values: -values, "want nothing negative"),
    ],
)
def test_damaged_states_are_refused_and_change_nothing(name, change, message):
    world_map = WorldMap()
    walk(world_map, 0, 2)
    state = world_map.state()
    damaged = {key: values for key, values in state.items() if key != name or change}
    if change:
        damaged[name] = change(state[name])
    with pytest.raises(InputError, match=message):
        world_map.load_state(damaged)
    assert_same(world_map.state(), state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("occupancy_voxel_m", 0),
        ("max_range_m", 0.01),
        ("min_log_odds", 1),
        ("generated_weight", 2),
        ("near_m", np.nan),
        ("points_per_edge", 3),
    ],
)
def test_config_names_the_bad_field(field, value):
    with pytest.raises(InputError, match=field):
        MapConfig(**{field: value})
