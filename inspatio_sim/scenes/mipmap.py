"""Texture lookup with prefiltering: trilinear reads from one table of mip pyramids.

A mip pyramid holds a texture at ever halved sizes. Each ray reads the size whose texels are as large as
its pixel is on the surface, so nothing finer than a pixel gets into the image, near or far.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.scenes.textures import SIZE_PX, Drawable, texture_image

NUM_LEVELS = SIZE_PX.bit_length()  # SIZE_PX, SIZE_PX / 2, ..., 1 px
LEVEL_START = [sum((SIZE_PX >> finer) ** 2 for finer in range(level)) for level in range(NUM_LEVELS)]
TEXELS_PER_TEXTURE = LEVEL_START[-1] + 1


def pyramid(image: Tensor) -> Tensor:
    """All levels of one seamless texture, row by row, finest first. [S, S, 3] -> [TEXELS_PER_TEXTURE, 3]"""
    binomial = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(binomial, binomial).expand(3, 1, 4, 4)
    level = image.permute(2, 0, 1)[None]
    levels = [level]
    while level.shape[-1] > 1:
        padded = F.pad(level, [1, 1, 1, 1], mode="circular")
        level = F.conv2d(padded, kernel, stride=2, groups=3)
        levels.append(level)
    return torch.cat([level[0].permute(1, 2, 0).reshape(-1, 3) for level in levels])


@lru_cache(maxsize=256)
def _cached_pyramid(texture: Drawable) -> Tensor:
    return pyramid(texture_image(texture))


@lru_cache(maxsize=8)
def texel_table(textures: tuple[Drawable, ...], device: torch.device) -> Tensor:
    """The pyramids of several textures, one after the other. [len(textures) * TEXELS_PER_TEXTURE, 3]"""
    return torch.cat([_cached_pyramid(texture) for texture in textures]).to(device)


def sample(texels: Tensor, texture_idx: Tensor, uv: Tensor, footprint: Tensor) -> Tensor:
    """Read textures with bilinear interpolation in two neighbouring levels, mixed.

    Args:
        texels: `texel_table`. [M, 3]
        texture_idx: which texture each ray hit, integer. [N]
        uv: where, in repeats of the texture. [N, 2]
        footprint: width of a pixel on the surface, in repeats of the texture. [N]

    Returns:
        RGB in 0..1. [N, 3]
    """
    level = torch.log2((footprint * SIZE_PX).clamp(min=1)).clamp(max=NUM_LEVELS - 1.001)
    finer = level.floor()
    mix = (level - finer)[:, None]
    finer = finer.long()
    start = texture_idx * TEXELS_PER_TEXTURE
    return torch.lerp(_bilinear(texels, start, finer, uv), _bilinear(texels, start, finer + 1, uv), mix)


def _bilinear(texels: Tensor, start: Tensor, level: Tensor, uv: Tensor) -> Tensor:
    """Read one level of the textures that start at row `start` of the table. [N, 3]"""
    size = SIZE_PX >> level
    position = uv * size[:, None] - 0.5
    corner = position.floor()
    fraction = position - corner
    mask = (size - 1)[:, None]
    low = corner.long() & mask  # repeats: sizes are powers of two
    high = (low + 1) & mask
    base = start + torch.tensor(LEVEL_START, device=uv.device)[level]
    top, bottom = base + low[:, 1] * size, base + high[:, 1] * size
    fraction_x, fraction_y = fraction[:, 0:1], fraction[:, 1:2]
    upper = torch.lerp(texels[top + low[:, 0]], texels[top + high[:, 0]], fraction_x)
    lower = torch.lerp(texels[bottom + low[:, 0]], texels[bottom + high[:, 0]], fraction_x)
    return torch.lerp(upper, lower, fraction_y)
