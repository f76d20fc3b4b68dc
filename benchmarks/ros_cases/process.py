"""A node in a process of its own, and a subscriber in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from inspatio_ros.domain import free_domain
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import try_shutdown

from inspatio_sim.errors import InputError

START_S = 300.0  # to load a world on a slow machine
POLL_S = 0.05
ANSWER_S = 5.0  # until a question is asked again: the answer to a client that is new may be lost (ros2/ros2#1253)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One message at its callback; times in ns."""

    stamp_ns: int  # sim time
    sent_ns: int  # wall time at which the publisher handed it to DDS
    came_ns: int  # wall time


@dataclass
class Arrivals:
    """What came on a topic."""

    keeps_data: bool = False
    all: list[Arrival] = field(default_factory=list)
    kept: list[tuple[int, bytes]] = field(default_factory=list)  # wall time in ns, and an image's pixels

    def came(self, message: Any, info: Any) -> None:
        came_ns = time.time_ns()
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        self.all.append(Arrival(stamp_ns=stamp_ns, sent_ns=info["source_timestamp"], came_ns=came_ns))
        if self.keeps_data:
            self.kept.append((came_ns, bytes(message.data)))


class NodeProcess:
    """The node, and how to talk to it."""

    def __init__(self, module: str, parameters: Mapping[str, Any], folder: Path) -> None:
        self.log = folder / "node.log"
        arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={_text(value)}")]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node("benchmark", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def wait_until_active(self) -> None:
        client = self.node.create_client(GetState, "world/get_state")
        self.wait(client.service_is_ready, "node", START_S)
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            future = client.call_async(GetState.Request())
            asked_s = time.monotonic()
            while not future.done() and time.monotonic() < asked_s + ANSWER_S:
                self._check()
                time.sleep(POLL_S)
            answer = future.result() if future.done() else None
            if answer is not None and answer.current_state.label == "active":
                return
            client.remove_pending_request(future)
            time.sleep(POLL_S)
        raise InputError(f"the node was not active after {START_S:g} s")

    @contextmanager
    def listening(
        self, topics: Mapping[str, Any], reliability: ReliabilityPolicy, *, keep: bool = False
    ) -> Iterator[dict[str, Arrivals]]:
        """Subscribe to topics (name -> type) while the block runs; it begins when something came on each of them."""
        qos = QoSProfile(depth=5, reliability=reliability)
        found = {name: Arrivals(keeps_data=keep) for name in topics}
        heard: dict[str, Any] = {name: arrivals.came for name, arrivals in found.items()}
        subscriptions = [self.node.create_subscription(kind, name, heard[name], qos) for name, kind in topics.items()]
        try:
            self.wait(lambda: all(arrivals.all for arrivals in found.values()), "messages", 30.0)
            for arrivals in found.values():
                arrivals.all.clear()
            yield found
        finally:
            for subscription in subscriptions:
                self.node.destroy_subscription(subscription)

    @contextmanager
    def diagnostics(self) -> Iterator[list[dict[str, str]]]:
        """What the node says of itself, while the block runs."""
        found: list[dict[str, str]] = []

        def came(message: Any) -> None:
            found.append({pair.key: pair.value for pair in message.status[0].values})

        subscription = self.node.create_subscription(DiagnosticArray, "/diagnostics", came, 10)
        try:
            yield found
        finally:
            self.node.destroy_subscription(subscription)

    def sleep(self, seconds: float) -> None:
        """Let it run; an InputError if it ends."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left_s, 1.0))

    def wait(self, is_so: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
        end_s = time.monotonic() + timeout_s
        while not is_so():
            self._check()
            if time.monotonic() > end_s:
                raise InputError(f"no {what} after {timeout_s:g} s")
            time.sleep(POLL_S)

    def wait_for_one(self, found: list[dict[str, str]]) -> dict[str, str]:
        """The first of the `diagnostics` to come."""
        self.wait(lambda: found, "diagnostics")
        return found[0]

    @property
    def resident_bytes(self) -> int:
        """Memory of the node's process."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        try_shutdown(context=self._context)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def _check(self) -> None:
        if self._process.poll() is not None:
            lines = self.log.read_text(errors="replace").splitlines() or ["without a word"]
            raise InputError(f"the node ended: {lines[-1]}")


@contextmanager
def running(module: str, parameters: Mapping[str, Any]) -> Iterator[NodeProcess]:
    """A node that is active, on a domain of its own on this machine; gone when the block ends."""
    os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with TemporaryDirectory(prefix="inspatio-ros-") as folder:
        process = NodeProcess(module, parameters, Path(folder))
        try:
            process.wait_until_active()
            yield process
        finally:
            process.close()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
