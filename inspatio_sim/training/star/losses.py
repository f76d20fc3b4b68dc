"""What training minimises: weighted flow matching; noise and guidance of score networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.generators.blocks.flow import NUM_TABLE_STEPS, FlowSchedule, clean_from_flow
from inspatio_sim.training.engine.distribution_matching import SCORE_TIMESTEPS


@dataclass(frozen=True, kw_only=True)
class Noised:
    """Clips at random noise levels, one level a clip."""

    x_t: Tensor  # [B, F, C, h, w]
    timestep: Tensor  # [B]
    sigma: Tensor  # [B, 1, 1, 1, 1]
    weight: Tensor  # of the training loss. [B]
    target: Tensor  # v = epsilon - x_0. [B, F, C, h, w]


def noised_on_table(x_0: Tensor, epsilon: Tensor, index: Tensor, schedule: FlowSchedule) -> Noised:
    """Noise clips to entries of the schedule's table; drawn evenly, that is the law of multi-step training.

    Args:
        x_0: clean latents. [B, F, C, h, w]
        epsilon: standard normal noise. [B, F, C, h, w]
        index: entries, 0 (pure noise) to 999. [B]
        schedule: of the noise.
    """
    sigma = schedule.sigmas.to(x_0)[index]
    return _noised(x_0, epsilon, sigma, schedule.training_weights().to(x_0)[index])


def noised_for_scores(x_0: Tensor, epsilon: Tensor, u: Tensor, schedule: FlowSchedule) -> Noised:
    """Noise clips for the score networks of distribution matching; also the law of the critic's training.

    Args:
        x_0: the student's clips. [B, F, C, h, w]
        epsilon: standard normal noise. [B, F, C, h, w]
        u: whole numbers drawn evenly from 0 to 999: t = 1000 shift s / (1 + (shift - 1) s), s = u / 1000. [B]
        schedule: of the noise.
    """
    s = u.to(x_0) / NUM_TABLE_STEPS
    timestep = NUM_TABLE_STEPS * schedule.shift * s / (1 + (schedule.shift - 1) * s)
    timestep = timestep.clamp(*SCORE_TIMESTEPS)
    return _noised(x_0, epsilon, timestep / NUM_TABLE_STEPS, torch.ones_like(timestep))


def _noised(x_0: Tensor, epsilon: Tensor, sigma: Tensor, weight: Tensor) -> Noised:
    level = sigma.view(-1, 1, 1, 1, 1)
    return Noised(
        x_t=(1 - level) * x_0 + level * epsilon,
        timestep=NUM_TABLE_STEPS * sigma,
        sigma=level,
        weight=weight,
        target=epsilon - x_0,
    )


def flow_matching_loss(flow: Tensor, noised: Noised) -> Tensor:
    """Mean square of v's error, each clip with its weight. -> []"""
    error = (flow.float() - noised.target.float()).square().flatten(1).mean(1)
    return (noised.weight.float() * error).mean()


def clean_estimate(flow: Tensor, noised: Noised) -> Tensor:
    """The x_0 that a score network sees behind the noise."""
    return clean_from_flow(noised.x_t, flow, noised.sigma)


def guided(with_prompt: Tensor, without: Tensor, scale: float) -> Tensor:
    """D = D_c + scale (D_c - D_u): scale 3 here is what others call guidance 4."""
    return with_prompt + scale * (with_prompt - without)


def clip_gradient(g: Tensor) -> Tensor:
    """The gradient of `matching_loss` with respect to the clips, without a graph: what phase B sends back."""
    return g / g.numel()
