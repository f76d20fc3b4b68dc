"""One RGB-D frame into another camera: bilinear forward warp with a hard z-test.

`forward_warp` is the fast CPU path, `forward_warp_plain` the same in plain torch on any device.
`forward_warp_batch_weighted` is the reference implementation's soft z-weighting, in which a frame's
result depends on the other frames of its batch; published checkpoints were trained on such renders.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.camera import Array, Intrinsics
from inspatio_sim.geometry.render import Render
from inspatio_sim.kernels import chunk_bounds, kernel, run_chunks

NUM_CHUNKS = 2  # for frames worth a second thread
SMALL_FRAME_PX = 50_000
SNAP_PX = 1e-3  # a coordinate this near to a pixel centre is that centre: the identity warp is exact
DEPTH_TOLERANCE = 0.05  # contributions this close to the nearest surface (relative) belong to it
MIN_COVERAGE = 0.2  # bilinear weight that must land on a pixel before it counts as known
NEAR_M = 1e-3


def forward_warp(
    rgb_u8: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    source: Intrinsics,
    target: Intrinsics,
    T_target_source: Array,
) -> Render:
    """See one RGB-D frame from another camera.

    Every source pixel lands on the four pixels around its projection. The nearest surface is found
    first, from each source pixel's nearest target pixel; only what lies on it is averaged, so far
    colours never leak through near ones and silhouettes do not grow. Gaps of one pixel within a surface,
    as magnification leaves them, are closed.

    Args:
        rgb_u8: source colours. [H, W, 3]
        depth_m: source z-depth, 0 = unknown. [H, W]
        source: intrinsics of the source camera.
        target: intrinsics of the target camera; gives the size of the result.
        T_target_source: takes source camera points to the target camera. [4, 4]
    """
    height_px, width_px = target.height_px, target.width_px
    motion = _pixel_motion(source, target, T_target_source)
    num_chunks = NUM_CHUNKS if depth_m.size > SMALL_FRAME_PX else 1
    source_rows = chunk_bounds(len(rgb_u8), num_chunks)
    projected = np.empty((*depth_m.shape, 3), dtype=np.float32)
    nearest = [np.full((height_px, width_px), np.inf, dtype=np.float32) for _ in source_rows]
    touched = [np.full((height_px, width_px), np.inf, dtype=np.float32) for _ in source_rows]
    run_chunks(
        _project,
        [
            (depth_m, motion, start, stop, projected, nearest[i], touched[i])
            for i, (start, stop) in enumerate(source_rows)
        ],
    )
    target_rows = chunk_bounds(height_px, num_chunks)
    surface = np.empty((height_px, width_px), dtype=np.float32)
    run_chunks(_surface, [(tuple(nearest), tuple(touched), start, stop, surface) for start, stop in target_rows])
    sums = [np.zeros((height_px, width_px, 5), dtype=np.float32) for _ in source_rows]
    run_chunks(
        _accumulate,
        [(rgb_u8, projected, surface, start, stop, sums[i]) for i, (start, stop) in enumerate(source_rows)],
    )
    image_u8 = np.empty((height_px, width_px, 3), dtype=np.uint8)
    warped_depth_m = np.empty((height_px, width_px), dtype=np.float32)
    is_known = np.empty((height_px, width_px), dtype=np.bool_)
    run_chunks(
        _normalize, [(tuple(sums), start, stop, image_u8, warped_depth_m, is_known) for start, stop in target_rows]
    )
    views = image_u8, warped_depth_m, is_known
    for step_y, step_x in ((0, 1), (1, 0)):
        closed = tuple(view.copy() for view in views)
        run_chunks(_close_pinholes, [(*views, start, stop, step_y, step_x, *closed) for start, stop in target_rows])
        views = closed
    return Render(rgb_u8=views[0], depth_m=views[1], is_known=views[2])


def _pixel_motion(source: Intrinsics, target: Intrinsics, T_target_source: Array) -> NDArray[np.float32]:
    """The 3x4 matrix M with z' [u', v', 1] = M [d u, d v, d, 1]."""
    K_target, K_source_inv = target.K_px, np.linalg.inv(source.K_px)
    rotation, translation = T_target_source[:3, :3], T_target_source[:3, 3]
    return np.concatenate([K_target @ rotation @ K_source_inv, (K_target @ translation)[:, None]], 1)


