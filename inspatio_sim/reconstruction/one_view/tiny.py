"""Backend `tiny`: depth of one static view by the small network that comes with the package.

The background (the temporal median of the clip) gets depth from its image alone, up to scale. The moving parts of each
frame are then completed from the image, with the background around them as known depth. Gravity comes from the
horizon, as for `layout`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.geometry.completion import NetworkCompletion, shipped_completion
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.motion import camera_motion
from inspatio_sim.reconstruction.one_view.horizon import find_horizon, tilted_rotation
from inspatio_sim.reconstruction.one_view.layout import background_of, moving_mask
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction


@dataclass(frozen=True, kw_only=True)
class TinyReconstructor:
    """The shipped depth network on a static view. The unit of length is the background's median depth."""

    horizontal_fov_rad: float = np.deg2rad(60)  # for a clip without intrinsics: a phone held sideways

    def __post_init__(self) -> None:
        check_types(self)
        if not np.deg2rad(10) <= self.horizontal_fov_rad <= np.deg2rad(140):
            raise InputError(f"horizontal_fov_rad={self.horizontal_fov_rad}: want 0.175 to 2.44 (10 to 140 degrees)")

    @property
    def name(self) -> str:
        return "tiny"

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Guess the geometry of a clip; assuming a static camera."""
        complete = shipped_completion()
        num_frames, height_px, width_px = clip.frames_u8.shape[:3]
        camera = clip.intrinsics or Intrinsics.from_fov(self.horizontal_fov_rad, width_px, height_px)
        is_static = num_frames == 1 or camera_motion(clip).kind == "static"
        background_u8 = background_of(clip.frames_u8)
        horizon = find_horizon(background_u8 if is_static else clip.frames_u8[0], camera)
        warnings = [
            "tiny: depth is a guess from one view, by a small network that has seen made-up rooms only",
            f"tiny: direction of gravity: horizon {horizon.note}",
        ]
        if clip.intrinsics is None:
            fov_deg = np.rad2deg(self.horizontal_fov_rad)
            warnings.append(f"tiny: focal length assumed ({fov_deg:.0f} degrees horizontal field of view)")
        if not is_static:
            warnings.append("tiny: the camera moves, which is ignored: each frame is guessed alone")

        unknown = np.zeros((height_px, width_px), np.float32)
        background_units = _completed(complete, background_u8, unknown)
        depth_units = np.empty((num_frames, height_px, width_px), np.float32)
        for frame_idx, rgb_u8 in enumerate(clip.frames_u8):
            around = np.where(moving_mask(rgb_u8, background_u8), 0, background_units) if is_static else unknown
            depth_units[frame_idx] = _completed(complete, rgb_u8, around)
            if progress:
                progress("tiny", (frame_idx + 1) / num_frames)
        pose = pose_from(tilted_rotation(horizon.tilt_rad))
        return Reconstruction(
            depth_units=depth_units,
            intrinsics=camera,
            T_world_camera=np.repeat(pose[None], num_frames, axis=0),
            is_metric=False,
            quality={"vanishing_line_share": horizon.line_share},
            warnings=tuple(warnings),
        )


def _completed(
    complete: NetworkCompletion, rgb_u8: NDArray[np.uint8], depth_units: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Depth of one image. [H, W, 3], [H, W] -> [H, W]"""
    return complete(rgb_u8[None], depth_units[None], 1.0)[0]
