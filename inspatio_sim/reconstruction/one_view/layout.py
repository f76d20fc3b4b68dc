"""Backend `layout`: a guess from one view, without weights.

It assumes that the image shows level ground, things that stand upright on it, and a far background:

1. the background is the temporal median of the clip, so that a static camera gets one stable depth;
2. the horizon comes from a vanishing point, or is assumed (`horizon.py`); no roll; 60 degrees horizontal field of view
   unless the clip has intrinsics;
3. the background is split into ground, upright things and far background (`single_view.py`);
4. moving things (different from the background) stand upright where their lower edge touches something.

Source of the idea: Hoiem, Efros, Hebert, Automatic Photo Pop-up, SIGGRAPH 2005; here without learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.motion import camera_motion
from inspatio_sim.reconstruction.one_view.horizon import find_horizon, tilted_rotation
from inspatio_sim.reconstruction.one_view.single_view import depth_of_view
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction

Mask = NDArray[np.bool_]

_BACKGROUND_FRAMES = 15
_MOVING_LEVEL = 28  # out of 255: larger differences from the background are motion
_MIN_BLOB_SHARE = 0.0008  # share of the pixels; smaller moving spots are noise


@dataclass(frozen=True, kw_only=True)
class LayoutReconstructor:
    """Ground plane, upright segments, far background. The unit of length is the camera's height."""

    horizontal_fov_rad: float = np.deg2rad(60)  # for a clip without intrinsics: a phone held sideways

    def __post_init__(self) -> None:
        check_types(self)
        if not np.deg2rad(10) <= self.horizontal_fov_rad <= np.deg2rad(140):
            raise InputError(f"horizontal_fov_rad={self.horizontal_fov_rad}: want 0.175 to 2.44 (10 to 140 degrees)")

    @property
    def name(self) -> str:
        return "layout"

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Guess the geometry of a clip; assuming a static camera."""
        num_frames, height_px, width_px = clip.frames_u8.shape[:3]
        camera = clip.intrinsics or Intrinsics.from_fov(self.horizontal_fov_rad, width_px, height_px)
        background_u8 = background_of(clip.frames_u8)
        is_static = num_frames == 1 or camera_motion(clip).kind == "static"
        horizon = find_horizon(background_u8 if is_static else clip.frames_u8[0], camera)
        warnings = [
            "layout: depth is a guess from one view (level ground, upright things), not a measurement",
            f"layout: horizon {horizon.note}",
        ]
        if clip.intrinsics is None:
            fov_deg = np.rad2deg(self.horizontal_fov_rad)
            warnings.append(f"layout: focal length assumed ({fov_deg:.0f} degrees horizontal field of view)")
        if not is_static:
            warnings.append("layout: the camera moves, which is ignored: each frame is guessed alone")

        depth_units = np.empty((num_frames, height_px, width_px), np.float32)
        background_depth, ground_share = depth_of_view(background_u8, camera, horizon)
        for frame_idx, rgb_u8 in enumerate(clip.frames_u8):
            if is_static:
                moving = moving_mask(rgb_u8, background_u8)
                depth_units[frame_idx] = with_moving_things(background_depth, moving)
            else:
                depth_units[frame_idx], ground_share = depth_of_view(rgb_u8, camera, horizon)
            if progress:
                progress("layout", (frame_idx + 1) / num_frames)
        pose = pose_from(tilted_rotation(horizon.tilt_rad))
        return Reconstruction(
            depth_units=depth_units,
            intrinsics=camera,
            T_world_camera=np.repeat(pose[None], num_frames, axis=0),
            is_metric=False,
            quality={
                "ground_share": ground_share,
                "vanishing_line_share": horizon.line_share,
            },
            warnings=tuple(warnings),
        )


def background_of(frames_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The background of a static camera. [T, H, W, 3] -> [H, W, 3]"""
    sample_idxs = np.unique(np.linspace(0, len(frames_u8) - 1, _BACKGROUND_FRAMES).astype(int))
    return np.median(frames_u8[sample_idxs], axis=0).astype(np.uint8)


def moving_mask(rgb_u8: NDArray[np.uint8], background_u8: NDArray[np.uint8]) -> Mask:
    """Mask of pixels that differ from the background, without specks and holes. [H, W]"""
    difference = cv2.GaussianBlur(cv2.absdiff(rgb_u8, background_u8).max(axis=-1), (0, 0), rgb_u8.shape[1] / 400)
    side = max(3, rgb_u8.shape[1] // 120) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    mask_u8 = (difference > _MOVING_LEVEL).astype(np.uint8)
    mask_u8 = cv2.morphologyEx(cv2.morphologyEx(mask_u8, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    return mask_u8 > 0


def with_moving_things(background_depth: NDArray[np.float32], moving: Mask) -> NDArray[np.float32]:
    """Put each moving thing where its lower edge meets the background, never behind it. [H, W]"""
    num_blobs, blobs, stats, _ = cv2.connectedComponentsWithStats(moving.astype(np.uint8), connectivity=8)
    depth = background_depth.copy()
    for blob in range(1, num_blobs):
        x, y, width, height, area = stats[blob]
        if area < _MIN_BLOB_SHARE * moving.size:
            continue
        window = (slice(y, y + height), slice(x, x + width))
        inside = blobs[window] == blob
        rows, columns = np.nonzero(inside)
        is_low = rows >= np.percentile(rows, 97)
        contact_depth = np.median(background_depth[window][rows[is_low], columns[is_low]])
        depth[window][inside] = np.minimum(background_depth[window][inside], contact_depth)
    return depth
