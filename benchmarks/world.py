"""How fast a world answers: whole steps, depth and map included.

python -m benchmarks.world [--json]
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.report import Result, run
from inspatio_sim.camera import PoseDelta
from inspatio_sim.reconstruct import reconstruct
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world import World, WorldConfig

OUT = PoseDelta.from_twist([0.03, 0, 0.02], [0, 0.05, 0], 1.0)
BACK = OUT.inverse()


def steps_per_second(size_px: tuple[int, int], num_steps: int, rounds: int = 5) -> float:
    """Median over rounds of `num_steps` one-frame steps, out and back, after a warm-up round."""
    reference = reconstruct(demo_clip(num_frames=24, size_px=size_px), method="rgbd")
    world = World(reference, config=WorldConfig(clock="ping-pong"))
    world.reset()
    rates_hz = []
    for _ in range(rounds + 1):
        start_s = time.perf_counter()
        for i in range(num_steps):
            world.step(OUT if i < num_steps // 2 else BACK)
        rates_hz.append(num_steps / (time.perf_counter() - start_s))
    return float(np.median(rates_hz[1:]))


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
    ]


if __name__ == "__main__":
    run("world", "Steps per second of a whole world with the geometry-only generator.", measure)
