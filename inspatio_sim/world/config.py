"""How a world behaves, whatever generates its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from inspatio_sim.errors import InputError
from inspatio_sim.geometry.completion import DepthCompletion
from inspatio_sim.mapping import MapConfig
from inspatio_sim.reference.reference import ClockMode, Reference
from inspatio_sim.world.obstacles import Collisions


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How a world behaves, whatever generates its frames."""

    clock: ClockMode = "ping-pong"  # what the reference does when it ends, and the speed it plays at
    slow_factor: int = 4  # reference frames stay this many times longer while the clock is `slow`
    collisions: Collisions = "slide"  # what obstacles do to a motion
    body_radius_m: float = 0.15  # radius of the collision sphere around the camera
    map_stride_frames: int = 4  # every n-th frame goes into the map, starting with the first
    depth_completion: DepthCompletion = "auto"  # what gives made-up pixels their depth, see `depth_completion`
    map: MapConfig | None = None  # None: sized to the reference, see `map_config_for`

    def __post_init__(self) -> None:
        check_clock(self.clock)
        if self.collisions not in get_args(Collisions):
            raise InputError(f"collisions={self.collisions!r}: want one of {', '.join(get_args(Collisions))}")
        if self.depth_completion not in get_args(DepthCompletion):
            choices = ", ".join(get_args(DepthCompletion))
            raise InputError(f"depth_completion={self.depth_completion!r}: want one of {choices}")
        if not (np.isfinite(self.body_radius_m) and 0 < self.body_radius_m <= 2):
            raise InputError(f"body_radius_m={self.body_radius_m}: want more than 0 and at most 2 m")
        if type(self.map_stride_frames) is not int or self.map_stride_frames < 1:
            raise InputError(f"map_stride_frames={self.map_stride_frames}: want a whole number of at least 1")


def check_clock(mode: str) -> None:
    """Raise InputError unless `mode` is a `ClockMode`."""
    if mode not in get_args(ClockMode):
        raise InputError(f"clock={mode!r}: want one of {', '.join(get_args(ClockMode))}")


def map_config_for(reference: Reference) -> MapConfig:
    """Point spacing that matches the reference's pixels at its median depth, within what occupancy can use."""
    known_m = reference.depth_m[reference.depth_m > 0]
    pixel_m = float(np.median(known_m)) / reference.intrinsics.fx_px
    voxel_m = 8 * float(np.clip(pixel_m, 0.01, 0.0125))
    points_per_edge = next((points for points in (2, 4) if 1.5 * voxel_m / points <= pixel_m), 8)
    return MapConfig(occupancy_voxel_m=voxel_m, points_per_edge=points_per_edge)
