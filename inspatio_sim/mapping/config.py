"""Sizes and thresholds of the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspatio_sim.errors import InputError


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """Resolution of the map, and its thresholds of evidence.

    Log-odds: 0 is unknown, +0.85 is p = 0.70, -0.5 is p = 0.38. A cell is occupied above 0 and free below.
    """

    occupancy_voxel_m: float = 0.08  # edge of an occupancy cell
    points_per_edge: int = 8  # point cells along that edge: 8, 4, 2 or 1
    near_m: float = 0.05  # nothing nearer to the camera is inserted or carved
    render_near_m: float = 0.3  # nothing nearer is rendered: a point next to the lens would be a large square
    max_range_m: float = 10.0  # z-depth up to which points are kept and free space is carved
    hit_log_odds: float = 0.85  # added for a measured surface in the cell, once per frame
    miss_log_odds: float = 0.5  # subtracted when the cell is looked through, once per frame
    min_log_odds: float = -2.0
    max_log_odds: float = 3.0  # seven misses free even the most certain cell
    generated_weight: float = 0.5  # weight of a generated pixel; a pixel of the reference has 1
    max_confidence: float = 16.0  # pixels behind a point; beyond it new ones replace old ones
    min_confidence: float = 0.1  # looking through a point lowers its confidence; below this it is deleted
    depth_tolerance: float = 0.01  # relative noise of depth; smaller contradictions are ignored

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not np.isfinite(value):
                raise InputError(f"{name}={value}: want a finite number")
            if name != "min_log_odds" and name != "depth_tolerance" and value <= 0:
                raise InputError(f"{name}={value}: want it positive")
        if self.points_per_edge not in (1, 2, 4, 8):
            raise InputError(f"points_per_edge={self.points_per_edge}: want 8, 4, 2 or 1")
        if self.min_log_odds >= 0:
            raise InputError(f"min_log_odds={self.min_log_odds}: want it negative")
        if self.depth_tolerance < 0:
            raise InputError(f"depth_tolerance={self.depth_tolerance}: want 0 or more")
        if self.max_range_m <= self.near_m:
            raise InputError(f"max_range_m={self.max_range_m}: want it beyond near_m={self.near_m}")
        if self.generated_weight > 1:
            raise InputError(f"generated_weight={self.generated_weight}: want at most 1")
        if self.min_confidence >= self.max_confidence:
            raise InputError(f"min_confidence={self.min_confidence}: want it below {self.max_confidence}")

    @property
    def point_voxel_m(self) -> float:
        """Edge of the cell in which points are merged."""
        return self.occupancy_voxel_m / self.points_per_edge
