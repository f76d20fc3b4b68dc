"""The map from above: free space, points, the camera's path and heading."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.kernels import kernel

UNKNOWN_COLOUR = (22, 24, 30)
FREE_COLOUR = (52, 58, 70)
PATH_COLOUR = (255, 186, 38)
CAMERA_COLOUR = (255, 255, 255)
MARGIN = 0.06  # share of the image's edge
SUBPIXEL_BITS = 4  # OpenCV draws with coordinates in 1/16 pixel
HEADROOM_M = 0.3  # points higher than this above the camera are left out, since the ceiling hides the room
MAX_SAMPLES = 20_000  # points sampled to choose the extent


def draw_top_down(
    points_m: NDArray[np.float32],
    rgb_u8: NDArray[np.uint8],
    free_cells: NDArray[np.int64],
    cell_m: float,
    path_m: NDArray[np.float64] | None,
    heading: NDArray[np.float64] | None,
    size_px: int,
) -> NDArray[np.uint8]:
    """Draw the map seen from above: world z is up in the picture, world x right.

    Args:
        points_m: NaN rows are skipped. [N, 3]
        rgb_u8: their colours. [N, 3]
        free_cells: integer cell coordinates. [M, 3]
        cell_m: edge of a cell.
        path_m: camera positions so far; the last one is the current one. [P, 3]
        heading: current direction of view; None: that of the last motion. [3]
        size_px: edge of the square picture.

    Returns:
        RGB. [size_px, size_px, 3]
    """
    low, high = _extent(points_m, path_m)
    pixel_m = max(float((high - low).max()), 2.0) / (size_px * (1 - 2 * MARGIN))
    origin = 0.5 * (low + high) - 0.5 * size_px * pixel_m * np.array([1.0, 1.0])  # x, z of the lower left corner
    image = np.empty((size_px, size_px, 3), dtype=np.uint8)
    image[:] = UNKNOWN_COLOUR
    _paint_cells(free_cells, cell_m, origin, pixel_m, np.array(FREE_COLOUR, dtype=np.uint8), image)
    ceiling_y_m = -np.inf if path_m is None else float(path_m[-1, 1]) - HEADROOM_M
    _paint_points(points_m, rgb_u8, origin, pixel_m, ceiling_y_m, 0.125 * cell_m, image)

    def pixel_of(position_m: NDArray[np.float64]) -> NDArray[np.int32]:
        across, up = (position_m[..., 0] - origin[0]) / pixel_m, (position_m[..., 2] - origin[1]) / pixel_m
        pixel = np.stack([across - 0.5, size_px - up - 0.5], axis=-1)
        return np.rint(pixel * (1 << SUBPIXEL_BITS)).astype(np.int32)

    if path_m is not None:
        _draw_path(image, pixel_of(path_m), _heading_of(path_m, heading))
    _draw_scale_bar(image, pixel_m)
    return image


def _extent(points_m: NDArray[np.float32], path_m: NDArray[np.float64] | None) -> tuple[NDArray, NDArray]:
    """Low and high (x, z) of nearly all points and of the whole path."""
    sample = points_m[:: max(1, len(points_m) // MAX_SAMPLES)][:, [0, 2]]
    sample = sample[~np.isnan(sample[:, 0])].astype(np.float64)
    corners = [np.quantile(sample, (0.005, 0.995), axis=0)] if len(sample) else [np.zeros((1, 2))]
    if path_m is not None:
        corners.append(path_m[:, [0, 2]])
    both = np.concatenate(corners)
    return both.min(axis=0), both.max(axis=0)


@kernel
def _paint_cells(cells, cell_m, origin, pixel_m, colour, image):
    size_px = len(image)
    for i in range(len(cells)):
        left = np.int64(np.floor((cells[i, 0] * cell_m - origin[0]) / pixel_m))
        right = np.int64(np.ceil(((cells[i, 0] + 1) * cell_m - origin[0]) / pixel_m))
        bottom = np.int64(np.floor((cells[i, 2] * cell_m - origin[1]) / pixel_m))
        top = np.int64(np.ceil(((cells[i, 2] + 1) * cell_m - origin[1]) / pixel_m))
        for up in range(max(bottom, 0), min(top, size_px)):
            for across in range(max(left, 0), min(right, size_px)):
                for c in range(3):
                    image[size_px - 1 - up, across, c] = colour[c]


@kernel
def _paint_points(points_m, rgb_u8, origin, pixel_m, ceiling_y_m, half_size_m, image):
    """The highest point below the ceiling gives a pixel its colour (y points down: the smallest y)."""
    size_px = len(image)
    highest = np.full((size_px, size_px), np.float32(np.inf))
    for i in range(len(points_m)):
        x, y, z = points_m[i, 0], points_m[i, 1], points_m[i, 2]
        if not y > ceiling_y_m:  # NaN too
            continue
        left = max(np.int64(np.floor((x - half_size_m - origin[0]) / pixel_m)), 0)
        right = min(np.int64(np.floor((x + half_size_m - origin[0]) / pixel_m)), size_px - 1)
        bottom = max(np.int64(np.floor((z - half_size_m - origin[1]) / pixel_m)), 0)
        top = min(np.int64(np.floor((z + half_size_m - origin[1]) / pixel_m)), size_px - 1)
        for up in range(bottom, top + 1):
            row = size_px - 1 - up
            for across in range(left, right + 1):
                if y < highest[row, across]:
                    highest[row, across] = y
                    for c in range(3):
                        image[row, across, c] = rgb_u8[i, c]


def _heading_of(path_m: NDArray[np.float64], heading: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Unit direction (x, z) on the floor; None if unknown."""
    if heading is None:
        moved = path_m[-1] - path_m
        far = np.nonzero(np.hypot(moved[:, 0], moved[:, 2]) > 0.02)[0]
        if len(far) == 0:
            return None
        direction = moved[far[-1], [0, 2]]
    else:
        direction = heading[[0, 2]]
    length = float(np.linalg.norm(direction))
    return direction / length if length > 1e-6 else None


