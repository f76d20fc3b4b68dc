"""The interface of a backend: a clip goes in, geometry in the backend's own units comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, check_poses
from inspatio_sim.progress import Progress

"""Called as `progress(what, share_done)`, share_done in 0..1."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Geometry of a clip in the backend's own length unit; `scale.to_reference` converts it to metres.

    The world's y axis points along gravity (down) and the first camera is at the origin.
    """

    depth_units: NDArray[np.float32]  # z-depth, 0 = unknown. [T, H, W]
    intrinsics: Intrinsics
    T_world_camera: NDArray[np.float64]  # translations in the same units as the depth. [T, 4, 4]
    is_metric: bool  # the units are metres
    kept: range | None = None  # which frames of the clip these are; None: all, and nothing was left out at its ends
    quality: dict[str, float] = field(default_factory=dict)  # reprojection_error_px, inlier_share, ...
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.depth_units.shape
        if self.depth_units.dtype != np.float32 or len(shape) != 3 or shape[0] < 1:
            raise InputError(f"depth is {self.depth_units.dtype} {shape}: want float32 T x H x W")
        if shape[1:] != (self.intrinsics.height_px, self.intrinsics.width_px):
            size = (self.intrinsics.height_px, self.intrinsics.width_px)
            raise InputError(f"depth is {shape[1]}x{shape[2]} px (height x width): want the intrinsics' {size}")
        if not np.all(np.isfinite(self.depth_units)) or self.depth_units.min() < 0:
            raise InputError("depth has NaN, inf or negative values: want numbers >= 0, 0 where unknown")
        if not self.depth_units[0].any():
            raise InputError("depth of the first frame is all zero: want at least some known depth")
        if len(check_poses(self.T_world_camera, "T_world_camera")) != shape[0]:
            raise InputError(f"{len(self.T_world_camera)} poses for {shape[0]} frames: want one a frame")
        if len(self.frames) != shape[0] or self.frames.step != 1 or self.frames.start < 0:
            raise InputError(f"kept={self.kept} for {shape[0]} frames: want these, one after the other")

    @property
    def frames(self) -> range:
        """The frames of the clip that have geometry, one after the other."""
        return range(len(self.depth_units)) if self.kept is None else self.kept


@runtime_checkable
class Reconstructor(Protocol):
    """A backend: a frozen dataclass of its options, with one method."""

    @property
    def name(self) -> str:
        """The name for `--method`."""
        ...

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Estimate depth, intrinsics and poses of every frame, or of those between the ends that have to be left out.

        Raises:
            InputError: if this clip cannot be reconstructed this way; the message says why.
        """
        ...
