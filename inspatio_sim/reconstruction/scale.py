"""Metric scale: a Reconstruction in its own units becomes a Reference in metres."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction
from inspatio_sim.reference.reference import ASSUMED_MEDIAN_DEPTH_M, Provenance, Reference, ScaleCard

MAX_CAMERA_HEIGHT_M = 100.0
MAX_LENGTH_M = 1000.0

_MAX_SLOPE_RAD = np.deg2rad(15)  # a surface is level when its normal is this close to gravity
_MIN_LEVEL_SHARE = 0.01  # minimum share of the known pixels
_GROUND_FRAMES = 5
_GROUND_SIDE_PX = 240
_BIN = 0.05  # bin of the histogram of log height: 5 % steps

Pixel = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ScaleRequest:
    """A measurement by the user that sets the scale; without one, the backend's own scale or 3 m is used."""

    camera_height_m: float | None = None  # the first camera's height above the ground
    length_m: float | None = None  # distance in space between the points seen at two pixels
    length_pixels: tuple[Pixel, Pixel] | None = None  # (x, y) of both ends
    length_frame: int = 0  # the frame of the clip in which both ends are seen

    def __post_init__(self) -> None:
        check_types(self)
        if self.camera_height_m is not None and self.length_m is not None:
            raise InputError("camera_height_m and length_m are both given: want one, they may contradict each other")
        for name, value, most in (
            ("camera_height_m", self.camera_height_m, MAX_CAMERA_HEIGHT_M),
            ("length_m", self.length_m, MAX_LENGTH_M),
        ):
            if value is not None and not 0 < value <= most:  # NaN fails too
                raise InputError(f"{name}={value}: want more than 0 and at most {most:g} m")
        if (self.length_m is None) != (self.length_pixels is None):
            missing = "length_pixels" if self.length_pixels is None else "length_m"
            raise InputError(f"{missing} is missing: a known length wants both its pixels and its metres")
        if self.length_m is None and self.length_frame != 0:
            raise InputError(f"length_frame={self.length_frame}: want it only together with length_m")


def to_reference(
    clip: Clip,
    reconstruction: Reconstruction,
    *,
    method: str,
    reason: str,
    scale: ScaleRequest | None = None,
    warnings: tuple[str, ...] = (),
) -> Reference:
    """Multiply depth and translations by the metres per unit.

    Args:
        clip: the frames; its notes become the first warnings.
        reconstruction: their geometry, in its own units.
        method: the backend's name.
        reason: why that backend was chosen.
        scale: the user's measurement; it overrides every other source.
        warnings: warnings to put before the backend's own.
    """
    card = _scale_card(reconstruction, method, scale or ScaleRequest())
    T_world_camera = reconstruction.T_world_camera.copy()
    T_world_camera[:, :3, 3] *= card.metres_per_unit
    kept = reconstruction.kept
    return Reference(
        frames_u8=clip.frames_u8 if kept is None else clip.frames_u8[kept.start : kept.stop],
        depth_m=(reconstruction.depth_units * np.float32(card.metres_per_unit)).astype(np.float32, copy=False),
        intrinsics=reconstruction.intrinsics,
        T_world_camera=T_world_camera,
        fps=clip.fps,
        scale=card,
        provenance=Provenance(
            method=method,
            reason=reason,
            quality=reconstruction.quality,
            warnings=clip.notes + warnings + reconstruction.warnings,
        ),
        source=clip.source,
    )


def camera_height_units(reconstruction: Reconstruction) -> float:
    """Height of the first camera above the ground, in the reconstruction's units.

    The ground is the lowest large level surface: among the pixels whose surface normal points along
    gravity and that lie below the camera, heights are counted, and of the peaks with at least a
    quarter of the highest one's pixels the lowest in the world wins (the floor, not the table).

    Raises:
        InputError: no level surface below the camera.
    """
    frame_idxs = np.unique(np.linspace(0, len(reconstruction.depth_units) - 1, _GROUND_FRAMES).astype(int))
    start_y = reconstruction.T_world_camera[0, 1, 3]
    heights, num_known = [], 0
    for frame_idx in frame_idxs:
        T_world_camera = reconstruction.T_world_camera[frame_idx]
        depth, intrinsics = _shrunk(reconstruction.depth_units[frame_idx], reconstruction.intrinsics)
        y, is_level = _level_points(depth, intrinsics, T_world_camera)
        num_known += int((depth > 0).sum())
        heights.append(y[is_level] - start_y)
    height = np.concatenate(heights)
    first = reconstruction.depth_units[0]
    height = height[height > 1e-3 * np.median(first[first > 0])]
    if len(height) < max(20, _MIN_LEVEL_SHARE * num_known):
        raise InputError("camera_height_m: no level ground below the camera is seen: give a known length instead")
    log_height = np.log(height)
    bins = np.arange(log_height.min() - _BIN, log_height.max() + 2 * _BIN, _BIN)
    counts, edges = np.histogram(log_height, bins)
    peaks = np.convolve(counts, [0.5, 1, 0.5], "same")
    lowest = int(np.flatnonzero(peaks >= 0.25 * peaks.max())[-1])
    lowest = max(lowest - 2, 0) + int(np.argmax(peaks[max(lowest - 2, 0) : lowest + 1]))  # the top of that peak
    is_ground = np.abs(log_height - (edges[lowest] + _BIN / 2)) < 2 * _BIN
    return float(np.median(height[is_ground]))


