"""How much memory the image student will need, before anything is loaded; and what would fit where that does not.

Weights are those of the modules, without their numbers; what transformer and codec hold at their fullest is counted
from the sizes. Views that a world remembers are in main memory and small. The libraries' own workspaces, and a GPU's
driver, are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from inspatio_sim.codecs import tiny_narrow
from inspatio_sim.codecs.memory import CodecMemory, SdVaeMemory, TinyCodecMemory
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.memory import Change, check_room, fitting_setting
from inspatio_sim.generators.presets.frame_config import NUM_IMAGES
from inspatio_sim.generators.presets.registry import FramePreset, frame_preset
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
        config, itemsize = self.preset.frame, self.dtype.itemsize
        h, w = (edge // SPATIAL_STRIDE for edge in self.size_px)
        activations = TOKEN_WIDTHS * config.hidden_size * NUM_IMAGES * config.tokens_of(h, w)
        codec: CodecMemory = TinyCodecMemory(tiny_narrow()) if self.preset.codec_kind == "tiny" else SdVaeMemory()
        per_world = activations * itemsize + codec.peak_bytes(h, w, 1, self.dtype)
        return self.preset.num_parameters * itemsize + codec.weight_bytes(self.dtype) + self.batch * per_world


def check_fits(request: MemoryRequest, device: torch.device) -> None:
    """See that the device has room.

    Raises:
        NotEnoughMemory: it has not; names a setting that would fit.
    """
    check_room(
        request.num_bytes,
        device,
        batch=request.batch,
        size_px=request.size_px,
        dtype=request.dtype,
        setting=lambda free: _setting_for(request, free),
    )


def _setting_for(request: MemoryRequest, free: int) -> str | None:
    def fits(changes: Mapping[str, Any]) -> bool:
        return replace(request, **changes).num_bytes <= free

    cheap: list[Change] = [("dtype=bfloat16", {"dtype": torch.bfloat16})] if request.dtype == torch.float32 else []
    smaller: list[Change] = []
    if request.preset.name != SMALLEST_PRESET:
        smaller.append((f"preset={SMALLEST_PRESET}", {"preset": frame_preset(SMALLEST_PRESET)}))
    return fitting_setting(fits, cheap, request.batch, smaller)
