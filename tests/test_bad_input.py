"""A hostile and a clumsy user: every mistake is one line that names the thing, exit code 2, and leaves no trace."""

from __future__ import annotations

import functools
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inspatio_sim.cli import demo
from inspatio_sim.cli.explore import PARTIAL_OUTPUTS
from inspatio_sim.cli.main import main
from inspatio_sim.clips.video import write_clip
from inspatio_sim.errors import InputError
from inspatio_sim.mapping.files import PointCloud, write_points
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.walks.walk import OUTPUTS
from inspatio_sim.world import source
from inspatio_sim.world.world import World

SCRIPT = ("--script", "forward 0.05")


@pytest.fixture(scope="session")
def room(tmp_path_factory) -> Path:
    """A few frames of the demo room, as an RGB-D folder."""
    return write_demo_clip(tmp_path_factory.mktemp("clips") / "room", num_frames=4, size_px=(48, 80))


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> Path:
    """Six frames without depth, under a name that needs care."""
    path = tmp_path_factory.mktemp("clips") / "ein schöner Film 视频.mp4"
    frame_u8 = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    write_clip(path, [frame_u8] * 6, 12)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("INSPATIO_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def a_new_process() -> Iterator[None]:
    """Signal handlers and log handlers are the process's; each test begins as a program does."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    log_handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = log_handlers
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def refused(tmp_path, capfd) -> Callable[..., str]:
    """Run a command that must fail as a user's mistake does; returns its one line."""

    def run(*arguments: str | Path, out: Path | None = None) -> str:
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        out = out or place / "new" / "run"
        before = sorted(place.rglob("*"))
        capfd.readouterr()
        code = main([*map(str, arguments), "--out", str(out)])
        stdout, stderr = capfd.readouterr()
        assert code == 2, stderr
        assert stderr.startswith("inspatio-sim: error: "), stderr
        assert stderr.count("\n") == 1, stderr
        assert stdout == ""
        assert sorted(place.rglob("*")) == before  # nothing in it, nothing beside it
        return stderr

    return run


def explore(clip: Path, *more: str | Path) -> list[str | Path]:
    motion = () if {"--script", "--trajectory"} & set(map(str, more)) else SCRIPT
    size = () if "--size" in more else ("--size", "clip")
    generator = () if "--generator" in more else ("--generator", "warp")
    return ["explore", clip, *size, *motion, *generator, *more]


@contextmanager
def no_room_beyond(num_bytes: int) -> Iterator[None]:
    """No file may grow larger than that: what a full disk is to a program."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Clips


def _write_audio(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 44100, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _write_one_pixel(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=12)
        stream.width = stream.height = 1
        stream.pix_fmt = "bgr0"
        frame = av.VideoFrame.from_ndarray(np.zeros((1, 1, 3), np.uint8), format="rgb24")
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _write_no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=12)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuv420p"
        output.start_encoding()


def _half(path: Path, video: Path) -> None:
    path.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (lambda path, video: None, "No such file"),
        (lambda path, video: path.write_bytes(b""), "0 bytes"),
        (lambda path, video: path.write_text("this is no video"), "not a video"),
        (lambda path, video: path.write_bytes(bytes(10_000)), "not a video"),
        (lambda path, video: path.write_bytes(np.random.default_rng(0).bytes(10_000)), "not a video"),
        (_half, "not a video"),
        (lambda path, video: _write_audio(path), "only audio"),
        (lambda path, video: _write_no_frames(path), "not a video that can be read"),
        (lambda path, video: _write_one_pixel(path), "1x1 px is too small"),
        (lambda path, video: path.mkdir(), "no images"),
    ],
)
@pytest.mark.parametrize("output", [(), ("--json",), ("--quiet",), ("--json", "--quiet")])
def test_clips_that_are_none(refused, tmp_path, video, write, part, output):
    clip = tmp_path / "clip.mp4"
    write(clip, video)
    for arguments in (explore(clip, *output), ["reconstruct", clip, *output]):
        error = refused(*arguments)
        assert "clip.mp4" in error
        assert part in error


def test_a_clip_that_sfm_cannot_use_is_named(video, refused):
    said = refused("reconstruct", video, "--size", "clip", "--method", "sfm")
    assert f"{video}: all 6 frames show the same picture, the camera stands still" in said


@pytest.mark.parametrize(("size_px", "part"), [((1, 1), "1x1 px is too small"), ((12_000, 12_000), "is too big")])
def test_pictures_of_no_use(refused, tmp_path, size_px, part):
    Image.new("L", size_px).save(tmp_path / "picture.png")
    assert part in refused(*explore(tmp_path / "picture.png"))


def test_lists_of_clips(refused, video, tmp_path):
    assert "must be an image" in refused("explore", video, video, *SCRIPT)
    assert "no clip" in refused("explore", *SCRIPT)
    assert "/dev/null: want a file or a folder" in refused(*explore(Path("/dev/null")))
    Image.new("RGB", (80, 48)).save(tmp_path / "a.png")
    Image.new("RGB", (60, 48)).save(tmp_path / "b.png")
    assert "b.png: 60x48 px" in refused("explore", tmp_path / "a.png", tmp_path / "b.png", "--size", "clip", *SCRIPT)


def test_a_folder_that_is_no_clip_is_refused_unread(refused, tmp_path):
    (tmp_path / "films").mkdir()
    os.mkfifo(tmp_path / "films" / "endless.mp4")  # who reads it waits forever
    with (tmp_path / "films" / "large.mkv").open("wb") as file:
        file.truncate(10 * 2**40)
    assert "no images" in refused(*explore(tmp_path / "films"))


# RGB-D folders


def camera(**values) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "camera.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


def K(row: int, column: int, value: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        values = json.loads((folder / "camera.json").read_text())
        values["K"][row][column] = value
        (folder / "camera.json").write_text(json.dumps(values))

    return damage


def poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        T = np.array(json.loads((folder / "poses.json").read_text()))
        (folder / "poses.json").write_text(json.dumps(change(T).tolist()))

    return damage


def pose_entry(*place_and_value: float) -> Callable[[Path], None]:
    def change(T: np.ndarray) -> np.ndarray:
        *place, value = place_and_value
        T[tuple(map(int, place))] = value
        return T

    return poses(change)


def depth(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """The last frame's depth, changed."""

    def damage(folder: Path) -> None:
        path = sorted((folder / "depth").iterdir())[-1]
        depth_m = np.asarray(Image.open(path)).astype(np.float32) / 1000
        path.unlink()
        np.save(path.with_suffix(".npy"), change(depth_m), allow_pickle=True)

    return damage


def text(name: str, content: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (K(0, 0, float("nan")), "K has NaN or inf"),
        (K(1, 1, float("inf")), "K has NaN or inf"),
        (K(0, 0, -50.0), "focal lengths fx=-50"),
        (K(0, 0, 0.0), "focal lengths fx=0"),
        (K(0, 0, 1e-300), "off the axis"),
        (K(0, 0, 1e300), "at most 1e+06 px"),
        (K(0, 2, 1e9), "off the axis"),
        (K(0, 1, 3.0), "want [[fx, 0, cx]"),
        (K(0, 0, 10**400), "camera.json: K is not a matrix"),
        (camera(K=[[1, 2], [3, 4]]), "K has shape (2, 2)"),
        (camera(K=[[1, 2, 3], [4, 5]]), "K is not a matrix"),
        (camera(K=None), "want a 3x3 matrix"),
        (camera(width="80"), "width is '80'"),
        (camera(width=800), "K is for 800x48 px"),
        (camera(width=80 * 10**400), "width is 8000"),
        (camera(fps=0), "fps is 0"),
        (camera(fps=1e-9), "fps is 1e-09"),
        (camera(fps=10**400), "fps is 1000"),
        (camera(depth_scale_m=float("nan")), "depth_scale_m is nan"),
        (camera(depth_scale_m=1e300), "depth_scale_m is 1e+300"),
        (camera(depth_scale_m=1.0), "the median depth is"),  # millimetres taken for metres
        (text("camera.json", "nonsense"), "camera.json: not valid JSON"),
        (text("camera.json", '{"K": ' + "9" * 5000), "camera.json: not valid JSON"),
        (text("camera.json", "[" * 100_000), "camera.json: not valid JSON"),
        (pose_entry(2, 0, 1, 0.5), "pose[2] is not a rigid motion"),
        (pose_entry(1, 3, 0, 1.0), "pose[1] has last row"),
        (pose_entry(1, 0, 3, 1e12), "poses.json: a camera is 1e+12 m from the origin"),
        (poses(lambda T: T @ np.diag([-1.0, 1, 1, 1])), "left-handed"),
        (poses(lambda T: T[:, :3]), "shape (4, 3, 4)"),
        (poses(lambda T: T[:2]), "2 poses for 4 colour images"),
        (text("poses.json", "[]"), "poses.json: pose has shape (0,)"),
        (text("poses.json", '"words"'), "poses is not a matrix"),
        (depth(lambda d: d[:20]), "80x20 px"),
        (depth(lambda d: -d), "negative"),
        (depth(lambda d: 1e4 * d), "the median depth is"),
        (depth(lambda d: 1e-30 * d), "the median depth is"),
        (depth(lambda d: d.astype(object)), "not a plain numpy array"),
        (lambda folder: shutil.rmtree(folder / "depth"), "no folder depth/"),
        (lambda folder: Image.new("L", (80, 48), 9).save(folder / "depth" / "000001.png"), "mode L"),
        (lambda folder: os.truncate(folder / "color" / "000001.png", 300), "the image is damaged"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")  # a warning would be a second line
def test_rgbd_folders_that_are_damaged(refused, tmp_path, room, damage, part):
    clip = tmp_path / "damaged room"
    shutil.copytree(room, clip)
    damage(clip)
    error = refused(*explore(clip))
    assert str(clip) in error
    assert part in error


# Motions

WALK = " ".join(map(str, np.eye(4).ravel())) + "\n"
STAND = "0 0 0 0 0 0 1"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is empty"),
        ("# nothing but words\n\n", "has no numbers"),
        ("0 0\n0 1\n", "has 2 lines"),
        ("0 0\n0 1\n1 1\n1 1\n", "has 4 lines"),
        ("one two\nthree four\nfive six\n", "line 1 is 'one two'"),
        ("0 nan\n0 0\n1 1\n", "line 1 has NaN or inf"),
        ("0\n0\n" + "9" * 400, "line 3 has NaN or inf"),
        ("0 1e9\n0 0\n1 1\n", "up_deg"),
        ("0\n0\n0 50\n", "motion of"),  # a jump
        (f"0 {STAND}\n1 50 0 0 0 0 0 1\n2 {STAND}\n3 {STAND}\n", "frame 1: motion of 50 m"),
        (f"-1e308 {STAND}\n1e308 {STAND}\n", "a time is beyond"),
        (f"1 {STAND}\n0 {STAND}\n", "times do not increase"),
        (f"0 {STAND}\n" * 3, "say which with --trajectory-format tum"),
        (WALK * 4, "say --trajectory-convention camera-to-world"),
        (bytes(range(256)), "is not a text file"),
        (None, "does not exist"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_trajectories_that_are_none(refused, tmp_path, room, content, part):
    path = tmp_path / "path.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refused(*explore(room, "--trajectory", path))
    assert "path.txt" in error
    assert part in error


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.full((3, 4, 4), np.nan), "NaN or inf"),
        (np.stack([np.diag([-1.0, 1, 1, 1])] * 3), "left-handed"),
        (np.zeros((3, 3)), "has shape [3, 3]"),
        (np.array([{"a": print}], dtype=object), "is not an npy file"),
    ],
)
def test_matrices_that_are_no_path(refused, tmp_path, room, array, part):
    np.save(tmp_path / "path.npy", array, allow_pickle=True)
    convention = ("--trajectory-convention", "camera-to-world")
    assert part in refused(*explore(room, "--trajectory", tmp_path / "path.npy", *convention))


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("", "script is empty"),
        (" ; ;\n", "script is empty"),
        ("jump 1", "unknown script word 'jump'"),
        ("前进 1", "unknown script word '前进'"),
        ("x" * 100_000, "unknown script word"),
        ("forward", "has 0 arguments"),
        ("forward 1 2", "has 2 arguments"),
        ("forward nan", "finite number"),
        ("forward -inf", "finite number"),
        ("forward 10.1", "at most 10 m"),
        ("yaw 361", "at most 360 degrees"),
        ("wait 0", "more than 0"),
        ("wait 1e9", "at most 600 s"),
        ("time warp", "unknown clock mode 'warp'"),
    ],
)
def test_scripts_that_are_none(refused, room, script, part):
    error = refused(*explore(room, "--script", script))
    assert part in error
    assert len(error) < 300


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_options_at_all_are_one_line(name, value):
    """Whatever is typed after a command is an InputError or a command, never a traceback or a box."""
    from inspatio_sim.cli.main import _parse

    if {"-h", "--help"} & {name, value} or name.startswith("--tyro"):
        return
    message = ""
    try:
        _parse(["explore", "clip.mp4", "--out", "out", name, value])
    except InputError as error:
        message = str(error)
    assert "╭" not in message
    assert not message.startswith("│")


