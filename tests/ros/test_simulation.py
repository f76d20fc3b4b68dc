"""The threads of the world, with a real small world: order, pacing, dropping, determinism. No ROS."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
from inspatio_ros.driving import Driver, Velocity
from inspatio_ros.simulation import Block, Settings, Simulation

from inspatio_sim.errors import InputError
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.world import World

WAIT_S = 20.0


class Screen:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, bytes, float]] = []  # sim time, pixels, wall time
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def show(self, block: Block, frame_idx: int) -> None:
        assert self.may_go_on.wait(WAIT_S)
        pixels = block.observation.rgb_u8[frame_idx].tobytes()
        self.frames.append((block.time_s(frame_idx), pixels, time.perf_counter()))

    def wait(self, num_frames: int) -> None:
        end_s = time.perf_counter() + WAIT_S
        while len(self.frames) < num_frames:
            assert time.perf_counter() < end_s, f"{len(self.frames)} of {num_frames} frames"
            time.sleep(0.002)

    @property
    def pixels(self) -> list[bytes]:
        return [frame[1] for frame in self.frames]

    @property
    def times_s(self) -> list[float]:
        return [frame[0] for frame in self.frames]


@pytest.fixture
def make(static_reference: Reference):
    """Makes simulations, started and released; all are closed in the end."""
    made: list[Simulation] = []

    def start(num_frames: int = 1, fps: float = 12.0, survey=None, **settings) -> tuple[Simulation, Screen]:
        world = World(
            replace(static_reference, fps=fps),
            generator=WarpGenerator(frames_per_block=num_frames),
            config=WorldConfig(),
        )
        screen = Screen()
        hooks = {} if survey is None else {"survey": survey}
        simulation = Simulation(world, Driver(), show=screen.show, settings=Settings(**settings), **hooks)
        made.append(simulation)
        simulation.start()
        simulation.reset(0)
        simulation.release()
        screen.wait(num_frames)
        return simulation, screen

    yield start
    for simulation in made:
        simulation.close()


def drive(simulation: Simulation, *velocity: float) -> None:
    simulation.driver.command(Velocity(*velocity), simulation.time_s, time.perf_counter())


def walk(simulation: Simulation, num_steps: int = 6) -> list[bytes]:
    images = []
    for i in range(num_steps):
        drive(simulation, 0.5, 0.0, 0.8 if i % 2 else -0.3)
        images.append(simulation.step().observation.rgb_u8.tobytes())
    return images


@pytest.mark.parametrize("num_frames", [1, 3])
def test_lock_step_is_deterministic(make, num_frames):
    simulation, screen = make(num_frames=num_frames, time_mode="lock_step")
    first = walk(simulation)
    assert len(screen.frames) == 7 * num_frames
    simulation.reset(0)
    assert walk(simulation) == first
    other, _ = make(num_frames=num_frames, time_mode="lock_step")
    assert walk(other) == first


def test_lock_step_moves_only_when_asked(make):
    simulation, screen = make(time_mode="lock_step")
    time.sleep(0.2)
    assert len(screen.frames) == 1
    block = simulation.step()
    assert block.shown.is_set()
    assert screen.times_s == pytest.approx([1 / 12, 2 / 12])
    assert simulation.time_s == block.time_s(0)


def test_snapshot_goes_on_bit_exactly_and_time_never_goes_back(make):
    simulation, screen = make(time_mode="lock_step")
    walk(simulation, 3)
    snapshot = simulation.snapshot()
    onwards = walk(simulation)
    shown = simulation.restore(snapshot)
    assert shown.observation.rgb_u8.tobytes() == screen.pixels[3]
    assert shown.is_restart
    assert walk(simulation) == onwards
    assert np.all(np.diff(screen.times_s) > 0)


def test_real_time_is_paced(make):
    simulation, screen = make(fps=40.0, time_mode="real_time")
    screen.wait(45)
    wall_s = np.array([frame[2] for frame in screen.frames])
    assert wall_s[44] - wall_s[4] >= 40 / 40 - 0.02  # never faster than real time
    assert simulation.counters().num_blocks_dropped == 0


def test_real_time_that_is_too_much_is_counted(make):
    simulation, screen = make(fps=200.0, time_mode="real_time", survey=lambda *_: time.sleep(0.02))
    screen.wait(20)
    counters = simulation.counters()
    assert counters.late_s > 15 * 0.01  # 20 ms a frame of 5 ms


def test_fast_is_faster_than_real_time(make):
    simulation, screen = make(fps=1.0, time_mode="as_fast_as_possible")
    start_s = time.perf_counter()
    screen.wait(10)
    assert time.perf_counter() - start_s < 9
    assert np.all(np.diff(screen.times_s) > 0)


def test_slow_reader_makes_the_oldest_drop_and_the_world_goes_on(make):
    simulation, screen = make(time_mode="as_fast_as_possible", queue_blocks=2)
    screen.may_go_on.clear()
    before = simulation.counters()
    end_s = time.perf_counter() + WAIT_S
    while simulation.counters().num_blocks < before.num_blocks + 20 and time.perf_counter() < end_s:
        time.sleep(0.01)
    simulation.pause()
    counters = simulation.counters()
    assert counters.num_blocks_dropped >= 15
    screen.may_go_on.set()
    last_s = simulation.run(lambda: simulation.time_s).result()
    end_s = time.perf_counter() + WAIT_S
    while (not screen.times_s or screen.times_s[-1] < last_s) and time.perf_counter() < end_s:
        time.sleep(0.01)
    assert screen.times_s[-1] == pytest.approx(last_s)  # the newest is not the one that is lost


def test_nothing_drops_where_it_must_not(make):
    simulation, screen = make(time_mode="as_fast_as_possible", queue_blocks=1, may_drop=False)
    screen.may_go_on.clear()
    time.sleep(0.2)
    screen.may_go_on.set()
    screen.wait(20)
    np.testing.assert_allclose(np.diff(screen.times_s), 1 / 12, atol=1e-9)
    assert simulation.counters().num_blocks_dropped == 0


def test_pause_step_resume(make):
    simulation, screen = make(fps=30.0, time_mode="real_time")
    with pytest.raises(InputError, match="want lock_step, or pause first"):
        simulation.step()
    simulation.pause()
    simulation.run(lambda: None).result()
    now_s = simulation.time_s
    assert simulation.step().time_s(0) == pytest.approx(now_s + 1 / 30)
    time.sleep(0.2)
    assert simulation.time_s == pytest.approx(now_s + 1 / 30)
    simulation.resume()
    count = len(screen.frames)
    screen.wait(count + 3)


def test_time_mode_changes_live(make):
    simulation, screen = make(time_mode="lock_step")
    simulation.settings = replace(simulation.settings, time_mode="as_fast_as_possible")
    screen.wait(5)
    simulation.settings = replace(simulation.settings, time_mode="lock_step")
    simulation.run(lambda: None).result()
    now_s = simulation.time_s
    time.sleep(0.1)
    assert simulation.time_s == now_s


def test_held_simulation_shows_its_last_block_when_released(make):
    simulation, screen = make(time_mode="lock_step")
    simulation.hold()
    simulation.reset(0)
    count = len(screen.frames)
    time.sleep(0.1)
    assert len(screen.frames) == count
    simulation.release()
    screen.wait(count + 1)
    assert screen.times_s[-1] == pytest.approx(2 / 12)


def test_reset_cuts_a_long_block_short(make):
    simulation, screen = make(num_frames=30, fps=10.0, time_mode="real_time")  # a block of three seconds
    screen.wait(33)
    start_s = time.perf_counter()
    block = simulation.reset(0)
    assert time.perf_counter() - start_s < 2.0
    assert screen.times_s[-1] == pytest.approx(block.time_s(29))


def test_what_went_wrong_is_told_and_pauses(make):
    simulation, screen = make(time_mode="lock_step")
    errors: list[Exception] = []
    simulation._on_error = errors.append  # noqa: SLF001 - as the constructor takes it
    broken = simulation.world.step

    def fail(*arguments):
        raise RuntimeError("no picture")

    simulation.world.step = fail
    with pytest.raises(RuntimeError, match="no picture"):
        simulation.step()
    simulation.settings = replace(simulation.settings, time_mode="as_fast_as_possible")
    end_s = time.perf_counter() + WAIT_S
    while not errors and time.perf_counter() < end_s:
        time.sleep(0.01)
    assert len(errors) == 1
    assert simulation.is_paused
    simulation.world.step = broken
    count = len(screen.frames)
    simulation.resume()
    screen.wait(count + 2)


def test_commands_are_asked_for_as_late_as_possible(make):
    simulation, screen = make(fps=10.0, time_mode="real_time")
    screen.wait(3)
    waits_s = []
    for _ in range(5):
        count = len(screen.frames)
        screen.wait(count + 1)
        time.sleep(0.01)  # the next frame is due in 90 ms
        simulation.driver.nudge(PoseDelta(np.array([0, 0, 0, 0, 0.02, 0])), 0.0)
        before = screen.pixels[-1]
        start_s = time.perf_counter()
        while screen.pixels[-1] == before and time.perf_counter() - start_s < WAIT_S:
            time.sleep(0.001)
        waits_s.append(time.perf_counter() - start_s)
    assert min(waits_s) < 0.1 + 0.05  # one block and 50 ms; made ahead it would be two


def test_closing_tells_those_who_wait(make):
    simulation, _ = make(time_mode="lock_step")
    started, go_on = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        go_on.wait(WAIT_S)

    simulation.run(block)
    assert started.wait(WAIT_S)
    waiting = simulation.run(lambda: None)
    closer = threading.Thread(target=simulation.close)
    closer.start()
    with pytest.raises(CancelledError):
        waiting.result(WAIT_S)
    go_on.set()
    closer.join(WAIT_S)
    assert not closer.is_alive()
    with pytest.raises(CancelledError):
        simulation.step()
