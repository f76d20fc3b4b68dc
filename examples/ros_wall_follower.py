"""Drive along the walls of a room over ROS 2, seeing nothing but `scan` and `odom`.

    python examples/ros_wall_follower.py                         # the demo room, frames from geometry alone
    python examples/ros_wall_follower.py --video clip.mp4 --generator star --blocks 100

Starts the node `world` as a process of its own, in lock-step (time stands still while this program thinks), on a
domain that no other ROS system sees. Every block it sends one `cmd_vel`, calls `step`, and looks at the new scan:
it turns to --heading, goes straight on until something is near, then along it, with the wall on the left. OUT then
holds session.mcap (to walk it again: `inspatio-sim bag replay OUT/session.mcap`), way.png (from above), the map as
map.pgm, map.yaml and map.ply, and what the node said, node.log.
"""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from inspatio_ros.domain import free_domain

from inspatio_sim.errors import InputError
from inspatio_sim.generators import GENERATORS
from inspatio_sim.mapping.files import read_points
from inspatio_sim.mapping.grid import FREE
from inspatio_sim.mapping.map_server import read_grid
from inspatio_sim.mapping.picture import draw_top_down
from inspatio_sim.mapping.storage import FILMED
from inspatio_sim.pictures import save_png
from inspatio_sim.scenes.demo import write_demo_clip

try:
    import rclpy
    from geometry_msgs.msg import Twist
    from lifecycle_msgs.srv import GetState
    from nav_msgs.msg import Odometry
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import LaserScan
    from std_srvs.srv import Trigger
except ImportError as error:
    sys.exit(f"ros_wall_follower.py: ROS 2 is not here ({error}): pip install 'inspatio-sim[ros]'")

SPEED_MPS = 0.4
TURN_RADPS = 0.8  # on the spot, where the way is blocked
TURN_FIRST_RAD = 0.3  # what lies further aside is turned to on the spot
GAIN_PER_S = 1.5  # turn rate for each radian that the way lies aside
KEEP_M = 0.6  # from the wall
HALF_WIDTH_M = 0.35  # of the lane that has to be free
STOP_M = 0.4  # before what stands in the lane
LOOK_M = 0.9  # so far a lane has to be free to be taken
NEAR_M = 1.0  # what begins the following
MEMORY_SCANS = 40  # the camera looks ahead only: what is beside it was seen before
BLOCK_FRAMES = 4
WAIT_S = 30.0


class Follower:
    """Keeps a wall on its left. Points are those of the last scans, in the base's axes: x forward, y left."""

    def __init__(self, heading_rad):
        self.heading_rad = heading_rad  # to go to first
        self.scans = deque(maxlen=MEMORY_SCANS)  # in odom. [N, 2] each
        self.is_following = False

    def decide(self, scan, odom):
        """Speed (m/s), turn rate (rad/s), and how far the nearest thing seen lately is (m)."""
        x_m, y_m, yaw_rad = floor_pose(odom)
        ranges_m = np.array(scan.ranges)
        bearings_rad = scan.angle_min + scan.angle_increment * np.arange(len(ranges_m))
        seen_m = np.where(np.isneginf(ranges_m), scan.range_min, ranges_m)  # -inf: nearer than could be measured
        seen = np.stack([seen_m * np.cos(bearings_rad), seen_m * np.sin(bearings_rad)], axis=-1)
        R = np.array([[math.cos(yaw_rad), -math.sin(yaw_rad)], [math.sin(yaw_rad), math.cos(yaw_rad)]])
        self.scans.append(seen[np.isfinite(seen_m)] @ R.T + (x_m, y_m))
        points_m = (np.concatenate(self.scans) - (x_m, y_m)) @ R
        nearest_m = float(np.linalg.norm(points_m, axis=-1).min(initial=math.inf))

        ahead_m = free_way(points_m, 0.0)
        wanted_rad = math.remainder(self.heading_rad - yaw_rad, 2 * math.pi)
        if not self.is_following and abs(wanted_rad) > TURN_FIRST_RAD:
            return 0.0, math.copysign(TURN_RADPS, wanted_rad), nearest_m
        self.is_following |= ahead_m < NEAR_M
        if self.is_following:
            wanted_rad = self.along_the_wall(points_m)
        is_measured = ~np.isnan(ranges_m)  # NaN: nobody knows what is there; inf: nothing is
        ways = [way for way in bearings_rad[is_measured][::4] if free_way(points_m, way) > LOOK_M]
        if not ways:
            return 0.0, -TURN_RADPS, nearest_m
        way_rad = min(ways, key=lambda way: abs(way - wanted_rad))
        speed_mps = SPEED_MPS * math.cos(way_rad) * min(1.0, max(0.0, (ahead_m - STOP_M) / STOP_M))
        return speed_mps, max(-TURN_RADPS, min(TURN_RADPS, GAIN_PER_S * way_rad)), nearest_m

    @staticmethod
    def along_the_wall(points_m):
        """The bearing that keeps the distance to the wall on the left; a little to the left where there is none."""
        x_m, y_m = points_m.T
        beside_m = y_m[(x_m > -0.2) & (x_m < 0.8) & (y_m > 0)].min(initial=1.5 * KEEP_M)
        return max(-0.6, min(0.4, 1.2 * (beside_m - KEEP_M)))


