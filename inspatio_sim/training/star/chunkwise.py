"""Chunk-wise backpropagation: the gradient of a long roll-out in the memory of one chunk.

A. Without gradients, the student generates the whole clip and keeps what each chunk's exit step began from.
B. Chunk by chunk, context and exit step are computed again with gradients, and what the loss says of this
   chunk is sent back through them; then they are forgotten.

This is the gradient of the full graph in which only the history's values and the earlier denoising steps are
constants: history is what the student showed, not what it could have shown.

Source: InSpatio-World (arXiv 2604.07209); rolling out as in Self-Forcing (arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.generators.blocks.flow import FlowSchedule, add_noise, clean_from_flow
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.star.flows import Conditions, student_flow

ChunkNoise = Callable[[int, int], Tensor]
"""Fresh noise for chunk k at step i; step 0 is what the chunk begins as. -> [B, F, 16, h, w]"""

SendBack = Callable[[Tensor, Tensor], None]
"""Backpropagates a gradient through a tensor: `Tensor.backward`, or what a trainer makes of it."""


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """What phase A leaves: the clip, and where each chunk's exit step began."""

    latents: Tensor  # the student's clip. [B, N F, 16, h, w]
    exit_inputs: list[Tensor]  # per chunk, noisy. [B, F, 16, h, w]
    exit_timestep: Tensor  # []
    exit_sigma: float

    @property
    def chunk_latents(self) -> int:
        return self.exit_inputs[0].shape[1]


@torch.no_grad()
def roll_out(
    transformer: StarTransformer,
    conditions: Conditions,
    noise: ChunkNoise,
    *,
    num_chunks: int,
    steps: Sequence[int],
    exit_step: int,
    schedule: FlowSchedule,
) -> RollOut:
    """Phase A: generate chunk after chunk; each one ends with the x_0 of step `exit_step`.

    Args:
        transformer: the student.
        conditions: of the whole clip.
        noise: see `ChunkNoise`.
        num_chunks: N.
        steps: nominal steps of the student, such as 1000 750 500 250.
        exit_step: index of the last step taken, the same for all chunks.
        schedule: of the noise.
    """
    timesteps = schedule.warped(steps)
    sigmas = schedule.sigma(timesteps).tolist()
    chunks: list[Tensor] = []
    exit_inputs = []
    for k in range(num_chunks):
        x = noise(k, 0)
        now = conditions.chunk(k, x.shape[1])
        history = chunks[-1] if chunks else None
        for step in range(exit_step + 1):
            if step:
                x = add_noise(x, noise(k, step), sigmas[step])
            x_t = x
            x = _clean(transformer, x_t, timesteps[step], sigmas[step], now, history)
        exit_inputs.append(x_t)
        chunks.append(x)
    return RollOut(
        latents=torch.cat(chunks, dim=1),
        exit_inputs=exit_inputs,
        exit_timestep=timesteps[exit_step],
        exit_sigma=sigmas[exit_step],
    )


def backward(
    transformer: StarTransformer,
    rolled: RollOut,
    conditions: Conditions,
    gradient: Tensor,
    *,
    send_back: SendBack = Tensor.backward,
) -> Tensor:
    """Phase B: add the gradients of the student's weights to `.grad`.

    Args:
        transformer: the student, with the weights that rolled out.
        rolled: of phase A.
        conditions: those of phase A.
        gradient: of the loss with respect to the clip. [B, N F, 16, h, w]
        send_back: of a trainer, which scales gradients; called once a chunk, as often on every rank.

    Returns:
        The clip, computed again; equal to `rolled.latents`. [B, N F, 16, h, w]
    """
    num_latents = rolled.chunk_latents
    again = []
    for k, x_t in enumerate(rolled.exit_inputs):
        now = slice(k * num_latents, (k + 1) * num_latents)
        history = rolled.latents[:, (k - 1) * num_latents : k * num_latents] if k else None
        chunk = _clean(
            transformer, x_t, rolled.exit_timestep, rolled.exit_sigma, conditions.chunk(k, num_latents), history
        )
        send_back(chunk, gradient[:, now].to(chunk))
        again.append(chunk.detach())
    return torch.cat(again, dim=1)


def _clean(
    transformer: StarTransformer,
    x_t: Tensor,
    timestep: Tensor,
    sigma: float,
    conditions: Conditions,
    history: Tensor | None,
) -> Tensor:
    """x_0 of one chunk at one step."""
    flow = student_flow(transformer, x_t, timestep.expand(1).to(x_t.device), conditions, history)
    return clean_from_flow(x_t, flow, sigma)
