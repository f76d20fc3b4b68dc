"""How much memory a generator will need, before anything is loaded; and what would fit where that does not.

Counted from the sizes: what stays on the device, and what each part holds at its fullest while it works. The
text encoder is not counted, it never is on the device; nor are the libraries' own workspaces, and a GPU's driver.
GB are 10^9 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch

from inspatio_sim.codecs.tiny_network import MEMORY_BLOCKS, PIXELS_PER_LATENT, TinyConfig
from inspatio_sim.errors import InputError, NotEnoughMemory
from inspatio_sim.generators.blocks.flow import DISTILLED_STEPS
from inspatio_sim.generators.presets.star_config import (
    PIXELS_PER_TOKEN,
    StarConfig,
    star_1_3b,
    star_tiny,
)
from inspatio_sim.generators.star.cost import (
    cache_elements,
    num_parameters,
    patch_elements,
)
from inspatio_sim.generators.star.fp8 import MULTIPLE, has_fp8
from inspatio_sim.latents import BLOCK_LATENTS, SPATIAL_STRIDE, TEMPORAL_STRIDE

FLOAT32_BYTES = 4
GB = 1e9
MIN_SIDE_PX = 64  # no smaller frames are suggested
SMALLER_PRESETS = (("inspatio-1.3b", star_1_3b()), ("tiny", star_tiny()))
TINY_GROWN = (1, 2, 2)  # frames that each stage of TAEHV's decoder makes of one
WAN_PARAMETERS = 126_892_531
WAN_PEAK = 5100  # elements a pixel of one frame, whatever the number of latents: it works through them one by one
WAN_STATE = 3787  # elements a pixel: frames that the convolutions of both halves keep


class CodecMemory(Protocol):
    """What a codec needs. Sizes are in latents."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights."""
        ...

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """The most that encoding or decoding so many latents of one stream at once holds."""
        ...

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """What is kept between chunks of one world: the encoder's and the decoder's stream."""
        ...


@dataclass(frozen=True)
class TinyCodecMemory:
    """Of TAEHV, from its widths."""

    config: TinyConfig

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights."""
        width, latent = self.config.encoder_width, self.config.latent_channels
        kernel, joined = 9 * width * width, width * width
        memory_block = (4 * kernel) + 3 * width  # 2 width -> width, twice width -> width; three biases
        encoder = (9 * 3 + 1) * width + 3 * (kernel + MEMORY_BLOCKS * memory_block) + 5 * joined
        encoder += 9 * width * latent + (latent if width else 0)
        if self.config.linear_path:
            encoder += (1 + 9) * PIXELS_PER_LATENT * latent + PIXELS_PER_LATENT + latent  # both ways
        widths = self.config.decoder_widths
        decoder = 9 * latent * widths[0] + widths[0] + 9 * widths[-1] * 3 + 3 if widths else 0
        for (width, next_width), grown in zip(pairwise(widths), TINY_GROWN, strict=False):
            decoder += MEMORY_BLOCKS * (36 * width * width + 3 * width) + grown * width * width + 9 * width * next_width
        return (encoder + decoder) * dtype.itemsize

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """At the finest resolution, where pairs of frames are joined (encoding) or the last convolutions run."""
        pixels = SPATIAL_STRIDE**2 * height * width
        num_frames = TEMPORAL_STRIDE * num_latents
        state = {half: elements * height * width for half, elements in self._state_elements().items()}
        joining = 2.5 * self.config.encoder_width + 3  # frames, side by side, joined; and what they came from
        encoder = joining * pixels * num_frames
        if self.config.time_alignment == "look-ahead":  # the last latent again, behind what came before it
            encoder = max(encoder, joining * pixels * TEMPORAL_STRIDE + state["encoder"])
        decoder, frames = 0.0, 1 / TEMPORAL_STRIDE  # at each stage, for one at the end
        for stage, (channels, next_channels) in enumerate(pairwise(self.config.decoder_widths)):
            pixels_in = 4.0 ** (stage - 3)  # for one at the end
            memory_block = 6 * channels * frames * pixels_in
            frames *= TINY_GROWN[stage]
            convolution = (channels + next_channels) * frames * 4 * pixels_in
            decoder = max(decoder, memory_block, convolution)
        network = int(max(encoder, decoder * pixels * num_frames + state["decoder"])) * dtype.itemsize
        video = pixels * num_frames * 3 * FLOAT32_BYTES
        linear = pixels * num_frames * 3 * dtype.itemsize + 2 * video if self.config.linear_path else 0  # decoding
        return max(network, linear) + video

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """One frame for every memory block, and the frame that waits for its group."""
        return sum(self._state_elements().values()) * height * width * dtype.itemsize

    def _state_elements(self) -> dict[str, int]:
        """For one latent's pixel."""
        encoder = sum(self.config.encoder_width * 4**stage for stage in range(3))
        decoder = sum(channels * 4**stage for stage, channels in enumerate(self.config.decoder_widths[:-1]))
        waiting = 0 if self.config.time_alignment == "causal" else 3 * SPATIAL_STRIDE**2
        return {"encoder": MEMORY_BLOCKS * encoder + waiting, "decoder": MEMORY_BLOCKS * decoder}


