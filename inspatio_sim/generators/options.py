"""What each generator can be told, checked as far as it can be before a file is read; light to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inspatio_sim.errors import InputError
from inspatio_sim.latents import BLOCK_LATENTS, TEMPORAL_STRIDE, check_block_latents

Precision = Literal["auto", "float32", "bfloat16"]
CodecName = Literal["auto", "tiny", "wan"]

MAX_VIEWS = 32
MAX_WARP_FRAMES = 1000


@dataclass(frozen=True, kw_only=True)
class WarpOptions:
    """Of warp: geometry only, holes inpainted."""

    frames_per_block: int = 1  # the first block is as long

    def __post_init__(self) -> None:
        if type(self.frames_per_block) is not int or not 1 <= self.frames_per_block <= MAX_WARP_FRAMES:
            wanted = f"a whole number from 1 to {MAX_WARP_FRAMES}"
            raise InputError(f"frames_per_block={self.frames_per_block}: want {wanted}")

    @property
    def best_size_px(self) -> tuple[int, int]:
        return 480, 832


@dataclass(frozen=True, kw_only=True)
class StarOptions:
    """Of star, the video student."""

    preset: str = "tiny"  # a name of the registry (`inspatio-sim weights list`)
    weights: str | Path | None = None  # folder with its files; None: that of INSPATIO_WEIGHTS, then the package's own
    random_weights: bool = False  # seeded random numbers in place of trained weights, to try the machinery
    device: str = "auto"  # cpu, cuda, cuda:1, ...; auto takes a GPU where there is one
    dtype: Precision = "auto"  # of weights and activations; auto: bfloat16 where the device multiplies it natively
    codec: CodecName = "auto"  # tiny (TAEHV), wan (slower, sharper), or auto: the preset's
    steps: Sequence[int] | None = None  # nominal, falling from 1000; None: 1000 750 500 250
    noise_scale: float | None = None  # of the noise that frames are made from: less is calmer; None: the preset's
    block_latents: int = BLOCK_LATENTS  # 3 (9 frames first, 12 after) down to 1 for low latency (1, then 4)
    compile: bool = False  # let torch.compile make it faster; the first blocks of a new size then take minutes
    cuda_graphs: bool = False  # record every pass once and replay it, on a GPU
    fp8: bool = False  # 8-bit products, on GPUs from compute capability 8.9
    low_memory: bool = False  # encode and decode one latent at a time
    paste_renders: bool | None = None  # lay rendered pixels over generated ones; None: as the preset does

    def __post_init__(self) -> None:
        check_block_latents(self.block_latents)

    @property
    def frames_per_block(self) -> int:
        return TEMPORAL_STRIDE * self.block_latents


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Of frame, the image student."""

    preset: str = "frame-tiny"  # these eight as in `StarOptions`
    weights: str | Path | None = None
    random_weights: bool = False
    device: str = "auto"
    dtype: Precision = "auto"
    steps: Sequence[int] | None = None  # falling from 999, such as 999 200
    compile: bool = False
    paste_renders: bool | None = None
    max_views: int = MAX_VIEWS  # that a world remembers

    @property
    def frames_per_block(self) -> int:
        return 1
