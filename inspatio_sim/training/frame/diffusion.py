"""What the frame generator minimises: the velocity's error at random noise levels, and few-step distillation.

Images are latents [B, C, h, w]; what a frame is made from, anchors and reference, are latents and one mask channel
[B, C + 1, h, w], or both absent.

Source: InSpatio-WorldFM (arXiv 2603.11911), section on training; DMD2 (arXiv 2405.14867).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.schedule import NUM_TIMESTEPS, DdpmSchedule
from inspatio_sim.training.engine.distribution_matching import SCORE_TIMESTEPS, matching_gradient
from inspatio_sim.training.engine.iteration import SampleRandom

HIGH_NOISE_FROM = NUM_TIMESTEPS // 2


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Noise levels that are trained at, and what each counts; shares are chances of a sample, between 0 and 1."""

    steps: tuple[int, ...] = (999, 200)  # timesteps of few-step sampling, falling from 999
    few_step_share: float = 0.3  # is trained at one of `steps`
    high_noise_share: float = 0.0  # is trained at the upper half of the timesteps; the rest anywhere
    min_snr_gamma: float | None = None  # weight min(SNR, gamma) / (SNR + 1) on the velocity's error; None: all alike
    cond_noise: float = 0.05  # largest standard deviation of the noise on anchors and reference, drawn for each

    def __post_init__(self) -> None:
        for name in ("few_step_share", "high_noise_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"diffusion.{name}={getattr(self, name)}: want 0 to 1")
        if self.few_step_share + self.high_noise_share > 1:
            came = f"few_step_share={self.few_step_share}, high_noise_share={self.high_noise_share}"
            raise InputError(f"diffusion.{came}: want no more than 1 together")
        if self.min_snr_gamma is not None and not self.min_snr_gamma > 0:
            raise InputError(f"diffusion.min_snr_gamma={self.min_snr_gamma}: want more than 0, or none")
        if not self.cond_noise >= 0:
            raise InputError(f"diffusion.cond_noise={self.cond_noise}: want 0 or more")
        check_steps(self.steps)


def check_steps(steps: Sequence[int]) -> None:
    """Refuse what is no way from noise to an image."""
    falls = all(later < earlier for earlier, later in zip(steps, steps[1:], strict=False))
    if not steps or steps[0] != NUM_TIMESTEPS - 1 or not falls or steps[-1] < 0:
        raise InputError(f"steps={tuple(steps)}: want whole numbers falling from {NUM_TIMESTEPS - 1}, such as 999,200")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a frame is made from. Both or neither."""

    anchors: Tensor | None = None  # [B, C + 1, h, w]
    reference: Tensor | None = None  # [B, C + 1, h, w]


def with_noise(latents: Tensor, random: SampleRandom, cond_noise: float) -> Tensor:
    """Conditions with noise of a random size on all but their last channel, the mask. [B, C + 1, h, w]"""
    if not cond_noise:
        return latents
    _, channels, height, width = latents.shape
    noise = random.normal(channels - 1, height, width) * (cond_noise * random.uniform(1, 1, 1))
    return torch.cat([latents[:, :-1] + noise, latents[:, -1:]], dim=1)


def draw_timestep(random: SampleRandom, config: DiffusionConfig) -> Tensor:
    """The noise levels of a batch, by the law of the config. [B]"""
    kind = random.uniform()
    anywhere = random.integers(NUM_TIMESTEPS)
    high = HIGH_NOISE_FROM + random.integers(NUM_TIMESTEPS - HIGH_NOISE_FROM)
    few = torch.tensor(config.steps, device=kind.device)[random.integers(len(config.steps))]
    is_few = kind < config.few_step_share
    is_high = ~is_few & (kind < config.few_step_share + config.high_noise_share)
    return torch.where(is_few, few, torch.where(is_high, high, anywhere))


def velocity_of(network: FrameTransformer, x_t: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
    """What the network says, without the learned sigma; float32. [B, C, h, w]"""
    out = network(x_t, timestep, conditions.anchors, conditions.reference)
    return out[:, : x_t.shape[1]].float()


def velocity_errors(
    network: FrameTransformer,
    x_0: Tensor,
    noise: Tensor,
    timestep: Tensor,
    conditions: Conditions,
    schedule: DdpmSchedule,
) -> Tensor:
    """Mean square of the velocity's error, of each sample. [B]"""
    v = velocity_of(network, schedule.noised(x_0, noise, timestep), timestep, conditions)
    return (v - schedule.velocity(x_0, noise, timestep)).square().flatten(1).mean(1)


def weights_of(timestep: Tensor, schedule: DdpmSchedule, min_snr_gamma: float | None) -> Tensor:
    """What the error at a noise level counts; for the velocity min(SNR, gamma) / (SNR + 1). [B]

    Source: min-SNR weighting (arXiv 2303.09556).
    """
    alpha = schedule.alphas_cumprod.to(timestep.device)[timestep]
    if min_snr_gamma is None:
        return torch.ones_like(alpha)
    snr = alpha / (1 - alpha)
    return snr.clamp(max=min_snr_gamma) / (snr + 1)


def few_steps(
    network: FrameTransformer,
    noise: Callable[[int], Tensor],
    conditions: Conditions,
    *,
    steps: Sequence[int],
    exit_step: int,
    schedule: DdpmSchedule,
) -> Tensor:
    """The image that the network sees at one of its steps, after those before it; only that step has a gradient.

    Args:
        network: the student.
        noise: standard normal, of a step. [B, C, h, w]
        conditions: what the frame is made from.
        steps: timesteps, falling.
        exit_step: index of the last one that is made.
        schedule: of the noise.

    Returns:
        [B, C, h, w]
    """

    def clean(x_t: Tensor, i: int) -> Tensor:
        timestep = torch.full((len(x_t),), steps[i], dtype=torch.int64, device=x_t.device)
        return schedule.clean_from_velocity(x_t, velocity_of(network, x_t, timestep, conditions), timestep)

    x_t = noise(0)
    with torch.no_grad():
        for i in range(exit_step):
            following = torch.full((len(x_t),), steps[i + 1], dtype=torch.int64, device=x_t.device)
            x_t = schedule.noised(clean(x_t, i), noise(i + 1), following)
    return clean(x_t, exit_step)


@torch.no_grad()
def many_steps(
    network: FrameTransformer, noise: Tensor, conditions: Conditions, *, num_steps: int, schedule: DdpmSchedule
) -> Tensor:
    """An image in many steps without noise between them (DDIM, arXiv 2010.02502). [B, C, h, w]"""
    table = schedule.alphas_cumprod.to(noise)
    x_t = x_0 = noise
    for i in range(num_steps, 0, -1):
        now, following = NUM_TIMESTEPS * i // num_steps - 1, NUM_TIMESTEPS * (i - 1) // num_steps - 1
        timestep = torch.full((len(x_t),), now, dtype=torch.int64, device=x_t.device)
        x_0 = schedule.clean_from_velocity(x_t, velocity_of(network, x_t, timestep, conditions), timestep)
        if following >= 0:
            epsilon = (x_t - table[now].sqrt() * x_0) / (1 - table[now]).sqrt()
            x_t = table[following].sqrt() * x_0 + (1 - table[following]).sqrt() * epsilon
    return x_0


def score_timestep(random: SampleRandom) -> Tensor:
    """Noise levels for the score networks of distribution matching. [B]"""
    low, high = (int(limit) for limit in SCORE_TIMESTEPS)
    return low + random.integers(high - low + 1)


@torch.no_grad()
def student_direction(
    x: Tensor,
    conditions: Conditions,
    noise: Tensor,
    timestep: Tensor,
    *,
    real: FrameTransformer,
    fake: FrameTransformer,
    schedule: DdpmSchedule,
) -> Tensor:
    """The direction g that the student's images should move against; see `matching_gradient`.

    Args:
        x: the student's images. [B, C, h, w]
        conditions: what they were made from.
        noise: standard normal. [B, C, h, w]
        timestep: noise levels at which the two networks look. [B]
        real: the frozen teacher.
        fake: the critic.
        schedule: of the noise.

    Returns:
        float64. [B, C, h, w]
    """
    x_t = schedule.noised(x, noise, timestep)

    def clean(network: FrameTransformer) -> Tensor:
        return schedule.clean_from_velocity(x_t, velocity_of(network, x_t, timestep, conditions), timestep)

    return matching_gradient(x[:, None], clean(real)[:, None], clean(fake)[:, None])[:, 0]
