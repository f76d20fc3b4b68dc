"""How fast envs step, what they cost around their worlds, and whether they go on for ever.

python -m benchmarks.envs [--json]
python -m benchmarks.envs --soak 100000 [--json]     so many steps of every task, and nothing else

Exit code 2: an argument cannot be used, or weights are missing.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from inspatio_envs.env import InspatioEnv
from inspatio_envs.vector_env import InspatioVectorEnv

from benchmarks.report import Result, median_ms, reported, show
from benchmarks.star_cases.machine import empty_cache_folder, in_fresh_process, resident_bytes, say
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.condition.observation import StepTiming
from inspatio_sim.errors import InputError
from inspatio_sim.world.world import step_worlds

TASKS = ("free", "pointnav", "imagenav", "explore", "follow")
NUM_ROUNDS = 5  # timed, after one that is not


@dataclass(frozen=True, kw_only=True)
class Load:
    """What steps: worlds of the demo room with the task PointNav."""

    name: str
    options: Mapping[str, Any]  # of the envs
    num_worlds: int
    num_steps: int  # of every world, in each round
    num_workers: int = 0  # processes that the worlds are in; 0: this one

    def make(self) -> InspatioVectorEnv:
        """Reset and ready."""
        shown = {"task": "pointnav", "observations": ["depth", "grid", "goal"]}
        envs = InspatioVectorEnv(self.num_worlds, num_workers=self.num_workers, **shown, **self.options)
        envs.reset(seed=0)
        return envs

    def rounds(self) -> list[np.ndarray]:
        """Random actions other than stop, one round more than is timed. [steps, worlds] each"""
        rng = np.random.default_rng(0)
        return list(rng.integers(1, 9, (NUM_ROUNDS + 1, self.num_steps, self.num_worlds)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured; a test measures less of it."""

    warp: Mapping[str, Any] = field(default_factory=lambda: {"generator": "warp", "size_px": (64, 96)})
    warp_name: str = "warp, 64x96"
    num_warp_steps: int = 40
    star: Mapping[str, Any] = field(
        default_factory=lambda: {"generator": "star", "preset": "tiny", "size_px": (96, 160)}
    )
    star_name: str = "tiny, 96x160"
    num_star_steps: int = 6

    def of_warp(self, num_worlds: int, num_workers: int = 0) -> Load:
        return Load(
            name=self.warp_name,
            options=self.warp,
            num_worlds=num_worlds,
            num_steps=self.num_warp_steps,
            num_workers=num_workers,
        )

    def of_star(self, num_worlds: int) -> Load:
        return Load(name=self.star_name, options=self.star, num_worlds=num_worlds, num_steps=self.num_star_steps)


def env_steps_per_s(load: Load) -> float:
    """Steps of all worlds together; the median round."""
    envs = load.make()
    rates_hz = []
    for actions in load.rounds():
        started_s = time.perf_counter()
        for action in actions:
            envs.step(action)
        rates_hz.append(actions.size / (time.perf_counter() - started_s))
    envs.close()
    return median(rates_hz[1:])


@dataclass(frozen=True, kw_only=True)
class Split:
    """One step of all worlds: what their worlds took, and what the envs took around them."""

    env_s: float
    world: StepTiming


def splits(load: Load) -> list[Split]:
    """`InspatioEnv.step` in its halves, with the step of the worlds between them."""
    vector = load.make()
    envs, found = vector.envs, []
    for actions in load.rounds():
        for action in actions:
            started_s = time.perf_counter()
            motions, times = zip(*(env.plan(a) for env, a in zip(envs, action, strict=True)), strict=True)
            planned_s = time.perf_counter()
            observations = step_worlds([env.world for env in envs], motions, times)
            stepped_s = time.perf_counter()
            for env, observation in zip(envs, observations, strict=True):
                env.finish(observation)
            env_s = planned_s - started_s + time.perf_counter() - stepped_s
            timing = observations[0].timing
            assert timing is not None, "a world says how long it took"
            found.append(Split(env_s=env_s, world=timing))
    vector.close()
    return found[load.num_steps :]


