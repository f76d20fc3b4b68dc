"""Depth for unmeasured pixels, from a small network that looks at the image.

The network corrects the push-pull completion, in the logarithm of inverse depth, and never changes a
known pixel, so measurements keep the result metric. If nothing is known it gives depth up to an
unknown factor, with median 1.

Shapes: B pictures, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspatio_sim.checkpoints.safetensors_file import SafetensorsFile
from inspatio_sim.checkpoints.write import write_safetensors
from inspatio_sim.errors import CheckpointMismatch, InputError

MIN_INVERSE = 1e-4  # minimum of inverse depth, relative to its median
MAX_CORRECTION = 4.0  # maximum correction of the logarithm: a factor of 55
KIND = "depth network"  # in the header of its files
INPUTS = 7  # colours, filled and known inverse depth, known mask, height in the image
BLOCK_PX = 2
TRAINED_PX = 96 * 160  # size of the pictures it is trained on


@dataclass(frozen=True, kw_only=True)
class DepthNetworkConfig:
    """Widths of the levels, from half the image's size down, each half as large as the one before."""

    widths: tuple[int, ...] = (32, 64, 96, 128, 160)

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise InputError(f"widths={self.widths}: want at least two positive numbers")


class DepthNetwork(nn.Module):
    """Colours, known depth and where it is known -> depth everywhere; its convolutions may be of any float type.

    A U-Net on 2x2 blocks of pixels. Images much larger than its training images are completed at a smaller size, and
    the unknown parts are enlarged.
    """

    def __init__(self, config: DepthNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or DepthNetworkConfig()
        widths = self.config.widths
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(
            [_level(inner, outer) for inner, outer in [(INPUTS * BLOCK_PX**2, widths[0]), *pairs]]
        )
        self.narrow = nn.ModuleList([nn.Conv2d(coarse, fine, 1) for fine, coarse in reversed(pairs)])
        self.up = nn.ModuleList([_level(fine, fine) for fine, _ in reversed(pairs)])
        self.last = nn.Conv2d(widths[0], BLOCK_PX**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # begins as push-pull completion
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, rgb: Tensor, depth_m: Tensor) -> Tensor:
        """Complete depth.

        Args:
            rgb: in [-1, 1]. [B, 3, H, W]
            depth_m: z-depth, 0 = unknown. [B, 1, H, W]

        Returns:
            z-depth; unchanged where known; with median 1 in images where nothing is known. [B, 1, H, W]
        """
        check_pictures(rgb, depth_m)
        is_known = depth_m > 0
        inverse = torch.where(is_known, 1 / depth_m.clamp(min=1e-6), 0)
        small_rgb, small_inverse, small_known = _smaller(rgb, inverse, is_known)
        scale = _median_where(small_inverse, small_known)  # [B, 1, 1, 1]
        relative = small_inverse / scale
        filled = fill_holes(relative, small_known).clamp(min=MIN_INVERSE)
        correction = self._correction(small_rgb, filled, relative, small_known)
        correction = correction.float().clamp(-MAX_CORRECTION, MAX_CORRECTION)
        knows_nothing = ~is_known.flatten(1).any(1).view(-1, 1, 1, 1)
        centre = correction.flatten(1).median(1).values.view(-1, 1, 1, 1)
        correction = correction - torch.where(knows_nothing, centre, 0)
        completed = torch.where(small_known, filled, filled * correction.exp())
        if completed.shape != depth_m.shape:
            completed = F.interpolate(completed, size=depth_m.shape[-2:], mode="bilinear", align_corners=False)
        return torch.where(is_known, depth_m, 1 / (completed * scale))

    def _correction(self, rgb: Tensor, filled: Tensor, relative: Tensor, is_known: Tensor) -> Tensor:
        """Correction of the logarithm of inverse depth, given relative inverse depth. [B, 1, H, W]"""
        batch, _, height_px, width_px = rgb.shape
        y = torch.linspace(-1, 1, height_px, device=rgb.device).view(1, 1, -1, 1).expand(batch, 1, -1, width_px)
        x = torch.cat([rgb, filled.log(), relative, is_known.to(rgb.dtype), y], dim=1).to(self.last.weight.dtype)
        if width_px % BLOCK_PX or height_px % BLOCK_PX:
            x = F.pad(x, (0, -width_px % BLOCK_PX, 0, -height_px % BLOCK_PX), mode="replicate")
        x = F.pixel_unshuffle(x, BLOCK_PX).contiguous(memory_format=torch.channels_last)
        fine = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else F.avg_pool2d(x, 2, ceil_mode=True))
            fine.append(x)
        for narrow, level, skipped in zip(self.narrow, self.up, reversed(fine[:-1]), strict=True):
            larger = F.interpolate(narrow(x), size=skipped.shape[-2:], mode="bilinear", align_corners=False)
            x = level(skipped + larger)
        return F.pixel_shuffle(self.last(x), BLOCK_PX)[..., :height_px, :width_px]


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


