"""Depth for pixels nobody measured, by a small network that looks at the picture.

The network corrects what push-pull completion says, in the logarithm of inverse depth, and never touches a
known pixel: what is measured keeps the result metric. Where nothing at all is known it gives depth up to an
unknown factor, with median 1.

Shapes: B pictures, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspatio_sim.errors import InputError

MIN_INVERSE = 1e-4  # of depth over its median: farther is as far
MAX_CORRECTION = 4.0  # of the logarithm: a factor of 55


@dataclass(frozen=True, kw_only=True)
class DepthNetworkConfig:
    """Widths of the levels, from the full picture down, each half as large as the one before."""

    widths: tuple[int, ...] = (16, 32, 64, 96, 128)

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise InputError(f"widths={self.widths}: want at least two positive numbers")


class DepthNetwork(nn.Module):
    """Colours, known depth and where it is known -> depth everywhere."""

    def __init__(self, config: DepthNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or DepthNetworkConfig()
        widths = self.config.widths
        self.down = nn.ModuleList(
            [_level(inner, outer) for inner, outer in zip((6, *widths[:-1]), widths, strict=True)]
        )
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.up = nn.ModuleList([_level(fine + coarse, fine) for fine, coarse in reversed(pairs)])
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # begins as push-pull completion
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, rgb: Tensor, depth_m: Tensor) -> Tensor:
        """Complete depth.

        Args:
            rgb: in [-1, 1]. [B, 3, H, W]
            depth_m: z-depth, 0 = unknown. [B, 1, H, W]

        Returns:
            z-depth; as it came where it was known; of median 1 in pictures where nothing was. [B, 1, H, W]
        """
        check_pictures(rgb, depth_m)
        is_known = depth_m > 0
        inverse = torch.where(is_known, 1 / depth_m.clamp(min=1e-6), 0)
        scale = _median_where(inverse, is_known)  # [B, 1, 1, 1]
        relative = inverse / scale
        filled = fill_holes(relative, is_known).clamp(min=MIN_INVERSE)
        x = torch.cat([rgb, filled.log(), relative, is_known.to(rgb.dtype)], dim=1)
        correction = self._correction(x).clamp(-MAX_CORRECTION, MAX_CORRECTION)
        knows_nothing = ~is_known.flatten(1).any(1).view(-1, 1, 1, 1)
        centre = correction.flatten(1).median(1).values.view(-1, 1, 1, 1)
        completed = filled * (correction - torch.where(knows_nothing, centre, 0)).exp()
        return torch.where(is_known, depth_m, 1 / (completed * scale))

    def _correction(self, x: Tensor) -> Tensor:
        """What to add to the logarithm of inverse depth. [B, 6, H, W] -> [B, 1, H, W]"""
        fine = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else F.avg_pool2d(x, 2, ceil_mode=True))
            fine.append(x)
        for level, skipped in zip(self.up, reversed(fine[:-1]), strict=True):
            larger = F.interpolate(x, size=skipped.shape[-2:], mode="bilinear", align_corners=False)
            x = level(torch.cat([skipped, larger], dim=1))
        return self.last(x)


def fill_holes(values: Tensor, is_known: Tensor) -> Tensor:
    """Push-pull completion: means of the known ever further around; 1 where nothing is known. [B, 1, H, W]

    Source: Gortler et al., The Lumigraph, 1996, section 3.6; `complete.complete_depth` is the same for one picture.
    """
    weight = is_known.to(values.dtype)
    pyramid = [(values * weight, weight)]
    while max(pyramid[-1][0].shape[-2:]) > 1:
        total, weight = (4 * F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in pyramid[-1])
        excess = weight.clamp(min=1)
        pyramid.append((total / excess, weight / excess))
    total, weight = pyramid.pop()
    filled = torch.where(weight > 0, total / weight.clamp(min=1e-12), 1)
    for total, weight in reversed(pyramid):
        larger = F.interpolate(filled, size=weight.shape[-2:], mode="bilinear", align_corners=False)
        filled = total + (1 - weight) * larger
    return filled


def check_pictures(rgb: Tensor, depth_m: Tensor) -> None:
    """Raise InputError unless both are pictures of one size."""
    wanted = (rgb.shape[0], 1, *rgb.shape[2:])
    if rgb.ndim != 4 or rgb.shape[1] != 3 or depth_m.shape != wanted:
        raise InputError(f"rgb is {list(rgb.shape)}, depth {list(depth_m.shape)}: want [B, 3, H, W] and [B, 1, H, W]")


def _median_where(values: Tensor, is_there: Tensor) -> Tensor:
    """Median over what is there, picture by picture; 1 where nothing is. [B, 1, H, W] -> [B, 1, 1, 1]"""
    picked = torch.where(is_there, values, torch.nan).flatten(1).nanmedian(1).values
    return torch.nan_to_num(picked, nan=1.0).view(-1, 1, 1, 1)


def _level(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, padding=1),
        nn.GroupNorm(min(8, outer), outer) if outer % min(8, outer) == 0 else nn.GroupNorm(1, outer),
        nn.SiLU(inplace=True),
        nn.Conv2d(outer, outer, 3, padding=1),
        nn.SiLU(inplace=True),
    )