@kernel
def _project(depth_m, motion, start, stop, projected, nearest, touched):
    """Project the source rows [start, stop) and lower both z-buffers [H, W]."""
    height_px, width_px = nearest.shape
    for row in range(start, stop):
        for column in range(depth_m.shape[1]):
            d = np.float64(depth_m[row, column])
            projected[row, column, 2] = 0
            if not (d > 0 and d < np.inf):
                continue
            x = (motion[0, 0] * column + motion[0, 1] * row + motion[0, 2]) * d + motion[0, 3]
            y = (motion[1, 0] * column + motion[1, 1] * row + motion[1, 2]) * d + motion[1, 3]
            z = (motion[2, 0] * column + motion[2, 1] * row + motion[2, 2]) * d + motion[2, 3]
            if not z > NEAR_M:
                continue
            u, v = x / z, y / z
            if not (u > -1 and u < width_px and v > -1 and v < height_px):
                continue
            u_centre, v_centre = np.rint(u), np.rint(v)
            if abs(u - u_centre) < SNAP_PX:
                u = u_centre
            if abs(v - v_centre) < SNAP_PX:
                v = v_centre
            depth = np.float32(z)
            projected[row, column, 0], projected[row, column, 1], projected[row, column, 2] = u, v, depth
            x_centre, y_centre = int(u_centre), int(v_centre)
            if x_centre >= 0 and x_centre < width_px and y_centre >= 0 and y_centre < height_px:
                nearest[y_centre, x_centre] = min(nearest[y_centre, x_centre], depth)
            for y_px in range(int(math.floor(v)), int(math.ceil(v)) + 1):
                for x_px in range(int(math.floor(u)), int(math.ceil(u)) + 1):
                    if x_px >= 0 and x_px < width_px and y_px >= 0 and y_px < height_px:
                        touched[y_px, x_px] = min(touched[y_px, x_px], depth)


@kernel
def _surface(nearest, touched, start, stop, surface):
    """Depth of the visible surface in the target rows [start, stop); inf where nothing landed."""
    for y in range(start, stop):
        for x in range(surface.shape[1]):
            depth = np.float32(np.inf)
            for buffer in nearest:
                depth = min(depth, buffer[y, x])
            if depth == np.inf:
                for buffer in touched:
                    depth = min(depth, buffer[y, x])
            surface[y, x] = depth


@kernel
def _accumulate(rgb_u8, projected, surface, start, stop, sums):
    """Add the source rows [start, stop) to `sums` [H, W, (r, g, b, z, weight)]."""
    height_px, width_px = surface.shape
    for row in range(start, stop):
        for column in range(rgb_u8.shape[1]):
            z = projected[row, column, 2]
            if z == 0:
                continue
            u, v = projected[row, column, 0], projected[row, column, 1]
            x_px, y_px = int(math.floor(u)), int(math.floor(v))
            for dy in range(2):
                weight_y = np.float32(1) - abs(v - np.float32(y_px + dy))
                y = y_px + dy
                if weight_y <= 0 or y < 0 or y >= height_px:
                    continue
                for dx in range(2):
                    weight = weight_y * (np.float32(1) - abs(u - np.float32(x_px + dx)))
                    x = x_px + dx
                    if weight <= 0 or x < 0 or x >= width_px:
                        continue
                    if abs(z - surface[y, x]) > np.float32(DEPTH_TOLERANCE) * surface[y, x]:
                        continue
                    sums[y, x, 0] += weight * rgb_u8[row, column, 0]
                    sums[y, x, 1] += weight * rgb_u8[row, column, 1]
                    sums[y, x, 2] += weight * rgb_u8[row, column, 2]
                    sums[y, x, 3] += weight * z
                    sums[y, x, 4] += weight


@kernel
def _normalize(sums, start, stop, image_u8, depth_m, is_known):
    for y in range(start, stop):
        for x in range(image_u8.shape[1]):
            r = g = b = z = weight = np.float32(0)
            for buffer in sums:
                r += buffer[y, x, 0]
                g += buffer[y, x, 1]
                b += buffer[y, x, 2]
                z += buffer[y, x, 3]
                weight += buffer[y, x, 4]
            known = weight >= np.float32(MIN_COVERAGE)
            scale = np.float32(1) / weight if known else np.float32(0)
            is_known[y, x] = known
            image_u8[y, x, 0] = np.uint8(r * scale + np.float32(0.5))
            image_u8[y, x, 1] = np.uint8(g * scale + np.float32(0.5))
            image_u8[y, x, 2] = np.uint8(b * scale + np.float32(0.5))
            depth_m[y, x] = z * scale


@kernel
def _close_pinholes(image_u8, depth_m, is_known, start, stop, step_y, step_x, closed_u8, closed_depth_m, closed_known):
    """Fill pixels between two known ones of one surface, in one direction, in the rows [start, stop)."""
    height_px, width_px = is_known.shape
    for y in range(max(start, step_y), min(stop, height_px - step_y)):
        for x in range(step_x, width_px - step_x):
            if is_known[y, x] or not (is_known[y - step_y, x - step_x] and is_known[y + step_y, x + step_x]):
                continue
            z_low, z_high = depth_m[y - step_y, x - step_x], depth_m[y + step_y, x + step_x]
            if abs(z_low - z_high) > np.float32(DEPTH_TOLERANCE) * min(z_low, z_high):
                continue
            for c in range(3):
                low, high = image_u8[y - step_y, x - step_x, c], image_u8[y + step_y, x + step_x, c]
                closed_u8[y, x, c] = (np.int64(low) + np.int64(high) + 1) // 2
            closed_depth_m[y, x] = np.float32(0.5) * (z_low + z_high)
            closed_known[y, x] = True