def free_way(points_m, bearing_rad):
    """How far a lane into this direction is free, at most 10 m."""
    cos, sin = math.cos(bearing_rad), math.sin(bearing_rad)
    along_m, aside_m = points_m @ (cos, sin), points_m @ (-sin, cos)
    return along_m[(along_m > 0) & (abs(aside_m) < HALF_WIDTH_M)].min(initial=10.0)


def floor_pose(odom):
    """x, y and yaw."""
    position, q = odom.pose.pose.position, odom.pose.pose.orientation
    return position.x, position.y, 2 * math.atan2(q.z, q.w)


class Robot:
    """The world over ROS: commands out, scan and odometry of the same moment in."""

    def __init__(self, child):
        self.child = child
        self.node = rclpy.create_node("wall_follower")
        self.command = self.node.create_publisher(Twist, "cmd_vel", 1)
        self.latest = {}
        # All at once: a client that is new when it is called may miss its answer (ros2/ros2#1253).
        self.clients = {name: self.node.create_client(Trigger, name) for name in ("step", "save_map")}
        self.state = self.node.create_client(GetState, "world/get_state")
        for name, msgtype in (("scan", LaserScan), ("odom", Odometry)):
            self.node.create_subscription(msgtype, name, lambda msg, name=name: self.latest.update({name: msg}), 5)

    def call(self, client, request, timeout_s=math.inf):
        """The answer; None if none came in time."""
        while not client.wait_for_service(timeout_sec=0.2):
            self.child.check()
        future, end_s = client.call_async(request), time.monotonic() + timeout_s
        while not future.done() and time.monotonic() < end_s:
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=0.2)
            self.child.check()
        return future.result() if future.done() else None

    def trigger(self, name):
        answer = self.call(self.clients[name], Trigger.Request())
        if not answer.success:
            raise InputError(f"{name}: {answer.message}")
        return answer.message

    def wait_until_active(self):
        while True:
            answer = self.call(self.state, GetState.Request(), timeout_s=5.0)
            if answer is not None and answer.current_state.label == "active":
                break
            time.sleep(0.2)
        self.wait(lambda: self.command.get_subscription_count() > 0, "subscriber of cmd_vel")

    def step(self, speed_mps=0.0, turn_radps=0.0):
        """One block with this command; what `step` answers, the scan and the odometry at the block's end."""
        twist = Twist()
        twist.linear.x, twist.angular.z = speed_mps, turn_radps
        self.command.publish(twist)
        facts = json.loads(self.trigger("step"))
        wanted = tuple(facts["stamp"])
        self.wait(lambda: all(self.stamp_of(name) == wanted for name in ("scan", "odom")), "scan and odom")
        return facts, self.latest["scan"], self.latest["odom"]

    def stamp_of(self, name):
        message = self.latest.get(name)
        return message and (message.header.stamp.sec, message.header.stamp.nanosec)

    def wait(self, is_there, what):
        end_s = time.monotonic() + WAIT_S
        while not is_there():
            rclpy.spin_once(self.node, timeout_sec=0.1)
            self.child.check()
            if time.monotonic() > end_s:
                raise InputError(f"no {what} came in {WAIT_S:g} s: see {self.child.log}")


is_interrupted = threading.Event()


