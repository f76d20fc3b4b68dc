"""One RGB-D frame into another camera: bilinear forward warp with a hard z-test.

`forward_warp` is the fast CPU path; `warp_plain.forward_warp_plain` is the same in plain torch on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.geometry.render import Render
from inspatio_sim.kernels import chunk_bounds, kernel, run_chunks
from inspatio_sim.motion.camera import Array, Intrinsics

NUM_CHUNKS = 2  # for frames worth a second thread
SMALL_FRAME_PX = 50_000
SNAP_PX = 1e-3  # coordinates this near to a pixel centre snap to it, so the identity warp is exact
HALF_PX = 0.5 + SNAP_PX  # rounds up a row of samples halfway between pixels as one, rounding errors or not
DEPTH_TOLERANCE = 0.05  # contributions this close to the nearest surface (relative) belong to it
MIN_COVERAGE = 0.2  # bilinear weight that must land on a pixel before it counts as known
NEAR_M = 1e-3
MAX_SPACING_PX = 1.15  # neighbours of one surface that end up further apart get samples between them
MIXED_GAP_PX = 2.0  # a near and a far neighbour have separated when they end up this far apart
MAX_PARTS = 4  # along a side of a quad of four source pixels
MAX_BEND = 0.01  # maximum bend of inverse depth (relative, linear on a plane) between pixels of one surface


def forward_warp(
    rgb_u8: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    source: Intrinsics,
    target: Intrinsics,
    T_target_source: Array,
) -> Render:
    """See one RGB-D frame from another camera.

    Every source pixel lands on the four pixels around its projection; where the new camera magnifies a
    surface, samples between its pixels land too. The nearest surface is found first, from each sample's
    nearest target pixel. Only samples on it are averaged, so far colours never leak through near ones
    and silhouettes do not grow. A far pixel beside something near has mixed colours, so it is left out
    where the two separate.

    Args:
        rgb_u8: source colours. [H, W, 3]
        depth_m: source z-depth, 0 = unknown. [H, W]
        source: intrinsics of the source camera.
        target: intrinsics of the target camera; sets the size of the result.
        T_target_source: takes source camera points to the target camera. [4, 4]
    """
    shape = (target.height_px, target.width_px)
    result = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32), np.empty(shape, np.bool_)
    forward_warp_into(rgb_u8, depth_m, source, target, T_target_source, result, has_all_threads=True)
    return Render(rgb_u8=result[0], depth_m=result[1], is_known=result[2])


def forward_warp_into(
    rgb_u8: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    source: Intrinsics,
    target: Intrinsics,
    T_target_source: Array,
    result: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]],
    *,
    has_all_threads: bool,
) -> None:
    """`forward_warp` into existing arrays: colours [H, W, 3], z-depth [H, W] and known mask [H, W].

    With `has_all_threads` large frames are warped by several threads; the bytes are the same.
    """
    height_px, width_px = target.height_px, target.width_px
    motion = _pixel_motion(source, target, T_target_source)
    num_chunks = NUM_CHUNKS if depth_m.size > SMALL_FRAME_PX else 1
    source_rows = chunk_bounds(len(depth_m), num_chunks)
    quad_rows = chunk_bounds(len(depth_m) - 1, num_chunks)
    target_rows = chunk_bounds(height_px, num_chunks)
    run = run_chunks if has_all_threads else _run_in_turn
    projected = np.empty((*depth_m.shape, 3), dtype=np.float32)
    is_mixed = np.zeros(depth_m.shape, dtype=np.bool_)
    surface = np.full((num_chunks, height_px, width_px), np.inf, dtype=np.float32)
    sums = np.zeros((num_chunks, height_px, width_px, 5), dtype=np.float32)
    run(_project, [(depth_m, motion, *rows, projected) for rows in source_rows])
    run(_find_mixed, [(depth_m, projected, *rows, is_mixed) for rows in source_rows])
    run(_leave_out, [(is_mixed, *rows, projected) for rows in source_rows])
    between = run(_fill_quads, [(rgb_u8, depth_m, projected, *rows, height_px, width_px) for rows in quad_rows])
    pixels = [(rgb_u8[i:j].reshape(-1, 3), projected[i:j].reshape(-1, 3)) for i, j in source_rows]
    batches = [samples for samples in (pixels, between) if any(len(uvz) for _, uvz in samples)]
    for samples in batches:
        run(_land, [(uvz, surface[i]) for i, (_, uvz) in enumerate(samples)])
    run(_merge, [(surface, *rows) for rows in target_rows])
    touched = np.full_like(surface, np.inf)
    for samples in batches:
        run(_touch, [(uvz, surface[0], touched[i]) for i, (_, uvz) in enumerate(samples)])
    run(_complete, [(surface[0], touched, *rows) for rows in target_rows])
    for samples in batches:
        run(_accumulate, [(rgb, uvz, surface[0], sums[i]) for i, (rgb, uvz) in enumerate(samples)])
    run(_normalize, [(sums, *rows, *result) for rows in target_rows])


def _run_in_turn(function: Callable[..., Any], chunk_arguments: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*arguments) for arguments in chunk_arguments]


def _pixel_motion(source: Intrinsics, target: Intrinsics, T_target_source: Array) -> Array:
    """The 3x4 matrix M with z' [u', v', 1] = M [d u, d v, d, 1]."""
    K_target, K_source_inv = target.K_px, np.linalg.inv(source.K_px)
    rotation, translation = T_target_source[:3, :3], T_target_source[:3, 3]
    return np.concatenate([K_target @ rotation @ K_source_inv, (K_target @ translation)[:, None]], 1)


