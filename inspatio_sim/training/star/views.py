"""What the student will be shown of a training clip: the reference, warped into the target's cameras.

At generation time depth is estimated, points are missing and whole views may be unknown; `Augment` puts such
faults into training, so that the student does not trust a render further than it deserves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.mask_latent import mask_latent
from inspatio_sim.generators.star.reference_latents import encode_frames
from inspatio_sim.text.protocol import TextEncoder
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.data.target_view import TargetView, target_view


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Faults put into the conditions of a clip; shares and chances are between 0 and 1."""

    depth_scale: float = 0.02  # standard deviation of a factor on the depth of a whole clip
    depth_noise: float = 0.005  # of a factor on the depth of each pixel
    dropped_points: float = 0.02  # share of pixels without depth
    unknown_view: float = 0.08  # chance that nothing at all is rendered
    no_reference: float = 0.08  # chance that the reference is black
    no_caption: float = 0.1  # chance of the null prompt

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{name}={value}: want 0 to 1")


NONE = Augment(depth_scale=0, depth_noise=0, dropped_points=0, unknown_view=0, no_reference=0, no_caption=0)
"""No faults: for evaluation."""


def with_faults(sample: Sample, augment: Augment, rng: np.random.Generator) -> tuple[Sample, bool]:
    """A sample as bad as it might come, and whether its view is to be left unknown.

    Every fault draws from `rng` whatever its size, so that one setting does not shift the others.
    """
    shape = sample.reference_depth_m.shape
    scale = np.exp(augment.depth_scale * rng.standard_normal())
    noise = np.exp(augment.depth_noise * rng.standard_normal(shape, dtype=np.float32))
    is_kept = rng.random(shape, dtype=np.float32) >= augment.dropped_points
    is_view_unknown, is_reference_black, has_no_caption = rng.random(3) < (
        augment.unknown_view,
        augment.no_reference,
        augment.no_caption,
    )
    depth_m = (sample.reference_depth_m * noise * is_kept * scale).astype(np.float32)
    return replace(
        sample,
        reference_depth_m=depth_m,
        reference_u8=np.zeros_like(sample.reference_u8) if is_reference_black else sample.reference_u8,
        caption="" if has_no_caption else sample.caption,
    ), bool(is_view_unknown)


def encode_sample(
    sample: Sample, codec: Codec, text_encoder: TextEncoder, augment: Augment, rng: np.random.Generator
) -> dict[str, Tensor]:
    """A clip as the networks see it.

    Args:
        sample: of 4n - 3 frames; later ones are dropped.
        codec: frames to latents.
        text_encoder: captions to embeddings.
        augment: faults of the conditions; the target itself has none.
        rng: what decides them.

    Returns:
        float32: `target` and `reference` [n, 16, h, w], `view`: mask and render [n, 20, h, w], `text` [L, text_dim].
    """
    stride = codec.temporal_stride
    num_frames = len(sample.target_u8) - (len(sample.target_u8) - 1) % stride
    frame_idx = np.arange(num_frames)
    faulty, is_view_unknown = with_faults(sample, augment, rng)
    # The warp shows the reference's colours even where the reference itself is withheld.
    view = target_view(replace(faulty, reference_u8=sample.reference_u8))
    if is_view_unknown:
        view = TargetView(render_u8=np.zeros_like(view.render_u8), is_rendered=np.zeros_like(view.is_rendered))
    known = torch.from_numpy(view.is_rendered[:num_frames])[None, :, None].float() * 2 - 1
    render = encode_frames(view.render_u8, frame_idx, codec)
    return {
        "target": encode_frames(sample.target_u8, frame_idx, codec),
        "reference": encode_frames(faulty.reference_u8, frame_idx, codec),
        "view": torch.cat([mask_latent(known)[0], render], dim=1),
        "text": text_encoder.encode(faulty.caption),
    }