# Options


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--size", "0x0"), "0x0 px is too small"),
        (("--size", "1x1"), "1x1 px is too small"),
        (("--size", "100000x100000"), "is too big"),
        (("--size", "480"), "want HEIGHTxWIDTH"),
        (("--size", "٤٨x٨٠"), "want HEIGHTxWIDTH"),
        (("--size", "9" * 5000 + "x1"), "want HEIGHTxWIDTH"),
        (("--max-frames", "0"), "max_frames=0"),
        (("--every", "0"), "every=0"),
        (("--every", "-1"), "every=-1"),
        (("--every", "1000000"), "fps=1.2e-05"),
        (("--seed", "-1"), "--seed -1"),
        (("--seed", str(2**70)), "--seed 118"),
        (("--seed", "1e3"), "--seed"),
        (("--camera-height-m", "nan"), "camera_height_m=nan"),
        (("--camera-height-m", "0"), "camera_height_m=0"),
        (("--length-m", "1"), "length_pixels is missing"),
        (("--length-frame", "2"), "length_frame=2"),
        (("--length-m", "1", "--length-pixels", "1", "1"), "--length-pixels"),
        (("--length-m", "1", "--length-pixels", "1", "1", "9999", "1"), "inside the 80x48 image"),
        (("--camera-height-m", "1", "--length-m", "1", "--length-pixels", "1", "1", "9", "9"), "both given"),
        (("--method", "magic"), "--method"),
        (("--method", "hf"), "model_folder is missing"),
        (("--method", "sfm"), "stands still"),
        (("--model-folder", "/nowhere"), "/nowhere: no such folder"),
        (("--method", "layout", "--model-folder", "/"), "method layout uses no model"),
        (("--frames", "5"), "--frames: only works with --trajectory"),
        (("--frames", "0"), "--frames 0: want at least 1"),
        (("--radius-scale", "nan"), "--radius-scale: only works with --trajectory"),
        (("--smoothing", "fitpack"), "--smoothing: only works with --trajectory"),
        (("--relative-to", "start"), "--relative-to: only works with --trajectory"),
        (("--trajectory-convention", "camera-to-world"), "--trajectory-convention: only works with --trajectory"),
        ((*SCRIPT, "--trajectory", "orbit.txt"), "want one of --trajectory FILE and --script TEXT"),
        (("--bogus",), "--bogus"),
    ],
)
def test_options_that_cannot_be(refused, room, more, part):
    assert part in refused(*explore(room, *more))


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--frames", "0"), "--frames 0"),
        (("--frames", "-3"), "--frames -3"),
        (("--frames", "100000000"), "num_frames=100000000"),
        (("--radius-scale", "nan"), "radius_scale=nan"),
        (("--radius-scale", "1e5"), "motion of"),
        (("--trajectory-format", "tum"), "orbit.txt: pose 0 has 2 numbers"),
    ],
)
def test_options_that_an_orbit_cannot_have(refused, tmp_path, room, more, part):
    (tmp_path / "orbit.txt").write_text("0 0\n0 10\n1 1\n")
    assert part in refused(*explore(room, "--trajectory", tmp_path / "orbit.txt", *more))


