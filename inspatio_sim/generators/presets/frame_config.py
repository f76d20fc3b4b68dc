"""The sizes of a frame transformer, and the presets of the published one and of the small one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inspatio_sim.errors import InputError

NUM_IMAGES = 3  # side by side: the noisy one, the anchors' render, the reference view
TIME_WAVES = 256  # numbers that a timestep becomes
PLUCKER_CHANNELS = 6


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """PixArt-Sigma's transformer over three images side by side, without text."""

    input_size: int  # latents a side of the images it was trained on: the scale of its positions
    patch_size: int = 2  # latents a token, each way
    in_channels: int = 4  # of a latent
    mask_channels: int = 0  # beside the latent: the known share of the anchors' cell, in [-1, 1]
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    pe_interpolation: float = 1.0  # positions are divided by it
    learns_sigma: bool = True  # the result has a second half, which sampling in few steps leaves aside
    has_caption: bool = True  # has what published files hold and nothing uses: caption, cross-attention, rays
    model_max_length: int = 300  # rows of a caption
    caption_channels: int = 4096

    def __post_init__(self) -> None:
        wholes = ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads")
        for name in (*wholes, "model_max_length", "caption_channels"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: want a whole number, 1 or more")
        if not isinstance(self.mask_channels, int) or self.mask_channels not in (0, 1):
            raise InputError(f"mask_channels={self.mask_channels!r}: want 0 or 1")
        for name in ("mlp_ratio", "pe_interpolation"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name}={value!r}: want a positive number")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise InputError(
                f"hidden_size={self.hidden_size} over num_heads={self.num_heads}: want a multiple of 4 and of the heads"
            )
        if self.input_size % self.patch_size:
            raise InputError(f"input_size={self.input_size}: want a multiple of patch_size={self.patch_size}")

    @property
    def base_size(self) -> int:
        """Tokens a side of the images it was trained on."""
        return self.input_size // self.patch_size

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learns_sigma else 1)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    def tokens_of(self, h: int, w: int) -> int:
        """Tokens of one image of h x w latents."""
        if h < 1 or w < 1 or h % self.patch_size or w % self.patch_size:
            raise InputError(f"latents: {h}x{w} came: want multiples of patch_size={self.patch_size}")
        return (h // self.patch_size) * (w // self.patch_size)


def frame_xl() -> FrameConfig:
    """The published InSpatio-WorldFM: PixArt-Sigma XL/2 at 512 x 512 pixels."""
    return FrameConfig(input_size=64)


def frame_tiny() -> FrameConfig:
    """The one that ships with the package: two CPU cores carry it. Latents of 8 pixels, each a token."""
    return FrameConfig(
        input_size=20,
        patch_size=1,
        in_channels=32,
        mask_channels=1,
        hidden_size=256,
        depth=5,
        num_heads=4,
        learns_sigma=False,
        has_caption=False,
    )
