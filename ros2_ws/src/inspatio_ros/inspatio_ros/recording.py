"""What the node publishes, into a bag that `inspatio-sim bag replay` walks again."""

from __future__ import annotations

import threading
from pathlib import Path

from inspatio_sim.bags.files import BagWriter, Storage


class SessionRecorder:
    """A bag that is being written; any thread may call it.

    It appears under its name when it is closed. Until then, and after a crash, it lies in NAME.incomplete beside it,
    readable up to its last second. `inspatio_sim.bags.session` says which messages make it fit for replay; each kind
    is replayed in the order of writing.

    Args:
        path: NAME.mcap or NAME.db3 for one file, anything else for rosbag2's folder.
        storage: of a folder: mcap (by default) or sqlite3.

    Raises:
        InputError: the place cannot be written, or the disk is full; also later, by `write` and `close`.
    """

    def __init__(self, path: str | Path, storage: Storage | None = None) -> None:
        self._writer = BagWriter(path, storage)
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """Where the bag will be."""
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
        """Finish the bag and give it its name; closing again does nothing."""
        with self._lock:
            self._writer.close()