def test_smoothing_is_for_orbits(refused, tmp_path, room):
    (tmp_path / "path.tum").write_text(f"0 {STAND}\n")
    error = refused(*explore(room, "--trajectory", tmp_path / "path.tum", "--smoothing", "fitpack"))
    assert "--smoothing" in error
    assert "only works with an orbit" in error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "{explore, reconstruct, demo, doctor, weights, train, scenario, bag}"),
        (["fly"], "fly"),
        (["explore", "clip.mp4", *SCRIPT], "--out"),
        (["reconstruct", "clip.mp4"], "--out"),
        (["doctor", "--weights", "/nowhere"], "/nowhere"),
        (["demo", "--seed", "x"], "--seed"),
    ],
)
def test_commands_that_are_none(capfd, arguments, part):
    assert main(arguments) == 2
    stdout, stderr = capfd.readouterr()
    assert stderr.startswith("inspatio-sim: error: ")
    assert stderr.count("\n") == 1
    assert part in stderr
    assert stdout == ""


@pytest.mark.parametrize("name", ["explore", "reconstruct", "demo", "doctor"])
def test_help_says_what_to_type(capfd, name):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    said = capfd.readouterr().out
    assert "{None}" not in said
    if name in ("explore", "reconstruct"):
        assert f"inspatio-sim {name} walk.mp4" in said
        assert "CLIP [CLIP ...]" in said