@kernel
def _project(depth_m, motion, start, stop, projected):
    """Project the source rows [start, stop) to (u, v, z); z = 0 where unknown or behind the camera."""
    for row in range(start, stop):
        for column in range(depth_m.shape[1]):
            d = np.float64(depth_m[row, column])
            x = (motion[0, 0] * column + motion[0, 1] * row + motion[0, 2]) * d + motion[0, 3]
            y = (motion[1, 0] * column + motion[1, 1] * row + motion[1, 2]) * d + motion[1, 3]
            z = (motion[2, 0] * column + motion[2, 1] * row + motion[2, 2]) * d + motion[2, 3]
            is_valid = d > 0 and d < np.inf and z > NEAR_M
            projected[row, column, 0] = _snapped(x / z) if is_valid else 0
            projected[row, column, 1] = _snapped(y / z) if is_valid else 0
            projected[row, column, 2] = z if is_valid else 0


@kernel
def _snapped(x_px):
    centre = np.rint(x_px)
    return centre if abs(x_px - centre) < SNAP_PX else x_px


@kernel
def _find_mixed(depth_m, projected, start, stop, is_mixed):
    """Mark pixels that are next to a nearer surface and separate from it, for pairs that begin in [start, stop)."""
    height_px, width_px = depth_m.shape
    nearer = np.float32(1 - DEPTH_TOLERANCE)
    for row in range(start, stop):
        for column in range(width_px):
            here_m = depth_m[row, column]
            for step_y in range(2):
                y, x = row + step_y, column + 1 - step_y
                if y >= height_px or x >= width_px:
                    continue
                there_m = depth_m[y, x]
                if there_m < here_m * nearer:
                    if _has_parted(depth_m, projected, row, column, step_y):
                        is_mixed[row, column] = True
                elif here_m < there_m * nearer and _has_parted(depth_m, projected, row, column, step_y):
                    is_mixed[y, x] = True


@kernel
def _has_parted(depth_m, projected, row, column, step_y):
    """Whether a pixel and its right or lower neighbour belong to two surfaces that separate."""
    y, x = row + step_y, column + 1 - step_y
    if projected[row, column, 2] == 0 or projected[y, x, 2] == 0:
        return False
    gap_px = max(
        abs(projected[y, x, 0] - projected[row, column, 0]),
        abs(projected[y, x, 1] - projected[row, column, 1]),
    )
    return gap_px > np.float32(MIXED_GAP_PX) and not _is_one_surface(depth_m, row, column, step_y, 1 - step_y)


@kernel
def _leave_out(is_mixed, start, stop, projected):
    for row in range(start, stop):
        for column in range(is_mixed.shape[1]):
            if is_mixed[row, column]:
                projected[row, column, 2] = 0


