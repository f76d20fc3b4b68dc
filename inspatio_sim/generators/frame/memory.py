"""How much memory a generator of single frames will need, before anything is loaded; and what would fit.

Counted from the sizes: the weights, and what transformer and codec each hold at their fullest. Views that a world
remembers are in main memory and small. The libraries' own workspaces, and a GPU's driver, are not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from inspatio_sim.codecs import tiny_narrow
from inspatio_sim.codecs.sd_vae import NUM_PARAMETERS, PEAK
from inspatio_sim.errors import InputError, NotEnoughMemory
from inspatio_sim.generators.presets.frame_config import NUM_IMAGES
from inspatio_sim.generators.presets.registry import FramePreset, frame_preset
from inspatio_sim.generators.star.memory import GB, TinyCodecMemory, available_bytes
from inspatio_sim.latents import SPATIAL_STRIDE

TOKEN_WIDTHS = 15  # numbers of a token at a block's fullest, in widths: x before and now, normalised, the two of GELU
SMALLEST_PRESET = "frame-tiny"


@dataclass(frozen=True, kw_only=True)
class MemoryRequest:
    """What somebody wants to run."""

    preset: FramePreset
    size_px: tuple[int, int]  # height and width of the frames; whole tokens
    batch: int  # worlds at once
    dtype: torch.dtype  # of weights and activations

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch={self.batch}: want 1 or more")

    @property
    def num_bytes(self) -> int:
        """The most at any time: all parts, since an allocator keeps for each what it once had."""
        config = self.preset.frame
        h, w = (edge // SPATIAL_STRIDE for edge in self.size_px)
        activations = TOKEN_WIDTHS * config.hidden_size * NUM_IMAGES * config.tokens_of(h, w)
        if self.preset.codec_kind == "tiny":
            tiny = TinyCodecMemory(tiny_narrow())
            weights, peak = tiny.weight_bytes(self.dtype), tiny.peak_bytes(h, w, 1, self.dtype)
        else:
            weights, peak = NUM_PARAMETERS * self.dtype.itemsize, PEAK * h * w * SPATIAL_STRIDE**2 * self.dtype.itemsize
        per_world = activations * self.dtype.itemsize + peak
        return self.preset.num_parameters * self.dtype.itemsize + weights + self.batch * per_world


def check_fits(request: MemoryRequest, device: torch.device) -> None:
    """See that the device has room.

    Raises:
        NotEnoughMemory: it has not. One line: what is needed, what is free, and the setting that would fit.
    """
    free = available_bytes(device)
    if request.num_bytes <= free:
        return
    fitting = next((name for name, smaller in _smaller(request, free) if smaller.num_bytes <= free), None)
    worlds = "1 world" if request.batch == 1 else f"{request.batch} worlds"
    raise NotEnoughMemory(
        f"{worlds} of {request.size_px[0]}x{request.size_px[1]} px in {str(request.dtype).removeprefix('torch.')} on "
        f"{device}: need {request.num_bytes / GB:.2f} GB, {free / GB:.2f} GB are free: "
        + (f"use {fitting}" if fitting else "no smaller batch or preset would fit either")
    )


def _smaller(request: MemoryRequest, free: int) -> Iterator[tuple[str, MemoryRequest]]:
    """Settings that need less, in the order of what they cost the user."""
    also = ""
    if request.dtype == torch.float32:
        request, also = replace(request, dtype=torch.bfloat16), "dtype=bfloat16, "
        yield "dtype=bfloat16", request
    batches = range(1, request.batch)
    if num_fitting := bisect_right(batches, free, key=lambda batch: replace(request, batch=batch).num_bytes):
        yield f"{also}batch={num_fitting}", replace(request, batch=num_fitting)
    if request.preset.name != SMALLEST_PRESET:
        yield f"{also}preset={SMALLEST_PRESET}", replace(request, preset=frame_preset(SMALLEST_PRESET))
