"""What the point kernels must do, in plain Python: a dict of point cells, a dict of occupancy cells."""

from __future__ import annotations

import numpy as np

f32 = np.float32


class PlainMap:
    """Points and hits only; carving is compared with analytic scenes instead."""

    def __init__(self, config):
        self.config = config
        self.points = {}  # point cell -> [position, rgb, confidence, last_seen, source]
        self.cells = {}  # cell -> [log_odds, source, frame of the last hit]
        self.frame = 0

    def insert(self, rgb_u8, depth_m, known, intrinsics, T, time_s):
        self.frame += 1
        for row in range(depth_m.shape[0]):
            run, run_key = [], None
            for column in range(depth_m.shape[1]):
                lifted = self._lift(row, column, depth_m, known, intrinsics, T)
                if run and (lifted is None or lifted[0] != run_key):
                    self._merge(run_key, run, time_s)
                    run = []
                if lifted is not None:
                    run_key = lifted[0]
                    run.append((lifted[1], rgb_u8[row, column]))
            if run:
                self._merge(run_key, run, time_s)

    def _lift(self, row, column, depth_m, known, K, T):
        z = float(depth_m[row, column])
        if not (self.config.near_m <= z <= self.config.max_range_m) or known[row, column] == 1:
            return None
        x, y = (column - K.cx_px) / K.fx_px * z, (row - K.cy_px) / K.fy_px * z
        point = [T[i, 0] * x + T[i, 1] * y + T[i, 2] * z + T[i, 3] for i in range(3)]
        cell = tuple(int(np.floor(value / self.config.point_voxel_m)) for value in point)
        return (cell, 2 if known[row, column] == 2 else 1), point

    def _merge(self, key, run, time_s):
        (point_cell, source), n = key, len(run)
        position, rgb = [0.0] * 3, [0.0] * 3
        for point, colour in run:
            position = [a + b for a, b in zip(position, point, strict=True)]
            rgb = [a + float(b) for a, b in zip(rgb, colour, strict=True)]
        position = np.array([f32(value / n) for value in position])
        rgb = np.array([f32(value / n) for value in rgb])
        weight = f32(1) if source == 2 else f32(self.config.generated_weight)

        cell = self.cells.setdefault(tuple(i // self.config.points_per_edge for i in point_cell), [f32(0), 0, -1])
        if source > cell[1]:
            cell[:] = [f32(0), source, -1]
        if source == cell[1] and cell[2] != self.frame:
            cell[0] = min(cell[0] + f32(self.config.hit_log_odds) * weight, f32(self.config.max_log_odds) * weight)
            cell[2] = self.frame

        old = self.points.get(point_cell)
        added = f32(n) * weight
        if old is not None and source < old[4]:
            return
        if old is None or source > old[4]:
            confidence = added
        else:
            confidence = old[2] + added
            share = added / confidence
            position, rgb = old[0] + (position - old[0]) * share, old[1] + (rgb - old[1]) * share
        self.points[point_cell] = [position, rgb, min(confidence, f32(self.config.max_confidence)), time_s, source]
