"""Multi-condition causal initialisation: the student rehearses streaming before it is distilled.

Chunk by chunk it builds its real context from reference and history, with gradients, and denoises the chunk
from a level drawn for that chunk: no attention mask stands in for the cache. History is the truth, or, so
that it meets its own mistakes, what it made of the chunk before.

Source: InSpatio-World (arXiv 2604.07209), stage 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.training.star.flows import Conditions, student_flow
from inspatio_sim.training.star.losses import clean_estimate, flow_matching_loss, noised_on_table


def rehearse(
    transformer: StarTransformer,
    target: Tensor,
    conditions: Conditions,
    *,
    epsilon: Tensor,
    index: Tensor,
    uses_own_history: Sequence[bool],
    schedule: FlowSchedule,
    chunk_latents: int = BLOCK_LATENTS,
    send_back: Callable[[Tensor], None] = Tensor.backward,
) -> float:
    """Rehearse one batch of clips: adds gradients to `.grad`, a chunk's graph being gone before the next begins.

    Args:
        transformer: the student.
        target: clean latents. [B, N F, 16, h, w]
        conditions: of the clips.
        epsilon: standard normal noise. [B, N F, 16, h, w]
        index: noise level of each chunk, entries of the schedule's table. [N, B]
        uses_own_history: for each chunk, whether the history is what the student made of the chunk before. [N]
        schedule: of the noise.
        chunk_latents: F.
        send_back: of a trainer, which scales losses; called once a chunk, as often on every rank.

    Returns:
        The loss, the mean over chunks.
    """
    num_chunks, rest = divmod(target.shape[1], chunk_latents)
    if rest or not num_chunks:
        raise InputError(f"clips of {target.shape[1]} latents: want a multiple of {chunk_latents}")
    if len(uses_own_history) != num_chunks or index.shape != (num_chunks, len(target)):
        came = f"index is {list(index.shape)}, uses_own_history {len(uses_own_history)}"
        raise InputError(f"{came}: want [{num_chunks}, {len(target)}] and {num_chunks}")
    total, own = 0.0, None
    for k in range(num_chunks):
        now = slice(k * chunk_latents, (k + 1) * chunk_latents)
        truth = target[:, (k - 1) * chunk_latents : k * chunk_latents] if k else None
        history = own if uses_own_history[k] and own is not None else truth
        noised = noised_on_table(target[:, now], epsilon[:, now], index[k], schedule)
        flow = student_flow(transformer, noised.x_t, noised.timestep, conditions.chunk(k, chunk_latents), history)
        loss = flow_matching_loss(flow, noised) / num_chunks
        send_back(loss)
        own = clean_estimate(flow.detach(), noised)
        total += float(loss.detach())
    return total


def draw_levels(num_chunks: int, batch: int, generator: torch.Generator) -> Tensor:
    """Noise levels for `rehearse`, evenly over the table. [N, B]"""
    return torch.randint(0, 1000, (num_chunks, batch), generator=generator)
