"""Training data: how many made-up clips two cores make, and what a frame costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.report import Result, median_ms, reported, run
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.scenes.fast_raycast import render_fast
from inspatio_sim.scenes.raycast import render
from inspatio_sim.scenes.rooms import random_room
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.data.sample import Sample

NUM_WORKERS = 2
WARM_UP_CLIPS = 6  # workers start, and draw their first textures
NUM_CLIPS = 60
STYLES: tuple[Style, ...] = ("synthetic", "photo")
CONFIG = ProceduralConfig()
ROOMS = 5


def results() -> list[dict[str, Any]]:
    """Everything below, as rows for other benchmarks."""
    return [asdict(result) for result in measure()]


def measure() -> list[Result]:
    return [*(clips_per_minute(style) for style in STYLES), *frame_cost()]


def clips_per_minute(style: Style) -> Result:
    """Clips of 45 frames by two cameras at 96x160, made by two loader workers."""
    clips = ProceduralClips(replace(CONFIG, style=style))
    clips[WARM_UP_CLIPS + NUM_CLIPS]  # compiles the kernels
    dataset = cast("Dataset[Sample]", clips)  # by its methods, not by its class
    loader = DataLoader(Subset(dataset, range(WARM_UP_CLIPS + NUM_CLIPS)), batch_size=None, num_workers=NUM_WORKERS)
    start_s = 0.0
    for number, _ in enumerate(loader, start=1):
        if number == WARM_UP_CLIPS:
            start_s = time.perf_counter()
    minutes = (time.perf_counter() - start_s) / 60
    return Result(
        name=f"{style} clips, 2 x {CONFIG.num_frames} frames of 96x160, {NUM_WORKERS} workers",
        value=NUM_CLIPS / minutes,
        unit="clips/min",
        floor=60,
        better="higher",
    )


def frame_cost() -> Sequence[Result]:
    """One frame of a furnished room by both ray casters, one thread each."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    height_px, width_px = CONFIG.size_px
    intrinsics = Intrinsics.from_fov(1.3, width_px, height_px)
    poses = np.stack([pose_from(t_m=[0.005 * i, 0, 0]) for i in range(CONFIG.num_frames)])
    time_s = np.arange(CONFIG.num_frames) / CONFIG.fps
    found = []
    for name, caster in (("torch", render), ("numba", render_fast)):
        costs_ms = [
            median_ms(lambda room=room, caster=caster: caster(room, intrinsics, poses, time_s), repeats=3)
            for room in (random_room(0, i, layout="room") for i in range(ROOMS))
        ]
        found.append(reported(f"a 96x160 frame, {name} ray caster", float(np.mean(costs_ms)) / len(poses), "ms"))
    torch.set_num_threads(num_threads)
    return found


if __name__ == "__main__":
    run("data", __doc__ or "", measure)
