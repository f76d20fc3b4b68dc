"""Where the horizon of a single picture lies, from lines that converge or from what fills the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.motion.camera import Array, Intrinsics

FALLBACK_HORIZON = 0.42  # of the image height: people hold cameras a little down
TABLE_TOP_TILT_RAD = np.deg2rad(45)  # how people look at what lies before them on a table
MAX_TILT_RAD = np.deg2rad(70)
MAX_LOOK_UP_RAD = np.deg2rad(15)

_MAX_SIDE_PX = 640
_MAX_SEGMENTS = 120
_MIN_LENGTH = 0.05  # of the image diagonal
_SLANT_RAD = np.deg2rad([12, 80])  # steeper may be upright in the world, flatter says little about the horizon
_TOLERANCE_RAD = np.deg2rad(1.5)
_MIN_SEGMENTS = 5  # that meet; three are enough when they are long:
_MIN_LONG_SEGMENTS, _MIN_LONG_TOTAL = 3, 0.6  # together this share of the image diagonal
_MIN_LINE_SHARE = 0.3  # of the length of all slanted segments that must meet in the vanishing point


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Tilt of a camera without roll."""

    tilt_rad: float  # how far the camera looks down; negative: up
    note: str  # how it was found, for people
    line_share: float  # of the slanted line length that meets in the vanishing point; 0 when not used

    def row_px(self, camera: Intrinsics) -> float:
        """Image row of the horizon; may lie outside the image."""
        return camera.cy_px - camera.fy_px * np.tan(self.tilt_rad)


def find_horizon(rgb_u8: NDArray[np.uint8], camera: Intrinsics) -> Horizon:
    """Estimate the tilt of the camera that took a picture. It is assumed to have no roll.

    1. Slanted line segments (LSD) that meet in one point: edges of streets, tables, tiles are level in the
       world, so their vanishing point lies on the horizon.
    2. Else, a picture whose top looks like its bottom shows one surface from above: 45 degrees down.
    3. Else the horizon is put at 42 % of the image height.

    Args:
        rgb_u8: the picture. [H, W, 3]
        camera: its intrinsics.
    """
    vanishing_point = _vanishing_point(rgb_u8)
    if vanishing_point is not None:
        y_px, line_share = vanishing_point
        tilt_rad = float(np.arctan((camera.cy_px - y_px) / camera.fy_px))
        if -MAX_LOOK_UP_RAD <= tilt_rad <= MAX_TILT_RAD:
            return Horizon(tilt_rad=tilt_rad, note="from lines that meet in a vanishing point", line_share=line_share)
    if _is_one_surface(rgb_u8):
        note = "assumed 45 degrees down: one surface fills the picture"
        return Horizon(tilt_rad=TABLE_TOP_TILT_RAD, note=note, line_share=0.0)
    tilt_rad = float(np.arctan((camera.cy_px - FALLBACK_HORIZON * camera.height_px) / camera.fy_px))
    note = f"assumed at {FALLBACK_HORIZON:.0%} of the image height: no vanishing point was found"
    return Horizon(tilt_rad=tilt_rad, note=note, line_share=0.0)


def tilted_rotation(tilt_rad: float) -> Array:
    """Camera-to-world rotation of a camera that looks down by `tilt_rad`. [3, 3]"""
    c, s = np.cos(tilt_rad), np.sin(tilt_rad)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def _vanishing_point(rgb_u8: NDArray[np.uint8]) -> tuple[float, float] | None:
    """(row, share of line length that agrees) of the best-supported meeting point of slanted segments."""
    height_px, width_px = rgb_u8.shape[:2]
    shrink = min(1.0, _MAX_SIDE_PX / max(height_px, width_px))
    size = max(round(width_px * shrink), 1), max(round(height_px * shrink), 1)
    grey_u8 = cv2.cvtColor(cv2.resize(rgb_u8, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    segments = cv2.createLineSegmentDetector().detect(grey_u8)[0]
    if segments is None:
        return None
    ends = segments.reshape(-1, 2, 2).astype(np.float64)  # [N, 2 ends, xy]
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    slant = np.arctan2(np.abs(along[:, 1]), np.abs(along[:, 0]))
    keep = (length > _MIN_LENGTH * np.hypot(*size)) & (slant > _SLANT_RAD[0]) & (slant < _SLANT_RAD[1])
    order = np.argsort(-length[keep], kind="stable")[:_MAX_SEGMENTS]
    ends, along, length = ends[keep][order], along[keep][order], length[keep][order]
    if len(ends) < _MIN_LONG_SEGMENTS:
        return None
    middle, unit = ends.mean(1), along / length[:, None]
    lines = np.cross(np.insert(ends[:, 0], 2, 1, 1), np.insert(ends[:, 1], 2, 1, 1))
    first, second = np.triu_indices(len(ends), 1)
    is_apart = np.abs(unit[first, 0] * unit[second, 1] - unit[first, 1] * unit[second, 0]) > np.sin(np.deg2rad(10))
    points = np.cross(lines[first[is_apart]], lines[second[is_apart]])
    points = points[:, :2] / points[:, 2:]  # [P, xy]
    is_near = (np.abs(points[:, 0] / size[0] - 0.5) < 1.5) & (points[:, 1] < 0.7 * size[1])
    if not is_near.any():
        return None
    points = points[is_near]
    towards = points[:, None] - middle  # [P, N, xy]
    distance = np.linalg.norm(towards, axis=-1)
    off = np.abs(towards[..., 0] * unit[:, 1] - towards[..., 1] * unit[:, 0])
    agrees = (off < np.sin(_TOLERANCE_RAD) * distance) & (distance > length / 2)
    support = agrees @ length
    best = agrees[np.argmax(support)]
    share = float(support.max() / length.sum())
    is_long = support.max() > _MIN_LONG_TOTAL * np.hypot(*size)
    if share < _MIN_LINE_SHARE or best.sum() < (_MIN_LONG_SEGMENTS if is_long else _MIN_SEGMENTS):
        return None
    return float(_meeting_point(middle[best], unit[best], length[best])[1] / shrink), share


def _meeting_point(middle: NDArray, unit: NDArray, weight: NDArray) -> NDArray:
    """The point with the least weighted squared distance to lines. [xy]"""
    across = np.stack([-unit[:, 1], unit[:, 0]], 1) * weight[:, None]
    return np.linalg.lstsq(across, (across * middle).sum(1), rcond=None)[0]


def _is_one_surface(rgb_u8: NDArray[np.uint8]) -> bool:
    """Whether most of the top sixth has the colours of the bottom fifth."""
    small = cv2.resize(rgb_u8, (64, 60), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    bottom, top = lab[48:].reshape(-1, 3), lab[:10].reshape(-1, 3)
    spread = np.clip(bottom.std(0), [6, 3, 3], [10, 5, 5])
    return bool(np.mean(np.linalg.norm((top - np.median(bottom, 0)) / spread, axis=1) < 3) > 0.5)
