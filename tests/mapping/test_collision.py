import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import WorldMap
from inspatio_sim.mapping.storage import find_or_add_block, pack_key
from tests.mapping.synthetic import insert, look

CELL_M = 0.08
coordinates = st.tuples(*[st.floats(-0.5, 0.6, allow_nan=False)] * 3).map(np.array)


def map_with(cells):
    """A map with these cells (integer coordinates) occupied."""
    world_map = WorldMap()
    for x, y, z in cells:
        block = find_or_add_block(world_map.storage, pack_key(x >> 3, y >> 3, z >> 3))
        cell = ((x & 7) << 6) | ((y & 7) << 3) | (z & 7)
        world_map.storage.log_odds[block, cell] = 1.0
        world_map.storage.cell_source[block, cell] = 2
    return world_map


CUBE = [(x, y, z) for x in range(2) for y in range(2) for z in range(2)]
CUBE_MAP = map_with(CUBE)
WALL_MAP = map_with([(x, y, 10) for x in range(-12, 12) for y in range(-12, 12)])


def cube_distance(point_m):
    """Distance to the box [0, 2 cells]^3."""
    return np.linalg.norm(np.maximum(np.maximum(-point_m, point_m - 2 * CELL_M), 0), axis=-1)


@settings(max_examples=150, deadline=None)
@given(start=coordinates, end=coordinates, radius_m=st.floats(0.01, 0.25))
@example(np.array([0, 0.2801030244672533, 2.3e-308]), np.array([0, 0, -0.25]), 0.25)  # a first interval of no length
def test_contact_with_a_box_is_exact(start, end, radius_m):
    sweep = CUBE_MAP.sweep_sphere(start, end, radius_m)
    track_m = start + np.linspace(0, 1, 4001)[:, None] * (end - start)
    distance_m = cube_distance(track_m)
    allowed_m = min(radius_m, distance_m[0])  # whoever stands too near may not come nearer
    if distance_m[0] <= 1e-5:  # inside: may go anywhere
        return
    free = track_m[np.linspace(0, 1, 4001) <= sweep.fraction]
    assert cube_distance(free).min() >= allowed_m - 2e-5
    step_m = np.linalg.norm(end - start) / 4000
    if sweep.fraction < 1:
        assert sweep.normal is not None
        contact_m = start + sweep.fraction * (end - start)
        assert cube_distance(contact_m) <= allowed_m + 1e-6
        assert np.linalg.norm(sweep.normal) == pytest.approx(1)
        assert sweep.normal @ (end - start) <= 1e-9
        assert distance_m.min() <= allowed_m - 1e-5 + step_m
    else:
        assert sweep.normal is None
        assert distance_m.min() >= allowed_m - 2e-5


def test_a_wall_stops_a_sphere_at_its_radius():
    sweep = WALL_MAP.sweep_sphere([0.01, 0.02, 0], [0.01, 0.02, 1.0], 0.15)
    assert sweep.fraction == pytest.approx(0.8 - 0.15)
    np.testing.assert_allclose(sweep.normal, [0, 0, -1], atol=1e-9)


def test_a_sphere_slides_along_a_wall_it_touches():
    start = np.array([0.01, 0.02, 0.8 - 0.15])
    assert WALL_MAP.sweep_sphere(start, start + [0.5, 0.1, 0], 0.15).fraction == 1
    assert WALL_MAP.sweep_sphere(start, start + [0, 0, -0.3], 0.15).fraction == 1
    assert WALL_MAP.sweep_sphere(start, start + [0, 0, 0.1], 0.15).fraction == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("depth_m", [0.05, 0.0, -0.04])
def test_a_sphere_that_starts_in_a_wall_can_leave_it(depth_m):
    start = np.array([0.01, 0.02, 0.8 - depth_m])
    assert WALL_MAP.sweep_sphere(start, start + [0, 0, -0.5], 0.15).fraction == 1
    if depth_m > 0:
        assert WALL_MAP.sweep_sphere(start, start + [0, 0, 0.3], 0.15).fraction == pytest.approx(0, abs=1e-9)


def test_standing_still_is_always_free():
    for z in (0.3, 0.65, 0.75, 0.85):
        assert WALL_MAP.sweep_sphere([0, 0, z], [0, 0, z], 0.15).fraction == 1


def test_a_mapped_wall_is_an_obstacle():
    world_map = WorldMap()
    insert(world_map, look(0))
    sweep = world_map.sweep_sphere([0, 0, 0], [0, 0, 3], 0.15)
    assert sweep.fraction * 3 == pytest.approx(2.0 - 0.15, abs=0.09)
    assert WorldMap().sweep_sphere([0, 0, 0], [0, 0, 3], 0.15).fraction == 1


def test_bad_motions_are_refused():
    with pytest.raises(InputError, match="end is"):
        CUBE_MAP.sweep_sphere([0, 0, 0], [0, np.nan, 0], 0.1)
    with pytest.raises(InputError, match="radius_m=0"):
        CUBE_MAP.sweep_sphere([0, 0, 0], [0, 1, 0], 0)
