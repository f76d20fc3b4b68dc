"""Teacher trajectories: pairs of a noisy state and where the teacher takes it, for initialisation by regression.

48 Euler steps pass exactly through the student's levels, s = 1, 0.75, 0.5 and 0.25 (50 would miss them).

Source: CausVid (arXiv 2412.07772), Self-Forcing (arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import NUM_TABLE_STEPS, FlowSchedule, clean_from_flow
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import euler_sample
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.training.star.flows import Conditions, student_flow, teacher_flow
from inspatio_sim.training.star.losses import guided

NUM_EULER_STEPS = 48


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A teacher's way from noise to clips."""

    states: Tensor  # at the student's steps. [S, B, F, 16, h, w]
    final: Tensor  # where it ends. [B, F, 16, h, w]


@torch.no_grad()
def teacher_trajectory(
    teacher: StarTransformer,
    conditions: Conditions,
    noise: Tensor,
    *,
    steps: Sequence[int],
    schedule: FlowSchedule,
    negative_text: Tensor | None = None,
    guidance: float = 0.0,
    num_euler_steps: int = NUM_EULER_STEPS,
) -> Trajectory:
    """Follow the teacher from noise to a clip, and keep the states at the student's steps.

    Args:
        teacher: bidirectional.
        conditions: of the clips.
        noise: standard normal. [B, F, 16, h, w]
        steps: nominal, of the student: 1000 750 500 250.
        schedule: of the noise; its shift is the student's own.
        negative_text: what guidance leads away from. [B, L, text_dim]
        guidance: D_c + guidance (D_c - D_u); 0 turns it off.
        num_euler_steps: must pass through every step: 1000 over it divides them all.

    Raises:
        InputError: a step is not passed through.
    """
    if any(step * num_euler_steps % NUM_TABLE_STEPS for step in steps):
        raise InputError(f"{num_euler_steps} Euler steps do not pass through steps {list(steps)}: want 48, say")
    if guidance and negative_text is None:
        raise InputError(f"guidance={guidance}: want a negative text to lead away from")
    s = torch.arange(num_euler_steps, 0, -1, dtype=torch.float64) / num_euler_steps
    sigmas = schedule.shift * s / (1 + (schedule.shift - 1) * s)
    wanted = {num_euler_steps - step * num_euler_steps // NUM_TABLE_STEPS for step in steps}
    states: dict[int, Tensor] = {}

    def flow(x_t: Tensor, i: int) -> Tensor:
        if i in wanted:
            states[i] = x_t
        timestep = (NUM_TABLE_STEPS * sigmas[i : i + 1]).to(x_t)
        v = teacher_flow(teacher, x_t, timestep, conditions)
        if guidance and negative_text is not None:
            v = guided(v, teacher_flow(teacher, x_t, timestep, replace(conditions, text=negative_text)), guidance)
        return v

    final = euler_sample(flow, sigmas.tolist(), noise)
    return Trajectory(states=torch.stack([states[i] for i in sorted(states)]), final=final)


def regression_loss(
    student: StarTransformer,
    trajectory: Trajectory,
    conditions: Conditions,
    *,
    step_of_chunk: Sequence[int],
    steps: Sequence[int],
    schedule: FlowSchedule,
    chunk_latents: int = BLOCK_LATENTS,
) -> Tensor:
    """How far the student's x_0 is from where the teacher ended, each chunk from its own step. -> []

    Args:
        student: streams; its history is the teacher's chunk before.
        trajectory: of the same clips.
        conditions: of the clips.
        step_of_chunk: index into `steps` for each chunk. [N]
        steps: nominal, of the student.
        schedule: of the noise.
        chunk_latents: F of a chunk.
    """
    timesteps = schedule.warped(steps)
    sigmas = schedule.sigma(timesteps).tolist()
    losses = []
    for k, step in enumerate(step_of_chunk):
        now = slice(k * chunk_latents, (k + 1) * chunk_latents)
        x_t, wanted = trajectory.states[step][:, now], trajectory.final[:, now]
        history = trajectory.final[:, (k - 1) * chunk_latents : k * chunk_latents] if k else None
        timestep = timesteps[step : step + 1].to(x_t)
        flow = student_flow(student, x_t, timestep, conditions.chunk(k, chunk_latents), history)
        losses.append((clean_from_flow(x_t, flow, sigmas[step]) - wanted).square().mean())
    return torch.stack(losses).mean()
