"""Joint distribution matching, one clip at a time: what a teacher and a critic say of what the student made.

The student's clips are noised; where the teacher (real score) would denoise them to something else than the
critic (fake score: a teacher that has learnt the student's clips), the student is pushed that way.

Source: InSpatio-World (arXiv 2604.07209), section on JDMD; DMD2 (arXiv 2405.14867).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.engine.distribution_matching import matching_gradient
from inspatio_sim.training.star.flows import Conditions, teacher_flow
from inspatio_sim.training.star.losses import (
    Noised,
    clean_estimate,
    flow_matching_loss,
    guided,
    noised_for_scores,
)

GUIDANCE = 3.0  # of the real score: D_c + 3 (D_c - D_u)


@dataclass(frozen=True, kw_only=True)
class ScoreNoise:
    """What is random in one look at a batch of clips."""

    epsilon: Tensor  # standard normal. [B, F, 16, h, w]
    u: Tensor  # whole numbers 0 .. 999. [B]

    @classmethod
    def like(cls, x: Tensor, generator: torch.Generator) -> ScoreNoise:
        """Drawn on the CPU, so that every device sees the same."""
        return cls(
            epsilon=torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x),
            u=torch.randint(0, 1000, (len(x),), generator=generator).to(x.device),
        )

    def on(self, x: Tensor, schedule: FlowSchedule) -> Noised:
        """Clips with this noise."""
        return noised_for_scores(x, self.epsilon, self.u, schedule)


@torch.no_grad()
def student_gradient(
    x: Tensor,
    conditions: Conditions,
    noise: ScoreNoise,
    *,
    real: StarTransformer,
    fake: StarTransformer,
    negative_text: Tensor,
    schedule: FlowSchedule,
    guidance: float = GUIDANCE,
) -> Tensor:
    """The direction g that the student's clips should move against; see `matching_gradient`.

    Args:
        x: the student's clips. [B, F, 16, h, w]
        conditions: what they were generated from; for a text-to-video task the text alone.
        noise: of this look.
        real: the frozen teacher.
        fake: the critic.
        negative_text: what guidance leads away from; reference and view are kept. [B, L, text_dim]
        schedule: of the noise.
        guidance: 0 turns it off.

    Returns:
        float64. [B, F, 16, h, w]
    """
    noised = noise.on(x, schedule)

    def clean(network: StarTransformer, of: Conditions) -> Tensor:
        return clean_estimate(teacher_flow(network, noised.x_t, noised.timestep, of), noised)

    d_real = clean(real, conditions)
    if guidance:
        d_real = guided(d_real, clean(real, replace(conditions, text=negative_text)), guidance)
    return matching_gradient(x, d_real, clean(fake, conditions))


def critic_loss(
    fake: StarTransformer, x: Tensor, conditions: Conditions, noise: ScoreNoise, schedule: FlowSchedule
) -> Tensor:
    """How badly the critic knows the student's clips: plain flow matching on them. -> []

    Args:
        fake: the critic.
        x: clips that the student has just made; no gradient reaches them. [B, F, 16, h, w]
        conditions: what they were generated from.
        noise: of this look; the same law as for the student.
        schedule: of the noise.
    """
    noised = noise.on(x.detach(), schedule)
    return flow_matching_loss(teacher_flow(fake, noised.x_t, noised.timestep, conditions), noised)
