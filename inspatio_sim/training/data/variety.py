"""Variety for crops of clips that cost nothing: mirrored, turned, in other colours and another light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_GAMMA = 1.6
MAX_CONTRAST = 1.3
MAX_BRIGHTNESS = 0.12


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Another look for whole clips: colours exchanged, each then through a curve."""

    order: NDArray[np.int64]  # where each colour comes from. [3]
    curves_u8: NDArray[np.uint8]  # [256, 3]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Colours:
        """Half of them with their colours exchanged, all in another light."""
        order = rng.permutation(3) if rng.random() < 0.5 else np.arange(3)
        gamma = MAX_GAMMA ** rng.uniform(-1, 1)
        contrast = MAX_CONTRAST ** rng.uniform(-1, 1, 3)  # of each colour
        brightness = rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)
        level = (np.arange(256) / 255) ** gamma
        curves = ((level[:, None] - 0.5) * contrast + 0.5 + brightness).clip(0, 1)
        return cls(order=order, curves_u8=np.round(255 * curves).astype(np.uint8))

    def of(self, frames_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same frames in these colours. [..., 3]"""
        return np.stack([self.curves_u8[frames_u8[..., self.order[i]], i] for i in range(3)], axis=-1)


def varied(frames_u8: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same crop otherwise: half of them mirrored, half played backwards, all in other colours.

    Colours change for whole clips, so that nothing flickers.

    Args:
        frames_u8: [T, H, W, 3]
        rng: what decides; every change draws from it, whether it is made or not.
    """
    is_mirrored, is_upside_down, is_reversed = rng.random(3) < (0.5, 0.1, 0.5)
    colours = Colours.draw(rng)
    frames_u8 = frames_u8[::-1] if is_reversed else frames_u8
    frames_u8 = frames_u8[:, :, ::-1] if is_mirrored else frames_u8
    frames_u8 = frames_u8[:, ::-1] if is_upside_down else frames_u8
    return colours.of(frames_u8)
