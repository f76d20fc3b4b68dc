"""Every place where the net reaches into the project. When a module moves, this file follows, and no other.

Imports are within the functions: a case loads only what it opens.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT, ROOT / "envs", ROOT / "ros2_ws" / "src" / "inspatio_ros")
"""What comes first on the path, so that the tree that is tested is the one that this file lies in."""

SCENARIOS = ROOT / "examples" / "scenarios"
ENVS = "inspatio_envs:inspatio"
"""Of the ids that `gymnasium.make` takes."""


def command(*arguments: str | Path) -> dict[str, Any]:
    """`inspatio-sim ... --json` in this process; its report.

    Raises:
        RuntimeError: it failed.
    """
    from inspatio_sim.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main([*map(str, arguments), "--json", "--quiet"])
    if code != 0:
        raise RuntimeError(f"inspatio-sim {' '.join(map(str, arguments))}: exit code {code}")
    return json.loads(said.getvalue())


def command_in_a_process(*arguments: str | Path) -> dict[str, Any]:
    """The same, as a shell runs it."""
    line = [sys.executable, "-m", "inspatio_sim.cli.main", *map(str, arguments), "--json", "--quiet"]
    return json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)


def parity(golden: Path) -> dict[str, Any]:
    """`python -m benchmarks.parity FOLDER --json`."""
    from benchmarks.parity import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([str(golden), "--json"])
    return json.loads(said.getvalue())


def film_clips(folder: Path) -> None:
    """What cases begin from: clips of made-up rooms, with and without depth, and a panorama."""
    import numpy as np
    from PIL import Image

    from inspatio_sim.scenes.demo import write_demo_clip, write_demo_video
    from inspatio_sim.scenes.demo_room import demo_room
    from inspatio_sim.scenes.panorama import render_panorama

    write_demo_clip(folder / "room", num_frames=24, size_px=(48, 80))
    write_demo_clip(folder / "other-room", num_frames=8, size_px=(48, 80), seed=1, camera="turn")
    write_demo_video(folder / "walk.mp4", num_frames=16, size_px=(144, 240))
    panorama = render_panorama(demo_room(), 96)
    Image.fromarray(panorama.rgb_u8).save(folder / "panorama.png")
    Image.fromarray(panorama.rgb_u8[24:72, 56:136]).save(folder / "still.png")
    np.save(folder / "panorama-range.npy", panorama.range_m)


def make_world(clip: str, generator: str, options: Mapping[str, Any], *, seed: int, **config: Any) -> Any:
    """A `World` of a clip at its own size.

    Args:
        clip: as `World.from_video` takes it.
        generator: its name.
        options: of the generator.
        seed: of the world.
        **config: fields of `WorldConfig`.
    """
    from inspatio_sim.generators import generator_by_name
    from inspatio_sim.world.world import World, WorldConfig

    made = generator_by_name(generator, **options)
    return World.from_video(clip, generator=made, size_px=None, seed=seed, config=WorldConfig(**config))


def load_world(folder: str) -> Any:
    """A `World` that `World.save` wrote."""
    from inspatio_sim.world.world import World

    return World.load(folder)


def motion(linear_mps: Sequence[float], angular_radps: Sequence[float], duration_s: float = 1.0) -> Any:
    """A `PoseDelta` that `World.step` takes."""
    from inspatio_sim.motion.camera import PoseDelta

    return PoseDelta.from_twist(linear_mps, angular_radps, duration_s)


def published_topics() -> list[tuple[str, Any, Any]]:
    """Name, type and quality of service of all that the ROS node publishes."""
    from inspatio_ros.topics import PUBLISHED

    return [(topic.name, topic.msgtype, topic.qos) for topic in PUBLISHED if topic.msgtype is not None]


@contextlib.contextmanager
def ros_node(folder: Path, **parameters: Any) -> Iterator[Any]:
    """`inspatio-ros` in a process of its own, and a client in a domain of their own, which is handed out.

    Raises:
        RuntimeError: the node did not end well.
    """
    from tests.ros.client import Client, WorldProcess

    client = Client()
    try:
        node = WorldProcess(folder, **parameters)
        try:
            yield client
        except BaseException:
            node.kill()
            sys.stderr.write(node.output)
            raise
        if (code := node.stop()) != 0:
            raise RuntimeError(f"inspatio-ros: exit code {code}: {node.output}")
    finally:
        client.close()
