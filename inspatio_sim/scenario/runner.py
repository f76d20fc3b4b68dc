"""Plays a scenario: makes its world, takes its steps, checks the expectations after each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import GenerationFailed, InputError
from inspatio_sim.motion.actions import discrete, parse_script
from inspatio_sim.motion.camera import Array, PoseDelta
from inspatio_sim.pictures import Picture, save_png
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.scenario.expectations import Moment, Verdict, View, judge, rotation_from_deg
from inspatio_sim.scenario.model import (
    Discrete,
    ImageIs,
    Reset,
    Restore,
    Scenario,
    Script,
    Snapshot,
    Step,
    Time,
    Twist,
    Wait,
    Waypoints,
)
from inspatio_sim.scenario.waypoints import NoWay, drive_to
from inspatio_sim.scenario.worlds import WorldMaker
from inspatio_sim.world.snapshot import WorldSnapshot
from inspatio_sim.world.world import World

Status = Literal["passed", "failed", "error", "skipped"]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of one step."""

    title: str
    line: int
    status: Status
    message: str = ""  # why it could not be carried out; empty if it was
    verdicts: tuple[Verdict, ...] = ()
    num_frames: int = 0
    pictures: dict[str, Picture] = field(default_factory=dict, compare=False)  # if it could not be carried out
    seconds: float = field(default=0.0, compare=False)  # in `World.reset` and `World.step`
    slowest_block_s: float | None = field(default=None, compare=False)

    @property
    def failures(self) -> list[str]:
        """One sentence each."""
        return [self.message] * bool(self.message) + [v.sentence for v in self.verdicts if not v.passed]


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """The result of one scenario."""

    scenario: Scenario
    steps: tuple[StepResult, ...]
    message: str = ""  # why it could not start or continue

    @property
    def status(self) -> Status:
        statuses = {step.status for step in self.steps}
        if self.message or "error" in statuses:
            return "error"
        return "failed" if "failed" in statuses else "passed"

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def num_frames(self) -> int:
        return sum(step.num_frames for step in self.steps)

    @property
    def failures(self) -> list[str]:
        """The failures, one line each: file, line, step, sentence."""
        file = self.scenario.file
        lines = [self.message] * bool(self.message)
        for step in self.steps:
            lines += [f"{file}:{step.line}: {step.title}: {step.message}"] * bool(step.message)
            failed = [verdict for verdict in step.verdicts if not verdict.passed]
            lines += [f"{file}:{verdict.line}: {step.title}: {verdict.sentence}" for verdict in failed]
        return lines


def run_scenario(
    scenario: Scenario,
    maker: WorldMaker | None = None,
    *,
    updates_images: bool = False,
    progress: Progress | None = None,
) -> ScenarioResult:
    """Play a scenario from its first step to its last.

    A failed expectation does not end it. A step that cannot be carried out (no path to a waypoint) does, and the rest
    is skipped. Apart from wall times, the result is the same every time.

    Args:
        scenario: a scenario from `load_scenario`.
        maker: makes worlds; scenarios with the same maker share clips and models.
        updates_images: write the images of `image` expectations instead of comparing with them.
        progress: called with the scenario's name and the share done.
    """
    tell = progress or (lambda what, share: None)
    tell(scenario.name, 0.0)
    try:
        player = _Player(scenario, (maker or WorldMaker()).make(scenario.world), updates_images)
    except (InputError, GenerationFailed) as error:
        skipped = tuple(StepResult(title=step.title, line=step.line, status="skipped") for step in scenario.steps)
        message = f"{scenario.file}:{scenario.world_line}: world: {error}"
        return ScenarioResult(scenario=scenario, steps=skipped, message=message)
    results: list[StepResult] = []
    is_over = False
    for step in scenario.steps:
        skipped = StepResult(title=step.title, line=step.line, status="skipped")
        results.append(skipped if is_over else player.take(step))
        is_over = is_over or bool(results[-1].message)
        tell(scenario.name, len(results) / len(scenario.steps))
    return ScenarioResult(scenario=scenario, steps=tuple(results))


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """Everything that `restore` brings back."""

    snapshot: WorldSnapshot
    view: View
    path_m: tuple[Array, ...]
    T_world_start: Array
    clock: ClockMode | None


