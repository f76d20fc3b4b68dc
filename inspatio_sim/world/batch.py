"""Several worlds, one call of their generator: the loop behind `World.reset` and `World.step`.

Each step is planned on copies, generated, and only then written back, so one that fails has changed nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock, Thread
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.condition.condition import Condition, Viewpoints, build_conditions
from inspatio_sim.condition.observation import Observation, StepTiming
from inspatio_sim.errors import InputError
from inspatio_sim.generators import GeneratorState
from inspatio_sim.kernels import run_chunks
from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import Array, CameraPath, PoseDelta
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import ClockMode

if TYPE_CHECKING:
    from inspatio_sim.world.world import World


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The block to come of one world, and the world's state after it; the world itself has not changed."""

    seed: int
    path: CameraPath  # at the block's last frame
    clock: Clock  # likewise
    map: WorldMap  # the world's own, or a new one where it starts over; not written to before the commit
    generator_state: GeneratorState  # before the block
    T_world_camera: Array  # [F, 4, 4]
    reference_frame_idx: NDArray[np.int64]  # [F]
    mapped_frame_idx: int | None  # the frame of the reference that went into the map last; None: there was none
    num_frames: int  # shown before this block
    has_collided: bool


def step_worlds(
    worlds: Sequence[World],
    motions: Sequence[PoseDelta | Sequence[PoseDelta]],
    clocks: Sequence[ClockMode | Sequence[ClockMode | None] | None] | None = None,
) -> list[Observation]:
    """Step every world by one block, all of them in one call of the generator they share.

    What stepping them one by one gives: bit for bit with `warp`; with a network up to rounding, since a product
    of more rows may be summed in another order. If anything fails, no world has changed.

    Args:
        worlds: different worlds with the same generator object, all reset.
        motions: one for each, as `World.step` takes it.
        clocks: what time does in each; None: as configured.

    Raises:
        WorldNotReset: if one of them was never reset.
    """
    started_s = time.perf_counter()
    clocks = len(worlds) * [None] if clocks is None else clocks
    _check_batch(worlds, motions=motions, clocks=clocks)
    plans = [world.plan_step(*asked) for world, asked in zip(worlds, zip(motions, clocks, strict=True), strict=True)]
    return _look(worlds, plans, started_s)


def reset_worlds(
    worlds: Sequence[World],
    seeds: Sequence[int | None] | None = None,
    poses: Sequence[ArrayLike | None] | None = None,
) -> list[Observation]:
    """Start every world over and show its first block, all of them in one call of the generator they share.

    If anything fails, every world is as it was.

    Args:
        worlds: different worlds with the same generator object.
        seeds: a new seed for each; None: the one it has.
        poses: where each camera starts; None: at its first reference pose. [4, 4] each
    """
    started_s = time.perf_counter()
    seeds = len(worlds) * [None] if seeds is None else seeds
    poses = len(worlds) * [None] if poses is None else poses
    _check_batch(worlds, seeds=seeds, poses=poses)
    plans = [world.plan_reset(*asked) for world, asked in zip(worlds, zip(seeds, poses, strict=True), strict=True)]
    return _look(worlds, plans, started_s)


def _check_batch(worlds: Sequence[World], **asked: Sequence[object]) -> None:
    for name, values in asked.items():
        if len(values) != len(worlds):
            raise InputError(f"{name}: {len(values)} for {len(worlds)} worlds: want one for each")
    if len({id(world) for world in worlds}) != len(worlds):
        raise InputError("worlds: one of them is there twice: want different ones, each of which steps once")
    if len({id(world.generator) for world in worlds}) > 1:
        raise InputError("worlds: they have different generators: make one and hand the same object to all of them")


def _look(worlds: Sequence[World], plans: Sequence[Plan], started_s: float) -> list[Observation]:
    """Generate the planned blocks, then let the worlds have them."""
    if not worlds:
        return []
    planned_s = time.perf_counter()
    conditions = build_conditions(
        [
            Viewpoints(
                reference=world.reference,
                map=plan.map,
                T_world_camera=plan.T_world_camera,
                reference_frame_idx=plan.reference_frame_idx,
            )
            for world, plan in zip(worlds, plans, strict=True)
        ]
    )
    conditioned_s = time.perf_counter()
    generation = worlds[0].generator.generate(conditions, [plan.generator_state for plan in plans])
    generated_s = time.perf_counter()
    depths_m = _complete_depth(worlds, conditions, generation.frames_u8)
    observations = [
        Observation(
            rgb_u8=rgb_u8,
            depth_m=depth_m,
            known=condition.known,
            T_world_camera=condition.T_world_camera,
            time_s=(plan.num_frames + np.arange(len(rgb_u8))) / world.reference.fps,
            reference_frame_idx=condition.reference_frame_idx,
            has_collided=plan.has_collided,
            map=plan.map,
        )
        for world, plan, condition, rgb_u8, depth_m in zip(
            worlds, plans, conditions, generation.frames_u8, depths_m, strict=True
        )
    ]
    seen = zip(generation.states, observations, (world.reference for world in worlds), strict=True)
    states = run_chunks(worlds[0].generator.observe, list(seen))
    observed_s = time.perf_counter()
    made = list(zip(worlds, plans, conditions, states, observations, strict=True))
    _run_to_the_end(lambda: run_chunks(_commit, made))
    ended_s = time.perf_counter()
    timing = StepTiming(
        plan_s=planned_s - started_s,
        condition_s=conditioned_s - planned_s,
        generate_s=generated_s - conditioned_s,
        observe_s=observed_s - generated_s,
        map_s=ended_s - observed_s,
        total_s=ended_s - started_s,
        action_to_pixels_s=generated_s - started_s,
        generator=generation.seconds,
    )
    return [replace(observation, timing=timing) for observation in observations]


def _complete_depth(
    worlds: Sequence[World], conditions: Sequence[Condition], frames_u8: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.float32]]:
    """A depth for every pixel; worlds that complete it in the same way share a call. [F, H, W] each"""
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, (world, rgb_u8) in enumerate(zip(worlds, frames_u8, strict=True)):
        groups.setdefault((id(world.complete_depth), rgb_u8.shape[1:]), []).append(i)
    completed: dict[int, NDArray[np.float32]] = {}
    for group in groups.values():
        num_frames = [len(frames_u8[i]) for i in group]
        together_m = worlds[group[0]].complete_depth(
            np.concatenate([frames_u8[i] for i in group]),
            np.concatenate([conditions[i].depth_m for i in group]),
            np.repeat([worlds[i].fallback_depth_m for i in group], num_frames),
        )
        completed |= dict(zip(group, np.split(together_m, np.cumsum(num_frames)[:-1]), strict=True))
    return [completed[i] for i in range(len(worlds))]


def _commit(world: World, plan: Plan, condition: Condition, state: GeneratorState, observation: Observation) -> None:
    world.commit(plan, condition, state, observation)


def _run_to_the_end(function: Callable[[], object]) -> None:
    """Call a function that Ctrl-C must not cut in two; a KeyboardInterrupt meanwhile is raised after it.

    Python raises that in the main thread only, so the work is done in another one.
    """
    done: Future[object] = Future()
    lock = Lock()

    def work() -> None:
        with lock:
            if done.done():
                return
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                done.set_exception(error)

    interrupt: KeyboardInterrupt | None = None
    while not done.done():  # wherever an interrupt came, one more thread waits for the first or does the work
        try:
            thread = Thread(target=work, name="inspatio-commit")
            thread.start()
            thread.join()
        except KeyboardInterrupt as error:
            interrupt = error
    done.result()
    if interrupt is not None:
        raise interrupt
