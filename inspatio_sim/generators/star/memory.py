"""How much memory the video student will need, before anything is loaded; and what would fit where that does not.

Weights and caches are those of the modules, without their numbers; what a pass holds at its fullest is counted from
the sizes. The text encoder is not counted, it never is on the device; nor are the libraries' own workspaces, and a
GPU's driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn

from inspatio_sim.codecs.memory import FLOAT32_BYTES, CodecMemory
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import DISTILLED_STEPS
from inspatio_sim.generators.blocks.memory import Change, check_room, fitting_setting
from inspatio_sim.generators.presets.shapes import network_of, num_parameters
from inspatio_sim.generators.presets.star_config import PATCH, PIXELS_PER_TOKEN, StarConfig, star_1_3b, star_tiny
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.fp8 import BLOCK_LINEARS, MULTIPLE, has_fp8
from inspatio_sim.latents import BLOCK_LATENTS, SPATIAL_STRIDE

MIN_SIDE_PX = 64  # no smaller frames are suggested
SMALLER_PRESETS = (("inspatio-1.3b", star_1_3b()), ("tiny", star_tiny()))


@dataclass(frozen=True, kw_only=True)
class MemoryRequest:
    """What somebody wants to run."""

    config: StarConfig
    height_px: int  # of the frames; a multiple of 16, like the width
    width_px: int
    batch: int  # worlds at once
    dtype: torch.dtype  # of weights and activations
    codec: CodecMemory
    low_memory: bool = False  # encode and decode one latent at a time
    fp8: bool = False  # the blocks' linear layers in 8 bits, made so on the device
    block_latents: int = BLOCK_LATENTS

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            value = getattr(self, name)
            if value < PIXELS_PER_TOKEN or value % PIXELS_PER_TOKEN:
                raise InputError(f"{name}={value}: want a multiple of {PIXELS_PER_TOKEN}")
        for name in ("batch", "block_latents"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: want 1 or more")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in latents."""
        return self.height_px // SPATIAL_STRIDE, self.width_px // SPATIAL_STRIDE


def plan_memory(request: MemoryRequest) -> dict[str, int]:
    """Bytes that a request needs at its fullest, part by part and in total.

    The total is all parts together, since an allocator keeps for each what it once had; or, if that is more, the
    transformer's weights as they come, before FP8 makes them smaller.
    """
    config, dtype = request.config, request.dtype
    block_tokens = request.block_latents * (request.height_px * request.width_px) // PIXELS_PER_TOKEN**2
    context_tokens = 2 * block_tokens
    cache = STCache(
        config,
        batch=request.batch,
        max_context_tokens=context_tokens,
        block_tokens=block_tokens,
        dtype=dtype,
        device="meta",
    )
    modulation = (1 + len(DISTILLED_STEPS)) * (6 * config.num_layers + 2) * config.dim
    rotary = 2 * (context_tokens + block_tokens) * config.head_dim
    chunk = 1 if request.low_memory else request.block_latents
    loading = num_parameters(config) * dtype.itemsize
    parts = {
        "weights": loading - (_saved_by_fp8(config, dtype) if request.fp8 else 0),
        "st_cache": cache.nbytes,
        "text_keys": 2 * config.num_layers * config.text_len * config.dim * dtype.itemsize,
        "modulations": modulation * dtype.itemsize + rotary * FLOAT32_BYTES,  # and rotary tables
        "activations": request.batch * context_tokens * _layer_bytes(request),
        "codec_weights": request.codec.weight_bytes(dtype),
        "codec_state": request.batch * request.codec.state_bytes(*request.grid, dtype),
        "codec_activations": request.batch * request.codec.peak_bytes(*request.grid, chunk, dtype),
    }
    return {**parts, "total": max(sum(parts.values()), loading)}


def check_fits(request: MemoryRequest, device: torch.device) -> dict[str, int]:
    """Plan, and see that the device has room.

    Raises:
        NotEnoughMemory: it has not; names a setting that would fit.
    """
    plan = plan_memory(request)
    check_room(
        plan["total"],
        device,
        batch=request.batch,
        size_px=(request.height_px, request.width_px),
        dtype=request.dtype,
        setting=lambda free: setting_for(request, free, can_fp8=has_fp8(device)),
    )
    return plan


def setting_for(request: MemoryRequest, free: int, *, can_fp8: bool) -> str | None:
    """The first setting that fits into so many bytes: bfloat16, low_memory, fp8, a smaller batch, size or preset."""

    def fits(changes: Mapping[str, Any]) -> bool:
        return plan_memory(replace(request, **changes))["total"] <= free

    return fitting_setting(
        fits,
        _cheap_changes(request, can_fp8=can_fp8),
        request.batch,
        _smaller_sizes(request),
        _smaller_presets(request),
    )


def _layer_bytes(request: MemoryRequest) -> int:
    """Bytes of one token in a layer of the context pass at its fullest: in the feed-forward, or while q is rotated.

    Nine of the width: x before and now, normalised, q, k, v, attended, and k and v of the layer before.
    """
    dim, hidden, itemsize = request.config.dim, request.config.ffn_dim, request.dtype.itemsize
    hidden_bytes = itemsize + FLOAT32_BYTES + 1 if request.fp8 else 2 * itemsize  # scaled and rounded; or GELU's two
    feed_forward = 9 * dim * itemsize + hidden * hidden_bytes
    rotation = 7 * dim * itemsize + 3 * dim * FLOAT32_BYTES
    latents = PATCH**2 * request.config.out_channels * (FLOAT32_BYTES + itemsize)  # as they came, as patches
    return max(feed_forward, rotation) + latents


@cache
def _saved_by_fp8(config: StarConfig, dtype: torch.dtype) -> int:
    saved = 0
    for name, linear in network_of(config).named_modules():
        is_replaced = isinstance(linear, nn.Linear) and name.endswith(BLOCK_LINEARS)
        if is_replaced and not (linear.in_features % MULTIPLE or linear.out_features % MULTIPLE):
            before = (linear.in_features + 1) * linear.out_features * dtype.itemsize
            after = linear.out_features * (linear.in_features + FLOAT32_BYTES + 2)  # a float32 scale, a bfloat16 bias
            saved += before - after
    return saved


def _cheap_changes(request: MemoryRequest, *, can_fp8: bool) -> Iterator[Change]:
    if request.dtype == torch.float32:
        yield "dtype=bfloat16", {"dtype": torch.bfloat16}
    if not request.low_memory:
        yield "low_memory=True", {"low_memory": True}
    if can_fp8 and not request.fp8:
        yield "fp8=True", {"fp8": True}


def _smaller_sizes(request: MemoryRequest) -> Iterator[Change]:
    for width_px in range(request.width_px - PIXELS_PER_TOKEN, MIN_SIDE_PX - 1, -PIXELS_PER_TOKEN):
        rows = round(width_px * request.height_px / request.width_px / PIXELS_PER_TOKEN)
        if rows * PIXELS_PER_TOKEN >= MIN_SIDE_PX:
            height_px = rows * PIXELS_PER_TOKEN
            yield f"frames of {height_px}x{width_px} px", {"height_px": height_px, "width_px": width_px}


def _smaller_presets(request: MemoryRequest) -> Iterator[Change]:
    for name, config in SMALLER_PRESETS:
        if config.dim < request.config.dim:
            yield f"preset={name}", {"config": config}