@kernel
def _fill_quads(rgb_u8, depth_m, projected, start, stop, height_px, width_px):
    """Sample the magnified quads (a pixel and its neighbours right and below) of the rows [start, stop).

    Returns:
        Colours [N, 3] and (u, v, z) [N, 3] of the samples.
    """
    num_columns = depth_m.shape[1] - 1
    num_parts = np.empty((stop - start, num_columns, 2), dtype=np.uint8)
    num_samples = 0
    for row in range(start, stop):
        for column in range(num_columns):
            u, v = projected[row, column, 0], projected[row, column, 1]
            extent_px = max(  # the longer of its upper and left sides
                max(abs(projected[row, column + 1, 0] - u), abs(projected[row, column + 1, 1] - v)),
                max(abs(projected[row + 1, column, 0] - u), abs(projected[row + 1, column, 1] - v)),
            )
            num_x = num_y = 1
            if extent_px > np.float32(MAX_SPACING_PX):
                num_x, num_y = _quad_parts(depth_m, projected, row, column, height_px, width_px)
            num_parts[row - start, column, 0], num_parts[row - start, column, 1] = num_x, num_y
            num_samples += num_x * num_y - 1
    rgb = np.empty((num_samples, 3), dtype=np.float32)
    uvz = np.empty((num_samples, 3), dtype=np.float32)
    corners = np.empty((6, 4))  # (u z, v z, z, r, g, b) of the four
    n = 0
    for row in range(start, stop if num_samples > 0 else start):
        for column in range(num_columns):
            num_x, num_y = np.int64(num_parts[row - start, column, 0]), np.int64(num_parts[row - start, column, 1])
            if num_x * num_y == 1:
                continue
            for corner in range(4):
                y, x = row + corner // 2, column + corner % 2
                z = np.float64(projected[y, x, 2])
                corners[0, corner], corners[1, corner] = z * projected[y, x, 0], z * projected[y, x, 1]
                corners[2, corner] = z
                for c in range(3):
                    corners[3 + c, corner] = rgb_u8[y, x, c]
            step_x, step_y = 1 / num_x, 1 / num_y
            for part_y in range(num_y):
                for part_x in range(1 if part_y == 0 else 0, num_x):  # the first one is the pixel itself
                    x, y = part_x * step_x, part_y * step_y
                    z = _mix(corners, 2, x, y)
                    per_z = 1 / z
                    uvz[n, 0] = _snapped(_mix(corners, 0, x, y) * per_z)
                    uvz[n, 1] = _snapped(_mix(corners, 1, x, y) * per_z)
                    uvz[n, 2] = z
                    for c in range(3):
                        rgb[n, c] = _mix(corners, 3 + c, x, y)
                    n += 1
    return rgb, uvz


@kernel
def _mix(corners, i, x, y):
    upper = (1 - x) * corners[i, 0] + x * corners[i, 1]
    lower = (1 - x) * corners[i, 2] + x * corners[i, 3]
    return (1 - y) * upper + y * lower


@kernel
def _quad_parts(depth_m, projected, row, column, height_px, width_px):
    """Number of parts of a quad, across and down; (1, 1) leaves it whole."""
    across_px = down_px = np.float32(0)  # lengths of its upper and its left side
    for axis in range(2):
        across_px = max(across_px, abs(projected[row, column + 1, axis] - projected[row, column, axis]))
        down_px = max(down_px, abs(projected[row + 1, column, axis] - projected[row, column, axis]))
    for i in range(2):
        if projected[row + i, column, 2] == 0 or projected[row + i, column + 1, 2] == 0:
            return 1, 1
    for axis in range(2):
        low, high = np.float32(np.inf), -np.float32(np.inf)
        for i in range(2):
            low = min(low, projected[row + i, column, axis], projected[row + i, column + 1, axis])
            high = max(high, projected[row + i, column, axis], projected[row + i, column + 1, axis])
        if high <= -1 or low >= (height_px if axis else width_px):
            return 1, 1
    for i in range(2):
        if not (_is_one_surface(depth_m, row + i, column, 0, 1) and _is_one_surface(depth_m, row, column + i, 1, 0)):
            return 1, 1
    return _parts(across_px), _parts(down_px)


@kernel
def _parts(extent_px):
    surplus_px = extent_px - np.float32(MAX_SPACING_PX - 1)
    return math.ceil(min(max(surplus_px, np.float32(1)), np.float32(MAX_PARTS)))


@kernel
def _is_one_surface(depth_m, row, column, step_y, step_x):
    """Whether the pixel and the next one are equally far, or one continues the slope of a plane."""
    low_m, high_m = depth_m[row, column], depth_m[row + step_y, column + step_x]
    near_m = min(low_m, high_m)
    if max(low_m, high_m) - near_m <= np.float32(DEPTH_TOLERANCE) * near_m:
        return True
    slope = 1 / high_m - 1 / low_m
    y, x = row - step_y, column - step_x
    if y >= 0 and x >= 0 and abs(slope - (1 / low_m - 1 / depth_m[y, x])) * near_m <= MAX_BEND:
        return True
    y, x = row + 2 * step_y, column + 2 * step_x
    if y >= depth_m.shape[0] or x >= depth_m.shape[1]:
        return False
    return abs(1 / depth_m[y, x] - 1 / high_m - slope) * near_m <= MAX_BEND


