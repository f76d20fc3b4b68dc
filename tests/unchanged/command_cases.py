"""Cases by the command line: walks, reconstructions, scenarios, bags, and what the networks would cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.unchanged import doors
from tests.unchanged.contents import contents
from tests.unchanged.messages import bag_values

CLIP = "inputs/room"
ORBIT = "0 5 0 -5\n0 10 20 10\n0 -0.1 -0.2 0\n"
MATRICES = "".join(f"1 0 0 {0.02 * i} 0 1 0 0 0 0 1 {0.03 * i} 0 0 0 1\n" for i in range(6))  # to the right, ahead
TUM = "".join(f"{i / 12} {0.03 * i} 0 0 0 {np.sin(0.02 * i)} 0 {np.cos(0.02 * i)}\n" for i in range(6))
STAGES_DRY_RUN = (
    ("teacher", "--config", "tiny"),
    ("distill", "--config", "wan_1_3b"),
    ("codec", "--config", "test"),
    ("frame", "--stage", "distill", "--config", "worldfm-xl"),
)


def demo(folder: Path) -> dict[str, Any]:
    """The one case in a process of the command's own."""
    report = doors.command_in_a_process("demo", "--out", "demo")
    return {"stdout": report, **contents(folder / "demo")}


def explore_warp(folder: Path) -> dict[str, Any]:
    for name, text in (("orbit.txt", ORBIT), ("matrices.txt", MATRICES), ("path.tum", TUM)):
        (folder / name).write_text(text)
    poses = ("--trajectory-convention", "camera-to-world")
    walks = {
        "script": ("--script", "forward 0.3; time freeze; yaw 20; time loop; right 0.2; wait 0.2; forward 3"),
        "orbit": ("--trajectory", "orbit.txt", "--frames", "8"),
        "orbit-fitpack": ("--trajectory", "orbit.txt", "--smoothing", "fitpack", "--relative-to", "start"),
        "matrices": ("--trajectory", "matrices.txt", *poses, "--collisions", "stop", "--time", "ping-pong"),
        "tum": ("--trajectory", "path.tum", "--relative-to", "reference", "--frames", "6"),
    }
    return _walks(folder, "warp", walks)


def explore_star(folder: Path) -> dict[str, Any]:
    (folder / "orbit.txt").write_text(ORBIT)
    walks = {
        "script": ("--script", "forward 0.2; yaw 30", "--seed", "3"),
        "orbit": ("--trajectory", "orbit.txt", "--steps", "1000", "500", "--block-latents", "1", "--frames", "9"),
    }
    return _walks(folder, "star", walks)


def explore_frame(folder: Path) -> dict[str, Any]:
    (folder / "path.tum").write_text(TUM)
    walks = {
        "script": ("--script", "forward 0.2; yaw 30; yaw -30", "--seed", "3"),
        "tum": ("--trajectory", "path.tum", "--steps", "999", "--max-views", "4", "--frames", "6"),
    }
    return _walks(folder, "frame", walks)


def explore_panorama(folder: Path) -> dict[str, Any]:
    arguments = ["inputs/panorama.png", "--panorama", "--panorama-depth", "inputs/panorama-range.npy"]
    more = ["--generator", "warp", "--size", "48x80", "--script", "yaw 40; forward 0.3; pitch 20", "--out", "run"]
    return {"stdout": doors.command("explore", *arguments, *more), **contents(folder / "run")}


def _walks(folder: Path, generator: str, walks: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, options in walks.items():
        report = doors.command(
            "explore", CLIP, "--size", "clip", "--generator", generator, "--out", f"run/{name}", *options
        )
        values |= {f"{name}/stdout": report, **contents(folder / "run" / name, name)}
    return values


def reconstruct(folder: Path) -> dict[str, Any]:
    """Each method that needs no weights from elsewhere."""
    panorama = ("inputs/panorama.png", "--panorama", "--size", "48x80")
    clips = {
        "rgbd": (CLIP, "--size", "clip", "--max-frames", "4"),
        "rgbd-resized": (CLIP, "--size", "40x48", "--every", "8", "--camera-height-m", "1.2"),
        "sfm": ("inputs/walk.mp4", "--size", "clip", "--method", "sfm"),
        "auto": ("inputs/walk.mp4", "--size", "48x80", "--max-frames", "2"),
        "layout": ("inputs/still.png", "--size", "clip", "--method", "layout", "--camera-height-m", "1.5"),
        "tiny": ("inputs/still.png", "--size", "clip", "--method", "tiny"),
        "panorama": (*panorama, "--panorama-depth", "inputs/panorama-range.npy", "--panorama-fov-deg", "80"),
        "panorama-tiny": (*panorama, "--method", "tiny"),
    }
    values: dict[str, Any] = {}
    for name, arguments in clips.items():
        report = doors.command("reconstruct", *arguments, "--no-cache", "--out", f"out/{name}")
        values |= {f"{name}/stdout": report, **contents(folder / "out" / name, name)}
    return values


def scenarios(folder: Path) -> dict[str, Any]:
    files = sorted(os.path.relpath(path, folder) for path in doors.SCENARIOS.glob("*.scenario.yaml"))
    reports = {Path(file).name: doors.command("scenario", "run", file) for file in files}
    return {name: _named(report, name) for name, report in reports.items()}


def _named(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A report that says which file it was, not where."""
    for scenario in report["scenarios"]:
        scenario["file"] = name
    return report


def bags(folder: Path) -> dict[str, Any]:
    """A session is recorded, replayed, and becomes a clip."""
    record_bag(Path(CLIP), Path("session.mcap"))
    replayed = doors.command("bag", "replay", "session.mcap")
    if not replayed["is_same"]:
        raise RuntimeError(f"the session that was just recorded is not replayed as it was: {replayed}")
    return {
        "replay": replayed,
        "info": doors.command("bag", "info", "session.mcap"),
        "export": doors.command("bag", "export", "session.mcap", "--out", "exported"),
        **contents(folder / "exported", "exported"),
        **bag_values(folder / "session.mcap", "messages"),
    }


def record_bag(clip: Path, path: Path) -> None:
    """A short session of `warp`."""
    script = "forward 0.1; time freeze; yaw 5; time loop; right 0.05"
    how = ("--size", "clip", "--generator", "warp", "--script", script)
    doors.command("bag", "record", "--video", clip, *how, "--out", path)


def costs(folder: Path) -> dict[str, Any]:
    """What models there are, and what training them would take."""
    values = {"weights": doors.command("weights", "list")}
    for arguments in STAGES_DRY_RUN:
        values["-".join(arguments)] = doors.command("train", *arguments, "--dry-run", "--out", "runs")
    return values


def parity(folder: Path) -> dict[str, Any]:
    return {"parity": doors.parity(Path(os.environ["INSPATIO_TEST_DATA"]) / "golden")}