class _Player:
    """A world and its history while a scenario plays."""

    def __init__(self, scenario: Scenario, world: World, updates_images: bool) -> None:
        self.world = world
        self.updates_images = updates_images
        self.pace = replace(scenario.pace, fps=world.reference.fps)
        self.planned_radius_m = world.config.body_radius_m + world.map.config.occupancy_voxel_m
        self.clock: ClockMode | None = None  # clock mode until the next `time`
        self.marks: dict[str, View] = {}
        self.saved: dict[str, _Saved] = {}
        self.has_collided = False  # in the current step
        self.block_seconds: list[float] = []  # of the current step
        self.num_frames = 0  # of the current step
        self.T_world_start = world.T_world_camera
        self.path_m: list[Array] = []
        self._reset(Reset())

    def take(self, step: Step) -> StepResult:
        """Take one step and check its expectations."""
        self.has_collided, self.block_seconds, self.num_frames = False, [], 0
        status, message, verdicts, pictures = "passed", "", (), {}
        try:
            self._act(step)
            if step.mark is not None:
                self.marks[step.mark] = self.view
            verdicts = tuple(self._judge(step))
            if not all(verdict.passed for verdict in verdicts):
                status = "failed"
        except NoWay as error:
            status, message = "failed", str(error)
            pictures = {"frame": self.view.rgb_u8, "map and path, from above": self._moment().map_picture()}
        except (InputError, GenerationFailed) as error:
            status, message = "error", str(error)
        return StepResult(
            title=step.title,
            line=step.line,
            status=status,
            message=message,
            verdicts=verdicts,
            num_frames=self.num_frames,
            pictures=pictures,
            seconds=sum(self.block_seconds),
            slowest_block_s=max(self.block_seconds, default=None),
        )

    def _act(self, step: Step) -> None:
        match step.action:
            case None:
                pass
            case Script():
                for word in parse_script(step.action.text, self.pace):
                    self.clock = word.clock or self.clock
                    self._move(word.delta, word.num_frames)
            case Discrete():
                for _ in range(step.action.times):
                    self._see(self.world.step(discrete(step.action.name, step.action.sizes), self.clock))
            case Twist():
                action = step.action
                motion = PoseDelta.from_twist(action.linear_mps, action.angular_radps, action.duration_s)
                self._move(motion, self._frames(action.duration_s))
            case Wait():
                self._move(PoseDelta.identity(), self._frames(step.action.duration_s))
            case Time():
                self.clock = step.action.clock
            case Waypoints():
                self._drive(step.action)
            case Reset():
                self._reset(step.action)
            case Snapshot():
                self.saved[step.action.name] = _Saved(
                    snapshot=self.world.snapshot(),
                    view=self.view,
                    path_m=tuple(self.path_m),
                    T_world_start=self.T_world_start,
                    clock=self.clock,
                )
            case Restore():
                saved = self.saved[step.action.name]
                self.world.restore(saved.snapshot)
                self.view, self.path_m, self.clock = saved.view, list(saved.path_m), saved.clock
                self.T_world_start = saved.T_world_start

    def _drive(self, action: Waypoints) -> None:
        radius_m = self.planned_radius_m if action.radius_m is None else action.radius_m
        for place_xz_m in action.through_xz_m:
            for motion in drive_to(self.world, place_xz_m, radius_m, is_unknown_free=action.is_unknown_free):
                turn_s, go_s = motion.angle_rad / self.pace.turn_rate_radps, motion.distance_m / self.pace.speed_mps
                self._move(motion, self._frames(max(turn_s, go_s)))

    def _move(self, motion: PoseDelta, num_frames: int) -> None:
        """Spread a motion evenly over whole blocks."""
        num_blocks = -(-num_frames // self.world.generator.frames_per_block)
        for _ in range(num_blocks):
            self._see(self.world.step(motion.part(1 / num_blocks), self.clock))

    def _frames(self, duration_s: float) -> int:
        return max(1, math.ceil(duration_s * self.pace.fps - 1e-6))

    def _reset(self, action: Reset) -> None:
        T_world_camera = self.world.reference.T_world_camera[0].copy()
        if action.rotation_deg is not None:
            T_world_camera[:3, :3] = rotation_from_deg(action.rotation_deg)
        if action.position_m is not None:
            T_world_camera[:3, 3] = action.position_m
        observation = self.world.reset(seed=action.seed, T_world_camera=T_world_camera)
        self.T_world_start, self.path_m, self.clock = T_world_camera, [], None
        self._see(observation)

    def _see(self, observation: Observation) -> None:
        assert observation.timing is not None, "a world times its steps"
        self.view = View(
            rgb_u8=observation.rgb_u8[-1],
            known=observation.known[-1],
            T_world_camera=observation.T_world_camera[-1],
        )
        self.path_m.extend(observation.T_world_camera[:, :3, 3])
        self.has_collided |= observation.has_collided
        self.block_seconds.append(observation.timing.total_s)
        self.num_frames += len(observation.rgb_u8)

    def _moment(self) -> Moment:
        return Moment(
            view=self.view,
            world_map=self.world.map,
            path_m=np.stack(self.path_m),
            T_world_start=self.T_world_start,
            has_collided=self.has_collided,
            block_seconds=tuple(self.block_seconds),
            marks=self.marks,
        )

    def _judge(self, step: Step) -> Iterator[Verdict]:
        moment = self._moment() if step.expectations else None
        for expectation in step.expectations:
            assert moment is not None
            if self.updates_images and isinstance(expectation.expected, ImageIs):
                save_png(expectation.expected.file, moment.view.rgb_u8)
            yield judge(expectation, moment)
