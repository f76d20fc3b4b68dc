"""Backend `rgbd`: check and use the depth, intrinsics and poses of the clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import check_poses
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction


@dataclass(frozen=True, kw_only=True)
class RgbdReconstructor:
    """Measured geometry, in the world of the given poses, neither moved nor rotated.

    Its y axis is assumed to point along gravity. A single image may lack a pose (identity).
    """

    min_known_share: float = 0.01  # minimum share of pixels with depth

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.min_known_share <= 1:
            raise InputError(f"min_known_share={self.min_known_share}: want 0 to 1")

    @property
    def name(self) -> str:
        return "rgbd"

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Check the clip's geometry.

        Raises:
            InputError: depth, intrinsics or poses are missing, or the depth is invalid.
        """
        if clip.depth_m is None or clip.intrinsics is None:
            missing = "depth" if clip.depth_m is None else "intrinsics (K)"
            raise InputError(f"{clip.source}: {missing} missing: method rgbd wants depth, K and poses with the clip")
        num_frames = len(clip.frames_u8)
        if clip.T_world_camera is not None:
            T_world_camera = check_poses(clip.T_world_camera, f"{clip.source}: pose")
        elif num_frames == 1:
            T_world_camera = np.eye(4)[None]
        else:
            raise InputError(f"{clip.source}: poses missing: {num_frames} frames want a pose each")
        depth_m = np.asarray(clip.depth_m, np.float32)
        if depth_m.shape != clip.frames_u8.shape[:3]:
            raise InputError(f"{clip.source}: depth has shape {depth_m.shape}: want {clip.frames_u8.shape[:3]}")
        for frame_idx, frame_depth_m in enumerate(depth_m):
            bad = ~np.isfinite(frame_depth_m) | (frame_depth_m < 0)
            if bad.any():
                y_px, x_px = (int(i) for i in np.argwhere(bad)[0])
                where = f"depth of frame {frame_idx} at x={x_px}, y={y_px}"
                raise InputError(f"{clip.source}: {where} is {frame_depth_m[y_px, x_px]}: want metres, 0 where unknown")
        known_share = float(np.mean(depth_m > 0))
        if known_share < self.min_known_share or not depth_m[0].any():
            what = "the first frame's depth is all zero" if not depth_m[0].any() else f"only {known_share:.2%} known"
            raise InputError(f"{clip.source}: depth: {what}: want depth in metres, 0 only where unknown")
        if progress:
            progress("rgbd", 1.0)
        return Reconstruction(
            depth_units=depth_m,
            intrinsics=clip.intrinsics,
            T_world_camera=T_world_camera,
            is_metric=True,
            quality={"known_share": known_share},
        )
