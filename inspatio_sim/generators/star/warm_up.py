"""Run a generator once on blank frames, so that whatever is compiled, recorded or packed is so before it counts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from inspatio_sim.condition.condition import Condition
from inspatio_sim.generators.blocks.compiled import num_compiled_graphs
from inspatio_sim.generators.star.generator import StarGenerator, StarState, check_size
from inspatio_sim.generators.star.reference_latents import ReferenceLatents
from inspatio_sim.progress import Progress

NUM_LATER_BLOCKS = 2  # the first is slow, the second shows that the next ones will not be


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What a warm-up took."""

    seconds: float  # all of it
    last_block_s: float  # a block's time from now on
    num_graphs: int  # compiled; 0 without torch.compile


def warm_up(
    generator: StarGenerator, size_px: tuple[int, int], *, batch: int = 1, progress: Progress | None = None
) -> WarmUp:
    """Generate a first block and later ones of black frames; worlds of this size and number then start at full speed.

    Args:
        generator: no world of it changes.
        size_px: (height, width) of the frames to come.
        batch: worlds to come at once.
        progress: told the share done.
    """
    check_size(*size_px)
    started_s = time.perf_counter()
    graphs_before = num_compiled_graphs()
    lengths = [generator.first_block_frames] + NUM_LATER_BLOCKS * [generator.frames_per_block]
    codec = generator.codec
    h, w = (edge // codec.spatial_stride for edge in size_px)
    blank = ReferenceLatents(
        np.zeros((sum(lengths), *size_px, 3), np.uint8),
        codec,
        torch.zeros(len(lengths) * generator.block_latents, codec.latent_channels, h, w),
    )
    state = StarState(
        reference=blank,
        prompt="",
        rng=torch.Generator().get_state(),
        shown=np.empty(0, np.int64),
        history=None,
        encoder=None,
        decoder=None,
    )
    states, frame_idx, last_block_s = batch * [state], 0, 0.0
    for i, length in enumerate(lengths):
        if progress:
            progress("warming up", i / len(lengths))
        block_started_s = time.perf_counter()
        condition = _black(np.arange(frame_idx, frame_idx + length), size_px)
        states = generator.generate(batch * [condition], states).states
        frame_idx += length
        last_block_s = time.perf_counter() - block_started_s
    if progress:
        progress("warming up", 1.0)
    return WarmUp(
        seconds=time.perf_counter() - started_s,
        last_block_s=last_block_s,
        num_graphs=num_compiled_graphs() - graphs_before,
    )


def _black(frame_idx: np.ndarray, size_px: tuple[int, int]) -> Condition:
    shape = (len(frame_idx), *size_px)
    return Condition(
        render_u8=np.zeros((*shape, 3), np.uint8),
        depth_m=np.zeros(shape, np.float32),
        is_rendered=np.zeros(shape, np.bool_),
        known=np.zeros(shape, np.uint8),
        T_world_camera=np.repeat(np.eye(4)[None], len(frame_idx), axis=0),
        reference_frame_idx=frame_idx,
    )
