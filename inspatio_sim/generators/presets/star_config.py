"""The sizes of a STAR transformer, and the presets of the published ones."""

from __future__ import annotations

from dataclasses import dataclass

from inspatio_sim.errors import InputError
from inspatio_sim.latents import SPATIAL_STRIDE

LATENT_CHANNELS = 16
MASK_CHANNELS = 4
PATCH = 2  # latents a token, each way
PIXELS_PER_TOKEN = SPATIAL_STRIDE * PATCH  # frame sizes must be multiples of this


@dataclass(frozen=True, kw_only=True)
class StarConfig:
    """Wan2.1's text-to-video transformer with 36 input channels: 16 noisy, 4 mask, 16 render."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    text_dim: int
    text_len: int
    freq_dim: int = 256
    in_channels: int = LATENT_CHANNELS + MASK_CHANNELS + LATENT_CHANNELS
    out_channels: int = LATENT_CHANNELS

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: want a whole number, 1 or more")
        if self.dim % self.num_heads or self.head_dim % 2 or self.head_dim < 6:
            raise InputError(f"dim={self.dim} over num_heads={self.num_heads}: want an even head width of 6 or more")
        if self.freq_dim % 2:
            raise InputError(f"freq_dim={self.freq_dim}: want an even number")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def condition_channels(self) -> int:
        """Channels beside the latent itself: mask and render."""
        return self.in_channels - self.out_channels


def star_1_3b() -> StarConfig:
    """The published InSpatio-World 1.3B: Wan2.1-T2V-1.3B, widened."""
    return StarConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512)


def star_14b() -> StarConfig:
    """InSpatio-World 14B: Wan2.1-T2V-14B, widened."""
    return StarConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, text_dim=4096, text_len=512)


def star_tiny() -> StarConfig:
    """The student that ships with the package: two CPU cores carry it. Its codec has 32 latent channels."""
    return StarConfig(
        dim=256,
        ffn_dim=1024,
        num_heads=4,
        num_layers=4,
        text_dim=64,
        text_len=8,
        in_channels=32 + MASK_CHANNELS + 32,
        out_channels=32,
    )
