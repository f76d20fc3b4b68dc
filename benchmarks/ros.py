"""How fast, how soon and how surely frames of the ROS 2 node reach another process.

python -m benchmarks.ros [--json]
python -m benchmarks.ros --soak 30 [--json]     so many minutes of driving at 10 Hz, and nothing else

Exit code 2: an argument cannot be used, or ROS 2 is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.report import Result, median_ms, reported, show
from benchmarks.star_cases.machine import empty_cache_folder, say
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError

NODE = "inspatio_ros.main"
REPLAYING_NODE = "benchmarks.ros_cases.replay"
COLOR, DEPTH = "camera/image_raw", "camera/depth/image_rect_raw"
LATE_S = 0.2  # a frame that comes later than this counts as missed
SOAK_HZ = 10.0
STILL_FRAMES = 5  # the same picture so many times: the camera stands


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured; a test measures less of it."""

    size_px: tuple[int, int] = (480, 832)
    fps: float = 30.0
    seconds: float = 20.0  # of each stream
    small_px: tuple[int, int] = (96, 160)  # where commands are timed, and of the soak
    num_commands: int = 20

    @property
    def name(self) -> str:
        return f"{self.size_px[0]}x{self.size_px[1]}"


def parameters(size_px: tuple[int, int], fps: float, **more: Any) -> dict[str, Any]:
    """Of a node in the demo room that keeps to the wall clock."""
    shown = {"generator": "warp", "height_px": size_px[0], "width_px": size_px[1], "fps": fps}
    return {**shown, "time_mode": "real_time", **more}


def building_ms(size_px: tuple[int, int]) -> dict[str, float]:
    """Median time to make each message of a frame, sent or not; and all of those that the floor is about."""
    from inspatio_ros.driving import Driver
    from inspatio_ros.frames import MESSAGES, Moment
    from inspatio_ros.loading import load_world
    from inspatio_ros.parameters import Parameters
    from inspatio_ros.simulation import Simulation

    asked = Parameters(generator="warp", height_px=size_px[0], width_px=size_px[1], max_frames=2)
    world, _ = load_world(asked, lambda what, share_done: None)
    simulation = Simulation(world, Driver(), show=lambda block, frame_idx: None)
    simulation.start()
    block = simulation.reset()
    simulation.close()

    def moment() -> Moment:
        return Moment(
            block=block,
            frame_idx=0,
            intrinsics=world.reference.intrinsics,
            camera_height_m=1.35,
            parameters=asked,
            T_map_base_before=np.eye(4),
        )

    def all_of(names: Sequence[str]) -> None:
        now = moment()
        for name in names:
            MESSAGES[name](now)

    times_ms = {name: median_ms(lambda name=name: all_of([name]), repeats=25) for name in (COLOR, DEPTH, "scan")}
    return {**times_ms, "all": median_ms(lambda: all_of(list(_stream_types())), repeats=25)}


def _stream_types() -> dict[str, Any]:
    from nav_msgs.msg import Odometry
    from sensor_msgs.msg import CameraInfo, Image, LaserScan

    infos = {"camera/camera_info": CameraInfo, "camera/depth/camera_info": CameraInfo}
    return {COLOR: Image, DEPTH: Image, **infos, "odom": Odometry, "scan": LaserScan}