def save_depth_network(
    path: Path, config: DepthNetworkConfig, weights: Mapping[str, Tensor], notes: Mapping[str, Any]
) -> None:
    """Write a file that appears whole or not at all, in float16.

    Args:
        path: the safetensors file.
        config: config of the network.
        weights: state of the network.
        notes: origin of the weights, JSON-ready.
    """
    half = {name: tensor.detach().cpu().to(torch.float16) for name, tensor in weights.items()}
    metadata = {"kind": KIND, "config": json.dumps(asdict(config)), "notes": json.dumps(notes, default=str)}
    write_safetensors(path, {name: (tuple(x.shape), x.dtype) for name, x in half.items()}, half.__getitem__, metadata)


def load_depth_network(path: Path) -> DepthNetwork:
    """Read a file of `save_depth_network`; float32, ready to use.

    Raises:
        CheckpointMismatch: the file is something else.
    """
    file = SafetensorsFile(path)
    if file.metadata.get("kind") != KIND:
        raise CheckpointMismatch(f"{path}: not a depth network: want a file that depth training wrote")
    try:
        config = DepthNetworkConfig(widths=tuple(json.loads(file.metadata["config"])["widths"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{path}: no widths in its header: want the file as it was written") from error
    network = DepthNetwork(config)
    state = network.state_dict()
    wanted = {name: tuple(x.shape) for name, x in state.items()}
    found = {name: info.shape for name, info in file.tensors.items()}
    if wanted != found:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise CheckpointMismatch(f"{path}: {len(wrong)} tensors missing, extra or misshapen: {wrong[:3]}")
    network.load_state_dict({name: file.read(name).float() for name in wanted})
    return network.eval().requires_grad_(False)


def check_pictures(rgb: Tensor, depth_m: Tensor) -> None:
    """Raise InputError unless both are pictures of one size."""
    wanted = (rgb.shape[0], 1, *rgb.shape[2:])
    if rgb.ndim != 4 or rgb.shape[1] != 3 or depth_m.shape != wanted:
        raise InputError(f"rgb is {list(rgb.shape)}, depth {list(depth_m.shape)}: want [B, 3, H, W] and [B, 1, H, W]")


def _median_where(values: Tensor, is_there: Tensor) -> Tensor:
    """Median of the known values of each image; 1 if there are none. [B, 1, H, W] -> [B, 1, 1, 1]"""
    picked = torch.where(is_there, values, torch.nan).flatten(1).nanmedian(1).values
    return torch.nan_to_num(picked, nan=1.0).view(-1, 1, 1, 1)


def _smaller(rgb: Tensor, inverse: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shrink images to about the training size: means over squares of pixels, for inverse depth over the known ones."""
    side_px = max(1, round((rgb.shape[-2] * rgb.shape[-1] / TRAINED_PX) ** 0.5))
    if side_px == 1:
        return rgb, inverse, is_known
    rgb, total, share = (
        F.avg_pool2d(x, side_px, ceil_mode=True, count_include_pad=False)
        for x in (rgb, inverse, is_known.to(rgb.dtype))
    )
    return rgb, total / share.clamp(min=1e-12), share > 0


def _level(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, padding=1),
        nn.GroupNorm(min(8, outer), outer) if outer % min(8, outer) == 0 else nn.GroupNorm(1, outer),
        nn.SiLU(inplace=True),
        nn.Conv2d(outer, outer, 3, padding=1),
        nn.SiLU(inplace=True),
    )
