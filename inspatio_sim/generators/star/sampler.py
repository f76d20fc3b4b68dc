"""From noise to a block of clean latents: context pass, then the denoising steps.

Shapes: B worlds, F latent frames of the block, h w latents.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import DISTILLED_STEPS, FlowSchedule, add_noise, clean_from_flow
from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.model import BLOCK_SLOT, HISTORY_SLOT, REFERENCE_SLOT, TextKeys

MAX_CACHES = 4  # batch sizes or frame sizes whose buffers are kept


class FlowNetwork(Protocol):
    """What samples: `StarTransformer`, or one made ready for a CPU or a GPU."""

    @property
    def config(self) -> StarConfig: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def time_modulation(self, timestep: Tensor) -> TimeModulation: ...
    def text_keys(self, text: Tensor) -> TextKeys: ...
    def rotary(self, frame_idx: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]: ...
    def write_context(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: STCache
    ) -> None: ...
    def denoise(
        self, latents: Tensor, time: TimeModulation, text: TextKeys, rotary: tuple[Tensor, Tensor], cache: STCache
    ) -> Tensor: ...


Noise = Callable[[int], Tensor]
"""Fresh standard normal noise for step i of a block; 0 is what the block begins as. -> [B, F, 16, h, w]"""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a block is sampled."""

    steps: tuple[int, ...] = DISTILLED_STEPS  # nominal, falling from 1000; shifted by the schedule
    shift: float = 5.0
    noise_scale: float = 1.0  # of all noise; less is calmer and less varied

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        FlowSchedule(self.shift).warped(self.steps)
        if not 0 <= self.noise_scale <= 2:
            raise InputError(f"noise_scale={self.noise_scale}: want 0 to 2; 1 is what models are trained with")


class BlockSampler:
    """Samples blocks with one transformer; holds what does not change between blocks."""

    def __init__(self, transformer: FlowNetwork, config: SamplerConfig | None = None) -> None:
        self.transformer = transformer
        self.config = config or SamplerConfig()
        schedule = FlowSchedule(self.config.shift)
        self.timesteps = schedule.warped(self.config.steps)  # [S]
        self.sigmas = schedule.sigma(self.timesteps).tolist()
        self._times: list[TimeModulation] = []  # of timestep 0, then of every step
        self._rotaries: dict[tuple[tuple[int, ...], int, int], tuple[Tensor, Tensor]] = {}
        self._caches: OrderedDict[tuple[int, ...], STCache] = OrderedDict()

    @torch.inference_mode()
    def sample(
        self,
        *,
        reference: Tensor | None,
        history: Tensor | None,
        condition: Tensor | None,
        text: TextKeys,
        noise: Noise,
    ) -> Tensor:
        """One block for each world.

        Args:
            reference: the reference's latents at the block's time; None in text-only mode. [B, F, 16, h, w]
            history: the block before; None for a first block. [B, F, 16, h, w]
            condition: mask and render; None in text-only mode. [B, F, 20, h, w]
            text: the worlds' prompts.
            noise: see `Noise`; called once a step.

        Returns:
            Clean latents. [B, F, 16, h, w]
        """

        def scaled_noise(step: int) -> Tensor:
            return noise(step) * self.config.noise_scale

        x = scaled_noise(0)
        cache = self._cache(x)
        self.write_context(reference, history, text, cache)

        def flow(x_t: Tensor, step: int) -> Tensor:
            return self.denoise(x_t, condition, step, text, cache)

        return consistency_sample(flow, self.sigmas, x, scaled_noise)

    def write_context(self, reference: Tensor | None, history: Tensor | None, text: TextKeys, cache: STCache) -> None:
        """The context pass: fill the cache from reference and history; without either it is empty."""
        slots = [
            (frames, slot)
            for frames, slot in ((reference, REFERENCE_SLOT), (history, HISTORY_SLOT))
            if frames is not None
        ]
        if not slots:
            cache.reset()
            return
        latents = torch.cat([frames for frames, _ in slots], dim=1)
        frame_idx = tuple(slot + i for frames, slot in slots for i in range(frames.shape[1]))
        rotary = self._rotary(frame_idx, *latents.shape[-2:])
        self.transformer.write_context(latents, self._time(0), text, rotary, cache)

    def denoise(self, x_t: Tensor, condition: Tensor | None, step: int, text: TextKeys, cache: STCache) -> Tensor:
        """Flow of the block at one step of the list. [B, F, 16, h, w]"""
        latents = x_t if condition is None else torch.cat([x_t, condition], dim=2)
        frame_idx = tuple(BLOCK_SLOT + i for i in range(x_t.shape[1]))
        rotary = self._rotary(frame_idx, *x_t.shape[-2:])
        return self.transformer.denoise(latents, self._time(1 + step), text, rotary, cache)

    def _time(self, i: int) -> TimeModulation:
        if not self._times:
            timesteps = torch.cat([torch.zeros(1), self.timesteps]).to(self.transformer.device)
            self._times = [self.transformer.time_modulation(timestep) for timestep in timesteps.split(1)]
        return self._times[i]

    def _rotary(self, frame_idx: tuple[int, ...], h: int, w: int) -> tuple[Tensor, Tensor]:
        key = (frame_idx, h, w)
        if key not in self._rotaries:
            self._rotaries[key] = self.transformer.rotary(torch.tensor(frame_idx), h, w)
        return self._rotaries[key]

    def _cache(self, x: Tensor) -> STCache:
        batch, num_frames, _, h, w = x.shape
        key = (batch, num_frames, h, w)
        if key not in self._caches:
            block_tokens = num_frames * (h // PATCH) * (w // PATCH)
            self._caches[key] = STCache(
                self.transformer.config,
                batch=batch,
                max_context_tokens=2 * block_tokens,
                block_tokens=block_tokens,
                dtype=self.transformer.dtype,
                device=self.transformer.device,
            )
            while len(self._caches) > MAX_CACHES:
                self._caches.popitem(last=False)
        self._caches.move_to_end(key)
        return self._caches[key]


def consistency_sample(
    flow: Callable[[Tensor, int], Tensor], sigmas: Sequence[float], x: Tensor, noise: Noise
) -> Tensor:
    """Few-step sampling: estimate x_0, put it back to the next noise level with fresh noise, again.

    Args:
        flow: v of x_t at step i.
        sigmas: noise level of each step, falling.
        x: standard normal noise, what sampling begins from.
        noise: see `Noise`; called for steps 1, 2, ...

    Returns:
        x_0 of the last step.
    """
    for step, sigma in enumerate(sigmas):
        if step:
            x = add_noise(x, noise(step), sigma)
        x = clean_from_flow(x, flow(x, step), sigma)
    return x


def euler_sample(flow: Callable[[Tensor, int], Tensor], sigmas: Sequence[float], x: Tensor) -> Tensor:
    """Many-step sampling of the probability flow: x += v (sigma_next - sigma), down to sigma 0."""
    for step, (sigma, sigma_next) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True)):
        x = x + flow(x, step) * (sigma_next - sigma)
    return x
