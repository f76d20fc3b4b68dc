import numpy as np
import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid, WorldMap
from inspatio_sim.mapping.grid import grid_from_cells, ros_from_world
from tests.mapping.synthetic import insert, look

CRATE = ((0.5, 0.5, 0.8), (1.1, 1.1, 1.2))  # to the right of the camera, ahead, on the floor


def grid_of(text, resolution_m=1.0):
    """Rows from the top of the text down are rows of the grid from the last to the first."""
    values = {"#": 100, ".": 0, "?": -1}
    rows = [[values[mark] for mark in line.strip()] for line in text.strip().splitlines()]
    return PlanningGrid(cells=np.array(rows[::-1], dtype=np.int8), resolution_m=resolution_m, origin_m=(0.0, 0.0))


MAZE = grid_of("""
    ........
    .######.
    .#....#.
    .#....#.
    ......#.
""")


def test_ros_axes_of_known_points():
    np.testing.assert_array_equal(ros_from_world([[1, 2, 3], [-1, 0, 0]]), [[3, -1], [0, 1]])


def test_cells_land_where_rep_103_wants_them():
    """One cell 5 ahead and 2 right, a free one at the origin: column along z, row along -x."""
    grid = grid_from_cells(np.array([[2, 0, 5]]), np.array([[0, 0, 0]]), 0.5, -1.0, 1.0)
    assert grid.cells.shape == (3, 6)
    assert grid.cells[0, 5] == 100
    assert grid.cells[2, 0] == 0
    assert (grid.cells == -1).sum() == 16
    assert grid.origin_m == (0.0, -1.5)
    centre_m = ros_from_world((np.array([2, 0, 5]) + 0.5) * 0.5)
    np.testing.assert_array_equal(grid.cell_of(centre_m), [0, 5])
    np.testing.assert_allclose(grid.centre_of([0, 5]), centre_m)


def test_plan_of_a_mapped_room():
    world_map = WorldMap()
    for yaw in np.arange(0, 2 * np.pi, 0.25):
        insert(world_map, look(yaw, pitch_rad=0.35), boxes=[CRATE])
    assert world_map.floor_y_m() == pytest.approx(1.1, abs=0.08)
    grid = world_map.planning_grid()
    at = lambda x, z: grid.cells[tuple(grid.cell_of(ros_from_world([x, 0, z])))]  # noqa: E731
    assert at(0.0, 1.0) == at(-1.0, 0.5) == at(1.0, 0.0) == 0
    assert at(0.8, 0.801) == at(2.001, 0.0) == at(0.0, -2.001) == at(-2.001, 1.0) == 100
    assert at(0.0, 0.0) == 0  # where the camera itself stands
    low = world_map.planning_grid(step_height_m=0.7)  # a robot that climbs the crate
    assert low.cells[tuple(low.cell_of(ros_from_world([0.8, 0, 1.0])))] == 0


def test_paths_go_round_the_maze():
    path_m = MAZE.plan((3.5, 1.5), (7.5, 0.5))
    assert path_m is not None
    np.testing.assert_array_equal(path_m[[0, -1]], [[3.5, 1.5], [7.5, 0.5]])
    assert (MAZE.cells[tuple(MAZE.cell_of(path_m).T)] == 0).all()
    steps_m = np.hypot(*np.diff(path_m, axis=0).T)
    assert steps_m.max() <= np.sqrt(2) + 1e-9
    assert MAZE.distance_to((7.5, 0.5))[1, 3] == pytest.approx(steps_m.sum())
    assert steps_m.sum() > 15  # 4 as the crow flies


def test_distance_is_straight_where_nothing_stands():
    open_grid = grid_of("....\n....", resolution_m=0.5)
    np.testing.assert_allclose(open_grid.distance_to((0.1, 0.1))[0], [0, 0.5, 1.0, 1.5])
    assert open_grid.distance_to((0.1, 0.1))[1, 1] == pytest.approx(0.5 * np.sqrt(2))


def test_unknown_is_closed_unless_asked_for():
    grid = grid_of("..?..")
    assert grid.plan((0.5, 0.5), (4.5, 0.5)) is None
    assert np.isinf(grid.distance_to((0.5, 0.5))[0, 4])
    assert grid.plan((0.5, 0.5), (4.5, 0.5), is_unknown_free=True) is not None


def test_inflation_closes_gaps_that_are_too_narrow():
    door = grid_of("""
        ..#..
        .....
        ..#..
    """)
    assert door.plan((0.5, 1.5), (4.5, 1.5), robot_radius_m=0.4) is not None
    assert door.plan((0.5, 1.5), (4.5, 1.5), robot_radius_m=1.0) is None
    assert (door.inflated(1.0).cells == 100).sum() == 7  # both posts, their neighbours, the gap
    assert grid_of("...").inflated(2.0).cells.tolist() == [[0, 0, 0]]


def test_whoever_stands_too_near_to_a_wall_may_leave():
    grid = grid_of("#....")
    assert grid.plan((1.5, 0.5), (4.5, 0.5), robot_radius_m=1.2) is not None


@pytest.mark.parametrize("goal", [(-1, 0), (0, 99), (np.nan, 0), (1, 2, 3)])
def test_goals_outside_are_refused(goal):
    with pytest.raises(InputError, match="goal"):
        MAZE.distance_to(goal)


def test_grids_check_themselves():
    with pytest.raises(InputError, match="int8"):
        PlanningGrid(cells=np.zeros((2, 2)), resolution_m=1, origin_m=(0, 0))
    with pytest.raises(InputError, match="other values"):
        PlanningGrid(cells=np.full((2, 2), 7, dtype=np.int8), resolution_m=1, origin_m=(0, 0))
    with pytest.raises(InputError, match="resolution_m"):
        PlanningGrid(cells=np.zeros((2, 2), dtype=np.int8), resolution_m=0, origin_m=(0, 0))