@dataclass(frozen=True)
class WanCodecMemory:
    """Of Wan 2.1's autoencoder, from counts at one size: both grow with the pixels."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """All weights."""
        return WAN_PARAMETERS * dtype.itemsize

    def peak_bytes(self, height: int, width: int, num_latents: int, dtype: torch.dtype) -> int:
        """One latent's work and the frames of all."""
        pixels = SPATIAL_STRIDE**2 * height * width
        return WAN_PEAK * pixels * dtype.itemsize + num_latents * TEMPORAL_STRIDE * pixels * 3 * FLOAT32_BYTES

    def state_bytes(self, height: int, width: int, dtype: torch.dtype) -> int:
        """Two frames for every convolution."""
        return WAN_STATE * SPATIAL_STRIDE**2 * height * width * dtype.itemsize


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
    prompts: int = 1  # different ones in use
    block_latents: int = BLOCK_LATENTS

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            value = getattr(self, name)
            if value < PIXELS_PER_TOKEN or value % PIXELS_PER_TOKEN:
                raise InputError(f"{name}={value}: want a multiple of {PIXELS_PER_TOKEN}")
        for name in ("batch", "prompts", "block_latents"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: want 1 or more")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in latents."""
        return self.height_px // SPATIAL_STRIDE, self.width_px // SPATIAL_STRIDE


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on the device, part by part."""

    weights: int
    st_cache: int
    text_keys: int
    modulations: int  # and rotary tables
    activations: int  # of the fullest layer, in the context pass
    codec_weights: int
    codec_state: int
    codec_activations: int
    loading: int  # the transformer's weights as they come; before all else, so not added to it

    @property
    def total(self) -> int:
        """The most at any time: all parts, since an allocator keeps for each what it once had; or loading."""
        return max(sum(self.parts().values()), self.loading)

    def parts(self) -> dict[str, int]:
        """Bytes of everything that is there at once."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "loading"}

    def lines(self) -> list[str]:
        """For people: each part in GB, then the total."""
        rows = {**self.parts(), "total": self.total}
        return [f"{name.replace('_', ' '):<18}{size / GB:8.3f} GB" for name, size in rows.items()]


def plan_memory(request: MemoryRequest) -> MemoryPlan:
    """What a request needs once it runs, at its fullest."""
    config, itemsize = request.config, request.dtype.itemsize
    height, width = request.grid
    block_tokens = request.block_latents * (request.height_px * request.width_px) // PIXELS_PER_TOKEN**2
    context_tokens = 2 * block_tokens
    text_elements = 2 * config.num_layers * config.text_len * config.dim
    num_texts = request.prompts + (request.batch if request.prompts > 1 else 0)  # each once; the batch's, joined
    modulation = (1 + len(DISTILLED_STEPS)) * (6 * config.num_layers + 2) * config.dim
    rotary = 2 * (context_tokens + block_tokens) * config.head_dim
    chunk = 1 if request.low_memory else request.block_latents
    return MemoryPlan(
        weights=_weight_bytes(request),
        st_cache=cache_elements(config, context_tokens + block_tokens) * request.batch * itemsize,
        text_keys=text_elements * num_texts * itemsize,
        modulations=modulation * itemsize + rotary * FLOAT32_BYTES,
        activations=request.batch * context_tokens * _layer_bytes(request),
        codec_weights=request.codec.weight_bytes(request.dtype),
        codec_state=request.batch * request.codec.state_bytes(height, width, request.dtype),
        codec_activations=request.batch * request.codec.peak_bytes(height, width, chunk, request.dtype),
        loading=num_parameters(config) * itemsize,
    )


def check_fits(
    config: StarConfig,
    *,
    height_px: int,
    width_px: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    codec: CodecMemory,
    low_memory: bool = False,
    fp8: bool = False,
    prompts: int = 1,
    block_latents: int = BLOCK_LATENTS,
) -> MemoryPlan:
    """Plan, and see that the device has room; arguments as in `MemoryRequest`.

    Raises:
        NotEnoughMemory: it has not. One line: what is needed, what is free, and the setting that would fit.
    """
    request = MemoryRequest(
        config=config,
        height_px=height_px,
        width_px=width_px,
        batch=batch,
        dtype=dtype,
        codec=codec,
        low_memory=low_memory,
        fp8=fp8,
        prompts=prompts,
        block_latents=block_latents,
    )
    plan, free = plan_memory(request), available_bytes(device)
    if plan.total > free:
        setting = fitting_setting(request, free, can_fp8=has_fp8(device))
        precision = str(dtype).removeprefix("torch.")
        worlds = "1 world" if batch == 1 else f"{batch} worlds"
        raise NotEnoughMemory(
            f"{worlds} of {height_px}x{width_px} px in {precision} on {device}: "
            f"need {plan.total / GB:.2f} GB, {free / GB:.2f} GB are free: "
            + (f"use {setting}" if setting else "no smaller batch, size or preset would fit either")
        )
    return plan


def fitting_setting(request: MemoryRequest, free: int, *, can_fp8: bool) -> str | None:
    """The first setting that fits, in the order of what it costs the user; None: none does.

    Each is tried by itself, then together with those before it: bfloat16, low_memory, fp8, a smaller batch, a
    smaller size of the same shape, a smaller preset.
    """

    def fits(changes: dict[str, Any]) -> bool:
        return plan_memory(replace(request, **changes)).total <= free

    kept: dict[str, Any] = {}  # settings that lose nothing but time or precision
    names: list[str] = []
    for name, changes in _cheap_changes(request, can_fp8=can_fp8):
        if fits(changes):
            return name
        kept |= changes
        names.append(name)
        if fits(kept):
            return ", ".join(names)
    smaller_batches = list(_smaller_batches(request))
    for candidates in (smaller_batches, _smaller_sizes(request), _smaller_presets(request)):
        for name, changes in candidates:
            if fits(changes):
                return name
            if fits(kept | changes):
                return ", ".join([*names, name])
        if candidates is smaller_batches and smaller_batches:
            kept |= {"batch": 1}
            names.append("batch=1")
    return None


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device: a GPU's free memory, or the machine's within its limits."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # this process may reuse it
        return torch.cuda.mem_get_info(device)[0] + unused
    return host_available_bytes()


def host_available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Main memory that can still be taken: the system's, or what a control group (a container) leaves, if less."""
    meminfo = proc / "meminfo"
    if meminfo.is_file():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = 1024 * int(rows["MemAvailable"].split()[0])
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_cgroup_room(proc, cgroups)])


