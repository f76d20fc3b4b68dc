"""Worlds whose cameras follow paths laid down beforehand, many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.quality_cases.held_out import Way
from inspatio_sim.condition.condition import Condition
from inspatio_sim.condition.observation import Observation
from inspatio_sim.generators.protocol import Generation, Generator, GeneratorState, PackedState
from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import Array, CameraPath, PoseDelta
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.loop import Modes, Motion, Plan
from inspatio_sim.world.world import World, reset_worlds, step_worlds

WORLDS_AT_ONCE = 8
STAND_STILL = PoseDelta.identity()  # what a world on a path is asked for: the path moves it


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a generator showed along a path. N frames"""

    frames_u8: NDArray[np.uint8]  # [N, H, W, 3]
    known: NDArray[np.uint8]  # as in `Observation`. [N, H, W]
    render_u8: NDArray[np.uint8]  # of the condition. [N, H, W, 3]


class PathWorld(World):
    """A world whose poses and moments are given frame by frame; everything else is as in any world."""

    def __init__(
        self,
        reference: Reference,
        T_world_camera: Array,
        frame_idx: NDArray[np.int64],
        *,
        generator: Generator,
        seed: int,
        prompt: str = "",
        has_map: bool = True,
    ) -> None:
        """Lay down a path.

        Args:
            reference: the clip with geometry.
            T_world_camera: the pose at each frame; the last one is held. [N, 4, 4]
            frame_idx: the reference frame of each moment; the last one is held. [N]
            generator: of the frames.
            seed: of everything random.
            prompt: what the place looks like.
            has_map: False forgets everything after each block: the reference's frame of the moment is all there is.
        """
        super().__init__(reference, generator=generator, seed=seed, prompt=prompt)
        self._poses, self._moments, self._has_map = T_world_camera, frame_idx, has_map

    def plan_reset(self, seed: int | None, T_world_camera: ArrayLike | None) -> Plan:
        plan = super().plan_reset(seed, T_world_camera)
        return self._along_the_path(plan, len(plan.T_world_camera))

    def plan_step(self, motion: Motion, clock: Modes) -> Plan:
        plan = super().plan_step(motion, clock)
        return self._along_the_path(plan, len(plan.T_world_camera))

    def _along_the_path(self, plan: Plan, num_frames: int) -> Plan:
        start = plan.state.num_frames
        now = np.minimum(np.arange(start, start + num_frames), len(self._poses) - 1)
        return replace(
            plan,
            T_world_camera=self._poses[now],
            reference_frame_idx=self._moments[now],
            state=replace(
                plan.state,
                path=CameraPath(self._poses[now[-1]]),
                map=plan.state.map if self._has_map else WorldMap(self.config.map),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class RepeatGenerator:
    """Shows the reference frame of the moment as it is, wherever the camera went: what doing nothing is worth."""

    frames_per_block: int = 12
    best_size_px: tuple[int, int] = (96, 160)
    looks_real: bool = True
    name: str = "repeat"
    options: dict[str, Any] = field(default_factory=dict)
    memory_plan: dict[str, int] = field(default_factory=dict)

    @property
    def first_block_frames(self) -> int:
        return self.frames_per_block

    def begin(self, reference: Reference, seed: int, prompt: str = "") -> GeneratorState:
        del seed, prompt
        return reference

    def generate(self, conditions: Sequence[Condition], states: Sequence[GeneratorState]) -> Generation:
        frames = [state.frames_u8[c.reference_frame_idx] for c, state in zip(conditions, states, strict=True)]
        return Generation(frames_u8=frames, states=list(states))

    def observe(self, state: GeneratorState, observation: Observation, reference: Reference) -> GeneratorState:
        del observation, reference
        return state

    def pack(self, state: GeneratorState) -> PackedState:
        del state
        return {}

    def unpack(self, arrays: Mapping[str, np.ndarray], reference: Reference) -> GeneratorState:
        del arrays
        return reference


def play(
    walks: Sequence[Way],
    generator: Generator,
    what: str,
    *,
    has_map: bool = True,
    progress: Progress | None = None,
) -> list[Played]:
    """Walk every way with one generator; the worlds' seeds and prompts are the places' own."""
    worlds = [world_on(walk, generator, has_map=has_map) for walk in walks]
    return play_worlds(worlds, [len(walk.frame_idx) for walk in walks], what, progress=progress)


def world_on(walk: Way, generator: Generator, *, has_map: bool = True) -> PathWorld:
    """A world at the beginning of a way."""
    return PathWorld(
        walk.place.reference,
        walk.T_world_camera,
        walk.frame_idx,
        generator=generator,
        seed=walk.place.seed,
        prompt=walk.place.sample.caption,
        has_map=has_map,
    )


def play_worlds(
    worlds: Sequence[PathWorld], num_frames: Sequence[int], what: str, *, progress: Progress | None = None
) -> list[Played]:
    """Walk worlds that share a generator to the ends of their paths."""
    played: list[Played] = []
    for start in range(0, len(worlds), WORLDS_AT_ONCE):
        group = worlds[start : start + WORLDS_AT_ONCE]
        wanted = num_frames[start : start + WORLDS_AT_ONCE]
        blocks: list[list[Played]] = [[] for _ in group]
        shown, longest = 0, max(wanted)
        while shown < longest:
            seen = step_worlds(group, [STAND_STILL] * len(group)) if shown else reset_worlds(group)
            for world, observation, own in zip(group, seen, blocks, strict=True):
                assert world.condition is not None, "a world keeps the condition of its last block"
                own.append(
                    Played(frames_u8=observation.rgb_u8, known=observation.known, render_u8=world.condition.render_u8)
                )
            shown += len(seen[0].rgb_u8)
            if progress:
                progress(what, (start + len(group) * min(1.0, shown / longest)) / len(worlds))
        played += [_joined(own, count) for own, count in zip(blocks, wanted, strict=True)]
    return played


def _joined(blocks: Sequence[Played], num_frames: int) -> Played:
    return Played(
        frames_u8=np.concatenate([block.frames_u8 for block in blocks])[:num_frames],
        known=np.concatenate([block.known for block in blocks])[:num_frames],
        render_u8=np.concatenate([block.render_u8 for block in blocks])[:num_frames],
    )