def cost_rows(load: Load) -> list[Result]:
    """Where the time of a step goes, and with one world what the env costs over its world."""
    found = splits(load)
    what = f"{load.name}, {load.num_worlds} world{'s' * (load.num_worlds > 1)}"
    rows = [reported(f"{what}: env", 1e3 * median(split.env_s for split in found), "ms")]
    for stage in ("plan", "condition", "generate", "observe", "map"):
        seconds = median(getattr(split.world, f"{stage}_s") for split in found)
        rows.append(reported(f"{what}: {stage}", 1e3 * seconds, "ms"))
    if load.num_worlds > 1:
        return rows
    percent = median(100 * split.env_s / split.world.total_s for split in found)
    name = f"{load.name}: env over World.step"
    return [Result(name=name, value=percent, unit="%", floor=5, better="lower"), *rows]


def snapshot_rows(load: Load) -> list[Result]:
    """What a snapshot weighs and how long going back takes, after a round of steps."""
    vector = load.make()
    env: InspatioEnv = vector.envs[0]
    for action in load.rounds()[0]:
        env.step(action[0])
    snapshot = env.snapshot()
    without_map = replace(snapshot, world=replace(snapshot.world, map={}))
    num_bytes, num_bytes_without = (len(pickle.dumps(each)) for each in (snapshot, without_map))
    rows = [
        Result(
            name=f"{load.name}: snapshot without its map",
            value=num_bytes_without / 1e6,
            unit="MB",
            floor=5,
            better="lower",
        ),
        reported(f"{load.name}: map in the snapshot", (num_bytes - num_bytes_without) / 1e6, "MB"),
        Result(
            name=f"{load.name}: restore",
            value=median_ms(lambda: env.restore(snapshot)),
            unit="ms",
            floor=50,
            better="lower",
        ),
        reported(f"{load.name}: snapshot", median_ms(env.snapshot), "ms"),
        reported(f"{load.name}: reset", median_ms(env.reset, repeats=5), "ms"),
    ]
    vector.close()
    return rows


def measure(case: Case) -> list[Result]:
    """All figures but those of a soak."""
    kept = [case.of_warp(1).make(), case.of_star(1).make()]  # clips and models are loaded once for all that follows
    num_frames = kept[1].envs[0].world.generator.frames_per_block
    say(f"envs: {case.warp_name} ...")
    num_workers = min(os.cpu_count() or 1, 8)
    eight, one = env_steps_per_s(case.of_warp(8, num_workers)), env_steps_per_s(case.of_warp(1))
    together = env_steps_per_s(case.of_warp(8))
    say(f"envs: {case.star_name} ...")
    frames_per_s = {n: num_frames * env_steps_per_s(case.of_star(n)) for n in (1, 4)}
    warp, star = case.warp_name, case.star_name
    rows = [
        Result(name=f"{warp}, 8 worlds, all", value=eight, unit="steps/s", floor=400, better="higher"),
        reported(f"{warp}, 8 worlds, all, in one process", together, "steps/s"),
        Result(name=f"{warp}, 1 world", value=one, unit="steps/s", floor=120, better="higher"),
        Result(name=f"{star}, 1 world", value=frames_per_s[1], unit="frames/s", floor=24, better="higher"),
        reported(f"{star}, 4 worlds, all", frames_per_s[4], "frames/s"),
        Result(
            name=f"{star}, 4 worlds over 1",
            value=frames_per_s[4] / frames_per_s[1],
            unit="times",
            floor=1.5,
            better="higher",
        ),
    ]
    say("envs: where the time goes ...")
    for load in (case.of_star(1), case.of_star(4), case.of_warp(1), case.of_warp(8)):
        rows += cost_rows(load)
    rows += snapshot_rows(case.of_star(1))
    for envs in kept:
        envs.close()
    return rows


