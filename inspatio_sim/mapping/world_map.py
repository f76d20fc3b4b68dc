"""WorldMap: everything the world remembers."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.geometry.keys import PointsInView, select_points
from inspatio_sim.geometry.splat import SplatRender, splat
from inspatio_sim.kernels import chunk_bounds, run_chunks
from inspatio_sim.mapping.carving import (
    add_blocks,
    blocks_in_view,
    carve_blocks,
    evidence_of,
    free_around_camera,
    give_back,
)
from inspatio_sim.mapping.collision import Sweep, sweep_sphere
from inspatio_sim.mapping.config import MapConfig
from inspatio_sim.mapping.files import PointCloud, read_npz, write_npz, write_points
from inspatio_sim.mapping.grid import PlanningGrid, floor_height, grid_from_cells
from inspatio_sim.mapping.occupancy import cells_where, log_odds_at
from inspatio_sim.mapping.picture import draw_top_down
from inspatio_sim.mapping.points import Samples, empty_samples, fuse_samples, lift_pixels
from inspatio_sim.mapping.storage import (
    FRAME,
    MAX_BLOCK_COORDINATE,
    NUM_BLOCKS,
    NUM_FREE_POINTS,
    NUM_POINTS,
    Storage,
    empty_storage,
    grown,
    state_of,
    storage_from_state,
)
from inspatio_sim.motion.camera import Array, Intrinsics, check_pose, inverse

MAX_CHUNKS = 8
PIXELS_PER_CHUNK = 4096  # fewer are not worth a second thread
POINT_SIZE = 1.5  # drawn edge of a point, in point cells or pixel distances, since neighbours may be further apart


class WorldMap:
    """Coloured points and occupancy of everything seen, in the world frame (y down, metres).

    `insert` frames, `render` them from elsewhere, ask `occupancy_at`, `sweep_sphere`, `planning_grid`.
    """

    def __init__(self, config: MapConfig | None = None) -> None:
        self.config = config or MapConfig()
        self.storage: Storage = empty_storage()
        self._samples: Samples = empty_samples(0)

    def insert(
        self,
        rgb_u8: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        known: NDArray[np.uint8],
        intrinsics: Intrinsics,
        T_world_camera: Array,
        time_s: float,
    ) -> None:
        """Merge one frame: points and occupied cells where it hits, free space where it looks through.

        Args:
            rgb_u8: colours. [H, W, 3]
            depth_m: z-depth, 0 = unknown. [H, W]
            known: 2 = seen in the reference, 1 = rendered from this map (skipped), 0 = generated
                (weaker, and outranked by the reference). [H, W]
            intrinsics: the frame's camera.
            T_world_camera: pose of the frame. [4, 4]
            time_s: simulated time, kept as the points' last-seen time.
        """
        config = self.config
        rgb_u8, depth_m, known, T = self._checked(rgb_u8, depth_m, known, intrinsics, T_world_camera, time_s)
        camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px])
        self.storage.counts[FRAME] += 1
        height_px, width_px = depth_m.shape
        if len(self._samples.block_key) != depth_m.size:
            self._samples = empty_samples(depth_m.size)
        samples = self._samples
        bounds = chunk_bounds(height_px, _num_chunks(depth_m))
        lengths = run_chunks(
            lift_pixels,
            [(rgb_u8, depth_m, known, camera, T, config.near_m, config.max_range_m, config.point_voxel_m,
              config.points_per_edge, *rows, samples) for rows in bounds],
        )  # fmt: skip
        for (first_row, _), length in zip(bounds, lengths, strict=True):
            row, stop = first_row * width_px, first_row * width_px + length
            while (
                row := fuse_samples(
                    self.storage, samples, row, stop, time_s, config.hit_log_odds, config.max_log_odds,
                    config.generated_weight, config.max_confidence,
                )
            ) < stop:  # fmt: skip
                self.storage = grown(self.storage)
        self._carve(depth_m, known, camera, T)
        if self.storage.counts[NUM_BLOCKS] + 8 > len(self.storage.block_key):
            self.storage = grown(self.storage)
        free_around_camera(
            self.storage, T[:3, 3], config.occupancy_voxel_m, config.miss_log_odds, config.generated_weight
        )

    def _carve(self, depth_m: NDArray[np.float32], known: NDArray[np.uint8], camera: Array, T: Array) -> None:
        config = self.config
        evidence = evidence_of(
            depth_m, known, camera, inverse(T), config.near_m, config.max_range_m, config.depth_tolerance
        )
        reach_m = min(float(evidence.farthest_m[-1]), config.max_range_m)
        if reach_m < config.near_m:
            return
        block_m = 8 * config.occupancy_voxel_m
        first, stop = _frustum_blocks(depth_m.shape, camera, T, reach_m, block_m)
        keys, views = blocks_in_view(evidence, first, stop, block_m)
        rows = np.empty(len(keys), dtype=np.int64)
        start = 0
        while (start := add_blocks(self.storage, keys, start, rows)) < len(keys):
            self.storage = grown(self.storage)
        lost = run_chunks(
            carve_blocks,
            [(self.storage, evidence, rows, views, *chunk, config.occupancy_voxel_m, config.miss_log_odds,
              config.min_log_odds, config.generated_weight, config.min_confidence)
             for chunk in chunk_bounds(len(keys), _num_chunks(depth_m))],
        )  # fmt: skip
        for lost_points, lost_bricks in lost:
            give_back(self.storage, lost_points, lost_bricks)

    def _checked(self, rgb_u8, depth_m, known, intrinsics, T_world_camera, time_s):  # noqa: ANN001
        H, W = intrinsics.height_px, intrinsics.width_px
        if rgb_u8.dtype != np.uint8 or rgb_u8.shape != (H, W, 3):
            raise InputError(f"rgb is {rgb_u8.dtype} {rgb_u8.shape}: want uint8 {(H, W, 3)}")
        if depth_m.dtype != np.float32 or depth_m.shape != (H, W):
            raise InputError(f"depth is {depth_m.dtype} {depth_m.shape}: want float32 {(H, W)}")
        if known.dtype != np.uint8 or known.shape != (H, W) or known.max() > 2:
            raise InputError(f"known is {known.dtype} {known.shape}: want uint8 {(H, W)} of 0, 1 or 2")
        if not (depth_m.min() >= 0 and depth_m.max() < np.inf):
            raise InputError("depth has NaN, inf or negative values: want metres, 0 where unknown")
        if not np.isfinite(time_s):
            raise InputError(f"time_s={time_s}: want a finite number")
        T = check_pose(T_world_camera, "T_world_camera")
        limit_m = MAX_BLOCK_COORDINATE * 8 * self.config.occupancy_voxel_m / 2
        if np.abs(T[:3, 3]).max() > limit_m:
            raise InputError(f"camera is at {T[:3, 3].tolist()}: want it within {limit_m:.0f} m of the origin")
        return np.ascontiguousarray(rgb_u8), np.ascontiguousarray(depth_m), np.ascontiguousarray(known), T

    def render(self, intrinsics: Intrinsics, T_world_camera: Array) -> SplatRender:
        """Render the map from a camera; `index` holds rows of `points_m`."""
        return splat(
            self.points_m,
            self.rgb_u8,
            intrinsics,
            T_world_camera,
            near_m=self.config.render_near_m,
            point_size_m=self._drawn_size_m(),
        )

    def points_in_view(self, intrinsics: Intrinsics, T_world_camera: Array) -> PointsInView:
        """What `render` would draw in any of F views. [F, 4, 4]"""
        near_m = self.config.render_near_m
        row, xyz_size_m = select_points(self.points_m, self._drawn_size_m(), intrinsics, T_world_camera, near_m)
        return PointsInView(
            rgb_u8=self.rgb_u8, is_generated=self.is_generated, row=row, xyz_size_m=xyz_size_m, near_m=near_m
        )

    def _drawn_size_m(self) -> NDArray[np.float32]:
        """Edge of the square that closes the gap to a point's neighbours. [N]"""
        size_m = self.storage.size_m[: self.storage.counts[NUM_POINTS]]
        return np.float32(POINT_SIZE) * np.maximum(size_m, np.float32(self.config.point_voxel_m))

    @property
    def points_m(self) -> NDArray[np.float32]:
        """All rows of the pool, NaN where deleted (a view, no copy). [N, 3]"""
        return self.storage.position_m[: self.storage.counts[NUM_POINTS]]

    @property
    def rgb_u8(self) -> NDArray[np.uint8]:
        """Colours of `points_m`. [N, 3]"""
        return self.storage.rgb_u8[: self.storage.counts[NUM_POINTS]]

    @property
    def is_generated(self) -> NDArray[np.bool_]:
        """Rows of `points_m` that were never filmed. [N]"""
        return self.storage.point_source[: self.storage.counts[NUM_POINTS]] == 1

    @property
    def num_points(self) -> int:
        """Number of points."""
        return int(self.storage.counts[NUM_POINTS] - self.storage.counts[NUM_FREE_POINTS])

    @property
    def num_frames(self) -> int:
        """Frames inserted."""
        return int(self.storage.counts[FRAME])

    @property
    def memory_bytes(self) -> int:
        """Size of all arrays, unused capacity included."""
        return sum(array.nbytes for array in self.storage)

    def occupancy_at(self, points_m: ArrayLike) -> NDArray[np.float32]:
        """Log-odds of the cells that hold the points: > 0 occupied, < 0 free, NaN never seen. [N, 3] -> [N]"""
        points = np.asarray(points_m, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(f"points have shape {points.shape}: want N x 3")
        return log_odds_at(self.storage, points, self.config.occupancy_voxel_m)

    def occupied_voxels(self) -> NDArray[np.float64]:
        """Centres of the occupied cells in metres. [M, 3]"""
        return _centres(cells_where(self.storage, is_occupied=True), self.config.occupancy_voxel_m)

    def free_voxels(self) -> NDArray[np.float64]:
        """Centres of the free cells in metres. [M, 3]"""
        return _centres(cells_where(self.storage, is_occupied=False), self.config.occupancy_voxel_m)

    def sweep_sphere(self, start_m: ArrayLike, end_m: ArrayLike, radius_m: float) -> Sweep:
        """How far a sphere gets from start to end before it touches something (see `collision`)."""
        start, end = np.asarray(start_m, dtype=np.float64), np.asarray(end_m, dtype=np.float64)
        for name, point in (("start", start), ("end", end)):
            if point.shape != (3,) or not np.all(np.isfinite(point)):
                raise InputError(f"{name} is {point.tolist()}: want three finite numbers")
        if not (np.isfinite(radius_m) and radius_m > 0):
            raise InputError(f"radius_m={radius_m}: want a positive number")
        return sweep_sphere(self.storage, self.config.occupancy_voxel_m, start, end, float(radius_m))

    def floor_y_m(self) -> float | None:
        """Height of the floor (world y, down), None if the map has no occupied cell."""
        return floor_height(cells_where(self.storage, is_occupied=True), self.config.occupancy_voxel_m)

    def planning_grid(
        self, *, floor_y_m: float | None = None, step_height_m: float = 0.15, robot_height_m: float = 1.5
    ) -> PlanningGrid:
        """The floor plan of what stands between the highest step and the robot's head.

        Args:
            floor_y_m: height of the floor (world y, down); None: `floor_y_m()`.
            step_height_m: things lower than this above the floor are not obstacles.
            robot_height_m: nor are things higher than this.
        """
        if not 0 <= step_height_m < robot_height_m:
            raise InputError(f"step_height_m={step_height_m}: want 0 or more, below robot_height_m={robot_height_m}")
        floor = self.floor_y_m() if floor_y_m is None else floor_y_m
        occupied, free = (cells_where(self.storage, is_occupied=flag) for flag in (True, False))
        if floor is None:  # no surface was ever seen: all free space is the plan
            return grid_from_cells(occupied, free, self.config.occupancy_voxel_m, -math.inf, math.inf)
        return grid_from_cells(
            occupied, free, self.config.occupancy_voxel_m, floor - robot_height_m, floor - step_height_m
        )

    def top_down_image(
        self,
        path_m: ArrayLike | None = None,
        *,
        T_world_camera: Array | None = None,
        size_px: int = 480,
    ) -> NDArray[np.uint8]:
        """A square picture from above with the path; world z is up in it, world x right. [size_px, size_px, 3]

        Args:
            path_m: camera positions so far. [P, 3]
            T_world_camera: the current camera, for its heading; None: the direction of the last motion.
            size_px: edge of the picture.
        """
        path = None if path_m is None else np.asarray(path_m, dtype=np.float64)
        if path is not None and (path.ndim != 2 or path.shape[1] != 3 or len(path) == 0):
            raise InputError(f"path has shape {path.shape}: want P x 3 with at least one position")
        heading = None if T_world_camera is None else T_world_camera[:3, 2]
        free = cells_where(self.storage, is_occupied=False)
        return draw_top_down(self.points_m, self.rgb_u8, free, self.config.occupancy_voxel_m, path, heading, size_px)

    def point_cloud(self) -> PointCloud:
        """Copies of all points."""
        exists = ~np.isnan(self.points_m[:, 0])
        num_rows = len(exists)
        return PointCloud(
            position_m=self.points_m[exists],
            rgb_u8=self.rgb_u8[exists],
            confidence=self.storage.confidence[:num_rows][exists],
            last_seen_s=self.storage.last_seen_s[:num_rows][exists],
            source=self.storage.point_source[:num_rows][exists],
        )

    def write_ply(self, path: str | Path) -> None:
        """Write the points as binary PLY (see `files.write_points`)."""
        write_points(self.point_cloud(), Path(path).with_suffix(".ply"))

    def write_pcd(self, path: str | Path) -> None:
        """Write the points as binary PCD (see `files.write_points`)."""
        write_points(self.point_cloud(), Path(path).with_suffix(".pcd"))

    def save(self, path: str | Path) -> None:
        """Write the whole map, config included, as one npz."""
        config = {f"config.{name}": np.array(value, dtype=np.float64) for name, value in vars(self.config).items()}
        write_npz(self.state() | config, path)

    @classmethod
    def load(cls, path: str | Path) -> WorldMap:
        """Read a map that `save` wrote; it continues bit-exactly."""
        arrays = read_npz(path)
        names = [field.name for field in fields(MapConfig)]
        missing = [name for name in names if f"config.{name}" not in arrays or arrays[f"config.{name}"].shape != ()]
        if missing:
            raise InputError(f"{path}: no number {', '.join(missing)}: want a map written by `save`")
        values: dict[str, Any] = {name: arrays.pop(f"config.{name}").item() for name in names}
        world_map = cls(MapConfig(**values | {"points_per_edge": int(values["points_per_edge"])}))
        world_map.load_state(arrays)
        return world_map

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything needed to continue bit-exactly, as copies."""
        return state_of(self.storage)

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore the result of `state`; the map's config must be the same."""
        self.storage = storage_from_state(state)


def _centres(cells: NDArray[np.int64], cell_m: float) -> NDArray[np.float64]:
    return (cells.astype(np.float64) + 0.5) * cell_m


def _num_chunks(depth_m: NDArray[np.float32]) -> int:
    return min(max(depth_m.size // PIXELS_PER_CHUNK, 1), MAX_CHUNKS)


def _frustum_blocks(shape: tuple[int, int], camera: Array, T: Array, reach_m: float, block_m: float):
    """Box of block coordinates around a view up to a z-depth: first [3] and stop [3]."""
    height_px, width_px = shape
    corners = [[(u - camera[2]) / camera[0] * reach_m, (v - camera[3]) / camera[1] * reach_m, reach_m]
               for u in (-0.5, width_px - 0.5) for v in (-0.5, height_px - 0.5)]  # fmt: skip
    points = np.array([[0.0, 0.0, 0.0], *corners]) @ T[:3, :3].T + T[:3, 3]
    first = np.floor(points.min(axis=0) / block_m).astype(np.int64)
    return first, np.floor(points.max(axis=0) / block_m).astype(np.int64) + 1
