"""Depth images go in; the floor area that they show comes out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.kernels import kernel
from inspatio_sim.motion.camera import Array, Intrinsics
from inspatio_sim.provenance import Known

COVERAGE_CELL_M = 0.1
COVERAGE_CELLS = 512  # along each side, centred on the world's origin; points beyond are not counted
COVERAGE_RANGE_M = 10.0  # points farther from the camera are not counted


class Coverage:
    """Floor area in which something was seen, in squares of 0.1 m."""

    def __init__(self) -> None:
        self.is_seen = np.zeros((2, COVERAGE_CELLS, COVERAGE_CELLS), np.bool_)  # [0]: at all; [1]: in the clip
        self.num_cells = np.zeros(2, np.int64)

    def add(
        self,
        depth_m: NDArray[np.float32],
        known: NDArray[np.uint8],
        intrinsics: Intrinsics,
        T_world_camera: Array,
    ) -> None:
        """Count the cells that every other pixel of every other row shows. [H, W], [H, W]"""
        camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px])
        _mark_seen(self.is_seen, self.num_cells, depth_m, known, camera, np.ascontiguousarray(T_world_camera))

    @property
    def area_m2(self) -> float:
        return float(self.num_cells[0]) * COVERAGE_CELL_M**2

    @property
    def observed_m2(self) -> float:
        return float(self.num_cells[1]) * COVERAGE_CELL_M**2


@kernel
def _mark_seen(is_seen, num_cells, depth_m, known, camera, T):
    fx, fy, cx, cy = camera
    half = COVERAGE_CELLS // 2
    for row in range(0, depth_m.shape[0], 2):
        for column in range(0, depth_m.shape[1], 2):
            z = np.float64(depth_m[row, column])
            if z <= 0 or z > COVERAGE_RANGE_M:
                continue
            x, y = (column - cx) / fx * z, (row - cy) / fy * z
            i = np.int64(np.floor((T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]) / COVERAGE_CELL_M)) + half
            k = np.int64(np.floor((T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]) / COVERAGE_CELL_M)) + half
            if i < 0 or k < 0 or i >= COVERAGE_CELLS or k >= COVERAGE_CELLS:
                continue
            if not is_seen[0, i, k]:
                is_seen[0, i, k] = True
                num_cells[0] += 1
            if known[row, column] > Known.MADE_UP and not is_seen[1, i, k]:
                is_seen[1, i, k] = True
                num_cells[1] += 1
