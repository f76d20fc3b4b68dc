"""Images for reports: contact sheets, coloured depth, labelled panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to

Picture = NDArray[np.uint8]  # RGB. [H, W, 3]

_SHEET_CELL_WIDTH_PX = 480  # wider frames shrink to this on a contact sheet
_GAP_PX = 4
_STRIP_PX = 22  # height of a label
_STRIP_COLOR = 32
_TEXT_COLOR = (235, 235, 235)
_GAP_COLOR = 12


def contact_sheet(
    frames_u8: NDArray[np.uint8], columns: int = 4, max_frames: int = 16, labels: Sequence[str] | None = None
) -> Picture:
    """A grid of frames spread evenly over a clip, the first and the last among them.

    Args:
        frames_u8: RGB. [T, H, W, 3]
        columns: number of columns.
        max_frames: maximum number of frames shown.
        labels: one for each of the T frames; by default their numbers.

    Returns:
        RGB. [H', W', 3]
    """
    num_frames = len(frames_u8)
    if frames_u8.ndim != 4 or num_frames == 0:
        raise InputError(f"frames have shape {frames_u8.shape}: want T x H x W x 3 with at least one frame")
    if columns < 1 or max_frames < 1:
        raise InputError(f"columns={columns}, max_frames={max_frames}: want at least 1 of each")
    titles = [f"frame {i}" for i in range(num_frames)] if labels is None else list(labels)
    if len(titles) != num_frames:
        raise InputError(f"{len(titles)} labels for {num_frames} frames: want one each")
    shown = np.unique(np.linspace(0, num_frames - 1, min(max_frames, num_frames)).round().astype(int))
    height_px, width_px = frames_u8.shape[1:3]
    cell_height_px = round(height_px * min(1.0, _SHEET_CELL_WIDTH_PX / width_px))
    return _grid([_labelled(_to_height(frames_u8[i], cell_height_px), titles[i]) for i in shown], columns)


def side_by_side(panels: Mapping[str, Picture], columns: int | None = None) -> Picture:
    """Labelled panels in a grid; each is scaled to the height of the first.

    Args:
        panels: label -> RGB picture. [H, W, 3]
        columns: number of columns; by default up to 3 panels in one row, more in rows of about
            equal length, wider than tall.

    Returns:
        RGB. [H', W', 3]
    """
    if not panels:
        raise InputError("no panels: want at least one picture")
    height_px = next(iter(panels.values())).shape[0]
    labelled = [_labelled(_to_height(picture, height_px), label) for label, picture in panels.items()]
    if columns is None:
        columns = len(labelled) if len(labelled) <= 3 else int(np.ceil(np.sqrt(len(labelled))))
    return _grid(labelled, columns)


def colour_depth(depth_m: NDArray[np.floating], max_m: float | None = None, min_m: float | None = None) -> Picture:
    """Depth as colour (OpenCV's Turbo over inverse depth: near is red, far is blue, unknown is black).

    Args:
        depth_m: z-depth in metres; 0, NaN or inf = unknown. [H, W]
        max_m: depth at the far end of the colours; by default this image's 98th
            percentile. Set it (and `min_m`) for a video, so that colours keep their meaning.
        min_m: depth at the near end; by default the 2nd percentile.

    Returns:
        RGB. [H, W, 3]
    """
    is_known = np.isfinite(depth_m) & (depth_m > 0)
    if not is_known.any():
        return np.zeros((*depth_m.shape, 3), np.uint8)
    near_m, far_m = np.percentile(depth_m[is_known], [2, 98])
    near_m = near_m if min_m is None else min_m
    far_m = far_m if max_m is None else max_m
    if not (near_m > 0 and far_m > 0):
        raise InputError(f"min_m={min_m}, max_m={max_m}: want positive depths")
    inverse = 1.0 / np.where(is_known, depth_m, far_m)
    span = max(1 / near_m - 1 / far_m, 1e-9)
    level = np.clip((inverse - 1 / far_m) / span, 0, 1)
    # Turbo's ends are nearly black; stay clear of them, black means unknown.
    colours = cv2.applyColorMap((16 + 216 * level).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.where(is_known[..., None], colours[..., ::-1], 0).astype(np.uint8)


def save_png(path: str | Path, picture: Picture) -> None:
    """Write an image, whole or not at all."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise InputError(f"picture is {picture.dtype} {picture.shape}: want uint8 H x W x 3 (or H x W)")
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: want a file name that ends in .png")
    with replacing(path) as temporary, writing_to(path):
        Image.fromarray(picture).save(temporary, format="PNG")


def _labelled(picture: Picture, label: str) -> Picture:
    """A dark strip with the label, the picture below."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"picture {label!r} is {picture.dtype} {picture.shape}: want uint8 H x W x 3")
    width_px = picture.shape[1]
    strip = np.full((_STRIP_PX, width_px, 3), _STRIP_COLOR, np.uint8)
    scale = 0.45
    text_px = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
    scale *= min(1.0, (width_px - 8) / max(text_px, 1))  # long labels shrink
    if scale > 0:
        cv2.putText(strip, label, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT_COLOR, 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def _to_height(picture: Picture, height_px: int) -> Picture:
    if picture.shape[0] == height_px:
        return picture
    width_px = max(1, round(picture.shape[1] * height_px / picture.shape[0]))
    method = cv2.INTER_AREA if height_px < picture.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(picture, (width_px, height_px), interpolation=method).astype(np.uint8, copy=False)


def _grid(pictures: list[Picture], columns: int) -> Picture:
    """Arrange images of one height in rows; a column is as wide as its widest image."""
    columns = min(columns, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    widths_px = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    height_px = pictures[0].shape[0]
    sheet_px = (len(rows) * (height_px + _GAP_PX) - _GAP_PX, sum(widths_px) + _GAP_PX * (columns - 1))
    sheet = np.full((*sheet_px, 3), _GAP_COLOR, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height_px + _GAP_PX), sum(widths_px[:c]) + c * _GAP_PX
            sheet[top : top + height_px, left : left + picture.shape[1]] = picture
    return sheet
