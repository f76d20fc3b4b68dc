"""The node in a process of its own, and a client in this one, on a private domain of the loopback interface."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rclpy
from inspatio_ros.domain import free_domain
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

DOMAIN_ID = free_domain()
ALONE = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(DOMAIN_ID), "OMP_NUM_THREADS": "1"}
SMALL_WORLD = {"generator": "warp", "height_px": 48, "width_px": 80, "max_frames": 6}
WAIT_S = 30.0
SETTLE_S = (
    0.5  # until the other side knows a new client or publisher too: answers before that are lost (ros2/ros2#1253)
)


class Inbox:
    """What came on a topic."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.times_s: list[float] = []
        self._came = threading.Condition()

    def put(self, message: Any) -> None:
        with self._came:
            self.messages.append(message)
            self.times_s.append(time.perf_counter())
            self._came.notify_all()

    def clear(self) -> None:
        with self._came:
            self.messages.clear()
            self.times_s.clear()

    def wait(self, num_messages: int = 1, timeout_s: float = WAIT_S) -> list[Any]:
        with self._came:
            came = self._came.wait_for(lambda: len(self.messages) >= num_messages, timeout_s)
            assert came, f"{len(self.messages)} of {num_messages} messages after {timeout_s} s"
            return list(self.messages)

    def wait_for(self, is_it: Callable[[Any], bool], timeout_s: float = WAIT_S) -> Any:
        with self._came:
            found: list[Any] = []

            def look() -> bool:
                found[:] = [message for message in self.messages if is_it(message)]
                return bool(found)

            assert self._came.wait_for(look, timeout_s), f"not among {len(self.messages)} messages in {timeout_s} s"
            return found[0]


class Client:
    """A node of the test, with an executor in its own thread."""

    def __init__(self) -> None:
        os.environ.update(ALONE)
        os.environ.setdefault("HOME", "/tmp")
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=DOMAIN_ID)
        self.node = rclpy.create_node(f"tester_{os.getpid()}", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self._clients: dict[str, Any] = {}

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    @contextlib.contextmanager
    def inbox(self, topic: str, msgtype: Any, qos: QoSProfile | int = 50) -> Iterator[Inbox]:
        inbox = Inbox()
        subscription = self.node.create_subscription(msgtype, topic, inbox.put, qos)
        try:
            self.until(lambda: self.node.count_publishers(topic) > 0, f"a publisher of {topic}")
            yield inbox
        finally:
            self.node.destroy_subscription(subscription)

    @contextlib.contextmanager
    def publisher(self, topic: str, msgtype: Any, qos: QoSProfile | int = 10) -> Iterator[Any]:
        publisher = self.node.create_publisher(msgtype, topic, qos)
        try:
            self.until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
            time.sleep(SETTLE_S)
            yield publisher
        finally:
            self.node.destroy_publisher(publisher)

    def request(self, name: str, srvtype: Any, request: Any, timeout_s: float = WAIT_S) -> Any:
        is_new = name not in self._clients
        if is_new:
            self._clients[name] = self.node.create_client(srvtype, name)
        client = self._clients[name]
        assert client.wait_for_service(timeout_s), f"no service {name}"
        if is_new:
            time.sleep(SETTLE_S)
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        assert done.wait(timeout_s), f"no answer from {name} in {timeout_s} s"
        return future.result()

    def trigger(self, name: str) -> Any:
        return self.request(name, Trigger, Trigger.Request())

    def done(self, name: str) -> str:
        """Call a service that has to succeed; its message."""
        answer = self.trigger(name)
        assert answer.success, f"{name}: {answer.message}"
        return answer.message

    def facts(self, name: str) -> dict[str, Any]:
        return json.loads(self.done(name))

    def set_parameter(self, node: str, name: str, value: Any) -> SetParametersResult:
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.request(f"{node}/set_parameters", SetParameters, request).results[0]

    def get_parameter(self, node: str, name: str) -> Any:
        answer = self.request(f"{node}/get_parameters", GetParameters, GetParameters.Request(names=[name]))
        return parameter_value_to_python(answer.values[0])

    def state(self, node: str) -> str:
        return self.request(f"{node}/get_state", GetState, GetState.Request()).current_state.label

    def change_state(self, node: str, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return self.request(f"{node}/change_state", ChangeState, request).success

    @staticmethod
    def until(is_so: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        end_s = time.perf_counter() + timeout_s
        while not is_so():
            assert time.perf_counter() < end_s, f"no {what} in {timeout_s} s"
            time.sleep(0.02)


class WorldProcess:
    """`inspatio-ros` as another process; its output goes to a file."""

    def __init__(self, folder: Path, namespace: str = "", **parameters: Any) -> None:
        self.log = folder / f"log{namespace.replace('/', '_')}_{time.monotonic_ns()}.txt"
        values = {**SMALL_WORLD, **parameters}
        arguments = ["--ros-args", "-r", f"__ns:=/{namespace}"] if namespace else ["--ros-args"]
        for name, value in values.items():
            text = str(value).lower() if isinstance(value, bool) else f"'{value}'" if value == "" else str(value)
            arguments += ["-p", f"{name}:={text}"]
        environment = os.environ | ALONE | {"ROS_LOG_DIR": str(folder)}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inspatio_ros.main", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(2 * WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9