PICKLE = b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({}, "config.json: cannot be read"),
        ({"config.json": b"{"}, "config.json: not JSON"),
        ({"config.json": b'{"model_type": "never-heard-of"}'}, "never-heard-of"),
        ({"config.json": b'{"model_type": "depth_anything"}', "pytorch_model.bin": PICKLE}, "not a depth model"),
    ],
)
def test_model_folders_that_are_none(refused, tmp_path, video, monkeypatch, files, part):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    error = refused(*explore(video, "--model-folder", folder, "--max-frames", "1"))
    assert str(folder) in error
    assert part in error
    assert not (tmp_path / "pwned").exists()


# What is fine after all


def json_of(capfd, *arguments: str | Path) -> dict:
    capfd.readouterr()
    code = main([*map(str, arguments), "--json"])
    stdout, stderr = capfd.readouterr()
    assert code == 0, stderr
    assert stdout.count("\n") == 1
    return json.loads(stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_each_command_prints_one_json_object(capfd, tmp_path, room, monkeypatch):
    monkeypatch.setattr(demo, "DEMO_SIZE_PX", (32, 48))
    monkeypatch.setattr(demo, "DEMO_SCRIPT", "forward 0.05")
    monkeypatch.setattr(demo, "write_demo_clip", functools.partial(write_demo_clip, num_frames=2))
    assert json_of(capfd, *explore(room), "--out", tmp_path / "a")["command"] == "explore"
    assert json_of(capfd, "reconstruct", room, "--size", "clip", "--out", tmp_path / "b")["command"] == "reconstruct"
    assert json_of(capfd, "demo", "--out", tmp_path / "c")["command"] == "explore"
    assert "methods" in json_of(capfd, "doctor")


def test_names_with_spaces_and_of_all_nations(capfd, tmp_path, video):
    out = tmp_path / "mein Ausflug 旅"
    report = json_of(capfd, *explore(video, "--method", "layout"), "--out", out)
    assert report["inputs"]["clip"] == [str(video)]
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)