class Child:
    """The node's process; what it says goes to a file."""

    def __init__(self, log, parameters):
        self.log = log
        arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inspatio_ros.main", "--ros-args", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this program, which then stops the node
            )

    def check(self):
        """An InputError with the node's own words if it has ended; a KeyboardInterrupt after Ctrl-C."""
        if is_interrupted.is_set():
            raise KeyboardInterrupt
        if self.process.poll() is not None:
            text = self.log.read_text(errors="replace")
            said = re.findall(r"\[ERROR\][^:]*: (.*)", text) or text.splitlines()[-1:] or ["without a word"]
            raise InputError(f"the node ended: {said[0]} (see {self.log})")

    def stop(self):
        """As Ctrl-C does: it finishes its bag."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def on_interrupt(number, frame):
    """Ctrl-C is kept for `Child.check`: raised in the midst of rclpy it may be lost. A second one acts at once."""
    is_interrupted.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def started(args):
    """The world, ready to step; gone when the block ends."""
    os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    parameters = {
        "video": args.video or args.out / "room",
        "generator": args.generator,
        "time_mode": "lock_step",
        "step_wait_s": WAIT_S,  # for the command
        "block_frames": BLOCK_FRAMES,
        "height_px": args.size[0],
        "width_px": args.size[1],
        "scan_max_height_m": 1.8,  # at a wall only what is as high as the camera is seen
        "max_speed_mps": SPEED_MPS,
        "record": args.out / "session.mcap",
        "map_path": args.out / "map",
    }
    child = Child(args.out / "node.log", parameters)
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        robot = Robot(child)
        robot.wait_until_active()
        yield robot
        robot.node.destroy_node()
    finally:
        rclpy.try_shutdown()
        child.stop()


def drive(robot, num_blocks, heading_rad):
    """Follow the wall and say how it goes; the way, base poses (x, y, yaw). [num_blocks + 1, 3]"""
    follower = Follower(heading_rad)
    facts, scan, odom = robot.step()
    way, made_up, nearest_m, num_collisions = [floor_pose(odom)], [], math.inf, 0
    print(f"{'block':>5} {'time':>7} {'x':>6} {'y':>6} {'heading':>7} {'nearest':>7} {'made up':>7}")
    for i in range(1, num_blocks + 1):
        speed_mps, turn_radps, distance_m = follower.decide(scan, odom)
        facts, scan, odom = robot.step(speed_mps, turn_radps)
        way.append(floor_pose(odom))
        made_up.append(facts["hallucinated_fraction"])
        nearest_m = min(nearest_m, distance_m)
        num_collisions += facts["has_collided"]
        if i % 10 == 0 or i == num_blocks:
            x_m, y_m, yaw_rad = way[-1]
            print(f"{i:5} {facts['time_s']:5.1f} s {x_m:4.1f} m {y_m:4.1f} m {math.degrees(yaw_rad):6.0f}° "
                  f"{distance_m:5.2f} m {100 * made_up[-1]:5.1f} %")  # fmt: skip
    way = np.array(way)
    distance_m = np.linalg.norm(np.diff(way[:, :2], axis=0), axis=-1).sum()
    print(f"{num_blocks} blocks, {distance_m:.1f} m, nearest approach {nearest_m:.2f} m, {num_collisions} collisions, "
          f"{100 * np.mean(made_up):.1f} % of the pixels made up")  # fmt: skip
    return way


def draw(way, out):
    """The way in the saved map from above; of its points, those that the clip showed."""
    grid, cloud = read_grid(out / "map.yaml"), read_points(out / "map.ply")
    rows, columns = np.nonzero(grid.cells == FREE)
    x_m, y_m = grid.centre_of(np.stack([rows, columns], axis=-1)).T  # the world has x right and z forward
    free = np.floor(np.stack([-y_m, 0 * x_m, x_m], axis=-1) / grid.resolution_m).astype(np.int64)
    path_m = np.stack([-way[:, 1], np.zeros(len(way)), way[:, 0]], axis=-1)
    heading = np.array([-math.sin(way[-1, 2]), 0.0, math.cos(way[-1, 2])])
    is_shown = cloud.source == FILMED
    points = cloud.position_m[is_shown], cloud.rgb_u8[is_shown]
    picture = draw_top_down(*points, free, grid.resolution_m, path_m, heading, size_px=720)
    save_png(out / "way.png", picture)


def main(args):
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.video is None:
        write_demo_clip(args.out / "room", size_px=args.size, camera="turn")
    print(f"starting the node: see {args.out / 'node.log'}", flush=True)
    with started(args) as robot:
        way = drive(robot, args.blocks, math.radians(args.heading))
        robot.trigger("save_map")
    draw(way, args.out)
    print(f"{args.out}: way.png, map.yaml, session.mcap; inspatio-sim bag replay {args.out / 'session.mcap'}")


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def parsed(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, metavar="CLIP", help="that the world is made from (the demo room)")
    parser.add_argument("--generator", choices=GENERATORS, default="warp", help="of the frames (warp)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(96, 160), metavar=("H", "W"), help="of frames in pixels (96 160)"
    )
    parser.add_argument("--blocks", type=int, default=50, metavar="N", help="of 4 frames, to drive (50)")
    parser.add_argument(
        "--heading",
        type=float,
        metavar="DEG",
        help="to go to from the start until something is near, to the left of ahead (the demo room 90, others 0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/ros"), metavar="FOLDER", help="for all results (outputs/ros)"
    )
    args = parser.parse_args(arguments)
    if args.heading is None:
        args.heading = 90.0 if args.video is None else 0.0
    if not abs(args.heading) <= 180:
        parser.error(f"--heading {args.heading:g}: want -180 to 180")
    if args.blocks < 1:
        parser.error(f"--blocks {args.blocks}: want 1 or more")
    return args


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(parsed())
    except (InputError, OSError) as error:
        print(f"ros_wall_follower.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ros_wall_follower.py: interrupted", file=sys.stderr)
        sys.exit(130)
