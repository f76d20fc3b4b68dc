"""The two networks of training, as functions of latents: the streaming student and the bidirectional teacher.

Both are a `StarTransformer` with the same weights' names. Shapes: B clips, F latent frames, h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.star.cache import TapeCache
from inspatio_sim.generators.star.model import BLOCK_SLOT, HISTORY_SLOT, REFERENCE_SLOT, StarTransformer


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a clip is generated from. A text-to-video task has text alone."""

    text: Tensor  # embedding of the caption. [B, L, text_dim]
    reference: Tensor | None = None  # latents of the reference. [B, F, 16, h, w]
    view: Tensor | None = None  # mask and render of the target. [B, F, 20, h, w]

    def __post_init__(self) -> None:
        if (self.reference is None) != (self.view is None):
            raise InputError("reference without view, or view without reference: want both, or neither for text alone")
        if self.reference is not None and self.view is not None:
            kept = (0, 1, 3, 4)
            shapes = [tuple(x.shape[i] for i in kept) for x in (self.reference, self.view)]
            if shapes[0] != shapes[1]:
                came = f"reference is {list(self.reference.shape)}, view {list(self.view.shape)}"
                raise InputError(f"{came}: want the same clips, frames and size")

    def chunk(self, index: int, chunk_latents: int) -> Conditions:
        """Those of one chunk."""
        if self.reference is None or self.view is None:
            return self
        now = slice(index * chunk_latents, (index + 1) * chunk_latents)
        return Conditions(text=self.text, reference=self.reference[:, now], view=self.view[:, now])


def student_flow(
    transformer: StarTransformer, x_t: Tensor, timestep: Tensor, conditions: Conditions, history: Tensor | None
) -> Tensor:
    """Flow of one chunk by the streaming student: context pass at timestep 0, then one denoising pass.

    The same computation as `BlockSampler`'s, with gradients through the context as well. Without a reference
    the context is the history alone, in its own slot; without either there is none.

    Args:
        transformer: the student.
        x_t: noisy latents of the chunk. [B, F, 16, h, w]
        timestep: of the network. [B]
        conditions: of the chunk.
        history: the chunk before; None for a first chunk. [B, F, 16, h, w]

    Returns:
        v. [B, F, 16, h, w]
    """
    h, w = x_t.shape[-2:]
    text = transformer.text_keys(conditions.text)
    cache = TapeCache()
    parts = [(conditions.reference, REFERENCE_SLOT), (history, HISTORY_SLOT)]
    given = [(frames, slot) for frames, slot in parts if frames is not None]
    if given:
        frame_idx = torch.cat([slot + torch.arange(frames.shape[1]) for frames, slot in given])
        transformer.write_context(
            torch.cat([frames for frames, _ in given], dim=1),
            transformer.time_modulation(torch.zeros(1, device=x_t.device)),
            text,
            transformer.rotary(frame_idx, h, w),
            cache,
        )
    latents = x_t if conditions.view is None else torch.cat([x_t, conditions.view], dim=2)
    rotary = transformer.rotary(BLOCK_SLOT + torch.arange(x_t.shape[1]), h, w)
    return transformer.denoise(latents, transformer.time_modulation(timestep), text, rotary, cache)


def teacher_flow(transformer: StarTransformer, x_t: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
    """Flow of a whole clip by a bidirectional teacher: the reference follows the target on the time axis.

    Target frames stand at times 0 .. f - 1, the reference's at f .. 2 f - 1; all share the timestep, and what
    comes out for the reference is dropped.

    Args:
        transformer: the teacher.
        x_t: noisy latents of the clip. [B, F, 16, h, w]
        timestep: of the network. [B]
        conditions: of the clip; without a reference it is a text-to-video model.

    Returns:
        v. [B, F, 16, h, w]
    """
    num_frames, _, h, w = x_t.shape[1:]
    latents = x_t
    if conditions.reference is not None and conditions.view is not None:
        target = torch.cat([x_t, conditions.view], dim=2)
        reference = F.pad(conditions.reference, (0, 0, 0, 0, 0, conditions.view.shape[2]))
        latents = torch.cat([target, reference], dim=1)
    flow = transformer(
        latents,
        transformer.time_modulation(timestep),
        transformer.text_keys(conditions.text),
        transformer.rotary(torch.arange(latents.shape[1]), h, w),
    )
    return flow[:, :num_frames]
