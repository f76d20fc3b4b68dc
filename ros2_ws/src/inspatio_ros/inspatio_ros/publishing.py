"""Publishing: the messages of each frame, the map from time to time, and the recorded session."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped, Vector3
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import serialize_message
from std_msgs.msg import Float32, Header, String

from inspatio_ros import conversions
from inspatio_ros.diagnostics import Gauge
from inspatio_ros.driving import Driver, Goal
from inspatio_ros.frames import MAP, MESSAGES, OPTICAL, Moment
from inspatio_ros.outlet import Outlet
from inspatio_ros.parameters import Parameters
from inspatio_ros.simulation import Block, Simulation, Snapshot
from inspatio_ros.topics import TFMessage
from inspatio_sim.bags.session import MOTION, SESSION, SNAPSHOT, TIME_MODE, Session
from inspatio_sim.mapping import PlanningGrid
from inspatio_sim.motion.camera import Array
from inspatio_sim.world.source import ClipSource
from inspatio_sim.world.world import World

MAX_PATH_POSES = 2048  # beyond that every other one is dropped
LATE_PERIOD_S = 1.0  # minimum wall time between two maps for late subscribers
WARN_PERIOD_S = 5.0
STRING = "std_msgs/msg/String"


class Publishing:
    """Makes messages of blocks; `show` and `survey` are called in the threads of the simulation.

    Args:
        node: for its log and names.
        outlet: where messages go.
        source: source of the world, for the recorded session.
        parameters: parameters; can be replaced at any time.
    """

    def __init__(self, node: LifecycleNode, outlet: Outlet, source: ClipSource, parameters: Parameters) -> None:
        self.parameters = parameters
        self.gauge = Gauge()
        self.camera_height_m = 0.0
        self.is_silent = True  # while the node is not active
        self._node, self._outlet, self._source = node, outlet, source
        self._taken: list[Snapshot] = []  # not yet named in the recorded session
        self._surveyed: dict[str, tuple[float, float]] = {}  # topic -> sim and wall time of its last message
        self._path: list[PoseStamped] = []
        self._path_sent_s = -math.inf
        self._T_map_base: Array | None = None
        self._goal: Goal | None = None
        self._num_shown = 0  # number of frames shown, counted like `Block.first_frame`
        self._has_static_tf = False

    def begin(self) -> None:
        """Start publishing."""
        self.is_silent = self._has_static_tf = False

    def name_snapshot(self, snapshot: Snapshot) -> None:
        """Record that a snapshot was just taken."""
        self._taken.append(snapshot)

    def show(self, block: Block, frame_idx: int, world: World, driver: Driver) -> None:
        """Publish a frame."""
        if self.is_silent and not self._outlet.is_recording:
            return
        started_s = time.perf_counter()
        try:
            self._send_frame(block, frame_idx, world, driver)
        except Exception as error:  # noqa: BLE001 - the next frame may do better
            if self._node.context.ok():
                self._node.get_logger().error(
                    f"frame at {block.time_s(frame_idx):.3f} s: {type(error).__name__}: {error}",
                    throttle_duration_sec=WARN_PERIOD_S,
                )
        now_s = time.perf_counter()
        self.gauge.sent(now_s - started_s)
        is_waiting = self.parameters.time_mode == "lock_step"  # for the caller of `step`, not for the command
        if frame_idx == 0 and block.motion.received_s is not None and not is_waiting:
            self.gauge.latency(now_s - block.motion.received_s)

    def survey(self, world: World, time_s: float, is_restart: bool) -> dict[str, Any]:
        """Messages about the map that are due, by topic; called in the world's thread."""
        messages: dict[str, Any] = {}
        for name, period_s in self._survey_periods_s().items():
            sent_s = -math.inf if is_restart else self._surveyed.get(name, (-math.inf, 0.0))[0]
            if self._outlet.has_readers(name) and time_s - sent_s >= period_s:
                messages[name] = self._survey_msg(name, world, time_s)
        return messages

    def look_for_late_readers(self, simulation: Simulation) -> None:
        """Send the map to new subscribers while the world stands still."""
        if self.is_silent:
            return
        now_s, late = time.perf_counter(), []
        for name, period_s in self._survey_periods_s().items():
            time_s, wall_s = self._surveyed.get(name, (-math.inf, -math.inf))
            has_news = time_s < simulation.time_s and now_s - wall_s >= max(period_s, LATE_PERIOD_S)
            if has_news and self._outlet.has_readers(name):
                late.append(name)

        def send() -> None:
            for name in late:
                time_s = simulation.time_s
                message = self._survey_msg(name, simulation.world, time_s)
                self._outlet.send(name, lambda message=message: message, round(time_s * 1e9), always=True)

        if late:
            simulation.run(send)

    def grid(self, world: World) -> PlanningGrid:
        """The floor plan; called in the world's thread."""
        asked = self.parameters
        return world.map.planning_grid(step_height_m=asked.step_height_m, robot_height_m=asked.robot_height_m)

    def _survey_periods_s(self) -> dict[str, float]:
        return {"map": self.parameters.map_period_s, "map_points": self.parameters.map_points_period_s}

    def _survey_msg(self, name: str, world: World, time_s: float) -> Any:
        self._surveyed[name] = time_s, time.perf_counter()
        stamp, frame_id = conversions.time_msg(time_s), self.parameters.frame_prefix + MAP
        if name == "map":
            return conversions.grid_msg(self.grid(world), stamp, frame_id)
        points_m = world.map.points_m
        exists = ~np.isnan(points_m[:, 0])
        points_m = points_m[exists] @ conversions.T_MAP_WORLD[:3, :3].T.astype(np.float32)
        return conversions.cloud_msg(points_m, world.map.rgb_u8[exists], stamp, frame_id)

    # Parts of a frame

    def _send_frame(self, block: Block, frame_idx: int, world: World, driver: Driver) -> None:
        outlet = self._outlet
        is_new = block.first_frame + frame_idx >= self._num_shown
        self._num_shown = max(self._num_shown, block.first_frame + frame_idx + 1)
        has_jumped = block.is_restart and frame_idx == 0
        moment = Moment(
            block=block,
            frame_idx=frame_idx,
            intrinsics=world.reference.intrinsics,
            camera_height_m=self.camera_height_m,
            parameters=self.parameters,
            T_map_base_before=None if has_jumped else self._T_map_base,
        )
        if is_new and frame_idx == 0 and outlet.is_recording:
            self._record_commands(block, world)
        self._send_transforms(moment)
        for name, make in MESSAGES.items():
            if name != "/clock" or self.parameters.publish_clock:
                outlet.send(name, lambda make=make: make(moment), moment.stamp_ns)
        if has_jumped:
            self._path.clear()
            self._path_sent_s = -math.inf
        if is_new:
            self._T_map_base = moment.T_map_base
            self._send_path(moment)
        if frame_idx == block.num_frames - 1:
            for name, message in (block.survey or {}).items():
                outlet.send(name, lambda message=message: message, moment.stamp_ns, always=True)
            self._send_goal(moment, driver.goal)

    def _send_transforms(self, moment: Moment) -> None:
        if not (self.parameters.publish_tf and TFMessage is not None):
            return
        if not self._has_static_tf:
            self._has_static_tf = self._outlet.send(
                "/tf_static", lambda: TFMessage(transforms=moment.static_transforms()), moment.stamp_ns, always=True
            )
        self._outlet.send("/tf", lambda: TFMessage(transforms=moment.transforms()), moment.stamp_ns)

    def _send_path(self, moment: Moment) -> None:
        self._path.append(moment.pose())
        if len(self._path) > MAX_PATH_POSES:
            del self._path[::2]
        time_s = moment.block.time_s(moment.frame_idx)
        if time_s - self._path_sent_s >= self.parameters.path_period_s:
            header = Header(stamp=moment.stamp, frame_id=moment.frame(MAP))
            if self._outlet.send("path", lambda: Path(header=header, poses=list(self._path)), moment.stamp_ns):
                self._path_sent_s = time_s

    def _send_goal(self, moment: Moment, goal: Goal | None) -> None:
        before, self._goal = self._goal, goal
        if goal is None:
            return
        if goal.state == "driving" and math.isfinite(goal.distance_m):
            self._outlet.send("goal_distance", lambda: Float32(data=goal.distance_m), moment.stamp_ns)
        elif goal.state != "driving" and (before is None or before.state != goal.state):
            self._outlet.send("goal_result", lambda: String(data=goal.state), moment.stamp_ns, always=True)
            self._node.get_logger().info(f"goal ({goal.x_m:.2f}, {goal.y_m:.2f}): {goal.state}")
        if goal.path_m is not None and (before is None or before.path_m is not goal.path_m):
            self._outlet.send("plan", lambda: _plan_msg(goal, moment), moment.stamp_ns, always=True)

    # The session

    def _record_commands(self, block: Block, world: World) -> None:
        """Record what `replay_session` needs, and the received commands."""
        while self._taken and self._taken[0].first_frame <= block.first_frame:
            name = self._taken.pop(0).name
            self._record(SNAPSHOT, STRING, String(data=name), block.start_s)
        if block.is_restart:
            start_s = block.time_s(0) - float(block.observation.time_s[0])
            resumes = None if block.resumes is None else block.resumes.name
            text = Session.of(world, self._source, start_s=start_s, resumes=resumes).to_json()
            self._record(SESSION, STRING, String(data=text), block.time_s(0))
            return
        header = Header(stamp=conversions.time_msg(block.start_s), frame_id=self.parameters.frame_prefix + OPTICAL)
        for delta in block.motion.deltas:
            vx, vy, vz, wx, wy, wz = delta.twist.tolist()
            twist = Twist(linear=Vector3(x=vx, y=vy, z=vz), angular=Vector3(x=wx, y=wy, z=wz))
            message = TwistStamped(header=header, twist=twist)
            self._record(MOTION, "geometry_msgs/msg/TwistStamped", message, block.start_s)
        if block.clock is not None:
            self._record(TIME_MODE, STRING, String(data=block.clock), block.start_s)
        note = block.motion.note
        if isinstance(note, (Twist, TwistStamped)):
            kind = "TwistStamped" if isinstance(note, TwistStamped) else "Twist"
            self._record("cmd_vel", f"geometry_msgs/msg/{kind}", note, block.start_s)
        elif isinstance(note, PoseStamped):
            self._record("goal_pose", "geometry_msgs/msg/PoseStamped", note, block.start_s)

    def _record(self, name: str, type_name: str, message: Any, time_s: float) -> None:
        stamp = conversions.time_msg(time_s)
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        full_name = self._node.resolve_topic_name(name)
        self._outlet.record(full_name, type_name, serialize_message(message), stamp_ns)


def _plan_msg(goal: Goal, moment: Moment) -> Path:
    header = Header(stamp=moment.stamp, frame_id=moment.frame(MAP))
    assert goal.path_m is not None, "the goal has a path"
    poses = [PoseStamped(header=header) for _ in goal.path_m]
    for pose, (x_m, y_m) in zip(poses, goal.path_m.tolist(), strict=True):
        pose.pose.position.x, pose.pose.position.y = x_m, y_m
    return Path(header=header, poses=poses)
