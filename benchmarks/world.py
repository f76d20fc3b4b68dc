"""How fast a world answers: whole steps, depth and map included.

python -m benchmarks.world [--json]
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.report import Result, reported, run
from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.generators import Generation
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.world import World, WorldConfig

OUT = PoseDelta.from_twist([0.03, 0, 0.02], [0, 0.05, 0], 1.0)
BACK = OUT.inverse()
FAR_OUT = PoseDelta.from_twist([0.3, 0, 0.2], [0, 0.5, 0], 1.0)  # over twelve frames


def steps_per_second(size_px: tuple[int, int], num_steps: int, rounds: int = 5) -> float:
    """Median over rounds of `num_steps` one-frame steps, out and back, after a warm-up round."""
    reference = reconstruct(demo_clip(num_frames=24, size_px=size_px), method="rgbd")
    world = World(reference, generator="warp", config=WorldConfig(clock="ping-pong"))
    world.reset()
    rates_hz = []
    for _ in range(rounds + 1):
        start_s = time.perf_counter()
        for i in range(num_steps):
            world.step(OUT if i < num_steps // 2 else BACK)
        rates_hz.append(num_steps / (time.perf_counter() - start_s))
    return float(np.median(rates_hz[1:]))


@dataclass(frozen=True)
class RenderGenerator:
    """Returns the render, so that all of a step's time is the world's own. Blocks as of a video model."""

    first_block_frames: int = 9
    frames_per_block: int = 12
    best_size_px: tuple[int, int] = (96, 160)
    options: dict[str, Any] = field(default_factory=dict)

    def begin(self, reference: Reference, seed: int, prompt: str = "") -> None:
        del reference, seed, prompt

    def generate(self, conditions: Sequence[Condition], states: Sequence[None]) -> Generation:
        return Generation(frames_u8=[condition.render_u8 for condition in conditions], states=list(states))

    def observe(self, state: None, observation: Observation, reference: Reference) -> None:
        del state, observation, reference

    def pack(self, state: None) -> dict[str, np.ndarray]:
        del state
        return {}

    def unpack(self, arrays: Mapping[str, np.ndarray], reference: Reference) -> None:
        del arrays, reference


def overhead_ms(size_px: tuple[int, int], num_steps: int, rounds: int = 3) -> float:
    """Median time of a block of 12 frames, generator and codec left out; out and back, after a warm-up round."""
    reference = reconstruct(demo_clip(num_frames=24, size_px=size_px), method="rgbd")
    world = World(reference, generator=RenderGenerator())
    world.reset()
    times_s = []
    for _ in range(rounds + 1):
        for i in range(num_steps):
            timing = world.step(FAR_OUT if i < num_steps // 2 else FAR_OUT.inverse()).timing
            assert timing is not None
            times_s.append(timing.total_s - timing.generate_s)
    return 1e3 * float(np.median(times_s[num_steps:]))


def measure() -> list[Result]:
    """The issue's number at 96x160; 480x832 beside it, without one."""
    return [
        Result(
            name="World.step, warp, 96x160",
            value=steps_per_second((96, 160), 40),
            unit="steps/s",
            floor=60,
            better="higher",
        ),
        Result(
            name="World.step, warp, 480x832",
            value=steps_per_second((480, 832), 10),
            unit="steps/s",
            floor=0,
            better="higher",
        ),
        reported("World overhead per 12-frame block, 96x160", overhead_ms((96, 160), 8), "ms"),
        reported("World overhead per 12-frame block, 480x832", overhead_ms((480, 832), 4), "ms"),
    ]


if __name__ == "__main__":
    run("world", "Steps per second with the geometry-only generator; what a world costs around any other.", measure)
