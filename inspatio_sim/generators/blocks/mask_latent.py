"""Known-pixel video -> the four mask channels beside the latents of the video student."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.latents import SPATIAL_STRIDE, TEMPORAL_STRIDE


def mask_latent(known: Tensor, *, starts_clip: bool = True) -> Tensor:
    """Bring a known mask to the latent grid: bilinear in space, four frames stacked as four channels.

    Args:
        known: +1 where a pixel is known, -1 where not; only the first channel counts. [B, T, C, H, W]
        starts_clip: the first frame is the clip's first and fills a latent frame alone (it is repeated
            four times); False for later chunks. Frames beyond the last whole four are dropped.

    Returns:
        Mask channels, float32 if the mask is integer. [B, t, 4, H / 8, W / 8]
    """
    if known.ndim != 5:
        raise InputError(f"mask has shape {tuple(known.shape)}: want [B, T, C, H, W]")
    B, T, _, H, W = known.shape
    if T == 0 or H % SPATIAL_STRIDE or W % SPATIAL_STRIDE or H * W == 0:
        raise InputError(f"mask has {T} frames of {W}x{H} px: want some frames, and multiples of {SPATIAL_STRIDE} px")
    mask = known[:, :, 0] if known.is_floating_point() else known[:, :, 0].float()
    h, w = H // SPATIAL_STRIDE, W // SPATIAL_STRIDE
    mask = F.interpolate(mask, size=(h, w), mode="bilinear", align_corners=False)  # [B, T, h, w]
    if starts_clip:
        mask = mask[:, [0] * (TEMPORAL_STRIDE - 1) + list(range(T))]
    num_latents = mask.shape[1] // TEMPORAL_STRIDE
    return mask[:, : num_latents * TEMPORAL_STRIDE].reshape(B, num_latents, TEMPORAL_STRIDE, h, w)