@dataclass(frozen=True, kw_only=True)
class Soak:
    """What many steps of a task left behind."""

    task: str
    num_steps: int  # of all worlds together
    seconds: float
    num_episodes: int
    growth_percent: float | None  # of the process, from the second tenth of the steps to the last; None: too few
    num_nan: int  # steps with a number that is none
    num_exceptions: int

    def rows(self) -> list[Result]:
        what = f"soak, {self.task}"
        rows = [
            Result(name=f"{what}: NaN", value=self.num_nan, unit="steps", floor=0, better="lower"),
            Result(name=f"{what}: exceptions", value=self.num_exceptions, unit="", floor=0, better="lower"),
            reported(f"{what}: done", self.num_steps, "steps"),
            reported(f"{what}: episodes", self.num_episodes, ""),
            reported(f"{what}: rate", self.num_steps / self.seconds, "steps/s"),
        ]
        if self.growth_percent is None:
            return rows
        grown = Result(name=f"{what}: memory", value=self.growth_percent, unit="% more", floor=5, better="lower")
        return [grown, *rows]


def soak(task: str, num_steps: int, options: Mapping[str, Any], num_worlds: int = 8) -> Soak:
    """Random actions in worlds that begin again when an episode ends; stops at an exception and prints it."""
    vector_steps = max(num_steps // num_worlds, 10)
    limits = {"task": task, "action": "unicycle", "max_steps": 500}
    shown = {"observations": ["rgb", "depth", "known", "grid", "pose"], "autoreset_mode": "SameStep"}
    envs = InspatioVectorEnv(num_worlds, **{**limits, **shown, **options})
    rng = np.random.default_rng(0)
    resident: list[int] = []
    num_episodes = num_nan = num_exceptions = 0
    started_s = time.perf_counter()
    with Terminal().progress() as report:
        try:
            envs.reset(seed=0)
            for i in range(vector_steps):
                action = rng.uniform(-1, 1, (num_worlds, 2)).astype(np.float32)
                observations, rewards, terminated, truncated, infos = envs.step(action)
                num_episodes += int(np.sum(terminated | truncated))
                num_nan += has_nan(observations) or has_nan(infos) or not np.all(np.isfinite(rewards))
                resident.append(resident_bytes())
                report(f"soak, {task}", (i + 1) / vector_steps)
        except Exception:  # what a soak is there to find
            traceback.print_exc()
            num_exceptions += 1
    seconds = time.perf_counter() - started_s
    envs.close()
    tenth = len(resident) // 10
    growth = 100 * (median(resident[-tenth:]) / median(resident[tenth : 2 * tenth]) - 1) if tenth else None
    return Soak(
        task=task,
        num_steps=len(resident) * num_worlds,
        seconds=seconds,
        num_episodes=num_episodes,
        growth_percent=growth,
        num_nan=num_nan,
        num_exceptions=num_exceptions,
    )


def has_nan(values: Any) -> bool:
    """Whether any number is NaN or infinite, however deep."""
    if isinstance(values, Mapping):
        return any(has_nan(value) for value in values.values())
    if isinstance(values, np.ndarray) and values.dtype == object:
        return any(has_nan(value) for value in values)
    return isinstance(values, (float, np.floating, np.ndarray)) and not _all_finite(values)


def _all_finite(values: Any) -> bool:
    return np.asarray(values).dtype.kind != "f" or bool(np.all(np.isfinite(values)))


def soak_all(num_steps: int, options: Mapping[str, Any]) -> list[Result]:
    """Every task, each in a process of its own."""
    rows = []
    for task in TASKS:
        say(f"envs: soak, {task} ...")
        rows += in_fresh_process(soak, task, num_steps, options).rows()
    return rows


def main(arguments: Sequence[str] | None = None, case: Case | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.envs", description="Time the Gymnasium envs.")
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    parser.add_argument("--soak", type=int, metavar="STEPS", help="take so many steps of every task instead")
    options = parser.parse_args(arguments)
    case = case or Case()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        if options.soak is not None and options.soak < 100:
            raise InputError(f"--soak {options.soak}: want at least 100 steps")
        with empty_cache_folder():
            results = measure(case) if options.soak is None else soak_all(options.soak, case.warp)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show("envs", results, as_json=options.json, torch=torch.__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
