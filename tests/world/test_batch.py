"""One generator call for many worlds, and steps that fail: nothing changes unless all of it does."""

from __future__ import annotations

import _thread
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from inspatio_sim.errors import GenerationFailed, InputError, NotEnoughMemory, WorldNotReset
from inspatio_sim.generators import Generation
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.mapping import WorldMap
from inspatio_sim.motion.camera import PoseDelta, pose_from
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world import batch
from inspatio_sim.world.batch import reset_worlds, step_worlds
from inspatio_sim.world.world import World, WorldConfig

FORWARD = PoseDelta.from_twist([0, 0, 0.1], [0, 0, 0], 1.0)
TURN = PoseDelta.from_twist([0, 0, 0], [0, 0.3, 0], 1.0)
NEW_POSE = np.array([[1, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 1, 0.2], [0, 0, 0, 1.0]])


@dataclass
class RenderGenerator:
    """Returns the render plus the seed plus the number of blocks so far, in blocks of 9, then 12, frames.

    Raises `failure`, or when it observes `observe_failure`, instead, once, when it is set.
    """

    first_block_frames: int = 9
    best_size_px: tuple[int, int] = (48, 64)
    frames_per_block: int = 12
    failure: BaseException | None = None
    observe_failure: BaseException | None = None
    batch_sizes: list[int] = field(default_factory=list)

    @property
    def options(self) -> dict[str, int]:
        return {}

    def begin(self, reference, seed, prompt=""):
        return (seed + len(prompt), 0)

    def generate(self, conditions: Sequence, states: Sequence) -> Generation:
        self.batch_sizes.append(len(conditions))
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        for condition, (_, num_blocks) in zip(conditions, states, strict=True):
            assert len(condition.render_u8) == (self.frames_per_block if num_blocks else self.first_block_frames)
        frames = [c.render_u8 + np.uint8(sum(state)) for c, state in zip(conditions, states, strict=True)]
        return Generation(frames_u8=frames, states=[(seed, n + 1) for seed, n in states], seconds={"add": 0.5})

    def observe(self, state, observation, reference):
        failure, self.observe_failure = self.observe_failure, None
        if failure is not None:
            raise failure
        return state

    def pack(self, state) -> dict[str, np.ndarray]:
        return {"seed_and_blocks": np.array(state)}

    def unpack(self, arrays: Mapping[str, np.ndarray], reference):
        seed, num_blocks = arrays["seed_and_blocks"].tolist()
        return (seed, num_blocks)


def assert_same(a, b) -> None:
    for name in ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx", "has_collided"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def everything(world: World) -> dict[str, object]:
    """All that a snapshot has, flat, and what else the world remembers."""
    snapshot = world.snapshot()
    parts = {f"{part}.{k}": v for part in ("path", "map", "generator") for k, v in getattr(snapshot, part).items()}
    return parts | {
        "seed": snapshot.seed,
        "num_frames": snapshot.num_frames,
        "clock": snapshot.clock,
        "condition": id(world.condition),
    }


def assert_unchanged(before: dict[str, object], world: World) -> None:
    after = everything(world)
    assert after.keys() == before.keys()
    for name, value in before.items():
        equal_nan = name.endswith(("position_m", "rgb_mean"))  # deleted points are NaN
        assert np.array_equal(value, after[name], equal_nan=equal_nan), name  # type: ignore[arg-type]


def test_the_first_block_looks_around_at_the_start(static_reference):
    world = World(static_reference, generator=RenderGenerator(), seed=2, prompt="abc")
    first = world.reset()
    assert first.rgb_u8.shape == (9, *static_reference.size_px, 3)
    assert np.ptp(first.T_world_camera, axis=0).max() == 0
    assert np.array_equal(first.rgb_u8[0], static_reference.frames_u8[0] + np.uint8(5))
    second = world.step(TURN)
    assert second.rgb_u8.shape == (12, *static_reference.size_px, 3)
    np.testing.assert_allclose(np.arcsin(second.T_world_camera[:, 0, 2]), 0.025 * np.arange(1, 13), atol=1e-6)
    assert np.array_equal(second.time_s, np.arange(9, 21) / static_reference.fps)
    assert second.reference_frame_idx.tolist() == [1, 0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "failure",
    [NotEnoughMemory("too much"), GenerationFailed("NaN"), MemoryError(), KeyboardInterrupt(), RuntimeError("bug")],
    ids=lambda failure: type(failure).__name__,
)
def test_a_step_that_fails_has_changed_nothing(static_reference, failure):
    generator = RenderGenerator()
    world, untouched = (World(static_reference, generator=generator, seed=3) for _ in range(2))
    for each in (world, untouched):
        each.reset()
        each.step(TURN)
    before = everything(world)
    generator.failure = failure
    with pytest.raises(type(failure)):
        world.step(FORWARD, "reverse")
    assert_unchanged(before, world)
    for motion in (FORWARD, TURN):
        assert_same(world.step(motion), untouched.step(motion))


