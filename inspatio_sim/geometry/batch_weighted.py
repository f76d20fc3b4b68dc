"""The forward warp of the reference implementation, for checkpoints that were trained on its renders.

Its soft z-weighting makes a frame's result depend on the other frames of its batch; `warp.forward_warp` is
the one to use for everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
