"""Many points into many views: one sortable number per pixel says which point it shows.

A key has the bits of the depth above and the reversed row of the point below. So the smallest key is the
nearest point, or the last one if depths are equal, in any order of drawing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.geometry.splat import EMPTY, MAX_FOOTPRINT_PX
from inspatio_sim.kernels import chunk_bounds, kernel, run_chunks
from inspatio_sim.motion.camera import Array, Intrinsics, inverse

NUM_CHUNKS = 2
SELECT_CHUNKS = 8
SMALL_CLOUD = 20_000  # not worth a second thread
TILE = 512  # points projected at a time: that loop has no branches and is vectorised
MAX_REACH_PX = 2  # up to this radius, one lookup tells that a point is hidden


class PointsInView(NamedTuple):
    """A pool of points, and the subset that some views may show."""

    rgb_u8: NDArray[np.uint8]  # colours of the whole pool. [N, 3]
    is_generated: NDArray[np.bool_]  # for the whole pool: never filmed. [N]
    row: NDArray[np.int32]  # in the pool. [M]
    xyz_size_m: NDArray[np.float32]  # position in the world, and edge of each point's square. [4, M]
    near_m: float  # points at or before this depth are not seen


def select_points(
    position_m: NDArray[np.float32],
    size_m: NDArray[np.float32],
    intrinsics: Intrinsics,
    T_world_camera: Array,
    near_m: float,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """A superset of the points [N, 3] that any of F views [F, 4, 4] shows: rows [M], x y z size [4, M].

    A point is left out if it lies behind one side of the middle view's frustum by more than the other
    views differ from it.
    """
    T_middle = T_world_camera[len(T_world_camera) // 2]
    margin_px = MAX_FOOTPRINT_PX + 1
    low_x, low_y = -margin_px - intrinsics.cx_px, -margin_px - intrinsics.cy_px
    high_x = intrinsics.width_px + margin_px - intrinsics.cx_px
    high_y = intrinsics.height_px + margin_px - intrinsics.cy_px
    fx, fy = intrinsics.fx_px, intrinsics.fy_px
    sides = np.array([[fx, 0, -low_x], [-fx, 0, high_x], [0, fy, -low_y], [0, -fy, high_y], [0, 0, 1]])
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)  # inward normals in camera axes. [5, 3]
    normals = sides @ np.swapaxes(T_world_camera[:, :3, :3], 1, 2)  # in world axes. [F, 5, 3]
    middle = sides @ T_middle[:3, :3].T
    turned = np.linalg.norm(normals - middle, axis=-1).max(0)  # [5]
    offsets_m = np.einsum("fki,fi->fk", normals, T_middle[:3, 3] - T_world_camera[:, :3, 3]).max(0)  # [5]
    offsets_m[4] -= near_m
    planes = np.concatenate([middle, turned[:, None], offsets_m[:, None] + 1e-4], 1).astype(np.float32)
    centre_m = T_middle[:3, 3].astype(np.float32)
    rows, xyz_size_m = np.empty(len(position_m), np.int32), np.empty((4, len(position_m)), np.float32)
    bounds = chunk_bounds(len(position_m), SELECT_CHUNKS if len(position_m) > SMALL_CLOUD else 1)
    counts = run_chunks(_select, [(position_m, size_m, planes, centre_m, *chunk, rows, xyz_size_m) for chunk in bounds])
    pieces = [slice(start, start + count) for (start, _), count in zip(bounds, counts, strict=True)]
    return (
        np.concatenate([rows[piece] for piece in pieces]),
        np.concatenate([xyz_size_m[:, piece] for piece in pieces], 1),
    )


@kernel
def _select(position_m, size_m, planes, centre_m, start, stop, rows, xyz_size_m):
    """Write the points of [start, stop) that are in view from `start` on; returns how many there are."""
    count = 0
    is_seen = np.empty(TILE, np.bool_)
    left, right, top, bottom, front = planes[0], planes[1], planes[2], planes[3], planes[4]
    for first in range(start, stop, TILE):
        num_points = min(TILE, stop - first)
        for k in range(num_points):  # no branches: vectorised; NaN is on no side of a plane
            i = first + k
            x, y, z = position_m[i, 0] - centre_m[0], position_m[i, 1] - centre_m[1], position_m[i, 2] - centre_m[2]
            is_seen[k] = (
                _is_inside(left, x, y, z)
                & _is_inside(right, x, y, z)
                & _is_inside(top, x, y, z)
                & _is_inside(bottom, x, y, z)
                & _is_inside(front, x, y, z)
            )
        for k in range(num_points):
            if is_seen[k]:
                i = first + k
                rows[start + count] = i
                for axis in range(3):
                    xyz_size_m[axis, start + count] = position_m[i, axis]
                xyz_size_m[3, start + count] = size_m[i]
                count += 1
    return count


@kernel
def _is_inside(plane, x, y, z):
    return plane[0] * x + plane[1] * y + plane[2] * z + plane[3] * (abs(x) + abs(y) + abs(z)) + plane[4] > 0


def splat_keys(
    points: PointsInView,
    intrinsics: Intrinsics,
    T_world_camera: Array,
    limit_m: NDArray[np.float32],
    *,
    has_all_threads: bool,
) -> NDArray[np.uint64]:
    """The point that each pixel shows.

    Args:
        points: the cloud.
        intrinsics: the target camera.
        T_world_camera: its pose. [4, 4]
        limit_m: only points nearer than this count; inf: all do. [H, W]
        has_all_threads: use several threads; the result is the same.

    Returns:
        Keys, see `depth_and_rank`. [H, W]
    """
    T_camera_world = inverse(T_world_camera).astype(np.float32)
    camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px], dtype=np.float32)
    squares = [np.ones((2 * reach_px + 1,) * 2, np.uint8) for reach_px in range(1, MAX_REACH_PX + 1)]
    reach_m = np.stack([cv2.dilate(limit_m, square) for square in squares])  # farthest limit in reach
    num_chunks = NUM_CHUNKS if has_all_threads and len(points.row) > SMALL_CLOUD else 1
    keys = np.empty((num_chunks, *limit_m.shape), np.uint64)
    run_chunks(
        _draw,
        [
            (points.xyz_size_m[:, start:stop], points.row[start:stop], T_camera_world, camera,
             np.float32(points.near_m), limit_m, reach_m, keys[i])
            for i, (start, stop) in enumerate(chunk_bounds(len(points.row), num_chunks))
        ],
    )  # fmt: skip
    return keys[0] if num_chunks == 1 else keys.min(axis=0)


@kernel
def _draw(xyz_size_m, rows, T_camera_world, camera, near_m, limit_m, reach_m, keys):
    """Fill `keys` [H, W] with the limits, then lower them by the points."""
    height_px, width_px = keys.shape
    depth_bits = np.empty(1, dtype=np.float32)
    as_uint = depth_bits.view(np.uint32)
    for row in range(height_px):
        for column in range(width_px):
            depth_bits[0] = limit_m[row, column]
            is_open = limit_m[row, column] == np.float32(np.inf)
            keys[row, column] = EMPTY if is_open else (np.uint64(as_uint[0]) << np.uint64(32)) | np.uint64(0xFFFFFFFF)
    uvzr = np.empty((4, TILE), dtype=np.float32)
    for first in range(0, len(rows), TILE):
        num_points = min(TILE, len(rows) - first)
        _project_tile(xyz_size_m[:, first : first + num_points], T_camera_world, camera, uvzr)
        for k in range(num_points):
            u, v, z, radius_px = uvzr[0, k], uvzr[1, k], uvzr[2, k], uvzr[3, k]
            if not (z > near_m and u > -1 - radius_px and u < width_px + radius_px):
                continue
            if not (v > -1 - radius_px and v < height_px + radius_px):
                continue
            column, row = np.int64(np.rint(u)), np.int64(np.rint(v))
            is_inside = column >= 0 and column < width_px and row >= 0 and row < height_px
            if is_inside and radius_px <= np.float32(MAX_REACH_PX):
                reach = 0 if radius_px <= np.float32(1) else math.ceil(radius_px) - 1
                if z >= reach_m[reach, row, column]:
                    continue  # hidden wherever it is drawn
            depth_bits[0] = z
            key = (np.uint64(as_uint[0]) << np.uint64(32)) | np.uint64(0xFFFFFFFF - rows[first + k])
            if radius_px < np.float32(0.5):  # covers its own pixel only
                if is_inside and key < keys[row, column]:
                    keys[row, column] = key
                continue
            left, right = min(column, math.ceil(u - radius_px)), max(column, math.floor(u + radius_px))
            top, bottom = min(row, math.ceil(v - radius_px)), max(row, math.floor(v + radius_px))
            for y in range(max(top, 0), min(bottom, height_px - 1) + 1):
                for x in range(max(left, 0), min(right, width_px - 1) + 1):
                    if key < keys[y, x]:
                        keys[y, x] = key


@kernel
def _project_tile(xyz_size_m, T_camera_world, camera, uvzr):
    """Pixel coordinates, depth and radius in pixels of some points. [4, n] -> [4, n]"""
    fx, fy, cx, cy = camera
    r00, r01, r02, t0 = T_camera_world[0]
    r10, r11, r12, t1 = T_camera_world[1]
    r20, r21, r22, t2 = T_camera_world[2]
    for k in range(xyz_size_m.shape[1]):
        X, Y, Z = xyz_size_m[0, k], xyz_size_m[1, k], xyz_size_m[2, k]
        z = r20 * X + r21 * Y + r22 * Z + t2
        inv_z = np.float32(1.0) / z
        radius_px = np.float32(0.5) * xyz_size_m[3, k] * fx * inv_z
        uvzr[0, k] = fx * (r00 * X + r01 * Y + r02 * Z + t0) * inv_z + cx
        uvzr[1, k] = fy * (r10 * X + r11 * Y + r12 * Z + t1) * inv_z + cy
        uvzr[2, k] = z
        uvzr[3, k] = radius_px if radius_px < np.float32(MAX_FOOTPRINT_PX) else np.float32(MAX_FOOTPRINT_PX)


def depth_and_rank(keys: NDArray[np.uint64]) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """The two halves of keys, as views: z-depth in metres, and 2^32 - 1 minus the point's row. [H, W] each

    Where nothing is shown the depth is NaN; where no point beat the limit it is that limit.
    """
    halves = keys.view(np.uint32).reshape(*keys.shape, 2)
    high = 1 if np.little_endian else 0
    return halves.view(np.float32)[..., high], halves[..., 1 - high]
