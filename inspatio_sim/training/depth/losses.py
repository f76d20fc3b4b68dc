"""What the depth network learns: true depth where it is hidden from it, at every share of known pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from inspatio_sim.errors import InputError

EDGE_WEIGHT = 0.5  # of differences between neighbours: edges sharp, walls flat


def depth_loss(completed_m: Tensor, true_m: Tensor, known_m: Tensor) -> Tensor:
    """Error of the logarithm where depth was unknown, and of its differences to the neighbours. -> []

    Pictures in which nothing was known count up to a factor: the median of the error is taken out.

    Args:
        completed_m: of the network. [B, 1, H, W]
        true_m: 0 = no truth there. [B, 1, H, W]
        known_m: what the network was given. [B, 1, H, W]
    """
    if not completed_m.shape == true_m.shape == known_m.shape:
        shapes = [list(x.shape) for x in (completed_m, true_m, known_m)]
        raise InputError(f"depths of {shapes}: want one shape")
    is_true = true_m > 0
    counts = is_true & (known_m == 0)
    error = torch.where(is_true, completed_m.clamp(min=1e-6).log() - true_m.clamp(min=1e-6).log(), 0)
    knows_nothing = ~(known_m > 0).flatten(1).any(1)
    centre = torch.where(is_true, error, torch.nan).flatten(1).nanmedian(1).values.nan_to_num()
    error = error - torch.where(knows_nothing, centre, 0).view(-1, 1, 1, 1)
    plain = _mean_where(error.abs(), counts)
    across = _mean_where(error.diff(dim=3).abs(), is_true[..., 1:] & is_true[..., :-1])
    along = _mean_where(error.diff(dim=2).abs(), is_true[..., 1:, :] & is_true[..., :-1, :])
    return plain + EDGE_WEIGHT * (across + along)


def hide(true_m: Tensor, generator: torch.Generator) -> Tensor:
    """Known depth as renders leave it: whole sides, blobs and single pixels missing, now and then everything.

    Args:
        true_m: [B, 1, H, W]
        generator: what decides; on the CPU.

    Returns:
        z-depth, 0 where hidden. [B, 1, H, W]
    """
    batch, _, height_px, width_px = true_m.shape
    coarse = torch.randn(batch, 1, max(2, height_px // 16), max(2, width_px // 16), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height_px, width_px), mode="bicubic", align_corners=False)
    slope = torch.randn(batch, 2, 1, 1, 1, generator=generator)
    y = torch.linspace(-1, 1, height_px).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width_px).view(1, 1, 1, -1)
    field = smooth + slope[:, 0] * y + slope[:, 1] * x  # [B, 1, H, W]
    share = torch.rand(batch, generator=generator)
    share = torch.where(torch.rand(batch, generator=generator) < 0.2, 1.0, share)  # a fifth knows nothing
    threshold = torch.stack([torch.quantile(f, s) for f, s in zip(field.flatten(1), share, strict=True)])
    is_hidden = field <= threshold.view(-1, 1, 1, 1)
    is_hidden |= torch.rand(true_m.shape, generator=generator) < 0.02
    return torch.where(is_hidden.to(true_m.device), 0, true_m)


def _mean_where(values: Tensor, counts: Tensor) -> Tensor:
    return (values * counts).sum() / counts.sum().clamp(min=1)
