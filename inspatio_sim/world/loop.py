"""The loop: plan each action on copies, generate all planned blocks together, then commit them.

So a failed step changes nothing, and several worlds step in one call of the generator they share.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspatio_sim.condition.condition import Condition, Viewpoints, build_conditions
from inspatio_sim.condition.observation import Observation, StepTiming
from inspatio_sim.condition.views_seen import views_seen
from inspatio_sim.errors import InputError
from inspatio_sim.generators.protocol import Generator, GeneratorState
from inspatio_sim.geometry.completion import CompleteDepth
from inspatio_sim.kernels import run_chunks
from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import Array, CameraPath, PoseDelta
from inspatio_sim.reference.clock import Clock
from inspatio_sim.reference.reference import ClockMode, Reference
from inspatio_sim.world.config import WorldConfig, check_clock
from inspatio_sim.world.obstacles import avoid_obstacles
from inspatio_sim.world.remember import insert_all, remember

Motion = PoseDelta | Sequence[PoseDelta]
"""One motion for the whole block, or one for each of its frames."""
Modes = ClockMode | Sequence[ClockMode | None] | None
"""The clock mode of a block, or of each of its frames; None: as configured."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The part of a world that never changes."""

    reference: Reference
    generator: Generator
    config: WorldConfig
    prompt: str
    complete_depth: CompleteDepth

    def new_map(self) -> WorldMap:
        """An empty map; a static reference is inserted at once."""
        world_map = WorldMap(self.config.map)
        if self.reference.is_static:
            insert_all(world_map, self.reference)
        return world_map

    def new_clock(self) -> Clock:
        """The state before the first frame."""
        return Clock(self.reference.num_frames, mode=self.config.clock, slow_factor=self.config.slow_factor)