@kernel
def _land(uvz, surface):
    """Lower the z-buffer [H, W] at the pixel that each sample [N, 3] is nearest to."""
    height_px, width_px = surface.shape
    low, high_x, high_y = np.float32(-1), np.float32(width_px), np.float32(height_px)
    for i in range(len(uvz)):
        u, v, z = uvz[i, 0], uvz[i, 1], uvz[i, 2]
        if z == 0 or not (u > low and u < high_x and v > low and v < high_y):
            continue
        x, y = np.int64(math.floor(u + HALF_PX)), np.int64(math.floor(v + HALF_PX))
        if x >= 0 and x < width_px and y >= 0 and y < height_px and z < surface[y, x]:
            surface[y, x] = z


@kernel
def _touch(uvz, surface, touched):
    """Lower the z-buffer `touched` at all pixels that a sample touches, where `surface` is unknown."""
    height_px, width_px = surface.shape
    low, high_x, high_y = np.float32(-1), np.float32(width_px), np.float32(height_px)
    for i in range(len(uvz)):
        u, v, z = uvz[i, 0], uvz[i, 1], uvz[i, 2]
        if z == 0 or not (u > low and u < high_x and v > low and v < high_y):
            continue
        left, top = np.int64(math.floor(u)), np.int64(math.floor(v))
        right, bottom = np.int64(math.ceil(u)), np.int64(math.ceil(v))
        for y in (top, bottom):
            for x in (left, right):
                if x >= 0 and x < width_px and y >= 0 and y < height_px and surface[y, x] == np.inf:
                    touched[y, x] = min(touched[y, x], z)


@kernel
def _merge(surface, start, stop):
    """Bring the nearest of all z-buffers [C, H, W] into the first one, target rows [start, stop)."""
    for k in range(1, len(surface)):
        for y in range(start, stop):
            for x in range(surface.shape[2]):
                surface[0, y, x] = min(surface[0, y, x], surface[k, y, x])


@kernel
def _complete(surface, touched, start, stop):
    """Where `surface` [H, W] is unknown, take what was touched [C, H, W]; rows [start, stop)."""
    for y in range(start, stop):
        for x in range(surface.shape[1]):
            if surface[y, x] == np.inf:
                for k in range(len(touched)):
                    surface[y, x] = min(surface[y, x], touched[k, y, x])


@kernel
def _accumulate(rgb, uvz, surface, sums):
    """Add samples, their colours [N, 3] and (u, v, z) [N, 3], to `sums` [H, W, (r, g, b, z, weight)]."""
    height_px, width_px = surface.shape
    for i in range(len(uvz)):
        u, v, z = uvz[i, 0], uvz[i, 1], uvz[i, 2]
        if z == 0 or not (u > -1 and u < width_px and v > -1 and v < height_px):
            continue
        r, g, b = np.float32(rgb[i, 0]), np.float32(rgb[i, 1]), np.float32(rgb[i, 2])
        x_px, y_px = int(math.floor(u)), int(math.floor(v))
        for dy in range(2):
            y = y_px + dy
            weight_y = np.float32(1) - abs(v - np.float32(y))
            if weight_y <= 0 or y < 0 or y >= height_px:
                continue
            for dx in range(2):
                x = x_px + dx
                weight = weight_y * (np.float32(1) - abs(u - np.float32(x)))
                if weight <= 0 or x < 0 or x >= width_px:
                    continue
                if abs(z - surface[y, x]) > np.float32(DEPTH_TOLERANCE) * surface[y, x]:
                    continue
                sums[y, x, 0] += weight * r
                sums[y, x, 1] += weight * g
                sums[y, x, 2] += weight * b
                sums[y, x, 3] += weight * z
                sums[y, x, 4] += weight


@kernel
def _normalize(sums, start, stop, image_u8, depth_m, is_known):
    for y in range(start, stop):
        for x in range(image_u8.shape[1]):
            r = g = b = z = weight = np.float32(0)
            for k in range(len(sums)):
                r += sums[k, y, x, 0]
                g += sums[k, y, x, 1]
                b += sums[k, y, x, 2]
                z += sums[k, y, x, 3]
                weight += sums[k, y, x, 4]
            known = weight >= np.float32(MIN_COVERAGE)
            scale = np.float32(1) / weight if known else np.float32(0)
            is_known[y, x] = known
            image_u8[y, x, 0] = np.uint8(r * scale + np.float32(0.5))
            image_u8[y, x, 1] = np.uint8(g * scale + np.float32(0.5))
            image_u8[y, x, 2] = np.uint8(b * scale + np.float32(0.5))
            depth_m[y, x] = z * scale