def test_names_that_are_no_text(capfd, tmp_path, video):
    clip, out = tmp_path / "caf\udce9.mp4", tmp_path / "sal\udce9"  # Latin-1 bytes, as the system hands them on
    shutil.copy(video, clip)
    assert main([str(part) for part in explore(clip, "--method", "layout", "--out", out)]) == 0
    assert out.is_dir()


def test_a_path_of_one_pose_and_a_script_of_many_words(capfd, tmp_path, room):
    (tmp_path / "one.tum").write_text(f"0 {STAND}\n")
    path = ("--trajectory", tmp_path / "one.tum")
    assert json_of(capfd, *explore(room, *path), "--out", tmp_path / "a")["run"]["path_length_m"] == 0
    script = "; ".join(["yaw 1", "yaw -1"] * 250)
    assert json_of(capfd, *explore(room, "--script", script), "--out", tmp_path / "b")["run"]["num_frames"] == 501


# Folders and disks


def test_output_folders_that_cannot_be(refused, tmp_path, room, monkeypatch):
    place = tmp_path / "place"
    (place / "here").mkdir(parents=True)
    (place / "file").write_text("")
    assert "file: cannot be used (Not a directory)" in refused(*explore(room), out=place / "file")
    assert "file/run: cannot be used" in refused(*explore(room), out=place / "file" / "run")
    assert "camera.json" in refused(*explore(room), out=room)
    assert "/proc" in refused(*explore(room), out=Path("/proc/inspatio/run"))
    assert "File name too long" in refused(*explore(room), out=place / ("a" * 300))
    monkeypatch.chdir(place / "here")
    assert "is the current folder" in refused(*explore(room), out=Path())
    assert "holds other files" in refused(*explore(room), out=Path(".."))


