"""The command line as a user meets it: exit codes, one line for a mistake, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from inspatio_sim import generators
from inspatio_sim.cli import options
from inspatio_sim.cli.main import main
from inspatio_sim.clips.video import write_clip
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.walks.walk import OUTPUTS
from inspatio_sim.world import obstacles


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A few frames of the demo room, as an RGB-D folder."""
    return write_demo_clip(tmp_path_factory.mktemp("clip") / "room", num_frames=4, size_px=(48, 80), camera="static")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("INSPATIO_CACHE", str(folder))
    return folder


def explore_arguments(clip: Path, out: Path, *more: str) -> list[str]:
    motion = [] if "--script" in more or "--trajectory" in more else ["--script", "forward 0.1"]
    return [
        "explore",
        str(clip),
        "--out",
        str(out),
        "--generator",
        "warp",
        "--size",
        "48x80",
        "--quiet",
        *motion,
        *more,
    ]


def assert_one_line_and_nothing_written(capsys, code: int, out: Path, *parts: str) -> None:
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("inspatio-sim: error: ")
    assert error.count("\n") == 1, error
    for part in parts:
        assert part in error
    assert not out.exists()
    if out.parent.is_dir():
        assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]


def test_explore_writes_everything_it_names(clip_folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(explore_arguments(clip_folder, out, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)
    assert all(Path(path).is_file() for path in report["outputs"].values())
    on_disk = json.loads((out / "report.json").read_text())
    assert on_disk["reconstruction"]["method"] == "rgbd"
    assert on_disk["reconstruction"]["scale"]["source"] == "sensor"
    assert on_disk["run"]["num_frames"] == report["run"]["num_frames"] > 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_same_seed_gives_the_same_bytes(clip_folder, tmp_path):
    for name in ("first", "second"):
        assert main(explore_arguments(clip_folder, tmp_path / name)) == 0
    for name in set(OUTPUTS) - {"report.json"}:  # which holds timings
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_trajectory_has_as_many_frames_as_asked(clip_folder, tmp_path, capsys):
    orbit = tmp_path / "orbit.txt"
    orbit.write_text("0 0\n0 10\n1 1\n")
    assert (
        main(explore_arguments(clip_folder, tmp_path / "run", "--trajectory", str(orbit), "--frames", "5", "--json"))
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["run"]["num_frames"] == 5
    assert report["inputs"]["collisions"] == "off"


def test_an_earlier_run_is_replaced(clip_folder, tmp_path):
    out = tmp_path / "run"
    assert main(explore_arguments(clip_folder, out)) == 0
    (out / "contact_sheet.png").write_bytes(b"old")
    assert main(explore_arguments(clip_folder, out)) == 0
    assert (out / "contact_sheet.png").read_bytes() != b"old"


def test_somebody_elses_files_are_not_touched(clip_folder, tmp_path, capsys):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("precious")
    assert main(explore_arguments(clip_folder, out)) == 2
    assert "chapter1.tex" in capsys.readouterr().err
    assert (out / "chapter1.tex").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--script", "jump 3"), "jump"),
        (("--script", " ; "), "script is empty"),
        (("--script", "forward nan"), "forward nan"),
        (("--script", "forward 1", "--size", "big"), "--size big"),
        (("--script", "forward 1", "--size", "0x80"), "0"),
        (("--script", "forward 1", "--trajectory", "nowhere.txt"), "--trajectory"),
        (("--trajectory", "nowhere.txt"), "nowhere.txt"),
        (("--script", "forward 1", "--max-frames", "0"), "max_frames"),
        (("--script", "forward 1", "--camera-height-m", "-1"), "camera_height_m"),
        (("--script", "forward 1", "--method", "hf"), "model_folder"),
    ],
)
def test_a_mistake_in_an_option_is_one_line(clip_folder, tmp_path, capsys, more, part):
    out = tmp_path / "run"
    assert_one_line_and_nothing_written(capsys, main(explore_arguments(clip_folder, out, *more)), out, part)


@pytest.mark.parametrize("text", ["0 0\n1 1\n", "0\n0\n0\n0\n", "up left radius\n0 0\n1 1\n", "", "\n\n\n"])
def test_a_bad_trajectory_is_one_line(clip_folder, tmp_path, capsys, text):
    path, out = tmp_path / "path.txt", tmp_path / "run"
    path.write_text(text)
    code = main(explore_arguments(clip_folder, out, "--trajectory", str(path)))
    assert_one_line_and_nothing_written(capsys, code, out, "path.txt")


def test_a_bad_clip_is_one_line(tmp_path, capsys):
    text, empty, out = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "run"
    text.write_text("this is no video")
    empty.write_bytes(b"")
    for clip in (text, empty, tmp_path / "nowhere.mp4"):
        assert_one_line_and_nothing_written(capsys, main(explore_arguments(clip, out)), out, clip.name)


def test_an_output_folder_that_cannot_be_is_one_line(clip_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    assert_one_line_and_nothing_written(capsys, main(explore_arguments(clip_folder, out)), out, "run")
    out = Path("/proc/inspatio/run")  # not even root may write there
    assert_one_line_and_nothing_written(capsys, main(explore_arguments(clip_folder, out)), out, "/proc/inspatio")


def test_a_disk_that_takes_no_more_is_one_line(clip_folder, tmp_path):
    out = tmp_path / "run"
    limit = 20_000  # bytes a file may have: the videos and the map are larger
    code = f"""
import resource, signal, sys
from inspatio_sim.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail instead
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main({explore_arguments(clip_folder, out)!r}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("inspatio-sim: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_interrupting_keeps_the_map_and_nothing_else(clip_folder, tmp_path):
    out = tmp_path / "run"
    arguments = [
        sys.executable,
        "-m",
        "inspatio_sim.cli.main",
        *explore_arguments(clip_folder, out, "--script", "wait 60"),
    ]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(tmp_path.glob(".run.*/.*observation*")):
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.startswith("inspatio-sim: interrupted: ")
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]
    assert {path.name for path in (tmp_path / "run.partial").iterdir()} == {
        "map.ply",
        "occupancy.pgm",
        "occupancy.yaml",
    }
    assert (tmp_path / "run.partial" / "map.ply").stat().st_size > 1000


def test_reconstruct_writes_a_reference_that_loads(clip_folder, tmp_path, capsys):
    out = tmp_path / "geometry"
    assert main(["reconstruct", str(clip_folder), "--out", str(out), "--size", "clip", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    reference = Reference.load(out / "reference")
    assert list(reference.size_px) == report["reconstruction"]["size_px"] == [48, 80]
    assert reference.provenance.method == "rgbd"


def test_a_clip_is_reconstructed_once(clip_folder, tmp_path, capsys, cache):
    frame_u8 = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    video, copy = tmp_path / "clip.mp4", tmp_path / "renamed.mp4"
    write_clip(video, np.stack([frame_u8] * 2), 12)
    copy.write_bytes(video.read_bytes())

    def was_cached(clip: Path, *more: str) -> bool:
        assert main(explore_arguments(clip, tmp_path / "run", "--method", "layout", "--json", *more)) == 0
        return json.loads(capsys.readouterr().out)["reconstruction"]["was_cached"]

    assert not was_cached(video)
    assert was_cached(video)
    assert was_cached(copy)  # the content counts
    assert not was_cached(video, "--max-frames", "1")  # and the options
    assert not was_cached(video, "--start-frame", "1")
    assert not was_cached(video, "--no-cache")
    for entry in (cache / "references").iterdir():
        (entry / "geometry.safetensors").write_bytes(b"damaged")
    assert not was_cached(video)
    assert was_cached(video)


def test_several_images_are_one_clip(tmp_path, clip_folder, capsys):
    images = sorted((clip_folder / "color").iterdir())[:2]
    out = tmp_path / "run"
    arguments = ["explore", *map(str, images), "--out", str(out), "--size", "48x80", "--method", "layout"]
    assert main([*arguments, "--script", "forward 0.05", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["reconstruction"]["num_frames"] == 2


def test_demo_explores_a_clip_of_its_own(tmp_path, capsys, monkeypatch):
    from inspatio_sim.cli import demo

    monkeypatch.setattr(demo, "DEMO_SIZE_PX", (32, 48))
    monkeypatch.setattr(demo, "DEMO_SCRIPT", "forward 0.1")
    assert main(["demo", "--out", str(tmp_path / "demo"), "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(Path(path).is_file() for path in report["outputs"].values())
    assert (tmp_path / "demo" / "clip" / "poses.json").is_file()
    assert main(["demo", "--out", str(tmp_path / "demo"), "--quiet"]) == 0  # again


def test_what_can_be_chosen_is_what_there_is():
    assert get_args(options.Collisions) == get_args(obstacles.Collisions)
    fields = {field.name: field for field in options.Explore.__dataclass_fields__.values()}
    assert fields["generator"].default in generators.GENERATORS
    assert get_args(options.GeneratorName) == generators.GENERATORS


@pytest.mark.parametrize("generator", ["star", "frame"])
def test_what_is_not_given_is_as_the_generator_has_it(generator):
    default = vars(options.NetworkOptions())
    shared = {name: value for name, value in generators.kind_by_name(generator).defaults.items() if name in default}
    assert {name: default[name] for name in shared} == {**shared, "preset": None}


@pytest.mark.parametrize("arguments", [["--help"], ["explore", "--help"], ["doctor", "--help"]])
def test_help_needs_nothing_heavy(arguments):
    code = f"import sys; from inspatio_sim.cli.main import main\ntry: main({arguments!r})\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numba', 'av', 'cv2', 'open3d', 'pycolmap'} & set(sys.modules), 'slow imports'"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 0, result.stderr
    assert "usage: inspatio-sim" in result.stdout
