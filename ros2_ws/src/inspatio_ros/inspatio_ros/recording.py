"""Record what the node publishes in a bag for `inspatio-sim bag replay`."""

from __future__ import annotations

import threading
from pathlib import Path

from inspatio_sim.bags.files import BagWriter, Storage


class SessionRecorder:
    """A bag being written; thread-safe.

    It appears under its name when it is closed. Until then, and after a crash, it is in NAME.incomplete beside it,
    readable up to its last second. `inspatio_sim.bags.session` defines the messages needed for a replay; each kind
    is replayed in the order of writing.

    Args:
        path: NAME.mcap or NAME.db3 for one file, any other name for a rosbag2 folder.
        storage: format of a folder: mcap (default) or sqlite3.

    Raises:
        InputError: the path cannot be written, or the disk is full; `write` and `close` raise it too.
    """

    def __init__(self, path: str | Path, storage: Storage | None = None) -> None:
        self._writer = BagWriter(path, storage)
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """Path of the finished bag."""
        return self._writer.path

    def write(self, topic: str, msgtype: str, serialized: bytes, stamp_ns: int) -> None:
        """Append one message.

        Args:
            topic: its full name, such as /camera/image_raw.
            msgtype: such as sensor_msgs/msg/Image.
            serialized: the message in CDR, as `rclpy.serialization.serialize_message` gives it.
            stamp_ns: sim time.
        """
        with self._lock:
            self._writer.write(topic, msgtype, serialized, stamp_ns)

    def close(self) -> None:
        """Finish the bag and give it its name; may be called again."""
        with self._lock:
            self._writer.close()
