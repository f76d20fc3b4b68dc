"""The loop: what a world answers, and that it can be stopped, saved and gone on with to the bit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from inspatio_sim.errors import InputError, WorldNotReset
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.geometry.completion import SHIPPED_NETWORK
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.world import World

FORWARD = PoseDelta.from_twist([0, 0, 0.1], [0, 0, 0], 1.0)
TURN = PoseDelta.from_twist([0, 0, 0], [0, 0.15, 0], 1.0)
STAY = PoseDelta.identity()


def same(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx")
    )


def test_reset_shows_the_first_reference_frame(static_reference):
    observation = World(static_reference, generator="warp").reset()
    assert np.array_equal(observation.rgb_u8[0], static_reference.frames_u8[0])
    np.testing.assert_allclose(observation.depth_m[0], static_reference.depth_m[0], rtol=1e-6)
    assert (observation.known == 2).all()
    assert observation.hallucinated_fraction == 0
    assert observation.map.num_points > 0


def test_step_before_reset_is_refused(static_reference):
    with pytest.raises(WorldNotReset, match="reset"):
        World(static_reference, generator="warp").step(STAY)


def test_every_pixel_has_depth_and_provenance(static_reference):
    world = World(static_reference, generator="warp")
    world.reset()
    for _ in range(4):
        observation = world.step(TURN)
    assert observation.depth_m.min() > 0
    assert 0 < observation.hallucinated_fraction < 1
    assert set(np.unique(observation.known)) <= {0, 1, 2}
    is_rendered = observation.is_rendered
    assert (observation.render_u8[~is_rendered] == 0).all()
    assert (observation.rgb_u8[is_rendered] == observation.render_u8[is_rendered]).all()
    assert (observation.known[~is_rendered] == 0).all()


def test_time_is_part_of_the_action(static_reference):
    world = World(static_reference, generator="warp", config=WorldConfig(clock="loop"))
    shown = [world.reset().reference_frame_idx[0]]
    for clock in (None, "freeze", None, "reverse", "reverse", "reverse", None):
        shown.append(world.step(STAY, clock).reference_frame_idx[0])
    assert shown[:5] == [0, 1, 1, 2, 1]
    assert shown[5:] == [0, 5, 0]  # looped backwards and forwards again


def test_a_place_looks_the_same_the_second_time(static_reference):
    """Turn away, where the world must make things up, and come back to the same pose: the map remembers."""
    world = World(static_reference, generator="warp", config=WorldConfig(clock="freeze"))
    world.reset()
    for _ in range(4):
        first = world.step(TURN)
        first_share_rendered = first.is_rendered.mean()
    for _ in range(4):
        world.step(TURN)
    for _ in range(4):
        second = world.step(TURN.inverse())
    np.testing.assert_allclose(first.T_world_camera, second.T_world_camera, atol=1e-9)
    assert 1 - second.is_rendered.mean() < 0.4 * (1 - first_share_rendered)
    assert second.hallucinated_fraction == pytest.approx(first.hallucinated_fraction, abs=0.05)  # still made up
    difference = np.abs(first.rgb_u8.astype(int) - second.rgb_u8)
    assert np.median(difference) <= 2
    assert difference.mean() < 6


@pytest.mark.parametrize("collisions", ["stop", "slide"])
def test_walls_stop_the_camera(static_reference, collisions):
    world = World(static_reference, generator="warp", config=WorldConfig(collisions=collisions, clock="freeze"))
    world.reset()
    start_m = static_reference.T_world_camera[0, :3, 3]
    has_collided = False
    for _ in range(60):
        has_collided |= world.step(FORWARD).has_collided
    assert has_collided
    travelled_m = np.linalg.norm(world.T_world_camera[:3, 3] - start_m)
    free = World(static_reference, generator="warp", config=WorldConfig(collisions="off", clock="freeze"))
    free.reset()
    for _ in range(60):
        assert not free.step(FORWARD).has_collided
    assert np.linalg.norm(free.T_world_camera[:3, 3] - start_m) == pytest.approx(6.0)
    assert travelled_m < 5.0


@pytest.mark.skipif(not SHIPPED_NETWORK.is_file(), reason="the depth network's weights are missing")
def test_made_up_pixels_get_depth_as_chosen_and_known_ones_keep_theirs(static_reference, tmp_path):
    observations = {}
    for choice in ("network", "push-pull", "auto"):
        world = World(static_reference, generator="warp", config=WorldConfig(depth_completion=choice, clock="freeze"))
        world.reset()
        observations[choice] = world.step(TURN)
        assert (observations[choice].depth_m > 0).all()
        if choice == "network":
            world.save(tmp_path / "world")
            loaded = World.load(tmp_path / "world")
            assert np.array_equal(loaded.step(TURN).depth_m, world.step(TURN).depth_m)
    is_known, network_m, smooth_m = (
        observations["network"].is_rendered,
        observations["network"].depth_m,
        observations["push-pull"].depth_m,
    )
    assert np.array_equal(network_m[is_known], smooth_m[is_known])
    assert not np.array_equal(network_m, smooth_m)
    assert np.array_equal(observations["auto"].depth_m, observations["push-pull"].depth_m)  # of inpainted frames


def test_block_of_frames_follows_the_geodesic(static_reference):
    block = World(static_reference, generator=WarpGenerator(frames_per_block=4))
    block.reset()
    single = World(static_reference, generator="warp")
    single.reset()
    poses = block.step(PoseDelta.from_twist([0, 0, 0.04], [0, 0.2, 0], 1.0)).T_world_camera
    quarter = PoseDelta.from_twist([0, 0, 0.04], [0, 0.2, 0], 0.25)
    for pose in poses:
        np.testing.assert_allclose(single.step(quarter).T_world_camera[0], pose, atol=1e-9)


def test_same_seed_same_bytes(static_reference):
    first, second = World(static_reference, generator="warp", seed=3), World(static_reference, generator="warp", seed=3)
    assert same(first.reset(), second.reset())
    for motion in (TURN, FORWARD, TURN):
        assert same(first.step(motion), second.step(motion))


def test_snapshot_and_go_on_is_going_on(static_reference):
    world = World(static_reference, generator="warp")
    world.reset()
    for _ in range(5):
        world.step(TURN)
    snapshot = world.snapshot()
    ahead = [world.step(motion, clock) for motion, clock in ((TURN, None), (FORWARD, "slow"), (TURN, None))]
    world.restore(snapshot)
    again = [world.step(motion, clock) for motion, clock in ((TURN, None), (FORWARD, "slow"), (TURN, None))]
    assert all(same(a, b) for a, b in zip(ahead, again, strict=True))


def test_save_and_load_go_on_to_the_bit(static_reference, tmp_path):
    world = World(static_reference, generator="warp", seed=5)
    world.reset()
    for _ in range(5):
        world.step(TURN)
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    assert loaded.seed == 5
    assert loaded.config == world.config
    for motion in (TURN, FORWARD):
        assert same(world.step(motion), loaded.step(motion))
    world.save(tmp_path / "world")  # again over the first


def test_a_saved_world_keeps_its_generator(static_reference, tmp_path):
    world = World(static_reference, generator=WarpGenerator(frames_per_block=4), prompt="a cellar")
    world.reset()
    world.save(tmp_path / "world")
    loaded = World.load(tmp_path / "world")
    assert loaded.generator == world.generator
    assert loaded.prompt == "a cellar"
    assert same(world.step(TURN), loaded.step(TURN))


def test_a_bad_snapshot_changes_nothing(static_reference):
    world, untouched = World(static_reference, generator="warp"), World(static_reference, generator="warp")
    for each in (world, untouched):
        each.reset()
    snapshot = world.snapshot()
    with pytest.raises(InputError, match="map state"):
        world.restore(replace(snapshot, map={}, num_frames=99, seed=8))
    assert world.seed == 0
    assert same(world.step(TURN), untouched.step(TURN))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "world.json").write_text("{}"), "format"),
        (lambda folder: (folder / "world.json").write_text("nonsense"), "not JSON"),
        (lambda folder: (folder / "world.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "state.safetensors").write_bytes(b"12345678901234"), "damaged"),
        (lambda folder: (folder / "state.safetensors").unlink(), "state.safetensors"),
        (
            lambda folder: (folder / "world.json").write_text(
                json.dumps({"format": "inspatio-sim world 1", "config": {"map": {}}})
            ),
            "damaged",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(static_reference, tmp_path, damage, message):
    world = World(static_reference, generator="warp")
    world.reset()
    world.save(tmp_path / "world")
    damage(tmp_path / "world")
    with pytest.raises(InputError, match=message) as caught:
        World.load(tmp_path / "world")
    assert "\n" not in str(caught.value)


def test_wrong_options_are_named(static_reference):
    with pytest.raises(InputError, match="generator 'magic'"):
        World(static_reference, generator="magic")
    with pytest.raises(InputError, match="collisions='bounce'"):
        WorldConfig(collisions="bounce")
    with pytest.raises(InputError, match="clock='later'"):
        WorldConfig(clock="later")
    with pytest.raises(InputError, match="depth_completion='magic': want one of auto, network, push-pull"):
        WorldConfig(depth_completion="magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="prompt is a int"):
        World(static_reference, generator="warp", prompt=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="frames_per_block=0"):
        WarpGenerator(frames_per_block=0)
    world = World(static_reference, generator="warp")
    with pytest.raises(InputError, match="start pose"):
        world.reset(T_world_camera=np.diag([1, 1, -1, 1]))
    world.reset()
    with pytest.raises(InputError, match="want a PoseDelta"):
        world.step(np.eye(4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="later"):
        world.step(STAY, "later")  # type: ignore[arg-type]


def test_from_video_does_it_all_in_one_call(tmp_path):
    write_demo_clip(tmp_path / "clip", num_frames=3, size_px=(48, 80))
    world = World.from_video(tmp_path / "clip", generator="warp", size_px=None)
    assert world.reference.provenance.method == "rgbd"
    assert world.reference.provenance.reason
    assert world.reset().rgb_u8.shape == (1, 48, 80, 3)
    smaller = World.from_video(tmp_path / "clip", generator="warp", size_px=(32, 64), max_frames=2)
    assert smaller.reset().depth_m.shape == (1, 32, 64)
    assert smaller.reference.num_frames == 2
    later = World.from_video(tmp_path / "clip", generator="warp", size_px=None, start_frame=2)
    np.testing.assert_array_equal(later.reference.frames_u8, world.reference.frames_u8[2:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"metod": "sfm"},
            "reconstruct option metod='sfm': no option of method auto: want method, scale, model_folder",
        ),
        ({"method": "sfm", "max_keyframes": "many"}, "reconstruct option max_keyframes='many': want a whole number"),
        ({"progress": 5}, "progress=5: want a function"),
    ],
)
def test_wrong_reconstruct_options_are_named_before_the_clip_is_read(options, message):
    with pytest.raises(InputError, match=message):
        World.from_video("no such clip.mp4", generator="warp", **options)
