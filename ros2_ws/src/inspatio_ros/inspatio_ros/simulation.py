"""The world in its own threads: one makes blocks of frames, another shows them on time. Independent of ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from inspatio_ros.driving import BlockMotion, Driver, DriverState
from inspatio_ros.parameters import TimeMode
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid
from inspatio_sim.motion.camera import Array
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.snapshot import WorldSnapshot
from inspatio_sim.world.world import World

T = TypeVar("T")

NUM_STEP_TIMES = 8  # number of past blocks from which the next one's time is estimated
HEADROOM = 1.1  # on that estimate, and
HEADROOM_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that can change while the simulation runs."""

    time_mode: TimeMode = "real_time"
    reference_clock: ClockMode = "ping-pong"
    queue_blocks: int = 2  # maximum number of blocks waiting to be shown
    may_drop: bool = True  # drop the oldest block when the queue is full; otherwise the world waits
    step_height_m: float = 0.15  # for the floor plan, see `WorldMap.planning_grid`
    robot_height_m: float = 1.5


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of frames to be shown."""

    observation: Observation
    first_frame: int  # number of frames made before it
    fps: float
    is_restart: bool  # the camera jumped here: after a reset or a restore
    resumes: Snapshot | None  # the restored snapshot
    motion: BlockMotion  # the motion of the block
    clock: ClockMode | None  # the requested clock mode
    survey: Any  # result of `survey` right after the block
    due_s: float | None  # wall time (`time.perf_counter`) of the first frame; None: at once
    generation: int  # number of resets and restores; frames of older ones are not shown
    shown: threading.Event = field(default_factory=threading.Event)  # all frames are shown or dropped

    @property
    def num_frames(self) -> int:
        return len(self.observation.rgb_u8)

    @property
    def start_s(self) -> float:
        """Sim time at which the block's motion began, that of the previous frame."""
        return self.first_frame / self.fps

    def time_s(self, frame_idx: int) -> float:
        """Sim time of a frame. It is never 0, which means "no time" in ROS, and never goes backwards."""
        return (self.first_frame + frame_idx + 1) / self.fps


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a simulation needs to continue bit-exactly from here."""

    name: str
    world: WorldSnapshot
    driver: DriverState
    observation: Observation  # the last frame
    first_frame: int  # index of the next block's first frame


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Counters since the simulation began."""

    wall_s: float  # now
    time_s: float  # sim time of the last frame made
    num_blocks: int
    num_frames_shown: int
    num_blocks_dropped: int
    late_s: float  # total delay of frames in `real_time`
    busy_s: float  # total time spent making blocks
    block_s: float  # time spent on the last block


