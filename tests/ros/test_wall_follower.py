"""The example drives as its help says: over ROS, along the wall, into a bag that can be walked again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from inspatio_sim.bags.files import Bag
from inspatio_sim.bags.session import replay_session
from inspatio_sim.clips.images import read_image
from inspatio_sim.mapping.map_server import read_grid

EXAMPLE = Path(__file__).parents[2] / "examples" / "ros_wall_follower.py"
SIZE = ("--size", "48", "80")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )


def run(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    try:
        out, err = process.communicate(timeout=280)
    finally:
        process.terminate()  # which it hands on to its node; nothing where it has ended
    return process.returncode, out, err


def nodes_of(folder: Path) -> list[str]:
    """Processes of nodes that were told to write into a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if b"inspatio_ros.main" in words and any(str(folder).encode() in word for word in words):
            found.append(entry.parent.name)
    return found


@pytest.mark.slow
def test_it_follows_the_wall_and_leaves_a_bag_that_replays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, complaints = run("--out", out, "--blocks", 50, *SIZE)
    assert code == 0, complaints
    assert "Traceback" not in complaints + (out / "node.log").read_text()
    summary = re.search(r"50 blocks, ([\d.]+) m, nearest approach ([\d.]+) m, (\d+) collisions, ([\d.]+) % ", said)
    assert summary, said
    distance_m, nearest_m, num_collisions, made_up = (float(value) for value in summary.groups())
    assert distance_m > 3
    assert nearest_m > 0.2  # of the axis; the body has 0.15
    assert num_collisions == 0
    assert 0 < made_up < 60
    assert len(re.findall(r"(?m)^ +\d+0 +[\d.]+ s", said)) == 5  # a line every ten blocks
    assert not nodes_of(out)

    with Bag(out / "session.mcap") as bag:
        assert not bag.is_cut
        way = [(message.pose.pose.position.x, message.pose.pose.position.y) for _, _, message in bag.messages("/odom")]
        commands = [message for _, _, message in bag.messages("/cmd_vel")]
        replay = replay_session(bag)
    lengths_m = np.linalg.norm(np.diff(way, axis=0), axis=-1)
    assert lengths_m.sum() == pytest.approx(distance_m, abs=0.15)
    assert lengths_m.max() < 0.4 / 12 + 1e-6  # never faster than it may
    assert len(commands) == 51  # one a block, and one to stand still
    assert replay.difference is None
    assert replay.num_compared == len(way)

    grid = read_grid(out / "map.yaml")
    stands_on = grid.cell_of(way)
    assert (grid.cells[tuple(stands_on.T)] == 0).all()
    assert read_image(out / "way.png").shape == (720, 720, 3)


@pytest.mark.slow
def test_an_interrupted_drive_takes_its_node_along(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("--out", out, "--blocks", 100_000, *SIZE)
    assert process.stdout is not None
    while not re.match(r" +10 ", process.stdout.readline()):
        assert process.poll() is None
    assert nodes_of(out)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (130, "ros_wall_follower.py: interrupted\n")
    end_s = time.monotonic() + 5
    while nodes_of(out) and time.monotonic() < end_s:
        time.sleep(0.1)
    assert not nodes_of(out)
    with Bag(out / "session.mcap") as bag:  # finished, not cut off
        assert not bag.is_cut
        assert bag.topics["/camera/image_raw"].num_messages > 40


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--blocks", "0"], "--blocks 0: want 1 or more"),
        (["--heading", "nan"], "--heading nan: want -180 to 180"),
        (["--generator", "magic"], "invalid choice: 'magic'"),
        (["--video", "missing.mp4"], "missing.mp4: "),
        (["--size", "0", "80"], "size"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    code, said, complaints = run(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert complaints.startswith("ros_wall_follower.py: error: ")
    assert complaint in complaints
    assert complaints.count("\n") == 1
    assert "Traceback" not in said


def test_without_ros_it_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").write_text("raise ImportError('No module named rclpy')\n")
    answer = subprocess.run(
        [sys.executable, str(EXAMPLE), "--help"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr == (
        "ros_wall_follower.py: ROS 2 is not here (No module named rclpy): pip install 'inspatio-sim[ros]'\n"
    )
