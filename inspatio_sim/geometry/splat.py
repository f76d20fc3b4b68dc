"""Many points into one camera through a z-buffer.

`splat` is the fast CPU path, `splat_plain` the same in plain torch on any device. `splat_plain` also
carries the options of the reference implementation (InSpatio-WorldFM's point renderer): float16
arithmetic, depth ties, and colours averaged by depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.geometry.render import Render
from inspatio_sim.kernels import chunk_bounds, kernel, run_chunks
from inspatio_sim.motion.camera import Array, Intrinsics, inverse

NUM_CHUNKS = 2
MAX_FOOTPRINT_PX = 9  # a point next to the lens covers at most this many pixels each way from its centre
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, kw_only=True)
class SplatRender(Render):
    """A Render with the point that each pixel shows."""

    index: NDArray[np.int32]  # row in the points, -1 where unknown. [H, W]


def splat(
    points_m: NDArray[np.float32],
    rgb_u8: NDArray[np.uint8],
    intrinsics: Intrinsics,
    T_world_camera: Array,
    *,
    near_m: float = 1e-3,
    far_m: float = 1e6,
    point_size_m: float | NDArray[np.float32] = 0.0,
) -> SplatRender:
    """Render points as camera-facing squares; the nearest wins, or the last one if depths are equal.

    Args:
        points_m: world points; rows with NaN are skipped. [N, 3]
        rgb_u8: their colours. [N, 3]
        intrinsics: the target camera; also gives H and W.
        T_world_camera: pose of the target camera. [4, 4]
        near_m: points at or before this depth are not seen.
        far_m: points at or beyond this depth are not seen.
        point_size_m: edge of the square each point stands for, one for all or one each; 0 = one pixel.
    """
    height_px, width_px = intrinsics.height_px, intrinsics.width_px
    T_camera_world = inverse(T_world_camera).astype(np.float32)
    camera = np.array([intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px], dtype=np.float32)
    half_size_m = np.atleast_1d(np.asarray(point_size_m, dtype=np.float32)) * np.float32(0.5)  # [1] or [N]
    num_chunks = NUM_CHUNKS if len(points_m) > 20_000 else 1
    keys = [np.full((height_px, width_px), EMPTY) for _ in range(num_chunks)]
    run_chunks(
        _splat_keys,
        [
            (points_m, start, stop, T_camera_world, camera, np.float32(near_m), np.float32(far_m),
             half_size_m, key)
            for (start, stop), key in zip(chunk_bounds(len(points_m), num_chunks), keys, strict=True)
        ],
    )  # fmt: skip
    image_u8 = np.empty((height_px, width_px, 3), dtype=np.uint8)
    depth_m = np.empty((height_px, width_px), dtype=np.float32)
    index = np.empty((height_px, width_px), dtype=np.int32)
    stacked = tuple(keys)
    run_chunks(
        _resolve_keys,
        [
            (stacked, rgb_u8, start, stop, image_u8, depth_m, index)
            for start, stop in chunk_bounds(height_px, num_chunks)
        ],
    )
    return SplatRender(rgb_u8=image_u8, depth_m=depth_m, is_known=index >= 0, index=index)


@kernel
def _splat_keys(points_m, start, stop, T_camera_world, camera, near_m, far_m, half_size_m, keys):
    """Lower `keys` [H, W] (depth bits above, reversed row below) by the points [start, stop)."""
    height_px, width_px = keys.shape
    fx, fy, cx, cy = camera
    r00, r01, r02, t0 = T_camera_world[0]
    r10, r11, r12, t1 = T_camera_world[1]
    r20, r21, r22, t2 = T_camera_world[2]
    depth_bits = np.empty(1, dtype=np.float32)
    as_uint = depth_bits.view(np.uint32)
    has_sizes = len(half_size_m) > 1
    for i in range(start, stop):
        X, Y, Z = points_m[i, 0], points_m[i, 1], points_m[i, 2]
        z = r20 * X + r21 * Y + r22 * Z + t2
        if not (z > near_m and z < far_m):
            continue
        inv_z = np.float32(1.0) / z
        u = fx * (r00 * X + r01 * Y + r02 * Z + t0) * inv_z + cx
        v = fy * (r10 * X + r11 * Y + r12 * Z + t1) * inv_z + cy
        radius_px = min(half_size_m[i if has_sizes else 0] * fx * inv_z, np.float32(MAX_FOOTPRINT_PX))
        if not (u > -1 - radius_px and u < width_px + radius_px and v > -1 - radius_px and v < height_px + radius_px):
            continue
        column, row = int(np.rint(u)), int(np.rint(v))
        depth_bits[0] = z
        key = (np.uint64(as_uint[0]) << np.uint64(32)) | np.uint64(0xFFFFFFFF - i)
        if radius_px < np.float32(0.5):  # covers its own pixel only
            if column >= 0 and column < width_px and row >= 0 and row < height_px and key < keys[row, column]:
                keys[row, column] = key
            continue
        left, right = min(column, math.ceil(u - radius_px)), max(column, math.floor(u + radius_px))
        top, bottom = min(row, math.ceil(v - radius_px)), max(row, math.floor(v + radius_px))
        for y in range(max(top, 0), min(bottom, height_px - 1) + 1):
            for x in range(max(left, 0), min(right, width_px - 1) + 1):
                if key < keys[y, x]:
                    keys[y, x] = key


@kernel
def _resolve_keys(keys, rgb_u8, start, stop, image_u8, depth_m, index):
    """Take the smallest key of every pixel in the rows [start, stop) and look its point up."""
    width_px = image_u8.shape[1]
    key_bits = np.empty(1, dtype=np.uint32)
    as_float = key_bits.view(np.float32)
    for y in range(start, stop):
        for x in range(width_px):
            best = keys[0][y, x]
            for k in range(1, len(keys)):
                best = min(best, keys[k][y, x])
            if best == EMPTY:
                image_u8[y, x, 0] = image_u8[y, x, 1] = image_u8[y, x, 2] = 0
                depth_m[y, x] = 0
                index[y, x] = -1
                continue
            i = np.int64(np.uint64(0xFFFFFFFF) - (best & np.uint64(0xFFFFFFFF)))
            key_bits[0] = np.uint32(best >> np.uint64(32))
            depth_m[y, x] = as_float[0]
            index[y, x] = i
            image_u8[y, x, 0] = rgb_u8[i, 0]
            image_u8[y, x, 1] = rgb_u8[i, 1]
            image_u8[y, x, 2] = rgb_u8[i, 2]


def splat_plain(
    points_m: Tensor,
    rgb: Tensor,
    K_px: Tensor,
    T_world_camera: Tensor,
    height_px: int,
    width_px: int,
    *,
    near_m: float = 1e-3,
    far_m: float = 1e6,
    point_size_m: float = 0.0,
    precision: Literal["float32", "float16"] = "float32",
    colour: Literal["nearest", "softmin"] = "nearest",
    tie_m: float = 1e-4,
    max_points: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The same render in plain torch, with the options of the reference implementation.

    Args:
        points_m: world points. [N, 3]
        rgb: colours in [0, 1]. [N, 3]
        K_px: intrinsics. [3, 3]
        T_world_camera: pose. [4, 4]
        height_px: H.
        width_px: W.
        near_m: points at or before this depth are not seen.
        far_m: points at or beyond this depth are not seen.
        point_size_m: edge of the square each point stands for; 0 = one pixel.
        precision: arithmetic of points, colours and the camera transform.
        colour: `nearest`: the last point within `tie_m` of the nearest gives the colour;
            `softmin`: mean over the pixel's points weighted by exp(-500 (z - nearest)).
        tie_m: depths this close count as equal.
        max_points: keep every ceil(N / max_points)-th point.

    Returns:
        rgb_u8 [H, W, 3], 0 where unknown, and depth_m [H, W], 0 where unknown.

    Source: InSpatio-WorldFM's point renderer, as described by its golden data.
    """
    if max_points is not None and len(points_m) > max_points:
        step = math.ceil(len(points_m) / max_points)
        points_m, rgb = points_m[::step], rgb[::step]
    dtype = torch.float16 if precision == "float16" else torch.float32
    T_camera_world = torch.linalg.inv(T_world_camera.double()).to(dtype)
    points, rgb = points_m.to(dtype), rgb.to(dtype)
    camera_points = points @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    x, y, z = camera_points.float().unbind(-1)
    fx, fy, cx, cy = (K_px[i, j].float() for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    u, v = fx * x / z + cx, fy * y / z + cy
    radius_px = (0.5 * point_size_m * fx / z).clamp(max=MAX_FOOTPRINT_PX)
    column, row = u.round(), v.round()
    in_range = (z > near_m) & (z < far_m)
    reach = int(math.ceil(float(radius_px[in_range].max()))) if point_size_m > 0 and in_range.any() else 0
    pixels, points_seen = [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            px, py = column + dx, row + dy
            is_hit = in_range & (px >= 0) & (px < width_px) & (py >= 0) & (py < height_px)
            if dx or dy:  # the centre is always drawn
                is_covered_x = ((px - u).abs() <= radius_px) if dx else torch.ones_like(is_hit)
                is_covered_y = ((py - v).abs() <= radius_px) if dy else torch.ones_like(is_hit)
                is_hit &= is_covered_x & is_covered_y
            seen = is_hit.nonzero()[:, 0]
            pixels.append((py[seen] * width_px + px[seen]).long())
            points_seen.append(seen)
    pixel, seen = torch.cat(pixels), torch.cat(points_seen)
    num_pixels = height_px * width_px
    depth = torch.full((num_pixels,), torch.inf, device=z.device)
    depth.scatter_reduce_(0, pixel, z[seen], "amin")
    if colour == "softmin":
        weight = torch.exp(-500 * (z[seen] - depth[pixel]))
        total = torch.zeros(num_pixels, 4, device=z.device)
        weighted = torch.cat([rgb[seen].float(), torch.ones_like(weight)[:, None]], -1) * weight[:, None]
        total.index_add_(0, pixel, weighted)
        image = total[:, :3] / total[:, 3:].clamp(min=1e-12)
    else:
        is_front = z[seen] <= depth[pixel] + tie_m
        last = torch.full((num_pixels,), -1, device=z.device)
        last.scatter_reduce_(0, pixel[is_front], seen[is_front], "amax")
        image = torch.where((last >= 0)[:, None], rgb[last.clamp(min=0)].float(), 0.0)
    rgb_u8 = (image * 255).clamp(0, 255).to(torch.uint8)
    depth = torch.where(depth.isinf(), 0.0, depth)
    return rgb_u8.view(height_px, width_px, 3), depth.view(height_px, width_px)