def _cgroup_room(proc: Path, cgroups: Path) -> Iterator[int]:
    """What each group above this process leaves (control groups, version 2); files read once can be given up."""
    own = proc / "self" / "cgroup"
    entries = own.read_text().splitlines() if own.is_file() else []
    inner = next((entry[3:].strip("/") for entry in entries if entry.startswith("0::")), "")
    folder = cgroups / inner
    for group in (folder, *folder.parents[: len(Path(inner).parts)]):
        limit, current = group / "memory.max", group / "memory.current"
        if limit.is_file() and current.is_file() and limit.read_text().strip() != "max":
            stat = group / "memory.stat"
            rows = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
            used = int(current.read_text()) - int(rows.get("inactive_file", 0))
            yield max(0, int(limit.read_text()) - used)


def _layer_bytes(request: MemoryRequest) -> int:
    """Bytes of one token in a layer of the context pass at its fullest: in the feed-forward, or while q is rotated.

    Nine of the width: x before and now, normalised, q, k, v, attended, and k and v of the layer before.
    """
    dim, hidden, itemsize = request.config.dim, request.config.ffn_dim, request.dtype.itemsize
    hidden_bytes = itemsize + FLOAT32_BYTES + 1 if request.fp8 else 2 * itemsize  # scaled and rounded; or GELU's two
    feed_forward = 9 * dim * itemsize + hidden * hidden_bytes
    rotation = 7 * dim * itemsize + 3 * dim * FLOAT32_BYTES
    latents = patch_elements(request.config.out_channels) * (FLOAT32_BYTES + itemsize)  # as they came, as patches
    return max(feed_forward, rotation) + latents


