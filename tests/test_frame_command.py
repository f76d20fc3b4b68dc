"""`inspatio-sim explore --generator frame`, and worlds with a frame generator on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inspatio_sim.cli import main as cli
from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators import generator_by_name, name_of
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.world.world import World

SIZE_PX = (48, 80)
TURN = PoseDelta.from_twist([0, 0, 0], [0, 0.3, 0], 1.0)
SCRIPT = "forward 0.1; yaw 40"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_demo_clip(folder, size_px=SIZE_PX, num_frames=12, seed=0)
    return folder


def explore(clip, out, *arguments, size="clip"):
    base = ["explore", str(clip), "--size", size, "--script", SCRIPT, "--out", str(out), "--quiet"]
    return cli.main([*base, "--generator", "frame", *arguments])


def test_random_weights_run_and_say_so(clip, tmp_path, caplog):
    assert explore(clip, tmp_path / "run", "--random-weights", "--steps", "999", "--max-views", "8") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["inputs"]["generator"] == "frame"
    options = report["inputs"]["generator_options"]
    assert (options["preset"], options["steps"], options["max_views"]) == ("frame-tiny", [999], 8)
    assert "RANDOM WEIGHTS" in report["notices"][0]
    assert "RANDOM WEIGHTS" in caplog.text
    assert report["run"]["hallucinated_fraction"]["max"] > 0.1
    frames_u8 = read_clip(tmp_path / "run" / "observation.mp4").frames_u8
    assert frames_u8.shape == (report["run"]["num_frames"], *SIZE_PX, 3)


def test_size_auto_is_what_the_preset_makes_best(clip, tmp_path):
    assert explore(clip, tmp_path / "run", "--random-weights", "--steps", "999", size="auto") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["reconstruction"]["size_px"] == [96, 160]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nothing"], "preset 'nothing': want one of"),
        (["--preset", "tiny"], "preset 'tiny': is for the generator star, not frame"),
        (["--random-weights", "--device", "tpu"], "device='tpu'"),
        (["--random-weights", "--steps", "500", "200"], "want them falling from 999"),
        (["--random-weights", "--max-views", "1"], "max_views=1"),
        (["--random-weights", "--size", "100x160"], "the nearest is 96x160"),
        (["--random-weights", "--weights", "/nowhere-at-all"], "want one or the other"),
        (["--weights", "/nowhere-at-all"], "/nowhere-at-all: no such folder"),
        (["--prompt", "a red room"], "--prompt: generator frame has none: it is for --generator star"),
        (["--block-latents", "1"], "--block-latents: generator frame has none: it is for --generator star"),
        (["--low-memory"], "--low-memory: generator frame has none: it is for --generator star"),
    ],
)
def test_mistakes_are_one_line(clip, tmp_path, capsys, arguments, message):
    assert explore(clip, tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("inspatio-sim: error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("generator", "preset"), [("star", "frame-tiny"), ("frame", "inspatio-1.3b")])
@pytest.mark.parametrize("size", ["auto", "48x80"])
def test_a_preset_of_the_other_kind_is_refused(clip, tmp_path, capsys, generator, preset, size):
    arguments = ["explore", str(clip), "--script", SCRIPT, "--out", str(tmp_path / "run"), "--size", size]
    assert cli.main([*arguments, "--generator", generator, "--preset", preset]) == 2
    assert f"preset {preset!r}" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_saved_frame_world_goes_on_to_the_bit(clip, tmp_path):
    generator = generator_by_name("frame", random_weights=True, dtype="float32", device="cpu", max_views=6)
    assert name_of(generator) == "frame"
    world = World(reconstruct(read_clip(clip)), generator=generator, seed=5)
    world.reset()
    for _ in range(5):
        world.step(TURN)
    world.save(tmp_path / "world")
    expected = [world.step(TURN) for _ in range(3)]
    loaded = World.load(tmp_path / "world")
    assert loaded.generator is not generator
    for each in expected:
        again = loaded.step(TURN)
        assert np.array_equal(each.rgb_u8, again.rgb_u8)
        assert np.array_equal(each.depth_m, again.depth_m)
    arrays = world.snapshot().generator, loaded.snapshot().generator
    assert arrays[0].keys() == arrays[1].keys()
    assert all(np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items())


def test_a_recorded_session_is_replayed_to_the_bit(clip, tmp_path, capfd):
    pytest.importorskip("rosbags")
    bag = str(tmp_path / "walk.mcap")
    arguments = ["--video", str(clip), "--size", "clip", "--script", SCRIPT, "--generator", "frame", "--quiet"]
    assert cli.main(["bag", "record", *arguments, "--random-weights", "--steps", "999", "--out", bag]) == 0
    capfd.readouterr()
    assert cli.main(["bag", "replay", bag, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["is_same"]
    assert report["num_compared"] > 10


def test_unknown_options_are_named():
    with pytest.raises(InputError, match="generator 'frame' has no option block_latents"):
        generator_by_name("frame", block_latents=1)


def test_a_generator_of_another_kind_has_no_name():
    with pytest.raises(InputError, match="generator is a int: only star, frame, warp can be found again by name"):
        name_of(3)  # type: ignore[arg-type]
