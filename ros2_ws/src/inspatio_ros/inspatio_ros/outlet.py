"""Output of messages: to subscribers, and into the bag if there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.serialization import serialize_message

from inspatio_ros.topics import PUBLISHED, Topic
from inspatio_sim.errors import InputError


class Outlet:
    """Publishers of all topics in the table; used from several threads.

    Args:
        node: the publishing node.
        bag: bag to record the session in; None: no recording.
    """

    def __init__(self, node: LifecycleNode, bag: Path | None) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._recorder: Any = None
        if bag is not None:
            from inspatio_ros.recording import SessionRecorder  # requires rosbags

            self._recorder = SessionRecorder(bag)
        self._topics: dict[str, Topic] = {topic.name: topic for topic in PUBLISHED if topic.msgtype is not None}
        self._publishers: dict[str, Any] = {
            name: node.create_lifecycle_publisher(topic.msgtype, name, topic.qos)
            for name, topic in self._topics.items()
        }

    @property
    def is_recording(self) -> bool:
        return self._recorder is not None

    def has_readers(self, name: str) -> bool:
        """Whether anybody subscribes to a topic."""
        return name in self._publishers and self._publishers[name].get_subscription_count() > 0

    def send(self, name: str, make: Callable[[], Any], stamp_ns: int, *, always: bool = False) -> bool:
        """Make and publish a message if it has subscribers, or always; returns whether it was made."""
        topic = self._topics.get(name)
        if topic is None:
            return False
        is_wanted = always or self.has_readers(name)
        is_kept = topic.is_recorded and self.is_recording
        if not (is_wanted or is_kept):
            return False
        message = make()
        if is_kept:
            message = serialize_message(message)
            self.record(self._publishers[name].topic_name, topic.type_name, message, stamp_ns)
        if is_wanted:
            self._publishers[name].publish(message)
        return True

    def record(self, full_name: str, type_name: str, serialized: bytes, stamp_ns: int) -> None:
        """Write a message into the bag, if there is one."""
        with self._lock:
            if self._recorder is not None:
                self._recorder.write(full_name, type_name, serialized, stamp_ns)

    def close(self) -> None:
        """Finish the bag and destroy the publishers."""
        with self._lock:
            recorder, self._recorder = self._recorder, None
        if recorder is not None:
            try:
                recorder.close()
            except InputError as error:  # for example a full disk
                self._node.get_logger().error(str(error))
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