@dataclass(frozen=True, kw_only=True)
class WorldState:
    """A world between two blocks. Only its map changes in place, when a block is committed."""

    seed: int
    path: CameraPath
    clock: Clock
    map: WorldMap
    generator: GeneratorState
    num_frames: int = 0  # shown so far
    mapped_frame_idx: int | None = None  # the frame of the reference that went into the map last


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The next block of one world."""

    setting: Setting
    state: WorldState  # camera and clock at the end of the block; map and everything else as before it
    T_world_camera: Array  # [F, 4, 4]
    reference_frame_idx: NDArray[np.int64]  # [F]
    has_collided: bool


@dataclass(frozen=True, kw_only=True)
class Block:
    """A generated block."""

    observation: Observation
    generator_state: GeneratorState


def plan_reset(setting: Setting, seed: int, T_world_camera: ArrayLike | None) -> Plan:
    """Plan the first block, from a pose or from the first camera of the reference."""
    start = setting.reference.T_world_camera[0] if T_world_camera is None else T_world_camera
    path, clock = CameraPath(start), setting.new_clock()
    poses = np.repeat(path.T_world_camera[None], setting.generator.first_block_frames, 0)
    state = WorldState(
        seed=seed,
        path=path,
        clock=clock,
        map=setting.new_map(),
        generator=setting.generator.begin(setting.reference, seed, setting.prompt),
    )
    frame_idx = _reference_frames(setting.reference, clock, [None], poses)
    return Plan(setting=setting, state=state, T_world_camera=poses, reference_frame_idx=frame_idx, has_collided=False)


def plan_step(setting: Setting, state: WorldState, motion: Motion, clock: Modes) -> Plan:
    """Plan the next block; obstacles may cut the motion short."""
    num_frames, config = setting.generator.frames_per_block, setting.config
    motions, modes = _checked_motions(motion, num_frames), _checked_modes(clock, num_frames)
    path, next_clock = copy.copy(state.path), copy.copy(state.clock)
    parts, has_collided = [], False
    for part in motions:
        free, is_cut = avoid_obstacles(part, path.T_world_camera, state.map, config.collisions, config.body_radius_m)
        parts.append(path.advance(free, num_frames // len(motions)))
        has_collided |= is_cut
    poses = np.concatenate(parts)
    return Plan(
        setting=setting,
        state=replace(state, path=path, clock=next_clock),
        T_world_camera=poses,
        reference_frame_idx=_reference_frames(setting.reference, next_clock, modes, poses),
        has_collided=has_collided,
    )


def advance(plans: Sequence[Plan], started_s: float) -> list[Block]:
    """Generate the planned blocks in one call of the generator they share; no world changes.

    Args:
        plans: one each, for different worlds.
        started_s: when planning began, by `time.perf_counter`.
    """
    laps_s = [started_s, time.perf_counter()]
    conditions = build_conditions([_viewpoints(plan) for plan in plans])
    laps_s.append(time.perf_counter())
    generator = plans[0].setting.generator
    generation = generator.generate(conditions, [plan.state.generator for plan in plans])
    laps_s.append(time.perf_counter())
    depths_m = _complete_depths(plans, conditions, generation.frames_u8)
    observations = list(map(_observation, plans, conditions, generation.frames_u8, depths_m))
    seen = zip(generation.states, observations, (plan.setting.reference for plan in plans), strict=True)
    states = run_chunks(generator.observe, list(seen))
    laps_s.append(time.perf_counter())
    plan_s, condition_s, generate_s, observe_s = np.diff(laps_s).tolist()
    timing = StepTiming(
        plan_s=plan_s,
        condition_s=condition_s,
        generate_s=generate_s,
        observe_s=observe_s,
        generator=generation.seconds,
    )
    return [
        Block(observation=replace(observation, timing=timing), generator_state=state)
        for observation, state in zip(observations, states, strict=True)
    ]


def commit(plan: Plan, block: Block) -> WorldState:
    """Put new pixels into the map and return the state after the block."""
    state, observation = plan.state, block.observation
    mapped_frame_idx = remember(
        observation,
        plan.setting.reference,
        first_frame=state.num_frames,
        mapped_frame_idx=state.mapped_frame_idx,
        stride_frames=plan.setting.config.map_stride_frames,
    )
    num_frames = state.num_frames + len(observation.rgb_u8)
    return replace(state, generator=block.generator_state, num_frames=num_frames, mapped_frame_idx=mapped_frame_idx)


def _viewpoints(plan: Plan) -> Viewpoints:
    return Viewpoints(
        reference=plan.setting.reference,
        map=plan.state.map,
        T_world_camera=plan.T_world_camera,
        reference_frame_idx=plan.reference_frame_idx,
    )


def _observation(
    plan: Plan, condition: Condition, rgb_u8: NDArray[np.uint8], depth_m: NDArray[np.float32]
) -> Observation:
    return Observation(
        rgb_u8=rgb_u8,
        depth_m=depth_m,
        known=condition.known,
        render_u8=condition.render_u8,
        is_rendered=condition.is_rendered,
        T_world_camera=condition.T_world_camera,
        time_s=(plan.state.num_frames + np.arange(len(rgb_u8))) / plan.setting.reference.fps,
        reference_frame_idx=condition.reference_frame_idx,
        has_collided=plan.has_collided,
        map=plan.state.map,
    )


def _complete_depths(
    plans: Sequence[Plan], conditions: Sequence[Condition], frames_u8: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.float32]]:
    """Depth for every pixel; worlds with the same completion share a call. [F, H, W] each"""
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, (plan, rgb_u8) in enumerate(zip(plans, frames_u8, strict=True)):
        groups.setdefault((id(plan.setting.complete_depth), rgb_u8.shape[1:]), []).append(i)
    completed: dict[int, NDArray[np.float32]] = {}
    for group in groups.values():
        num_frames = [len(frames_u8[i]) for i in group]
        together_m = plans[group[0]].setting.complete_depth(
            np.concatenate([frames_u8[i] for i in group]),
            np.concatenate([conditions[i].depth_m for i in group]),
            np.repeat([plans[i].setting.reference.typical_depth_m for i in group], num_frames),
        )
        completed |= dict(zip(group, np.split(together_m, np.cumsum(num_frames)[:-1]), strict=True))
    return [completed[i] for i in range(len(plans))]


def _reference_frames(
    reference: Reference, clock: Clock, modes: Sequence[ClockMode | None], T_world_camera: Array
) -> NDArray[np.int64]:
    """The reference frame of each of a block's frames. [F]

    For a static reference it is the frame that shows most of the view in the middle of the block. The whole block
    uses one frame, since a generator that takes the reference for a clip would read a change as motion.
    """
    num_frames = len(T_world_camera)
    if reference.is_static:
        seen_best, *_ = views_seen(reference, T_world_camera[num_frames // 2], reference.typical_depth_m)
        return np.full(num_frames, seen_best, np.int64)
    return np.concatenate([clock.advance(num_frames // len(modes), mode) for mode in modes])


def _checked_motions(motion: Motion, num_frames: int) -> list[PoseDelta]:
    motions = [motion] if isinstance(motion, PoseDelta) else _one_a_frame("motion", motion, num_frames, "a PoseDelta")
    for part in motions:
        if not isinstance(part, PoseDelta):
            raise InputError(f"motion is a {type(part).__name__}: want a PoseDelta (see inspatio_sim.motion.actions)")
    return motions


def _checked_modes(clock: Modes, num_frames: int) -> list[ClockMode | None]:
    is_one = clock is None or isinstance(clock, str)
    modes: list[Any] = [clock] if is_one else _one_a_frame("clock", clock, num_frames, "a mode")
    for mode in modes:
        if mode is not None:
            check_clock(mode)
    return modes


def _one_a_frame(name: str, values: object, num_frames: int, want: str) -> list[Any]:
    if not isinstance(values, (list, tuple)):
        raise InputError(f"{name} is a {type(values).__name__}: want {want}, or a list with one per frame")
    if len(values) != num_frames:
        raise InputError(f"{name}: {len(values)} for a block of {num_frames} frames: want {want}, or one per frame")
    return list(values)
