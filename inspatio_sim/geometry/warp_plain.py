"""The forward warp in plain torch: any device, batched, and the reference for the fast one in `warp`."""

from __future__ import annotations

import torch
from torch import Tensor

from inspatio_sim.geometry.warp import (
    DEPTH_TOLERANCE,
    HALF_PX,
    MAX_BEND,
    MAX_PARTS,
    MAX_SPACING_PX,
    MIN_COVERAGE,
    MIXED_GAP_PX,
    NEAR_M,
    SNAP_PX,
)


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
    xyz = torch.einsum("bij,hwj->bhwi", motion, pixels) * depth_m[..., None].double() + offset.mT[:, None]
    is_valid = (depth_m > 0) & depth_m.isfinite() & (xyz[..., 2] > NEAR_M)
    projected = torch.where(is_valid[..., None], _uvz_plain(xyz), 0.0)
    is_valid &= ~_is_mixed_plain(depth_m, projected)
    projected = torch.where(is_valid[..., None], projected, 0.0)
    size = torch.tensor([width_px, height_px], device=device)
    frame_idx = torch.arange(batch, device=device)[:, None, None].expand(is_valid.shape)[is_valid]
    samples = [(frame_idx, rgb_u8[is_valid].float(), projected[is_valid])]
    samples += _between_plain(rgb_u8, depth_m, projected, size)
    frame_idx, rgb, uvz = (torch.cat(parts) for parts in zip(*samples, strict=True))
    lands = ((uvz[:, :2] > -1) & (uvz[:, :2] < size)).all(-1)
    frame_idx, rgb, uv, z = frame_idx[lands], rgb[lands], uvz[lands, :2], uvz[lands, 2]  # [M], [M, 3], [M, 2], [M]

    def flat_index(xy: Tensor) -> tuple[Tensor, Tensor]:
        is_inside = ((xy >= 0) & (xy < size)).all(-1)
        return (frame_idx * height_px + xy[:, 1]) * width_px + xy[:, 0], is_inside

    corner = uv.floor().long()
    corners = [corner + torch.tensor([dx, dy], device=device) for dy in (0, 1) for dx in (0, 1)]
    weights = [(1 - (uv - c).abs()).clamp(min=0).prod(-1) for c in corners]
    num_pixels = batch * height_px * width_px
    nearest = torch.full((num_pixels,), torch.inf, device=device)
    pixel, is_inside = flat_index((uv.double() + HALF_PX).floor().long())
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
    colors = (mean[:, :3] + 0.5).to(torch.uint8)
    return colors.view(*shape, 3), mean[:, 3].view(shape), is_known.view(shape)


def _uvz_plain(xyz: Tensor) -> Tensor:
    """Homogeneous pixels (u z, v z, z) to (u, v, z). [..., 3]"""
    uv = xyz[..., :2] / xyz[..., 2:]
    uv = torch.where((uv - uv.round()).abs() < SNAP_PX, uv.round(), uv)
    return torch.cat([uv, xyz[..., 2:]], -1).float()


def _is_mixed_plain(depth_m: Tensor, projected: Tensor) -> Tensor:
    """Pixels that are next to a nearer surface and separate from it. [B, h, w]"""
    is_mixed = torch.zeros_like(depth_m, dtype=torch.bool)
    is_one_surface = {1: _is_one_surface_plain(depth_m.mT).mT, 2: _is_one_surface_plain(depth_m)}
    for axis, one_surface in is_one_surface.items():
        ends = [depth_m.narrow(axis, i, depth_m.shape[axis] - 1) for i in (0, 1)]
        uvz = [projected.narrow(axis, i, depth_m.shape[axis] - 1) for i in (0, 1)]
        gap_px = (uvz[1] - uvz[0])[..., :2].abs().amax(-1)
        parts = (gap_px > MIXED_GAP_PX) & (uvz[0][..., 2] > 0) & (uvz[1][..., 2] > 0) & ~one_surface
        for i in (0, 1):
            is_far = ends[1 - i] < ends[i] * (1 - DEPTH_TOLERANCE)
            is_mixed.narrow(axis, i, depth_m.shape[axis] - 1).logical_or_(parts & is_far)
    return is_mixed


def _between_plain(
    rgb_u8: Tensor, depth_m: Tensor, projected: Tensor, size: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Samples inside the magnified quads: frame index [N], colour [N, 3] and (u, v, z) [N, 3], part by part."""

    def corners(x: Tensor) -> Tensor:
        return torch.stack([x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]])

    uvz, colors = corners(projected), corners(rgb_u8)  # [4, B, h-1, w-1, 3]
    uv = uvz[..., :2]
    sides_px = torch.stack([uv[1] - uv[0], uv[2] - uv[0]])  # the upper and the left one
    surplus_px = sides_px.abs().amax(-1) - (MAX_SPACING_PX - 1)
    num_x, num_y = surplus_px.clamp(1, MAX_PARTS).ceil().long()  # [B, h-1, w-1]
    is_seen = ((uv.amax(0) > -1) & (uv.amin(0) < size)).all(-1)
    across, down = _is_one_surface_plain(depth_m), _is_one_surface_plain(depth_m.mT).mT
    is_one_surface = across[:, :-1] & across[:, 1:] & down[..., :-1] & down[..., 1:]
    num_parts = num_x * num_y * ((uvz[..., 2] > 0).all(0) & is_seen & is_one_surface)
    samples = []
    for part in range(1, MAX_PARTS**2):
        is_cut = part < num_parts
        across, down = num_x[is_cut].double(), num_y[is_cut].double()
        share_x, share_y = (part % across) / across, (part // across) / down
        weights = [(1 - share_x) * (1 - share_y), share_x * (1 - share_y), (1 - share_x) * share_y, share_x * share_y]
        weight = torch.stack(weights)[..., None]  # [4, N, 1]
        at = uvz[:, is_cut].double()
        xyz = torch.cat([at[..., :2] * at[..., 2:], at[..., 2:]], -1)
        rgb = (weight * colors[:, is_cut]).sum(0).float()
        samples.append((is_cut.nonzero()[:, 0], rgb, _uvz_plain((weight * xyz).sum(0))))
    return samples


def _is_one_surface_plain(depth_m: Tensor) -> Tensor:
    """Whether a pixel and the next one are equally far, or one continues the slope of a plane. [..., W - 1]"""
    low_m, high_m = depth_m[..., :-1], depth_m[..., 1:]
    near_m = torch.minimum(low_m, high_m)
    result = torch.maximum(low_m, high_m) - near_m <= DEPTH_TOLERANCE * near_m
    bend = (1 / depth_m.double()).diff(dim=-1).diff(dim=-1).abs()
    result[..., 1:] |= bend * near_m[..., 1:] <= MAX_BEND
    result[..., :-1] |= bend * near_m[..., :-1] <= MAX_BEND
    return result