def length_units(reconstruction: Reconstruction, frame_idx: int, pixels: tuple[Pixel, Pixel]) -> float:
    """Distance in space between the points at two pixels (x, y) of a frame, in the reconstruction's units.

    Raises:
        InputError: a pixel is outside the image or has no depth, or both show the same point.
    """
    _, height_px, width_px = reconstruction.depth_units.shape
    frames = reconstruction.frames
    if frame_idx not in frames:
        raise InputError(f"length_frame={frame_idx}: want {frames[0]} to {frames[-1]}")
    depth_units = reconstruction.depth_units[frame_idx - frames.start]
    camera = reconstruction.intrinsics
    ends = []
    for x_px, y_px in pixels:
        if not (0 <= x_px <= width_px - 1 and 0 <= y_px <= height_px - 1):
            raise InputError(f"length pixel ({x_px}, {y_px}): want it inside the {width_px}x{height_px} image")
        column, row = round(x_px), round(y_px)
        around = depth_units[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if not around.any():
            raise InputError(f"length pixel ({x_px}, {y_px}): its depth in frame {frame_idx} is unknown: pick another")
        depth = float(np.median(around[around > 0]))
        ray = [(x_px - camera.cx_px) / camera.fx_px, (y_px - camera.cy_px) / camera.fy_px, 1.0]
        ends.append(depth * np.array(ray))
    length = float(np.linalg.norm(ends[0] - ends[1]))
    if length < 1e-6 * float(np.linalg.norm(ends[0])):
        raise InputError(f"length_pixels={pixels}: both see the same point: want two ends")
    return length


def _scale_card(reconstruction: Reconstruction, method: str, scale: ScaleRequest) -> ScaleCard:
    replaced = " (this replaces the metres it came with)" if reconstruction.is_metric else ""
    if scale.camera_height_m is not None:
        factor = scale.camera_height_m / camera_height_units(reconstruction)
        note = f"The first camera is {scale.camera_height_m:g} m above the ground, as given{replaced}."
        return ScaleCard(source="camera-height", note=note, metres_per_unit=factor)
    if scale.length_m is not None and scale.length_pixels is not None:
        factor = scale.length_m / length_units(reconstruction, scale.length_frame, scale.length_pixels)
        (x0, y0), (x1, y1) = scale.length_pixels
        ends = f"pixels ({x0:g}, {y0:g}) and ({x1:g}, {y1:g}) of frame {scale.length_frame}"
        note = f"What lies between {ends} is {scale.length_m:g} m long, as given{replaced}."
        return ScaleCard(source="length", note=note, metres_per_unit=factor)
    if reconstruction.is_metric and method == "rgbd":
        return ScaleCard(source="sensor", note="Depth in metres came with the clip.")
    if reconstruction.is_metric:
        return ScaleCard(source="metric-model", note=f"A network that estimates metres ({method}) said so.")
    first = reconstruction.depth_units[0]
    factor = ASSUMED_MEDIAN_DEPTH_M / float(np.median(first[first > 0]))
    note = f"Nothing was measured: the median depth of the first frame was set to {ASSUMED_MEDIAN_DEPTH_M:g} m."
    return ScaleCard(source="assumed", note=note, metres_per_unit=factor)


def _shrunk(depth: NDArray[np.float32], intrinsics: Intrinsics) -> tuple[NDArray[np.float32], Intrinsics]:
    """Shrink both so that neighbouring pixels are far enough apart for normals."""
    height_px, width_px = depth.shape
    shrink = max(height_px, width_px) / _GROUND_SIDE_PX
    if shrink <= 1:
        return depth, intrinsics
    size = max(round(width_px / shrink), 3), max(round(height_px / shrink), 3)
    shrunk = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32, copy=False)
    return shrunk, intrinsics.resized(*size)


def _level_points(depth: NDArray[np.float32], camera: Intrinsics, T_world_camera: Array) -> tuple[Array, NDArray]:
    """World y of each inner pixel, and whether the surface there is level. Both [h - 2, w - 2]"""
    y_px, x_px = np.mgrid[: depth.shape[0], : depth.shape[1]]
    rays = np.stack(
        [(x_px - camera.cx_px) / camera.fx_px, (y_px - camera.cy_px) / camera.fy_px, np.ones(depth.shape)], -1
    )
    points = (rays * depth[..., None]) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    normal = np.cross(points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1])
    is_known = (depth[1:-1, 2:] > 0) & (depth[1:-1, :-2] > 0) & (depth[2:, 1:-1] > 0) & (depth[:-2, 1:-1] > 0)
    length = np.linalg.norm(normal, axis=-1)
    is_level = is_known & (depth[1:-1, 1:-1] > 0) & (np.abs(normal[..., 1]) > np.cos(_MAX_SLOPE_RAD) * length)
    return points[1:-1, 1:-1, 1], is_level & (length > 0)