def _weight_bytes(request: MemoryRequest) -> int:
    config, itemsize = request.config, request.dtype.itemsize
    total = num_parameters(config) * itemsize
    if request.fp8:
        dim, hidden = config.dim, config.ffn_dim
        for inputs, outputs in [(dim, dim)] * 6 + [(dim, hidden), (hidden, dim)]:
            if not (inputs % MULTIPLE or outputs % MULTIPLE):
                before = (inputs + 1) * outputs * itemsize
                after = inputs * outputs + outputs * (FLOAT32_BYTES + 2)  # a float32 scale, a bfloat16 bias
                total -= config.num_layers * (before - after)
    return total


Candidate = tuple[str, dict[str, Any]]


def _cheap_changes(request: MemoryRequest, *, can_fp8: bool) -> Iterator[Candidate]:
    if request.dtype == torch.float32:
        yield "dtype=bfloat16", {"dtype": torch.bfloat16}
    if not request.low_memory:
        yield "low_memory=True", {"low_memory": True}
    if can_fp8 and not request.fp8:
        yield "fp8=True", {"fp8": True}


def _smaller_batches(request: MemoryRequest) -> Iterator[Candidate]:
    for batch in range(request.batch - 1, 0, -1):
        yield f"batch={batch}", {"batch": batch}


def _smaller_sizes(request: MemoryRequest) -> Iterator[Candidate]:
    for width_px in range(request.width_px - PIXELS_PER_TOKEN, MIN_SIDE_PX - 1, -PIXELS_PER_TOKEN):
        rows = round(width_px * request.height_px / request.width_px / PIXELS_PER_TOKEN)
        if rows * PIXELS_PER_TOKEN >= MIN_SIDE_PX:
            height_px = rows * PIXELS_PER_TOKEN
            yield f"frames of {height_px}x{width_px} px", {"height_px": height_px, "width_px": width_px}


def _smaller_presets(request: MemoryRequest) -> Iterator[Candidate]:
    for name, config in SMALLER_PRESETS:
        if num_parameters(config) < num_parameters(request.config):
            yield f"preset={name}", {"config": config}
