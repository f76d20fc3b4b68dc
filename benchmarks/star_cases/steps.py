"""Whole steps of worlds around a student: where their time goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks.report import Result, reported
from inspatio_sim.condition.observation import StepTiming
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import ClockMode, Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.batch import reset_worlds, step_worlds
from inspatio_sim.world.world import World, WorldConfig

OUT = PoseDelta.from_twist([0.3, 0, 0.2], [0, 0.5, 0], 1.0)  # a brisk walk, where a block is about a second
BACK = OUT.inverse()
NUM_WARM_UPS = 3
MAX_FILMED = 33  # frames of the demo clip; longer ones play it to and fro


@dataclass(frozen=True)
class Steps:
    """Timings of like steps, each of all worlds together."""

    timings: list[StepTiming]
    frames_per_step: int  # of all worlds

    @property
    def frames_per_s(self) -> float:
        return self.frames_per_step / median(timing.total_s for timing in self.timings)

    @property
    def overhead_percent(self) -> float:
        """Share of a step that is not the generator's."""
        return median(100 * (timing.total_s - timing.generate_s) / timing.total_s for timing in self.timings)

    def latency_s(self, percentile: float) -> float:
        """From the action to its frames."""
        return float(np.percentile([timing.action_to_pixels_s for timing in self.timings], percentile))

    def stages_s(self) -> dict[str, float]:
        """Median seconds of each stage, in the order of a step; those of the generator in the place of generate."""
        timings = self.timings
        parts = {"plan": [t.plan_s for t in timings], "condition": [t.condition_s for t in timings]}
        parts |= {name: [t.generator[name] for t in timings] for name in timings[0].generator}
        parts |= {"observe": [t.observe_s for t in timings], "map": [t.map_s for t in timings]}
        parts["total"] = [t.total_s for t in timings]
        return {name: median(values) for name, values in parts.items()}

    def rows(self, what: str) -> list[Result]:
        """Everything, as figures with nothing to reach."""
        return [
            reported(f"{what}: frames", self.frames_per_s, "frames/s"),
            *(reported(f"{what}: {name}", seconds, "s") for name, seconds in self.stages_s().items()),
            reported(f"{what}: action to pixels, p50", self.latency_s(50), "s"),
            reported(f"{what}: action to pixels, p95", self.latency_s(95), "s"),
        ]


def film(size_px: tuple[int, int], num_frames: int) -> Reference:
    """The demo room at any length."""
    clip = demo_clip(num_frames=min(num_frames, MAX_FILMED), size_px=size_px, supersample=1)
    reference = reconstruct(clip, method="rgbd")
    shown = Clock(reference.num_frames).advance(num_frames)
    return replace(
        reference,
        frames_u8=reference.frames_u8[shown],
        depth_m=reference.depth_m[shown],
        T_world_camera=reference.T_world_camera[shown],
    )


def num_frames_for(num_steps: int, frames_per_block: int) -> int:
    """A clip so long that time runs forward in all steps, warm-up included."""
    return frames_per_block * (1 + NUM_WARM_UPS + num_steps)


def start(generator: Generator, reference: Reference, batch: int, config: WorldConfig | None = None) -> list[World]:
    """Worlds of one clip that have shown their first block."""
    worlds = [World(reference, generator=generator, seed=seed, config=config) for seed in range(batch)]
    reset_worlds(worlds)
    return worlds


def out_and_back(step_idx: int) -> PoseDelta:
    """The motion of a step: every other one leads back."""
    return BACK if step_idx % 2 else OUT


def timed_steps(
    worlds: Sequence[World],
    num_steps: int,
    *,
    warm_ups: int = NUM_WARM_UPS,
    clock: ClockMode | None = None,
    motion_at: Callable[[int], PoseDelta] = out_and_back,
) -> Steps:
    """Step all worlds together, first some times uncounted; `motion_at` gives each step's motion."""
    timings, num_frames = [], 0
    clocks: list[ClockMode | None] = [clock] * len(worlds)
    for i in range(warm_ups + num_steps):
        observations = step_worlds(worlds, [motion_at(i)] * len(worlds), clocks)
        timing = observations[0].timing
        assert timing is not None, "a world always times its steps"
        timings.append(timing)
        num_frames = sum(len(observation.rgb_u8) for observation in observations)
    return Steps(timings[warm_ups:], num_frames)
