"""From noise to the clean latents of one frame, in one or two steps.

Shapes: B worlds, C latent channels, h w latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.frame.schedule import NUM_TIMESTEPS, DdpmSchedule
from inspatio_sim.generators.presets.frame_config import FrameConfig

FIRST_STEP = NUM_TIMESTEPS - 1
TWO_STEPS = (FIRST_STEP, 200)


class FrameNetwork(Protocol):
    """What samples: `FrameTransformer`, or one made ready for a CPU."""

    @property
    def config(self) -> FrameConfig: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def modulation(self, timestep: Tensor) -> TimeModulation: ...
    def denoise(
        self, x: Tensor, time: TimeModulation, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor: ...
    def __call__(
        self, x: Tensor, timestep: Tensor, anchors: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor: ...


Noise = Callable[[int], Tensor]
"""Fresh standard normal noise for step i of a frame; 0 is what the frame begins as. -> [B, C, h, w]"""


@dataclass(frozen=True, kw_only=True)
class FrameSamplerConfig:
    """How a frame is sampled."""

    steps: tuple[int, ...] = TWO_STEPS  # timesteps, falling from 999

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps or any(not 0 <= step <= FIRST_STEP or step != int(step) for step in self.steps):
            raise InputError(f"steps={list(self.steps)}: want whole numbers from {FIRST_STEP} down to 0, at least one")
        if self.steps[0] != FIRST_STEP or list(self.steps) != sorted(set(self.steps), reverse=True):
            wanted = f"want them falling from {FIRST_STEP}, each once, such as {list(TWO_STEPS)}"
            raise InputError(f"steps={list(self.steps)}: {wanted}")


class FrameSampler:
    """Samples frames with one network, whose weights stay as they are; holds what does not change between frames."""

    def __init__(self, network: FrameNetwork, config: FrameSamplerConfig | None = None) -> None:
        self.network = network
        self.config = config or FrameSamplerConfig()
        self._schedule = DdpmSchedule(network.device)
        self._timesteps = [torch.tensor([int(step)], device=network.device) for step in self.config.steps]
        self._times: list[TimeModulation] = []  # of every step

    @torch.inference_mode()
    def sample(self, *, noise: Noise, anchors: Tensor | None, reference: Tensor | None) -> Tensor:
        """One frame for each world.

        Args:
            noise: see `Noise`; asked for once a step.
            anchors: latents of the anchors' render, and the mask. [B, C + mask_channels, h, w]
            reference: the same of the reference view; None like the anchors: an image from noise alone.

        Returns:
            Clean latents. float32 [B, C, h, w]
        """
        if not self._times:
            self._times = [self.network.modulation(timestep) for timestep in self._timesteps]
        x = noise(0)
        for step, (timestep, time) in enumerate(zip(self._timesteps, self._times, strict=True)):
            if step:  # the estimate goes back to the next noise level, with fresh noise
                x = self._schedule.noised(x, noise(step), timestep)
            velocity = self.network.denoise(x, time, anchors, reference)[:, : x.shape[1]]
            x = self._schedule.clean_from_velocity(x, velocity, timestep)
        return x
