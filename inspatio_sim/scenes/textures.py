"""Textures: square, seamless images, drawn from a seed or taken from scikit-image's bundled photographs.

Edges inside a texture are soft and contrasts moderate, so that two views of one wall agree after resampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.errors import InputError

Color = tuple[float, float, float]  # red, green, blue in 0..1

SIZE_PX = 256  # every texture; a power of two, so that mip levels halve evenly
WHITE: Color = (1.0, 1.0, 1.0)


class Drawable(Protocol):
    """What a material can be covered with; hashable, so that it is drawn once."""

    def __hash__(self) -> int: ...

    def draw(self) -> Tensor:
        """RGB in 0..1, seamless when repeated. [SIZE_PX, SIZE_PX, 3]"""
        ...


@dataclass(frozen=True, kw_only=True)
class Texture:
    """One pattern between two colours. Photographs in colour (`PICTURES`) keep their own."""

    pattern: str  # a key of PATTERNS
    color_a: Color = (0.9, 0.9, 0.9)
    color_b: Color = (0.6, 0.6, 0.6)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise InputError(f"texture pattern {self.pattern!r}: want one of {', '.join(PATTERNS)}")

    def draw(self) -> Tensor:
        """RGB in 0..1. [SIZE_PX, SIZE_PX, 3]"""
        drawn = PATTERNS[self.pattern](torch.Generator().manual_seed(self.seed))
        if drawn.ndim == 3:
            return drawn
        color_a, color_b = torch.tensor([self.color_a, self.color_b], dtype=torch.float32)
        return torch.lerp(color_a, color_b, drawn[..., None])  # a mix of the two colours


@lru_cache(maxsize=128)
def texture_image(texture: Drawable) -> Tensor:
    """Draw a texture: RGB in 0..1, seamless when repeated. [SIZE_PX, SIZE_PX, 3]"""
    return texture.draw().clamp(0, 1).float()


# Patterns: a generator enters, a [S, S] mix in 0..1 or a [S, S, 3] picture leaves.


def value_noise(cells_y: int, cells_x: int, generator: torch.Generator) -> Tensor:
    """Smooth periodic noise about 0..1 with the given number of cells a side (powers of two). [S, S]"""
    margin = 2  # cells repeated around the border, so that the bicubic filter sees a torus
    grid = torch.rand(1, 1, cells_y, cells_x, generator=generator)
    rows = torch.arange(-margin, cells_y + margin) % cells_y
    columns = torch.arange(-margin, cells_x + margin) % cells_x
    grid = grid[:, :, rows][:, :, :, columns]
    step_y, step_x = SIZE_PX // cells_y, SIZE_PX // cells_x
    size = (grid.shape[2] * step_y, grid.shape[3] * step_x)
    noise = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)[0, 0]
    return noise[margin * step_y : margin * step_y + SIZE_PX, margin * step_x : margin * step_x + SIZE_PX]


def fractal_noise(generator: torch.Generator, cells: int = 4, octaves: int = 4, stretch: int = 1) -> Tensor:
    """Octaves of value noise, each half as strong and twice as fine; `stretch` lengthens it along x. [S, S]"""
    total, weight = torch.zeros(SIZE_PX, SIZE_PX), 0.0
    for octave in range(octaves):
        cells_y = cells * 2**octave
        total += 0.5**octave * value_noise(cells_y, max(1, cells_y // stretch), generator)
        weight += 0.5**octave
    return total / weight


def _grid() -> tuple[Tensor, Tensor]:
    """Texture coordinates y, x in 0..1 at texel centres. [S, 1], [1, S]"""
    centres = (torch.arange(SIZE_PX) + 0.5) / SIZE_PX
    return centres[:, None], centres[None, :]


def _groove(position: Tensor, half_width: float) -> Tensor:
    """1 in the middle of the groove at whole numbers, smoothly 0 from `half_width` on."""
    distance = (position - position.round()).abs()
    return 0.5 + 0.5 * torch.cos(math.pi * (distance / half_width).clamp(max=1))


def _plaster(generator: torch.Generator) -> Tensor:
    return fractal_noise(generator, cells=4, octaves=5)


def _checker(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    waves = torch.sin(2 * math.pi * 2 * x) * torch.sin(2 * math.pi * 2 * y)  # 4 x 4 squares
    return 0.1 + 0.65 * (0.5 + 0.5 * torch.tanh(7 * waves)) + 0.25 * fractal_noise(generator, cells=8)


def _bricks(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    rows, columns = 8, 4
    row = (y * rows).floor()
    along = x * columns + 0.5 * (row % 2)
    shade = torch.rand(rows, columns, generator=generator)[row.long() % rows, along.floor().long() % columns]
    mortar = torch.maximum(_groove(y * rows, 0.2).expand_as(along), _groove(along, 0.1))
    return torch.lerp(0.1 + 0.35 * shade + 0.2 * fractal_noise(generator, cells=16, octaves=3), torch.ones(()), mortar)


def _planks(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    rows = 8
    row = (y * rows).floor().long() % rows
    shade = torch.rand(rows, generator=generator)[row].expand(SIZE_PX, SIZE_PX)
    grain = fractal_noise(generator, cells=16, octaves=3, stretch=8)
    joint = _groove(x + torch.rand(rows, generator=generator)[row], 0.012)
    return 0.45 * shade + 0.35 * grain + 0.25 * torch.maximum(_groove(y * rows, 0.12).expand_as(joint), joint)


def _wood(generator: torch.Generator) -> Tensor:
    y, _ = _grid()
    warp = fractal_noise(generator, cells=4, octaves=3, stretch=4)
    rings = 0.5 + 0.5 * torch.sin(2 * math.pi * (5 * y + 1.5 * warp))
    return 0.6 * rings + 0.4 * fractal_noise(generator, cells=16, octaves=3, stretch=8)


def _tiles(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    count = 4
    shade = torch.rand(count, count, generator=generator)[(y * count).long(), (x * count).long()]
    grout = torch.maximum(_groove(y * count, 0.07).expand_as(shade), _groove(x * count, 0.07).expand_as(shade))
    return torch.lerp(0.5 * shade + 0.3 * fractal_noise(generator, cells=8), torch.ones(()), grout)


def _wallpaper(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    stripes = 0.5 + 0.5 * torch.sin(2 * math.pi * 4 * x)
    dots = (torch.sin(2 * math.pi * 4 * x - math.pi) * torch.sin(2 * math.pi * 4 * y)).clamp(min=0) ** 3
    return 0.35 * stripes + 0.4 * dots + 0.25 * fractal_noise(generator, cells=4)


def _weave(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    threads = torch.sin(2 * math.pi * 16 * x) * torch.sin(2 * math.pi * 16 * y)
    return 0.5 + 0.2 * threads + 0.5 * (fractal_noise(generator, cells=4) - 0.5)


def _rug(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    edge = torch.maximum((y - 0.5).abs(), (x - 0.5).abs())  # square rings around the middle
    diamonds = ((y - 0.5).abs() + (x - 0.5).abs()) * 2
    rings = 0.5 + 0.5 * torch.sin(2 * math.pi * torch.where(edge < 0.36, 3 * diamonds, 7 * edge))
    return 0.8 * rings + 0.2 * fractal_noise(generator, cells=16, octaves=2)


def _photo(name: str) -> np.ndarray:
    """A photograph that comes inside scikit-image's wheel (nothing is downloaded). [h, w] or [h, w, 3] in 0..1"""
    from skimage import data

    return getattr(data, name)().astype(np.float32) / 255


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased resize. [C, h, w]"""
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _picture(name: str) -> Callable[[torch.Generator], Tensor]:
    """A photograph in a white mat, whose border makes it seamless."""

    def draw(_: torch.Generator) -> Tensor:
        mat_px = SIZE_PX // 16
        inner = SIZE_PX - 2 * mat_px
        photo = resized(torch.from_numpy(_photo(name)).permute(2, 0, 1), (inner, inner))
        return F.pad(photo, [mat_px] * 4, value=0.92).permute(1, 2, 0)

    return draw


def _material_photo(name: str) -> Callable[[torch.Generator], Tensor]:
    """A grey photograph of a material, mirrored in both directions to be seamless, stretched to 0..1."""

    def draw(_: torch.Generator) -> Tensor:
        half = resized(torch.from_numpy(_photo(name))[None], (SIZE_PX // 2, SIZE_PX // 2))[0]
        low, high = torch.quantile(half, torch.tensor([0.02, 0.98]))
        half = ((half - low) / (high - low)).clamp(0, 1)
        top = torch.cat([half, half.flip(1)], dim=1)
        return torch.cat([top, top.flip(0)], dim=0)

    return draw


PICTURES = ("astronaut", "chelsea", "coffee", "rocket")  # colour, shown as framed pictures
PATTERNS: dict[str, Callable[[torch.Generator], Tensor]] = {
    "plaster": _plaster,
    "checker": _checker,
    "bricks": _bricks,
    "planks": _planks,
    "wood": _wood,
    "tiles": _tiles,
    "wallpaper": _wallpaper,
    "weave": _weave,
    "rug": _rug,
    "grass": _material_photo("grass"),
    "gravel": _material_photo("gravel"),
    **{name: _picture(name) for name in PICTURES},
}
