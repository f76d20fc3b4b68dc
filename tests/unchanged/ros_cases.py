"""The case of the ROS 2 node: a session in lock-step, in a process and a domain of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.unchanged import doors
from tests.unchanged.command_cases import CLIP
from tests.unchanged.contents import contents
from tests.unchanged.messages import bag_values, message_values

NOT_HEARD = {
    "/diagnostics": "wall times, and published by the wall clock",
    "/clock": "best effort, so that one may be lost; it is compared in the bag",
    "/tf": "compared in the bag",
    "/tf_static": "compared in the bag",
}
GOALS = ("plan", "goal_distance", "goal_result")  # only while a goal is under way
NOT_AT_FIRST = ("map", "map_points", "path", *GOALS)  # what the first frame, shown again, comes without
LOAD_S = 300.0
SETTLE_S = 2.0  # until the node knows all who listen; nothing is published to those it does not know
ALWAYS = {"map_period_s": 0.0, "map_points_period_s": 0.0, "path_period_s": 0.0}
"""Periods of 0: maps with every block, whatever the wall clock says."""

DRIVE = ((0.5, 0.0), (0.5, 0.4), (0.3, -0.8), (0.0, 1.0), (-0.2, 0.0))  # m/s, rad/s
ONWARDS = ((0.5, 1.0), (0.5, 0.5))
GOAL_XY_M = (0.3, 0.1)
NUM_GOAL_STEPS = 24  # of which it takes 18


def ros(folder: Path) -> dict[str, Any]:
    """Velocities, a snapshot and the way back, a 6-DoF motion, a goal, the map; and the bag of it all."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    parameters = {
        "video": str(folder / CLIP), "time_mode": "lock_step", "autostart": False, "step_wait_s": 30.0,
        "record": str(folder / "session.mcap"), "map_path": str(folder / "saved" / "map"), **ALWAYS,
    }  # fmt: skip
    (folder / "saved").mkdir()
    with doors.ros_node(folder, **parameters) as client, ExitStack() as stack:
        configure = ChangeState.Request(transition=Transition(label="configure"))
        if not client.request("world/change_state", ChangeState, configure, LOAD_S).success:
            raise RuntimeError("the node cannot load its world")
        inboxes = {
            name: stack.enter_context(client.inbox(name, kind, qos))
            for name, kind, qos in doors.published_topics()
            if name not in NOT_HEARD
        }
        session = Session(client, inboxes)
        session.activate()
        session.drive(DRIVE)
        client.done("snapshot")
        session.drive(ONWARDS)
        session.call("restore")
        session.drive(ONWARDS)
        session.call("reset")
        session.nudge()
        session.go_to(*GOAL_XY_M)
        client.done("save_map")
        facts = session.facts
    return {
        "facts": facts,
        **session.values(),
        **contents(folder / "saved", "saved"),
        **bag_values(folder / "session.mcap", "bag"),
        "replay": doors.command("bag", "replay", folder / "session.mcap"),
    }


class Session:
    """What is asked of the node, and what it says: after each block, the messages of that block's last frame."""

    def __init__(self, client: Any, inboxes: dict[str, Any]) -> None:
        self._client, self._inboxes = client, inboxes
        self._heard: dict[str, list[Any]] = {name: [] for name in inboxes}
        self.facts: list[dict[str, Any]] = []

    def activate(self) -> None:
        """Until everybody has heard the first frame: each time it is shown again, and no time passes."""
        every_frame = [inbox for name, inbox in self._inboxes.items() if name not in NOT_AT_FIRST]
        for _ in range(10):
            time.sleep(SETTLE_S)
            self._client.change_state("world", "activate")
            try:
                for inbox in every_frame:
                    inbox.wait(1, SETTLE_S)
            except AssertionError:
                self._client.change_state("world", "deactivate")
                continue
            return
        raise RuntimeError("some topics have no message of the first frame")

    def drive(self, velocities: tuple[tuple[float, float], ...]) -> None:
        """One block for each velocity."""
        from geometry_msgs.msg import Twist

        with self._client.publisher("cmd_vel", Twist) as publisher:
            for x_mps, turn_radps in velocities:
                message = Twist()
                message.linear.x, message.angular.z = x_mps, turn_radps
                publisher.publish(message)
                self.call("step")

    def nudge(self) -> None:
        """One block of a 6-DoF motion."""
        from geometry_msgs.msg import TwistStamped

        with self._client.publisher("camera/pose_delta", TwistStamped) as publisher:
            message = TwistStamped()
            message.header.frame_id = "camera_link"
            message.twist.linear.z, message.twist.angular.y = 0.05, 0.1
            publisher.publish(message)
            self.call("step")

    def go_to(self, x_m: float, y_m: float) -> None:
        """So many blocks that the goal is reached; the number is fixed, since it is not sure when one hears of that."""
        from geometry_msgs.msg import PoseStamped

        with self._client.publisher("goal_pose", PoseStamped) as publisher:
            message = PoseStamped()
            message.header.frame_id = "map"
            message.pose.position.x, message.pose.position.y = x_m, y_m
            publisher.publish(message)
            self.call("step")  # which waits for the goal; later ones need not
            if not self._client.set_parameter("world", "step_wait_s", 0.0).successful:
                raise RuntimeError("step_wait_s cannot be set")
            for _ in range(NUM_GOAL_STEPS - 1):
                self.call("step")
            self._inboxes["goal_result"].wait()
        for name in GOALS:
            self._heard[name] = list(self._inboxes[name].messages)

    def call(self, service: str) -> None:
        """Ask for a block, and wait for its messages."""
        facts = self._client.facts(service)
        self.facts.append({"service": service, **facts})
        for name, inbox in self._inboxes.items():
            if name not in GOALS:
                self._heard[name].append(inbox.wait_for(_is_at(facts["stamp"])))

    def values(self) -> dict[str, Any]:
        """By topic."""
        values: dict[str, Any] = {}
        for name, messages in self._heard.items():
            values |= message_values(messages, name)
        return values


def _is_at(stamp: list[int]) -> Callable[[Any], bool]:
    return lambda message: [message.header.stamp.sec, message.header.stamp.nanosec] == stamp
