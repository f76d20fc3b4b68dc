"""A world made of a panorama: complete in every direction, and as exact about its state as any other."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from inspatio_sim.cli.main import main
from inspatio_sim.condition.views_seen import views_seen
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reconstruction.panorama.method import Panorama, reconstruct_panorama
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import truth
from inspatio_sim.world.world import World

LEFT = PoseDelta.from_twist([0, 0, 0], [0, -math.radians(40), 0], 1.0)
UP = PoseDelta.from_twist([0, 0, 0], [math.radians(45), 0, 0], 1.0)
FORWARD = PoseDelta.from_twist([0, 0, 0.1], [0, 0, 0], 1.0)


@pytest.fixture(scope="module")
def reference(demo_panorama) -> Reference:
    panorama = Panorama(rgb_u8=demo_panorama.rgb_u8, range_m=demo_panorama.range_m)
    return reconstruct_panorama(panorama, size_px=(48, 80))


def psnr_db(observation, reference) -> float:
    views = truth(observation.T_world_camera, np.zeros(len(observation.rgb_u8)), reference.intrinsics)
    error = observation.rgb_u8.astype(float) - views.rgb_u8.numpy()
    return 10 * math.log10(255**2 / np.square(error).mean())


def depth_error(observation, reference) -> np.ndarray:
    views = truth(observation.T_world_camera, np.zeros(len(observation.rgb_u8)), reference.intrinsics)
    return np.abs(observation.depth_m / views.depth_m.numpy() - 1)


def same(a, b) -> bool:
    names = ("rgb_u8", "depth_m", "known", "T_world_camera", "time_s", "reference_frame_idx")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_a_full_turn_shows_the_room(reference):
    world = World(reference, generator="warp")
    start = world.reset()
    seen = [start]
    for motion in 9 * [LEFT] + 2 * [UP] + 2 * [UP.inverse()] + [UP.inverse()]:
        seen.append(world.step(motion))
    decibels = [psnr_db(observation, reference) for observation in seen]
    assert min(decibels) > 26
    assert np.mean(decibels) > 30
    for observation in seen:
        error = depth_error(observation, reference)
        assert np.median(error) < 2e-3
        assert np.mean(error > 0.05) < 0.05
    assert max(observation.hallucinated_fraction for observation in seen) < 0.01
    assert np.abs(seen[9].rgb_u8.astype(int) - start.rgb_u8).mean() < 0.5  # back where it began


def test_it_can_be_walked_into(reference):
    world = World(reference, generator="warp")
    world.reset()
    for _ in range(5):
        observation = world.step(FORWARD)
    assert psnr_db(observation, reference) > 26
    assert not observation.has_collided
    assert observation.hallucinated_fraction < 0.1


def test_all_views_are_in_the_map_from_the_start_and_only_once(reference):
    world = World(reference, generator="warp")
    world.reset()
    assert world.map.num_frames == reference.num_frames
    num_points = world.map.num_points
    for _ in range(3):
        world.step(LEFT)
    assert world.map.num_points < 1.02 * num_points
    grid = world.map.planning_grid()
    assert grid is not None
    assert world.map.occupancy_at([[0, 0, -1.0]])[0] < 0  # behind the camera: free


def test_the_reference_frame_is_the_view_that_sees_most_and_time_stands_still(reference):
    world = World(reference, generator=WarpGenerator(frames_per_block=4))
    first = world.reset()
    assert (first.reference_frame_idx == 0).all()
    observation = world.step(PoseDelta.from_twist([0, 0, 0], [0, math.pi, 0], 1.0), "loop")
    assert len(set(observation.reference_frame_idx)) == 1  # no cut within a block
    chosen = reference.T_world_camera[observation.reference_frame_idx[0], :3, 2]
    assert chosen @ observation.T_world_camera[2, :3, 2] > 0.7
    assert world.clock.frame_idx == 0


def test_views_seen_cover_the_picture(reference):
    for i in range(reference.num_frames):
        views = views_seen(reference, reference.T_world_camera[i], 2.0)
        assert views == [i]  # one of its own views needs no other
    between = LEFT.part(0.9).T_old_new
    assert len(views_seen(reference, between, 2.0)) in (2, 3, 4)


def test_snapshots_saves_and_loads_go_on_to_the_bit(reference, tmp_path):
    world = World(reference, generator="warp")
    world.reset(seed=3)
    world.step(LEFT)
    snapshot = world.snapshot()
    world.save(tmp_path / "world")
    motions = [FORWARD, LEFT, UP]
    on = [world.step(motion) for motion in motions]
    world.restore(snapshot)
    assert all(same(world.step(motion), observation) for motion, observation in zip(motions, on, strict=True))
    loaded = World.load(tmp_path / "world")
    assert loaded.reference.is_static
    assert all(same(loaded.step(motion), observation) for motion, observation in zip(motions, on, strict=True))
    again = World(reference, generator="warp")
    again.reset(seed=3)
    again.step(LEFT)
    assert all(same(again.step(motion), observation) for motion, observation in zip(motions, on, strict=True))


def test_from_panorama_and_on_the_command_line(demo_panorama, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path / "cache"))
    image, depth = tmp_path / "room.png", tmp_path / "range.npy"
    Image.fromarray(demo_panorama.rgb_u8).save(image)
    np.save(depth, demo_panorama.range_m)
    world = World.from_panorama(image, depth, generator="warp", size_px=(32, 48))
    assert world.reset().hallucinated_fraction == 0
    options = [str(image), "--panorama", "--panorama-depth", str(depth), "--size", "32x48", "--json", "--quiet"]
    turn = ["--generator", "warp", "--script", "yaw 60"]
    assert main(["explore", *options, *turn, "--out", str(tmp_path / "run")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["reconstruction"]["scale"]["source"] == "sensor"
    assert report["run"]["hallucinated_fraction"]["max"] < 0.05
    assert main(["reconstruct", *options, "--out", str(tmp_path / "geometry")]) == 0
    assert Reference.load(tmp_path / "geometry" / "reference").is_static


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--panorama-depth", "range.npy"], "--panorama-depth: it is for --panorama"),
        (["--panorama", "--every", "2"], "--every: a panorama has one moment only"),
        (["--panorama"], "40x24 px: an equirectangular panorama is twice as wide as high"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, more, part):
    image = tmp_path / "small.png"
    Image.fromarray(np.full((24, 40, 3), 90, np.uint8)).save(image)
    assert main(["reconstruct", str(image), *more, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_a_single_image_is_a_world(static_reference, tmp_path):
    """End to end: a picture, a guess of its depth, a walk, a save."""
    image = tmp_path / "view.png"
    Image.fromarray(static_reference.frames_u8[0]).save(image)
    world = World.from_video(image, generator="warp", size_px=(48, 80))
    first = world.reset()
    assert not world.reference.is_static
    assert np.array_equal(first.rgb_u8[0], static_reference.frames_u8[0])
    second = world.step(FORWARD)
    assert second.depth_m.min() > 0
    world.save(tmp_path / "world")
    assert same(World.load(tmp_path / "world").step(LEFT), world.step(LEFT))