def forward_warp_plain(
    rgb_u8: Tensor,
    depth_m: Tensor,
    K_source_px: Tensor,
    K_target_px: Tensor,
    T_target_source: Tensor,
    height_px: int,
    width_px: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same warp in plain torch, batched; every frame is independent of its batch.

    Args:
        rgb_u8: source colours. [B, h, w, 3]
        depth_m: source z-depth, 0 = unknown. [B, h, w]
        K_source_px: [B, 3, 3]
        K_target_px: [B, 3, 3]
        T_target_source: takes source camera points to the target camera. [B, 4, 4]
        height_px: H of the target.
        width_px: W of the target.

    Returns:
        rgb_u8 [B, H, W, 3], depth_m [B, H, W] and is_known [B, H, W]; 0 where unknown.
    """
    batch, rows, columns = depth_m.shape
    device = depth_m.device
    v_source, u_source = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    pixels = torch.stack([u_source, v_source, torch.ones_like(u_source)], -1).double()  # [h, w, 3]
    motion = K_target_px.double() @ T_target_source[:, :3, :3].double() @ torch.linalg.inv(K_source_px.double())
    offset = K_target_px.double() @ T_target_source[:, :3, 3:].double()
    projected = torch.einsum("bij,hwj->bhwi", motion, pixels) * depth_m[..., None].double() + offset.mT[:, None]
    z = projected[..., 2]
    uv = projected[..., :2] / z[..., None]
    uv = torch.where((uv - uv.round()).abs() < SNAP_PX, uv.round(), uv)
    size = torch.tensor([width_px, height_px], device=device)
    is_valid = (depth_m > 0) & depth_m.isfinite() & (z > NEAR_M) & (uv > -1).all(-1) & (uv < size).all(-1)
    frame_idx = torch.arange(batch, device=device)[:, None, None].expand(z.shape)[is_valid]
    uv, z = uv[is_valid].float(), z[is_valid].float()  # [M, 2], [M]
    rgb = rgb_u8[is_valid].float()

    def flat_index(xy: Tensor) -> tuple[Tensor, Tensor]:
        is_inside = ((xy >= 0) & (xy < size)).all(-1)
        return (frame_idx * height_px + xy[:, 1]) * width_px + xy[:, 0], is_inside

    corner = uv.floor().long()
    corners = [corner + torch.tensor([dx, dy], device=device) for dy in (0, 1) for dx in (0, 1)]
    weights = [(1 - (uv - c).abs()).clamp(min=0).prod(-1) for c in corners]
    num_pixels = batch * height_px * width_px
    nearest = torch.full((num_pixels,), torch.inf, device=device)
    pixel, is_inside = flat_index(uv.round().long())
    nearest.scatter_reduce_(0, pixel[is_inside], z[is_inside], "amin")
    touched = torch.full_like(nearest, torch.inf)
    for c, weight in zip(corners, weights, strict=True):
        pixel, is_inside = flat_index(c)
        lands = is_inside & (weight > 0)
        touched.scatter_reduce_(0, pixel[lands], z[lands], "amin")
    surface = torch.where(nearest.isinf(), touched, nearest)
    sums = torch.zeros(num_pixels, 5, device=device)
    values = torch.cat([rgb, z[:, None], torch.ones_like(z)[:, None]], -1)
    for c, weight in zip(corners, weights, strict=True):
        pixel, is_inside = flat_index(c)
        lands = is_inside & (weight > 0)
        lands[lands.clone()] = (z[lands] - surface[pixel[lands]]).abs() <= DEPTH_TOLERANCE * surface[pixel[lands]]
        sums.index_add_(0, pixel[lands], values[lands] * weight[lands, None])
    weight = sums[:, 4:]
    is_known = weight[:, 0] >= MIN_COVERAGE
    mean = torch.where(is_known[:, None], sums[:, :4] / weight, 0.0)
    shape = (batch, height_px, width_px)
    return _close_pinholes_plain(
        (mean[:, :3] + 0.5).to(torch.uint8).view(*shape, 3), mean[:, 3].view(shape), is_known.view(shape)
    )


def _close_pinholes_plain(rgb_u8: Tensor, depth_m: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fill pixels between two known ones of one surface. [B, H, W, 3], [B, H, W], [B, H, W]"""
    for axis in (2, 1):  # left and right, then above and below
        at, low, high = ((slice(None),) * axis + (part,) for part in (slice(1, -1), slice(-2), slice(2, None)))
        near_m = torch.minimum(depth_m[low], depth_m[high])
        is_one_surface = (depth_m[low] - depth_m[high]).abs() <= DEPTH_TOLERANCE * near_m
        fill = torch.zeros_like(is_known)
        fill[at] = ~is_known[at] & is_known[low] & is_known[high] & is_one_surface
        colors, middle_m = torch.zeros_like(rgb_u8), torch.zeros_like(depth_m)
        colors[at] = ((rgb_u8[low].int() + rgb_u8[high].int() + 1) // 2).to(torch.uint8)
        middle_m[at] = 0.5 * (depth_m[low] + depth_m[high])
        rgb_u8 = torch.where(fill[..., None], colors, rgb_u8)
        depth_m = torch.where(fill, middle_m, depth_m)
        is_known = is_known | fill
    return rgb_u8, depth_m, is_known


def forward_warp_batch_weighted(
    frame: Tensor,
    depth_m: Tensor,
    K_source_px: Tensor,
    K_target_px: Tensor,
    T_target_source: Tensor,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The reference implementation's warp: soft z-weighting, normalised over the whole batch.

    A contribution's weight is its bilinear weight / exp(50 log(1 + d) / M), d the depth in the target
    clamped to [0, 1000] and M the largest log(1 + d) of the batch. At exactly integer coordinates one
    pixel receives four full weights, as there.

    Args:
        frame: source colours in [-1, 1]. [B, C, H, W]
        depth_m: source z-depth. [B, 1, H, W]
        K_source_px: [B, 3, 3]
        K_target_px: [B, 3, 3]
        T_target_source: [B, 4, 4]
        mask: weight of every source pixel, 1 by default. [B, 1, H, W]

    Returns:
        image [B, C, H, W] in [-1, 1], -1 where nothing landed, and known [B, 1, H, W], 0 or 1.

    Source: InSpatio-World's depth warp, as described by its golden data.
    """
    batch, channels, height_px, width_px = frame.shape
    device, dtype = frame.device, torch.float64  # float32 rounding moves whole pixels here
    frame, depth_m = frame.to(dtype), depth_m.to(dtype)
    K_source_px, K_target_px, T_target_source = (x.to(dtype) for x in (K_source_px, K_target_px, T_target_source))
    v, u = torch.meshgrid(
        torch.arange(height_px, device=device, dtype=dtype),
        torch.arange(width_px, device=device, dtype=dtype),
        indexing="ij",
    )
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).reshape(1, -1, 3).mT  # [1, 3, HW]
    source_points = (torch.linalg.inv(K_source_px) @ pixels) * depth_m.reshape(batch, 1, -1)
    target_points = T_target_source[:, :3, :3] @ source_points + T_target_source[:, :3, 3:]
    projected = K_target_px @ target_points  # [B, 3, HW]
    z = projected[:, 2]
    uv = projected[:, :2] / z[:, None]

    log_depth = torch.log1p(z.clamp(0, 1000))
    source_weight = (z >= 0).to(dtype) / torch.exp(50 * log_depth / log_depth.max())
    if mask is not None:
        source_weight = source_weight * mask.reshape(batch, -1).to(dtype)

    padded_height, padded_width = height_px + 2, width_px + 2  # a border collects what falls outside
    limits = torch.tensor([padded_width - 1, padded_height - 1], device=device, dtype=dtype)[:, None]
    padded_uv = uv + 1
    low, high = padded_uv.floor(), padded_uv.ceil()
    clamped = [torch.minimum(corner.clamp(min=0), limits).long() for corner in (low, high)]
    padded_uv = torch.minimum(padded_uv.clamp(min=0), limits)
    sides = [1 - (padded_uv - clamped[0]), 1 - (clamped[1] - padded_uv)]  # weights of low and high, [B, 2, HW]
    sums = torch.zeros(batch * padded_height * padded_width, channels + 1, device=device, dtype=dtype)
    values = torch.cat([frame.flatten(2), torch.ones_like(z)[:, None]], 1).mT  # [B, HW, C + 1]
    frame_idx = torch.arange(batch, device=device)[:, None]
    for i in (0, 1):
        for j in (0, 1):
            weight = sides[i][:, 0] * sides[j][:, 1] * source_weight
            index = (frame_idx * padded_height + clamped[j][:, 1]) * padded_width + clamped[i][:, 0]
            sums.index_add_(0, index.flatten(), (values * weight[..., None]).flatten(0, 1))
    sums = sums.view(batch, padded_height, padded_width, -1)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)
    known = sums[:, -1:] > 0
    image = torch.where(known, sums[:, :-1] / sums[:, -1:], -1.0)
    return image.clamp(-1, 1).float(), known.float()