@pytest.mark.parametrize("stage", ["build_conditions", "_complete_depth"])
def test_memory_that_runs_out_around_the_generator_changes_nothing(static_reference, monkeypatch, stage):
    world = World(static_reference, generator=RenderGenerator())
    world.reset()
    before = everything(world)

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(batch, stage, fail)
        for act in (lambda: world.step(TURN), lambda: world.reset(seed=7, T_world_camera=NEW_POSE)):
            with pytest.raises(MemoryError):
                act()
    assert_unchanged(before, world)
    untouched = World(static_reference, generator=RenderGenerator())
    untouched.reset()
    assert_same(world.step(TURN), untouched.step(TURN))


def test_a_reset_that_fails_keeps_the_world_that_was(static_reference):
    generator = RenderGenerator()
    world = World(static_reference, generator=generator)
    generator.failure = GenerationFailed("NaN")
    with pytest.raises(GenerationFailed):
        world.reset()
    with pytest.raises(WorldNotReset):
        world.step(TURN)
    world.reset()
    before = everything(world)
    generator.failure = GenerationFailed("NaN")
    with pytest.raises(GenerationFailed):
        world.reset(seed=9, T_world_camera=NEW_POSE)
    assert_unchanged(before, world)


@pytest.fixture
def ctrl_c_is_not_ignored():
    """As it is where tests run in a shell's background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("ctrl_c_is_not_ignored")
def test_ctrl_c_while_the_map_grows_comes_after_a_whole_step(static_reference, monkeypatch):
    world, untouched = (World(static_reference, generator="warp") for _ in range(2))
    for each in (world, untouched):
        each.reset()
    insert = WorldMap.insert

    def slow_insert(*arguments) -> None:
        _thread.interrupt_main()
        time.sleep(0.05)
        insert(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(WorldMap, "insert", slow_insert)
        with pytest.raises(KeyboardInterrupt):
            world.step(TURN)
    untouched.step(TURN)
    before = everything(untouched)
    before["condition"] = id(world.condition)
    assert_unchanged(before, world)


def test_a_map_that_cannot_grow_makes_the_world_say_so(static_reference, monkeypatch):
    world = World(static_reference, generator="warp")
    world.reset()

    def fail(*_) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(WorldMap, "insert", fail)
        with pytest.raises(MemoryError):
            world.step(TURN)
    with pytest.raises(WorldNotReset, match="ran out of memory"):
        world.step(TURN)
    world.reset()


@pytest.mark.parametrize("frames_per_block", [1, 5])
def test_a_batch_is_its_worlds_one_by_one(static_reference, frames_per_block):
    generator = WarpGenerator(frames_per_block=frames_per_block)
    motions = [TURN, FORWARD, TURN.inverse()]
    together, alone = ([World(static_reference, generator=generator, seed=i) for i in range(3)] for _ in range(2))
    poses = [None, NEW_POSE, None]
    first = reset_worlds(together, seeds=[5, None, 6], poses=poses)
    for world, seed, pose, observation in zip(alone, [5, None, 6], poses, first, strict=True):
        assert_same(observation, world.reset(seed=seed, T_world_camera=pose))
    assert [world.seed for world in together] == [5, 1, 6]
    for clocks in (None, ["freeze", None, "slow"]):
        observations = step_worlds(together, motions, clocks)
        for i, observation in enumerate(observations):
            assert_same(observation, alone[i].step(motions[i], clocks[i] if clocks else None))
            assert observation.map is together[i].map


def test_a_batch_is_one_call_and_fails_as_a_whole(static_reference):
    generator = RenderGenerator()
    worlds = [World(static_reference, generator=generator, seed=i) for i in range(3)]
    reset_worlds(worlds)
    step_worlds(worlds[:1], [TURN])
    before = [everything(world) for world in worlds]
    for name in ("failure", "observe_failure"):
        setattr(generator, name, NotEnoughMemory("too many worlds"))
        with pytest.raises(NotEnoughMemory):
            step_worlds(worlds, [TURN] * 3)
        for world, was in zip(worlds, before, strict=True):
            assert_unchanged(was, world)
    with pytest.raises(InputError, match="want a PoseDelta"):
        step_worlds(worlds, [TURN, TURN, None])  # type: ignore[list-item]
    assert generator.batch_sizes == [3, 1, 3, 3]
    assert step_worlds([], []) == []


@dataclass
class WatchingGenerator(RenderGenerator):
    """Remembers of each block how many points its map had, and whether all of it had depth."""

    watched: list[tuple[int, bool, Reference]] = field(default_factory=list)

    def observe(self, state, observation, reference):
        seed, num_blocks = state
        self.watched.append((observation.map.num_points, bool((observation.depth_m > 0).all()), reference))
        return (seed + 10, num_blocks)


def test_a_generator_observes_its_block_before_the_map_learns_it(static_reference):
    world = World(static_reference, generator=(generator := WatchingGenerator()), seed=1)
    world.reset()
    num_points = world.map.num_points
    world.step(TURN)
    assert num_points > 0
    assert generator.watched == [(0, True, static_reference), (num_points, True, static_reference)]
    assert world.snapshot().generator["seed_and_blocks"].tolist() == [21, 2]  # what it returned is the state


def test_wrong_batches_are_refused(static_reference):
    generator = WarpGenerator()
    worlds = [World(static_reference, generator=generator) for _ in range(2)]
    with pytest.raises(InputError, match="motions: 1 for 2 worlds"):
        step_worlds(worlds, [TURN])
    with pytest.raises(InputError, match="poses: 3 for 2 worlds"):
        reset_worlds(worlds, poses=[None] * 3)
    with pytest.raises(InputError, match="twice"):
        step_worlds([worlds[0], worlds[0]], [TURN, TURN])
    with pytest.raises(InputError, match="same object"):
        reset_worlds([worlds[0], World(static_reference, generator="warp")])
    with pytest.raises(WorldNotReset):
        step_worlds(worlds, [TURN, TURN])


def test_a_generator_state_goes_through_a_snapshot(static_reference):
    world = World(static_reference, generator=RenderGenerator(), seed=4)
    world.reset()
    world.step(TURN)
    snapshot = world.snapshot()
    assert snapshot.generator["seed_and_blocks"].tolist() == [4, 2]
    ahead = world.step(FORWARD)
    other = World(static_reference, generator=RenderGenerator())
    other.restore(snapshot)
    assert_same(other.step(FORWARD), ahead)


def test_every_stage_is_timed(static_reference):
    world = World(static_reference, generator=RenderGenerator())
    for timing in (world.reset().timing, world.step(TURN).timing):
        assert timing is not None
        stages = (timing.plan_s, timing.condition_s, timing.generate_s, timing.observe_s, timing.map_s)
        assert min(stages) > 0
        assert sum(stages) == pytest.approx(timing.total_s)
        assert sum(stages[:3]) == pytest.approx(timing.action_to_pixels_s)
        assert timing.generator == {"add": 0.5}


@pytest.fixture(scope="module")
def long_reference():
    return reconstruct(demo_clip(num_frames=50, size_px=(24, 40), supersample=1), method="rgbd")


@pytest.mark.parametrize(("stride", "counts", "last"), [(4, (3, 6), 20), (1, (9, 21), 20), (15, (1, 2), 15)])
def test_one_frame_of_so_many_goes_into_the_map_whatever_the_blocks(long_reference, stride, counts, last):
    world = World(long_reference, generator=RenderGenerator(), config=WorldConfig(map_stride_frames=stride))
    assert [world.reset().map.num_frames, world.step(PoseDelta.identity()).map.num_frames] == list(counts)
    times_s = np.unique(world.map.point_cloud().last_seen_s)
    assert times_s[-1] == np.float32(last / long_reference.fps)


def test_while_time_stands_still_one_frame_of_it_goes_into_the_map(long_reference):
    still = replace(long_reference, T_world_camera=np.repeat(np.eye(4)[None], long_reference.num_frames, 0))
    world = World(still, generator="warp")
    num_frames = [world.reset().map.num_frames]
    num_frames += [world.step(PoseDelta.identity(), "freeze" if i > 2 else None).map.num_frames for i in range(1, 17)]
    assert num_frames == [1, 1, 1, 1] + 13 * [2]


def test_of_a_few_pictures_all_go_into_the_map(long_reference):
    """Every fourth frame of a block of twelve would always be the same one of three."""
    few = replace(
        long_reference,
        frames_u8=long_reference.frames_u8[:3],
        depth_m=long_reference.depth_m[:3],
        T_world_camera=np.stack([pose_from(t_m=[20.0 * i, 0, 0]) for i in range(3)]),
    )
    world = World(few, generator=RenderGenerator(), config=WorldConfig(collisions="off"))
    world.reset()
    positions_m = world.step(PoseDelta.identity()).map.points_m
    for frame in few.T_world_camera:
        assert (np.abs(positions_m[:, 0] - frame[0, 3]) < 1).sum() > 100


def test_a_wrong_stride_is_refused():
    with pytest.raises(InputError, match="map_stride_frames=0"):
        WorldConfig(map_stride_frames=0)
