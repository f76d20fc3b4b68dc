"""How long one world takes from an action to its frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.quality_cases.held_out import HeldOut, to_and_fro
from benchmarks.quality_cases.play import STAND_STILL, world_on
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of steps that follow each other, one world by itself."""

    frames_per_step: int
    p50_s: float
    p95_s: float


def measure_latency(
    place: HeldOut, generator: Generator, num_steps: int, what: str, progress: Progress | None = None
) -> Latency:
    """Along a place's path to and fro; a whole round is walked before anything is timed."""
    warm_up_frames = 2 * place.num_frames - 2
    num_warm_ups = -(-warm_up_frames // generator.frames_per_block)
    num_frames = generator.first_block_frames + (num_warm_ups + num_steps) * generator.frames_per_block
    world = world_on(to_and_fro(place, num_frames), generator)
    world.reset()
    seconds = []
    for i in range(num_warm_ups + num_steps):
        timing = world.step(STAND_STILL).timing
        assert timing is not None, "a world always times its steps"
        seconds.append(timing.action_to_pixels_s)
        if progress:
            progress(f"{what}, latency", (i + 1) / (num_warm_ups + num_steps))
    p50_s, p95_s = np.percentile(seconds[num_warm_ups:], [50, 95])
    return Latency(frames_per_step=generator.frames_per_block, p50_s=float(p50_s), p95_s=float(p95_s))