def stream_rows(case: Case) -> list[Result]:
    """A node that replays frames of warp, at more than the rate that is asked for, and one subscriber to all topics."""
    from rclpy.qos import ReliabilityPolicy

    from benchmarks.ros_cases.process import running

    rows = []
    options = parameters(case.size_px, case.fps, max_frames=12, block_frames=1)
    with running(REPLAYING_NODE, options) as process, process.diagnostics() as said:
        for reliability, name in (
            (ReliabilityPolicy.RELIABLE, "reliable"),
            (ReliabilityPolicy.BEST_EFFORT, "best effort"),
        ):
            say(f"ros: {case.name}, {name} ...")
            what = f"{case.name}, {name}"
            with process.listening(_stream_types(), reliability) as arrivals:
                said.clear()
                num_dropped = _number(process.wait_for_one(said), "blocks_dropped")
                for each in arrivals.values():
                    each.all.clear()
                process.sleep(case.seconds)
                found = {topic: list(each.all) for topic, each in arrivals.items()}
                said.clear()
                last = process.wait_for_one(said)
            images = [*found[COLOR], *found[DEPTH]]
            latencies_ms = [1e-6 * (image.came_ns - image.sent_ns) for image in images]
            rows += [
                Result(
                    name=f"{what}: whole frames",
                    value=rate_hz([image.came_ns for image in found[DEPTH]]),
                    unit="frames/s",
                    floor=24,
                    better="higher",
                ),
                Result(
                    name=f"{what}: publish to callback, p95",
                    value=float(np.percentile(latencies_ms, 95)),
                    unit="ms",
                    floor=20,
                    better="lower",
                ),
                Result(
                    name=f"{what}: lost",
                    value=max(num_lost([one.stamp_ns for one in topic], case.fps) for topic in found.values()),
                    unit="frames",
                    floor=0,
                    better="lower",
                ),
                reported(f"{what}: publish to callback, median", median(latencies_ms), "ms"),
                reported(f"{what}: dropped by the node", _number(last, "blocks_dropped") - num_dropped, "frames"),
                reported(f"{what}: made and published", _number(last, "message_ms_per_frame"), "ms/frame"),
            ]
    return rows


def command_rows(case: Case) -> list[Result]:
    """From `cmd_vel` to the first picture that shows it, at a camera that stood still in a still room."""
    from geometry_msgs.msg import Twist
    from rclpy.qos import ReliabilityPolicy
    from sensor_msgs.msg import Image

    from benchmarks.ros_cases.process import running

    fps = 12.0
    say("ros: commands ...")
    rng = np.random.default_rng(0)
    latencies_ms: list[float] = []
    own: list[dict[str, str]] = []
    with running(NODE, parameters(case.small_px, fps, max_frames=1)) as process, process.diagnostics() as said:
        publisher = process.node.create_publisher(Twist, "cmd_vel", 1)
        process.wait(lambda: publisher.get_subscription_count() > 0, "subscriber of cmd_vel")
        with process.listening({COLOR: Image}, ReliabilityPolicy.RELIABLE, keep=True) as arrivals:
            pictures = arrivals[COLOR].kept
            for i in range(case.num_commands):
                pictures.clear()
                process.wait(lambda: is_still([data for _, data in pictures]), "standing camera")
                time.sleep(rng.uniform(0, 1 / fps))  # commands come at any time
                still = pictures[-1][1]
                twist = Twist()
                twist.angular.z = 0.5 if i % 2 else -0.5
                sent_ns = time.time_ns()
                publisher.publish(twist)
                process.wait(lambda still=still: any(data != still for _, data in pictures), "answer to a command")
                came_ns = next(came_ns for came_ns, data in pictures if data != still)
                latencies_ms.append(1e-6 * (came_ns - sent_ns))
                time.sleep(1.0)  # until the command has ended
        own = [values for values in said if "command_to_pixels_ms_mean" in values]
    if not own:
        raise InputError("the node reported no command_to_pixels_ms_mean in /diagnostics")
    block_ms = 1000 / fps
    name = f"{case.small_px[0]}x{case.small_px[1]}, block of {block_ms:.0f} ms: cmd_vel to changed pixel"
    return [
        Result(
            name=f"{name}, p95",
            value=float(np.percentile(latencies_ms, 95)),
            unit="ms",
            floor=round(block_ms + 50),
            better="lower",
        ),
        reported(f"{name}, median", median(latencies_ms), "ms"),
        reported(
            f"{name}, as the node says", mean(_number(values, "command_to_pixels_ms_mean") for values in own), "ms"
        ),
    ]


def measure(case: Case) -> list[Result]:
    """All figures but those of a soak."""
    say("ros: messages ...")
    times_ms = building_ms(case.size_px)
    rows = [
        Result(
            name=f"{case.name}: images, infos, odom, scan made",
            value=times_ms.pop("all"),
            unit="ms/frame",
            floor=2,
            better="lower",
        )
    ]
    rows += [reported(f"{case.name}: {name} made", value, "ms") for name, value in times_ms.items()]
    return rows + stream_rows(case) + command_rows(case)


