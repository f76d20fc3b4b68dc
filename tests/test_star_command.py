"""`inspatio-sim explore --generator star`, and worlds with a star generator on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inspatio_sim.cli import main as cli
from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators import generator_by_name
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.world.world import World

SIZE_PX = (48, 80)
AHEAD = PoseDelta.from_twist([0, 0, 0.05], [0, 0.02, 0], 1.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_demo_clip(folder, size_px=SIZE_PX, num_frames=24, seed=0)
    return folder


def explore(clip, out, *arguments):
    base = ["explore", str(clip), "--size", "clip", "--script", "forward 0.1", "--out", str(out), "--quiet"]
    return cli.main([*base, "--generator", "star", *arguments])


def test_random_weights_run_and_say_so(clip, tmp_path, caplog):
    assert explore(clip, tmp_path / "run", "--random-weights", "--prompt", "a red room") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["inputs"]["generator"] == "star"
    assert report["inputs"]["generator_options"]["preset"] == "tiny"
    assert "RANDOM WEIGHTS" in report["notices"][0]
    assert "RANDOM WEIGHTS" in caplog.text
    assert (report["run"]["num_frames"] - 9) % 12 == 0


def test_the_shipped_model_is_the_default(clip, tmp_path):
    """What it makes up is near what is around it: untrained weights give noise, which is not."""
    made = {}
    for name, more in (("shipped", ()), ("random", ("--random-weights",))):
        out = tmp_path / name
        assert cli.main(["explore", str(clip), "--script", "yaw 40", "--out", str(out), "--quiet", *more]) == 0
        report = json.loads((out / "report.json").read_text())
        assert report["inputs"]["generator"] == "star"
        assert report["reconstruction"]["size_px"] == [96, 160]
        assert report["run"]["hallucinated_fraction"]["mean"] > 0.1
        frames = read_clip(out / "observation.mp4").frames_u8.astype(float)
        made[name] = np.abs(frames[-1].mean((0, 1)) - frames[0].mean((0, 1))).max()
    assert made["shipped"] < 30 < made["random"]


def test_low_latency_blocks_are_one_frame_then_four(clip, tmp_path):
    options = ("--block-latents", "1", "--steps", "1000", "500", "--noise-scale", "0.5")
    assert explore(clip, tmp_path / "run", "--random-weights", *options) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["run"]["num_frames"] - 1) % 4 == 0
    assert report["inputs"]["generator_options"]["steps"] == [1000, 500]
    assert report["inputs"]["generator_options"]["noise_scale"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nothing"], "preset 'nothing': want one of tiny"),
        (["--preset", "inspatio-1.3b"], "InSpatio-World-1.3B.safetensors"),
        (["--random-weights", "--device", "tpu"], "device='tpu'"),
        (["--random-weights", "--steps", "500", "750"], "want them falling"),
        (["--random-weights", "--codec", "wan"], "random weights come with the codec tiny"),
        (["--random-weights", "--cuda-graphs", "--device", "cpu"], "cuda_graphs: the device is cpu"),
        (["--random-weights", "--prompt", "word " * 65], "prompt"),
        (["--random-weights", "--size", "100x160"], "the nearest is 96x160"),
        (["--random-weights", "--weights", "/nowhere-at-all"], "want one or the other"),
        (["--weights", "/nowhere-at-all"], "/nowhere-at-all: no such folder"),
    ],
)
def test_mistakes_are_one_line(clip, tmp_path, capsys, arguments, message):
    assert explore(clip, tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("inspatio-sim: error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("generator", "option", "message"),
    [
        (
            "warp",
            ("--preset", "inspatio-1.3b"),
            "--preset: generator warp has none: it is for --generator star or frame",
        ),
        ("warp", ("--prompt", "a room"), "--prompt: generator warp has none: it is for --generator star"),
        ("star", ("--max-views", "8"), "--max-views: generator star has none: it is for --generator frame"),
    ],
)
def test_options_of_another_generator_are_refused(clip, tmp_path, capsys, generator, option, message):
    arguments = ["explore", str(clip), "--script", "forward 0.1", "--out", str(tmp_path / "run")]
    assert cli.main([*arguments, "--generator", generator, *option]) == 2
    assert f"error: {message}\n" in capsys.readouterr().err


def test_a_1_3b_world_too_large_for_memory_is_refused_before_it_is_loaded(clip, tmp_path, capsys):
    arguments = ["--preset", "inspatio-14b", "--random-weights", "--dtype", "float32", "--device", "cpu"]
    assert explore(clip, tmp_path / "run", *arguments, "--size", "1088x1920") == 2
    assert "GB are free" in capsys.readouterr().err


def test_a_saved_star_world_goes_on_to_the_bit(clip, tmp_path):
    generator = generator_by_name("star", random_weights=True, dtype="float32", device="cpu")
    world = World(reconstruct(read_clip(clip)), generator=generator, seed=5, prompt="a red room")
    world.reset()
    world.step(AHEAD)
    world.save(tmp_path / "world")
    expected = world.step(AHEAD)
    loaded = World.load(tmp_path / "world")
    again = loaded.step(AHEAD)
    assert np.array_equal(expected.rgb_u8, again.rgb_u8)
    assert loaded.prompt == "a red room"


def test_unknown_options_are_named():
    with pytest.raises(InputError, match="generator 'star' has no option colour"):
        generator_by_name("star", colour="red")
    with pytest.raises(InputError, match="want one of star, frame, warp"):
        generator_by_name("nothing")