@pytest.mark.skipif(not os.path.ismount("/dev/shm") or bool(os.listdir("/dev/shm")), reason="no empty mount point")
def test_a_mount_point_is_no_output_folder(refused, room):
    assert "is a mount point" in refused(*explore(room), out=Path("/dev/shm"))


def test_a_link_is_followed_and_a_long_name_is_fine(tmp_path, room):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("link", "ü" * 120):
        assert main([str(part) for part in explore(room, "--quiet", "--out", tmp_path / name)]) == 0
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "real").iterdir()} == set(OUTPUTS)


@pytest.mark.parametrize("num_bytes", [1_000, 20_000, 60_000])
def test_a_full_disk(refused, room, num_bytes):
    with no_room_beyond(num_bytes):
        assert "run" in refused(*explore(room))
        assert "run" in refused("reconstruct", room, "--size", "clip")


def test_a_failed_run_leaves_the_earlier_one(refused, tmp_path, room):
    out = tmp_path / "place" / "run"
    assert main([str(part) for part in explore(room, "--quiet", "--out", out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with no_room_beyond(1_000):
        refused(*explore(room, "--script", "back 0.1"), out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("num_bytes", [500, 20_000])
def test_a_world_that_does_not_fit_is_not_saved(room, tmp_path, num_bytes):
    world = World.from_video(room, generator="warp", size_px=None)
    world.reset()
    with no_room_beyond(num_bytes), pytest.raises(InputError, match=r"world.*(large|room|space)"):
        world.save(tmp_path / "new" / "world")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".ply", ".pcd"])
@pytest.mark.parametrize("num_bytes", [100, 24_100])  # nothing, and all but the last points
def test_points_that_do_not_fit_are_not_written(tmp_path, capfd, suffix, num_bytes):
    values = np.zeros(1000, np.float32)
    cloud = PointCloud(
        position_m=np.zeros((1000, 3), np.float32),
        rgb_u8=np.zeros((1000, 3), np.uint8),
        confidence=values,
        last_seen_s=values,
        source=np.ones(1000, np.uint8),
    )
    path = tmp_path / f"map{suffix}"
    with no_room_beyond(num_bytes), pytest.raises(InputError, match=f"cannot write map{suffix}"):
        write_points(cloud, path)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")  # Open3D says nothing either


def test_a_short_point_file_is_noticed(tmp_path, monkeypatch):
    """The disk may fill up while Open3D writes, which reports success then."""
    import open3d

    write = open3d.t.io.write_point_cloud

    def write_short(name: str, *arguments, **options) -> bool:
        write(name, *arguments, **options)  # pyright: ignore[reportArgumentType]  # Open3D's stubs are wrong
        os.truncate(name, os.path.getsize(name) - 1)
        return True

    monkeypatch.setattr(open3d.t.io, "write_point_cloud", write_short)
    one = np.ones(1, np.float32)
    cloud = PointCloud(
        position_m=np.ones((1, 3), np.float32),
        rgb_u8=np.ones((1, 3), np.uint8),
        confidence=one,
        last_seen_s=one,
        source=np.ones(1, np.uint8),
    )
    with pytest.raises(InputError, match=r"cannot write map\.ply"):
        write_points(cloud, tmp_path / "map.ply")
    assert list(tmp_path.iterdir()) == []


def _damage(entry: Path) -> None:
    (entry / "reference.json").write_text("{}")


def _become_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("not a folder")


@pytest.mark.parametrize("damage", [_damage, _become_a_file])
def test_a_damaged_cache_entry_is_made_again(capfd, tmp_path, video, cache, damage):
    def was_cached() -> bool:
        report = json_of(capfd, *explore(video, "--method", "layout"), "--quiet", "--out", tmp_path / "run")
        return report["reconstruction"]["was_cached"]

    assert not was_cached()
    (entry,) = (cache / "references").iterdir()
    damage(entry)
    assert not was_cached()
    assert was_cached()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(capfd, tmp_path, video, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path / "file"))
    report = json_of(capfd, *explore(video, "--method", "layout"), "--quiet", "--out", tmp_path / "run")
    assert not report["reconstruction"]["was_cached"]


# Processes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_being_stopped_keeps_the_map_and_nothing_else(tmp_path, room, capfd, number, monkeypatch):
    from inspatio_sim.walks import walk as exploring

    frames_seen = 0
    draw = exploring._Panels.draw

    def draw_and_stop(*arguments):
        nonlocal frames_seen
        frames_seen += 1
        if frames_seen == 3:
            os.kill(os.getpid(), number)
        return draw(*arguments)

    monkeypatch.setattr(exploring._Panels, "draw", draw_and_stop)
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"signal {number} is ignored here, as under nohup")
    out = tmp_path / "run"
    assert main([str(part) for part in explore(room, "--quiet", "--script", "wait 9", "--out", out)]) == 130
    assert frames_seen == 3
    assert capfd.readouterr().err == f"inspatio-sim: interrupted: the map so far is in {out}.partial\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]
    assert {path.name for path in (tmp_path / "run.partial").iterdir()} == set(PARTIAL_OUTPUTS)


def test_being_stopped_early_leaves_nothing(tmp_path, room, capfd, monkeypatch):
    def stop(*_arguments, **_options):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)

    monkeypatch.setattr(source, "read_clip", stop)
    assert main([str(part) for part in explore(room, "--out", tmp_path / "new" / "run")]) == 130
    assert capfd.readouterr().err == "inspatio-sim: interrupted: nothing half-written is left\n"
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_one_line(refused, room, monkeypatch):
    def fill(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(source, "read_clip", fill)
    assert "out of memory" in refused(*explore(room))


@pytest.mark.slow
def test_two_runs_at_once_leave_one_whole_run(tmp_path, room):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "inspatio_sim.cli.main", *map(str, explore(room, "--quiet", "--out", out))]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, error = run.communicate(timeout=120)
        assert run.returncode in (0, 2), error
        assert error.count("\n") == (0 if run.returncode == 0 else 1), error
    assert 0 in [run.returncode for run in runs]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)


def test_a_stdout_that_takes_nothing_is_one_line(tmp_path, room):
    command = [sys.executable, "-m", "inspatio_sim.cli.main", "doctor", "--json"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "inspatio-sim: error: cannot write the report to stdout: No space left on device\n"