def soak_rows(case: Case, minutes: float) -> list[Result]:
    """Drives about at random for so long, with all images subscribed."""
    from geometry_msgs.msg import Twist
    from rclpy.qos import ReliabilityPolicy

    from benchmarks.ros_cases.process import running

    rng = np.random.default_rng(0)
    resident: list[int] = []
    with (
        running(NODE, parameters(case.small_px, SOAK_HZ)) as process,
        process.listening(_stream_types(), ReliabilityPolicy.RELIABLE) as arrivals,
        Terminal().progress() as progress,
    ):
        publisher = process.node.create_publisher(Twist, "cmd_vel", 1)
        process.wait(lambda: publisher.get_subscription_count() > 0, "subscriber of cmd_vel")
        started_s, twist = time.monotonic(), Twist()
        while (done := (time.monotonic() - started_s) / (60 * minutes)) < 1:
            twist.linear.x, twist.angular.z = rng.uniform(-0.3, 0.5), rng.uniform(-1, 1)
            for _ in range(10):
                publisher.publish(twist)
                process.sleep(1 / SOAK_HZ)
            resident.append(process.resident_bytes)
            progress("soak", done)
        found = {topic: list(each.all) for topic, each in arrivals.items()}
    colors = found[COLOR]
    tenth = len(resident) // 10
    growth = 100 * (median(resident[-tenth:]) / median(resident[tenth : 2 * tenth]) - 1)
    gaps_s = 1e-9 * np.diff([image.came_ns for image in colors])
    return [
        Result(name="soak: memory", value=growth, unit="% more", floor=5, better="lower"),
        Result(
            name=f"soak: frames more than {1000 * LATE_S:.0f} ms late",
            value=int(np.sum(gaps_s > 1 / SOAK_HZ + LATE_S)),
            unit="frames",
            floor=0,
            better="lower",
        ),
        Result(
            name="soak: lost",
            value=max(num_lost([one.stamp_ns for one in topic], SOAK_HZ) for topic in found.values()),
            unit="frames",
            floor=0,
            better="lower",
        ),
        reported("soak: longest gap between frames", 1000 * float(gaps_s.max()), "ms"),
        reported("soak: frames", len(colors), "frames"),
        reported("soak: memory at the end", resident[-1] / 1e6, "MB"),
    ]


def rate_hz(times_ns: Sequence[int]) -> float:
    """Of things that came at these times."""
    if len(times_ns) < 2:
        raise InputError(f"{len(times_ns)} frames came: want at least 2 to tell a rate")
    return 1e9 * (len(times_ns) - 1) / (times_ns[-1] - times_ns[0])


def num_lost(stamps_ns: Sequence[int], fps: float) -> int:
    """Frames that are missing between the first and the last that came."""
    if not stamps_ns:
        raise InputError("no frame came")
    num_made = round(1e-9 * (max(stamps_ns) - min(stamps_ns)) * fps) + 1
    return num_made - len(set(stamps_ns))


def is_still(pictures: Sequence[bytes]) -> bool:
    """Whether the last few are the same."""
    return len(pictures) >= STILL_FRAMES and len(set(pictures[-STILL_FRAMES:])) == 1


def _number(values: Mapping[str, str], name: str) -> float:
    return float(values.get(name) or "nan")


def main(arguments: Sequence[str] | None = None, case: Case | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ros", description="Time the ROS 2 node.")
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="drive about for so long instead")
    options = parser.parse_args(arguments)
    case = case or Case()
    try:
        if options.soak is not None and not 0.2 <= options.soak < math.inf:
            raise InputError(f"--soak {options.soak:g}: want at least 0.2 minutes")
        if missing := [name for name in ("rclpy", "inspatio_ros") if importlib.util.find_spec(name) is None]:
            raise InputError(f"missing: {', '.join(missing)}: pip install 'inspatio-sim[ros]'")
        with empty_cache_folder():
            results = measure(case) if options.soak is None else soak_rows(case, options.soak)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show("ros", results, as_json=options.json)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the node is stopped on the way out
    sys.exit(main())
