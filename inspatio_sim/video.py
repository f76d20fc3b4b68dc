"""Clips in and out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.camera import Intrinsics


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames as they came, upright and at the target size, with whatever geometry came along."""

    frames_u8: NDArray[np.uint8]  # RGB. [T, H, W, 3]
    fps: float
    source: str  # the path that was read
    depth_m: NDArray[np.float32] | None = None  # z-depth, 0 = unknown. [T, H, W]
    intrinsics: Intrinsics | None = None
    T_world_camera: NDArray[np.float64] | None = None  # [T, 4, 4]