class Simulation:
    """Owns a world; while the threads run, nothing else may touch it except through `run`.

    `show` is called for every frame in its own thread. So a slow consumer drops frames (whole blocks, the oldest
    first) but does not make the world wait, unless the settings say so. In
    `lock_step` the world waits for `step`.

    Args:
        world: the world; `start` resets it.
        driver: gives the camera's motion when a block begins.
        show: called with a block and the index of a frame.
        survey: called in the world's thread after each block with the world, the sim time, and whether the camera
            jumped there.
        on_error: called in the world's thread when a block fails; the simulation is then paused.
        settings: see there.
    """

    def __init__(
        self,
        world: World,
        driver: Driver,
        *,
        show: Callable[[Block, int], None],
        survey: Callable[[World, float, bool], Any] = lambda world, time_s, is_restart: None,
        on_error: Callable[[Exception], None] = lambda error: None,
        settings: Settings | None = None,
    ) -> None:
        self.world = world
        self.driver = driver
        self.fps = float(world.reference.fps)
        self._show, self._survey, self._on_error = show, survey, on_error
        self._settings = settings or Settings()
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._queue: deque[Block] = deque()
        self._is_paused = False  # by the user
        self._is_held = True  # until `release`
        self._is_closing = False
        self._generation = 0
        self._next_due_s: float | None = None
        self._last: Block | None = None
        self._step_times_s: deque[float] = deque(maxlen=NUM_STEP_TIMES)
        self._num_made = self._num_blocks = self._num_shown = self._num_dropped = 0
        self._late_s = self._busy_s = 0.0
        self._threads = [
            threading.Thread(target=self._work, name="inspatio-world", daemon=True),
            threading.Thread(target=self._present, name="inspatio-show", daemon=True),
        ]

    def start(self) -> None:
        """Show the first block; the world continues after `release`."""
        for thread in self._threads:
            thread.start()

    def release(self) -> None:
        """Let the world continue, and show its last block (again)."""
        with self._changed:
            self._is_held = False
            self._next_due_s = None
            if self._last is not None and not self._queue:
                self._queue.append(self._shown_now(self._last))
            self._changed.notify_all()

    def hold(self) -> None:
        """Make no more blocks until `release`; finished ones are still shown."""
        with self._changed:
            self._is_held = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Make no more blocks until `resume`, except those requested by `step`."""
        with self._changed:
            self._is_paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        with self._changed:
            self._is_paused = False
            self._next_due_s = None
            self._changed.notify_all()

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    @property
    def settings(self) -> Settings:
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        with self._changed:
            if settings.time_mode != self._settings.time_mode:
                self._next_due_s = None
            self._settings = settings
            self._changed.notify_all()

    @property
    def time_s(self) -> float:
        """Sim time of the last frame made."""
        return self._num_made / self.fps

    @property
    def last_observation(self) -> Observation | None:
        """The last block; None before the first."""
        return None if self._last is None else self._last.observation

    def step(self) -> Block:
        """Make and show one block; raises InputError if the world runs by itself."""
        if self._settings.time_mode != "lock_step" and not self._is_paused:
            raise InputError(f"step: time_mode is {self._settings.time_mode}: want lock_step, or pause first")
        return self._wait_until_shown(self.run(lambda: self._step(due_at_once=True)))

    def reset(self, seed: int | None = None) -> Block:
        """Start over: empty map, first frame, standing still. Sim time continues."""
        return self._wait_until_shown(self.run(lambda: self._reset(seed)))

    def snapshot(self, name: str = "", keep: Callable[[Snapshot], object] = lambda snapshot: None) -> Snapshot:
        """Everything that `restore` needs; `keep` is called with it before the world continues."""

        def take() -> Snapshot:
            assert self._last is not None, "reset first"
            snapshot = Snapshot(
                name=name,
                world=self.world.snapshot(),
                driver=self.driver.state(self.time_s),
                observation=_last_frame(self._last.observation),
                first_frame=self._num_made,
            )
            keep(snapshot)
            return snapshot

        return self.run(take).result()

    def restore(self, snapshot: Snapshot) -> Block:
        """Restore a snapshot and show its last frame again; sim time continues."""

        def put() -> Block:
            self.world.restore(snapshot.world)
            self.driver.load_state(snapshot.driver, (self._num_made + 1) / self.fps)
            return self._restarted(replace(snapshot.observation, map=self.world.map), resumes=snapshot)

        return self._wait_until_shown(self.run(put))

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Call a function in the world's thread, between two blocks."""
        future: Future[T] = Future()
        with self._changed:
            if self._is_closing:
                future.cancel()
            else:
                self._jobs.append((job, future))
                self._changed.notify_all()
        return future

    def counters(self) -> Counters:
        with self._changed:
            return Counters(
                wall_s=time.perf_counter(),
                time_s=self.time_s,
                num_blocks=self._num_blocks,
                num_frames_shown=self._num_shown,
                num_blocks_dropped=self._num_dropped,
                late_s=self._late_s,
                busy_s=self._busy_s,
                block_s=self._step_times_s[-1] if self._step_times_s else 0.0,
            )

    def close(self) -> None:
        """Stop both threads after the current block; waiting callers get a CancelledError."""
        with self._changed:
            self._is_closing = True
            for _, future in self._jobs:
                future.cancel()
            self._jobs.clear()
            self._clear_queue()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # In the world's thread

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            job, future = task
            if future is None:
                try:
                    job()
                except Exception as error:  # noqa: BLE001 - whatever a generator throws must not end the thread
                    self.pause()
                    self._on_error(error)
            elif future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except BaseException as error:  # noqa: BLE001 - handed to whoever asked
                    future.set_exception(error)

    def _next_task(self) -> tuple[Callable[[], Any], Future[Any] | None] | None:
        """Wait for work; None: the end."""
        with self._changed:
            while not self._is_closing:
                if self._jobs:
                    return self._jobs.popleft()
                mode = self._settings.time_mode
                wait_s: float | None = None
                if not self._is_held and not self._is_paused and mode != "lock_step":
                    if mode == "as_fast_as_possible" or self._next_due_s is None:
                        return self._step, None
                    wait_s = self._next_due_s - self._expected_s() - time.perf_counter()
                    if wait_s <= 0:
                        return self._step, None
                self._changed.wait(wait_s)
            return None

    def _expected_s(self) -> float:
        """A safe estimate of the next block's time; starting as late as possible lets it use later commands."""
        return HEADROOM * max(self._step_times_s, default=0.0) + HEADROOM_S

    def _step(self, *, due_at_once: bool = False) -> Block:
        started_s = time.perf_counter()
        world, frame_s = self.world, 1 / self.fps
        num_frames = world.generator.frames_per_block
        T_before = world.T_world_camera
        motion = self.driver.begin_block(T_before, self.time_s, num_frames, frame_s, self._grid)
        asked = self._settings.reference_clock
        clock = None if asked == world.config.clock else asked
        observation = world.step(motion.deltas, clock)
        if observation.has_collided:
            poses: list[Array] = [T_before, *observation.T_world_camera]
            self.driver.collided(poses[-2], poses[-1], frame_s)
        return self._made(observation, motion, clock, started_s=started_s, due_at_once=due_at_once)

    def _reset(self, seed: int | None) -> Block:
        observation = self.world.reset(seed=seed)
        self.driver.reset()
        return self._restarted(observation)

    def _restarted(self, observation: Observation, resumes: Snapshot | None = None) -> Block:
        with self._changed:
            self._generation += 1
            self._clear_queue()
            self._next_due_s = None
        motion = BlockMotion(deltas=[])
        return self._made(observation, motion, None, started_s=None, due_at_once=True, is_restart=True, resumes=resumes)

    def _made(
        self,
        observation: Observation,
        motion: BlockMotion,
        clock: ClockMode | None,
        *,
        started_s: float | None,
        due_at_once: bool,
        is_restart: bool = False,
        resumes: Snapshot | None = None,
    ) -> Block:
        """Count a new block and queue it."""
        num_frames = len(observation.rgb_u8)
        survey = self._survey(self.world, (self._num_made + num_frames) / self.fps, is_restart)
        with self._changed:
            now_s = time.perf_counter()
            due_s = None
            if started_s is not None:
                self._step_times_s.append(now_s - started_s)
                self._busy_s += now_s - started_s
            if self._settings.time_mode == "real_time" and not due_at_once:
                due_s = now_s if self._next_due_s is None else max(self._next_due_s, now_s)
                self._late_s += 0.0 if self._next_due_s is None else due_s - self._next_due_s
                self._next_due_s = due_s + num_frames / self.fps
            block = self._last = Block(
                observation=observation,
                first_frame=self._num_made,
                fps=self.fps,
                is_restart=is_restart,
                resumes=resumes,
                motion=motion,
                clock=clock,
                survey=survey,
                due_s=due_s,
                generation=self._generation,
            )
            self._num_made += num_frames
            self._num_blocks += 1
            while len(self._queue) >= self._settings.queue_blocks and not self._is_closing:
                if self._settings.may_drop:
                    self._queue.popleft().shown.set()
                    self._num_dropped += 1
                else:
                    self._changed.wait()
            if self._is_held or self._is_closing:
                block.shown.set()  # later, by `release`
            else:
                self._queue.append(block)
                self._changed.notify_all()
            return block

    def _grid(self) -> PlanningGrid:
        settings = self._settings
        return self.world.map.planning_grid(
            step_height_m=settings.step_height_m, robot_height_m=settings.robot_height_m
        )

    # In the thread that shows frames

    def _present(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closing)
                if self._is_closing:
                    return
                block = self._queue.popleft()
                self._changed.notify_all()  # there is room
            for frame_idx in range(block.num_frames):
                if not self._wait_until_due(block, frame_idx):
                    break
                self._show(block, frame_idx)
                with self._changed:
                    self._num_shown += 1
            block.shown.set()

    def _wait_until_due(self, block: Block, frame_idx: int) -> bool:
        """False if the frame is no longer to be shown."""
        with self._changed:
            while not self._is_closing and block.generation == self._generation:
                wait_s = 0.0
                if block.due_s is not None:
                    wait_s = block.due_s + frame_idx / self.fps - time.perf_counter()
                if wait_s <= 0:
                    return True
                self._changed.wait(wait_s)
            return False

    # In any thread

    def _shown_now(self, block: Block) -> Block:
        return replace(block, due_s=None, shown=threading.Event())

    def _clear_queue(self) -> None:
        while self._queue:
            self._queue.popleft().shown.set()

    @staticmethod
    def _wait_until_shown(future: Future[Block]) -> Block:
        block = future.result()
        block.shown.wait()
        return block


def _last_frame(observation: Observation) -> Observation:
    """Copies."""
    names = ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx")
    return replace(observation, **{name: getattr(observation, name)[-1:].copy() for name in names})
