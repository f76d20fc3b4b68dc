"""The field against closed forms, and against all ways there are on small grids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label
from scipy.sparse.csgraph import dijkstra

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid
from inspatio_sim.mapping.geodesic import descend, geodesic_distance

GAP = 0.01  # of the length: what the field may be too long; the docstring says half of it was measured
CELL_M = 0.1

grids = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9)).map(
    lambda closed: ~closed | (np.indices(closed.shape).sum(axis=0) % 3 == 0)  # a third of the cells is always open
)


def straight_m(shape, goal):
    return np.hypot(*(np.indices(shape) - np.reshape(goal, (2, 1, 1)))) * CELL_M


def all_fields(is_open):
    """From every open cell to every open cell, metres. [N, N]"""
    return np.stack([geodesic_distance(is_open, tuple(cell), CELL_M)[is_open] for cell in np.argwhere(is_open)])


def is_line_free(is_open, a, b):
    """Plain test of a line between centres by points on it: just left or just right of each, the cell is open."""
    across = np.array([[a[1] - b[1], b[0] - a[0]]]) * 1e-6
    points = a + np.linspace(0, 1, 1081)[:, None] * np.subtract(b, a) + 0.5  # 1080 hits where four cells meet
    left, right = (is_open[tuple(np.floor(points + side).astype(int).T)] for side in (across, -across))
    return bool((left | right).all())


def shortest_of_all(is_open):
    """Every way that bends at centres: Dijkstra on all pairs of cells that see each other. [N, N]"""
    cells = np.argwhere(is_open)
    edges_m = np.zeros((len(cells), len(cells)))
    for i, a in enumerate(cells):
        for j, b in enumerate(cells[:i]):
            if is_line_free(is_open, a, b):
                edges_m[i, j] = edges_m[j, i] = np.hypot(*(a - b)) * CELL_M
    return dijkstra(edges_m)


@pytest.mark.parametrize("goal", [(100, 100), (0, 0), (7, 180)])
def test_open_space_is_exact(goal):
    is_open = np.ones((201, 201), dtype=bool)
    expected_m = straight_m(is_open.shape, goal)
    error_m = np.abs(geodesic_distance(is_open, goal, CELL_M) - expected_m)
    assert (error_m <= 1e-15 * expected_m).all()


@pytest.mark.parametrize("goal", [(3, 4), (20, 27), (29, 0), (0, 29)])
def test_one_corner_of_a_block(goal):
    """The shortest way of a point leads through the block's very corner; the field's is at most 0.42 cells longer."""
    is_open = np.ones((61, 61), dtype=bool)
    is_open[:30, 30:] = False
    row, column = np.indices(is_open.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        row_at_corner = goal[0] + (29.5 - goal[1]) / (column - goal[1]) * (row - goal[0])
    is_hidden = (column > 29.5) & (row_at_corner < 29.5)
    round_corner_m = (np.hypot(row - 29.5, column - 29.5) + np.hypot(goal[0] - 29.5, goal[1] - 29.5)) * CELL_M
    expected_m = np.where(is_hidden, round_corner_m, straight_m(is_open.shape, goal))
    assert is_hidden[is_open].any()
    error_m = (geodesic_distance(is_open, goal, CELL_M) - expected_m)[is_open]
    assert error_m.min() > -1e-9
    assert error_m.max() < 0.42 * CELL_M
    assert error_m.mean() < 0.1 * CELL_M


@settings(deadline=None, max_examples=25)
@given(is_open=grids)
def test_metric(is_open):
    """Zero only at the goal, symmetric, no detour shorter, never below the straight line."""
    distance_m = all_fields(is_open)
    cells = np.argwhere(is_open)
    crow_m = np.linalg.norm(cells[:, None] - cells[None], axis=-1) * CELL_M
    assert (distance_m >= crow_m * (1 - 1e-12)).all()
    assert ((distance_m == 0) == np.eye(len(cells), dtype=bool)).all()
    is_reached = np.isfinite(distance_m)
    np.testing.assert_array_equal(is_reached, is_reached.T)
    np.testing.assert_allclose(distance_m[is_reached], distance_m.T[is_reached], rtol=GAP)
    detour_m = (distance_m[:, :, None] + distance_m[None]).min(axis=1)
    assert (distance_m[is_reached] <= detour_m[is_reached] * (1 + GAP)).all()


@settings(deadline=None, max_examples=15)
@given(is_open=hnp.arrays(np.bool_, (6, 6)))
def test_no_way_is_shorter(is_open):
    if not is_open.any():
        return
    expected_m, distance_m = shortest_of_all(is_open), all_fields(is_open)
    is_reached = np.isfinite(expected_m)
    np.testing.assert_array_equal(np.isfinite(distance_m), is_reached)
    assert (distance_m[is_reached] >= expected_m[is_reached] * (1 - 1e-9)).all()
    assert (distance_m[is_reached] <= expected_m[is_reached] * (1 + GAP)).all()


@settings(deadline=None, max_examples=40)
@given(is_open=grids, seed=st.integers(0, 2**32 - 1))
def test_reached_is_what_edges_connect(is_open, seed):
    cells = np.argwhere(is_open)
    goal = tuple(cells[seed % len(cells)])
    group = np.asarray(label(is_open)[0])
    np.testing.assert_array_equal(
        np.isfinite(geodesic_distance(is_open, goal, CELL_M)), is_open & (group == group[goal])
    )


@settings(deadline=None, max_examples=40)
@given(is_open=grids, seed=st.integers(0, 2**32 - 1))
def test_descent_walks_the_field(is_open, seed):
    """From the cell farthest away: through open cells, in small steps, as long as the field says."""
    cells = np.argwhere(is_open)
    goal = tuple(cells[seed % len(cells)])
    distance_m = geodesic_distance(is_open, goal, CELL_M)
    reached = np.where(np.isfinite(distance_m), distance_m, -1)
    start = np.unravel_index(reached.argmax(), reached.shape)
    path = descend(distance_m, (int(start[0]), int(start[1])), CELL_M)
    np.testing.assert_array_equal(path[[0, -1]], [start, goal])
    assert is_open[tuple(np.floor(path + 0.5).astype(int).T)].all()
    steps_m = np.hypot(*np.diff(path, axis=0).T) * CELL_M
    assert (steps_m <= np.sqrt(2) * CELL_M + 1e-9).all()
    assert distance_m[start] * (1 - GAP) <= steps_m.sum() <= distance_m[start] * (1 + 1e-9)


def test_a_way_never_slips_between_two_closed_corners():
    is_open = np.array([[True, False], [False, True]])
    assert np.isinf(geodesic_distance(is_open, (0, 0), 1.0)[1, 1])
    is_open[0, 1] = True
    assert geodesic_distance(is_open, (0, 0), 1.0)[1, 1] == np.sqrt(2)


def test_a_plan_within_one_cell_has_both_ends():
    grid = PlanningGrid(cells=np.zeros((2, 2), dtype=np.int8), resolution_m=1.0, origin_m=(0.0, 0.0))
    path_m = grid.plan((0.2, 0.3), (0.9, 0.4))
    assert path_m is not None
    assert path_m.tolist() == [[0.2, 0.3], [0.9, 0.4]]


def test_a_closed_goal_is_reached_from_nowhere():
    is_open = np.ones((3, 3), dtype=bool)
    is_open[1, 1] = False
    assert np.isinf(geodesic_distance(is_open, (1, 1), 1.0)).all()


def test_errors_say_what_is_wrong():
    is_open = np.array([[True, False, True]])
    with pytest.raises(InputError, match=r"goal \(0, 3\) lies outside the grid of \(1, 3\)"):
        geodesic_distance(is_open, (0, 3), 1.0)
    with pytest.raises(InputError, match="cell_m=0"):
        geodesic_distance(is_open, (0, 0), 0.0)
    with pytest.raises(InputError, match="rows x columns"):
        geodesic_distance(is_open[0], (0, 0), 1.0)
    with pytest.raises(InputError, match="no path to the goal"):
        descend(geodesic_distance(is_open, (0, 0), 1.0), (0, 2), 1.0)
