"""The map as a floor plan: free, occupied and unknown cells, paths and distances through them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from inspatio_sim.errors import InputError
from inspatio_sim.mapping.geodesic import descend, geodesic_distance

UNKNOWN, FREE, OCCUPIED = -1, 0, 100


@dataclass(frozen=True, kw_only=True)
class PlanningGrid:
    """A 2-D grid in ROS axes (REP-103: x forward, y left, z up), like `nav_msgs/OccupancyGrid`.

    With the world frame's x right, y down, z forward: `x_ros = z_world`, `y_ros = -x_world`. Rows go along
    y_ros and columns along x_ros; `origin_m` is the outer corner of cell (0, 0).
    """

    cells: NDArray[np.int8]  # -1 unknown, 0 free, 100 occupied. [rows, columns]
    resolution_m: float  # edge of a cell
    origin_m: tuple[float, float]  # x_ros, y_ros

    def __post_init__(self) -> None:
        if self.cells.dtype != np.int8 or self.cells.ndim != 2 or self.cells.size == 0:
            raise InputError(f"grid cells are {self.cells.dtype} {self.cells.shape}: want int8 rows x columns")
        if not np.isin(self.cells, (UNKNOWN, FREE, OCCUPIED)).all():
            raise InputError("grid cells hold other values than -1, 0 and 100")
        if not (np.isfinite(self.resolution_m) and self.resolution_m > 0):
            raise InputError(f"resolution_m={self.resolution_m}: want a positive number")
        if len(self.origin_m) != 2 or not np.all(np.isfinite(self.origin_m)):
            raise InputError(f"origin_m={self.origin_m}: want two finite numbers")

    def cell_of(self, point_m: ArrayLike) -> NDArray[np.int64]:
        """Row and column of points in ROS axes; may lie outside. [..., 2] -> [..., 2]"""
        offset = (np.asarray(point_m, dtype=np.float64) - self.origin_m) / self.resolution_m
        return np.floor(offset[..., ::-1]).astype(np.int64)

    def centre_of(self, cell: ArrayLike) -> NDArray[np.float64]:
        """Centres of cells (row, column) in ROS axes. [..., 2] -> [..., 2]"""
        return (np.asarray(cell)[..., ::-1] + 0.5) * self.resolution_m + self.origin_m

    def inflated(self, radius_m: float) -> PlanningGrid:
        """Cells nearer than `radius_m` to an occupied one (centre to centre) become occupied."""
        if not radius_m >= 0:
            raise InputError(f"radius_m={radius_m}: want 0 or more")
        if not (self.cells == OCCUPIED).any():
            return self
        distance_m = np.asarray(distance_transform_edt(self.cells != OCCUPIED, sampling=self.resolution_m))
        cells = self.cells.copy()
        cells[distance_m <= radius_m] = OCCUPIED
        return replace(self, cells=cells)

    def distance_to(
        self, goal_m: ArrayLike, *, robot_radius_m: float = 0.0, is_unknown_free: bool = False
    ) -> NDArray[np.float64]:
        """Length of the shortest path from every cell to the goal, inf if there is none. [rows, columns]

        Measured between cell centres, straight through free space (see `geodesic_distance`, also for its error).
        """
        return self._distance_from(goal_m, "goal", robot_radius_m, is_unknown_free)

    def plan(
        self, start_m: ArrayLike, goal_m: ArrayLike, *, robot_radius_m: float = 0.0, is_unknown_free: bool = False
    ) -> NDArray[np.float64] | None:
        """Shortest path in ROS axes, both ends included; None if there is none. [M, 2]"""
        distance_m = self._distance_from(start_m, "start", robot_radius_m, is_unknown_free)
        goal = self._inside(goal_m, "goal")
        if not np.isfinite(distance_m[goal]):
            return None
        path_m = self.centre_of(descend(distance_m, goal, self.resolution_m)[::-1])
        ends_m = np.asarray([start_m, goal_m], dtype=np.float64)
        return np.concatenate([ends_m[:1], path_m[1:-1], ends_m[1:]])

    def _distance_from(
        self, point_m: ArrayLike, name: str, robot_radius_m: float, is_unknown_free: bool
    ) -> NDArray[np.float64]:
        seed = self._inside(point_m, name)
        cells = self.inflated(robot_radius_m).cells
        is_open = (cells == FREE) | (is_unknown_free & (cells == UNKNOWN))
        is_open[seed] |= self.cells[seed] != OCCUPIED  # a robot too near a wall may move away
        return geodesic_distance(is_open, seed, self.resolution_m)

    def _inside(self, point_m: ArrayLike, name: str) -> tuple[int, int]:
        point = np.asarray(point_m, dtype=np.float64)
        if point.shape != (2,) or not np.all(np.isfinite(point)):
            raise InputError(f"{name} is {point_m}: want two finite numbers (x, y in ROS axes, metres)")
        row, column = (int(i) for i in self.cell_of(point))
        if not (0 <= row < self.cells.shape[0] and 0 <= column < self.cells.shape[1]):
            raise InputError(f"{name} {point.tolist()} lies outside the grid of {self.cells.shape} cells")
        return row, column


def ros_from_world(points_m: ArrayLike) -> NDArray[np.float64]:
    """World points (x right, y down, z forward) on the ROS floor plane. [..., 3] -> [..., 2]"""
    points = np.asarray(points_m, dtype=np.float64)
    return np.stack([points[..., 2], -points[..., 0]], axis=-1)


def floor_height(cells: NDArray[np.int64], cell_m: float) -> float | None:
    """Height (world y, down) of the floor, at the middle of its occupied cells.

    The floor is the lowest layer with at least 30 % of the area of the largest layer, so a few stray
    cells below it do not count, and neither does a table or a ceiling above it. None without cells.
    """
    if len(cells) == 0:
        return None
    layer = cells[:, 1] - cells[:, 1].min()
    area = np.bincount(layer)
    lowest = np.nonzero(area >= 0.3 * area.max())[0][-1]
    return float((lowest + cells[:, 1].min() + 0.5) * cell_m)


def grid_from_cells(
    occupied: NDArray[np.int64], free: NDArray[np.int64], cell_m: float, top_y_m: float, bottom_y_m: float
) -> PlanningGrid:
    """Flatten the cells whose centres lie between two heights (world y, top above bottom: top < bottom).

    A column with an occupied cell is occupied; otherwise one with a free cell is free; otherwise it is unknown.

    Args:
        occupied: integer cell coordinates in the world frame. [M, 3]
        free: the same. [M, 3]
        cell_m: edge of a cell.
        top_y_m: height of the robot's head.
        bottom_y_m: height of the highest step it climbs.
    """
    bands = []
    for cells in (free, occupied):
        y_m = (cells[:, 1] + 0.5) * cell_m
        band = cells[(y_m >= top_y_m) & (y_m <= bottom_y_m)]
        bands.append(np.stack([-1 - band[:, 0], band[:, 2]], axis=-1))  # row along y_ros, column along x_ros
    both = np.concatenate(bands)
    if len(both) == 0:
        return PlanningGrid(cells=np.full((1, 1), UNKNOWN, dtype=np.int8), resolution_m=cell_m, origin_m=(0.0, 0.0))
    first = both.min(axis=0)
    grid = np.full(both.max(axis=0) - first + 1, UNKNOWN, dtype=np.int8)
    for value, band in zip((FREE, OCCUPIED), bands, strict=True):
        grid[tuple((band - first).T)] = value
    origin_m = (float(first[1] * cell_m), float(first[0] * cell_m))
    return PlanningGrid(cells=grid, resolution_m=cell_m, origin_m=origin_m)