def _draw_path(image: NDArray[np.uint8], pixels: NDArray[np.int32], heading: NDArray[np.float64] | None) -> None:
    """Draw the path with a dark rim, a dot at its start, and the camera."""
    unit = max(1, len(image) // 240)
    one = 1 << SUBPIXEL_BITS
    for colour, thickness in (((0, 0, 0), 2 * unit + 2), (PATH_COLOUR, 2 * unit)):
        cv2.polylines(image, [pixels[:, None]], False, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    start, now = (tuple(int(value) for value in pixels[i]) for i in (0, -1))
    cv2.circle(image, start, 3 * unit * one, PATH_COLOUR, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    if heading is None:
        cv2.circle(image, now, 4 * unit * one, CAMERA_COLOUR, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        return
    forward = np.array([heading[0], -heading[1]]) * unit * one  # picture rows go down
    side = np.array([-forward[1], forward[0]])
    arrow = np.array([9 * forward, -6 * forward + 6 * side, -3 * forward, -6 * forward - 6 * side]) + now
    arrow = np.rint(arrow).astype(np.int32)[:, None]
    cv2.polylines(image, [arrow], True, (0, 0, 0), 2 * unit, cv2.LINE_AA, SUBPIXEL_BITS)
    cv2.fillPoly(image, [arrow], CAMERA_COLOUR, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_scale_bar(image: NDArray[np.uint8], pixel_m: float) -> None:
    """A bar of 1, 2, 5, 10, ... metres, about a fifth of the picture."""
    size_px = len(image)
    wanted_m = 0.2 * size_px * pixel_m
    decade = 10.0 ** np.floor(np.log10(wanted_m))
    length_m = max(step * decade for step in (1, 2, 5) if step * decade <= wanted_m)
    left, row, right = size_px // 30, size_px - size_px // 30, size_px // 30 + round(length_m / pixel_m)
    for colour, extra in (((0, 0, 0), 2), (CAMERA_COLOUR, 0)):
        cv2.line(image, (left, row), (right, row), colour, max(2, size_px // 200) + extra, cv2.LINE_AA)
        cv2.putText(image, f"{length_m:g} m", (left, row - size_px // 60), cv2.FONT_HERSHEY_SIMPLEX,
                    size_px / 1000, colour, max(1, size_px // 400) + extra, cv2.LINE_AA)  # fmt: skip
