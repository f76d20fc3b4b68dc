"""Bags on disk: MCAP and sqlite3 in and out, ROS 1 in.

Messages are read with the definitions of ROS 2 Jazzy (ROS 1 Noetic), never with those in the bag,
which would become code. The common types are the same in all distributions.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from inspatio_sim.clips.images import check_readable
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import writing_to

try:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
    from rosbags.rosbag1 import Reader as Ros1Reader
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
    from rosbags.rosbag2.errors import ReaderError
    from rosbags.rosbag2.storage_mcap import McapReader, McapWriter
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    from rosbags.typesys.store import Typestore
except ImportError as error:
    raise InputError(f"bags need the package rosbags ({error}): pip install 'inspatio-sim[ros]'") from error

Storage = Literal["mcap", "sqlite3"]

SUFFIXES: dict[str, Storage] = {".mcap": "mcap", ".db3": "sqlite3"}
LATCHED = ("tf_static", "map", "map_points", "session")  # last parts of topics that also reach late subscribers
INCOMPLETE = ".incomplete"
FLUSH_S = 1.0  # at most this much is lost if the recorder is killed
METADATA = "metadata.yaml"
MCAP_MAGIC = b"\x89MCAP0\r\n"
_MCAP_FOOTER, _MCAP_DATA_END = 0x02, 0x0F


@cache
def typestore() -> Typestore:
    """The message types of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


@cache
def ros1_typestore() -> Typestore:
    """The message types of ROS 1 Noetic, with old and new tf."""
    store = get_typestore(Stores.ROS1_NOETIC)
    for name in ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"):
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", name))
    return store


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One topic of a bag."""

    name: str
    msgtype: str  # such as sensor_msgs/msg/Image
    num_messages: int


class Bag:
    """A bag open for reading: a file (.mcap, .db3, .bag of ROS 1) or rosbag2's folder.

    A truncated MCAP file gives its complete records (`is_cut`); a sqlite3 file is first rolled
    back to its last commit.

    Raises:
        InputError: no such file, not a bag, or damaged; one line that names it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_readable(self.path)
        self.is_cut = False
        self._types = typestore()
        with self._reading():
            self._reader = self._opened(self.path)
        self._connections: dict[str, list[Any]] = {}  # in ROS 1 one for each publisher
        for connection in self._reader.connections:
            known = self._connections.setdefault(connection.topic, [])
            if not known or connection.msgtype == known[0].msgtype:
                known.append(connection)
        self.topics = {
            name: Topic(name=name, msgtype=known[0].msgtype, num_messages=sum(item.msgcount for item in known))
            for name, known in sorted(self._connections.items())
        }
        self.duration_s = self._reader.duration * 1e-9 if self._reader.message_count else 0.0

    def messages(self, *names: str) -> Iterator[tuple[str, int, Any]]:
        """Messages of these topics in time order: topic, recording time in ns, message."""
        connections = [connection for name in names for connection in self._connections[name]]
        for connection in connections:
            if connection.msgtype not in self._types.types:
                raise InputError(f"{self.path}: topic {connection.topic} is a {connection.msgtype}: no known type")
        read = self._types.deserialize_ros1 if isinstance(self._reader, Ros1Reader) else self._types.deserialize_cdr
        if not connections:  # rosbags would take that for all of them
            return
        with self._reading():
            found = iter(self._reader.messages(connections))
        while True:
            with self._reading():
                record = next(found, None)
                if record is None:
                    return
                connection, stamp_ns, data = record
                message = read(data, connection.msgtype)
            yield connection.topic, stamp_ns, message

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _opened(self, path: Path) -> Reader | Ros1Reader:
        if path.suffix == ".bag":
            reader = Ros1Reader(path)
            reader.open()
            self._types = ros1_typestore()
            return reader
        if path.is_dir():
            return self._opened_folder(path)
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: not a bag: want a file .mcap, .db3 or .bag, or a folder with {METADATA}")
        reader = Reader(path)
        if path.suffix == ".mcap":
            reader.storage = _Mcap(path)
        else:
            self.is_cut = _recover(path)
        reader.open()
        self.is_cut |= isinstance(reader.storage, _Mcap) and reader.storage.is_cut
        return reader

    def _opened_folder(self, folder: Path) -> Reader | Ros1Reader:
        files = sorted(
            file for suffix in SUFFIXES for file in [*folder.glob(f"*{suffix}"), *folder.glob(f"*/*{suffix}")]
        )
        if (folder / METADATA).is_file():
            try:
                reader = Reader(folder)
                reader.open()
                return reader
            except Exception:
                if len(files) != 1:
                    raise
        elif len(files) != 1:
            raise InputError(f"{folder}: not a bag: no {METADATA}, and {len(files)} files .mcap or .db3: want one")
        reader = self._opened(files[0])
        self.is_cut = True
        return reader

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a damaged file can raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{self.path}: damaged, cut off, or not a bag ({reason})") from error


class _Mcap(McapReader):
    """Reads the complete records of a truncated file."""

    is_cut = False

    def _open(self) -> None:
        try:
            super()._open()
        except Exception as error:
            assert self.bio
            self.bio.seek(0)
            if self.bio.read(8) != MCAP_MAGIC:
                raise ReaderError("not an MCAP file") from error
            self._open_cut()
            self.is_cut = True

    def _open_cut(self) -> None:
        """Build the index by scanning all complete records."""
        assert self.bio
        for found in (self.schemas, self.channels, self.chunks, self.connections):
            found.clear()
        num_bytes = self.path.stat().st_size
        self.data_start = self.data_end = _end_of_record(self.bio, len(MCAP_MAGIC), num_bytes) or num_bytes
        while end := _end_of_record(self.bio, self.data_end, num_bytes):
            self.data_end = end
        self.meta_scan()
        assert self.statistics
        counts = self.statistics.channel_message_counts
        self.connections[:] = [item._replace(msgcount=counts.get(item.id, 0)) for item in self.connections]
        if self.statistics.message_count:
            start, end = self.statistics.start_time, self.statistics.end_time + 1
            self.metadata = self.metadata._replace(
                duration=end - start, start_time=start, end_time=end, message_count=self.statistics.message_count
            )


def _end_of_record(file: Any, start: int, num_bytes: int) -> int | None:
    """Where the MCAP record at `start` ends; None if it is incomplete or not data."""
    file.seek(start)
    head = file.read(9)
    if len(head) < 9 or head[0] in (_MCAP_FOOTER, _MCAP_DATA_END):
        return None
    end = start + 9 + int.from_bytes(head[1:], "little")
    return end if end <= num_bytes else None


def _recover(path: Path) -> bool:
    """Let sqlite roll a database back to its last commit; returns whether that was needed."""
    if not any(path.with_name(f"{path.name}{end}").exists() for end in ("-journal", "-wal")):
        return False
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    finally:
        connection.close()
    return True


class BagWriter:
    """Writes a bag, which appears under its name when it is complete.

    Until then it is in the folder NAME.incomplete beside it, which stays if the process is killed and is readable
    (`Bag`) up to its last second.

    Args:
        path: NAME.mcap or NAME.db3 for one file, any other name for a rosbag2 folder. An existing file is
            replaced at the end.
        storage: format of a folder: mcap (default) or sqlite3.
        is_compressed: write MCAP chunks with zstd: smaller, slower.

    Raises:
        InputError: the path cannot be written, or the disk is full.
    """

    def __init__(self, path: str | Path, storage: Storage | None = None, *, is_compressed: bool = False) -> None:
        self.path = Path(path)
        self._is_file = self.path.suffix in SUFFIXES
        storage = _storage(self.path, storage)
        if self.path.is_dir() and (self._is_file or any(self.path.iterdir())):
            raise InputError(f"{self.path}: is a folder: want a new file such as {self.path / 'run.mcap'}")
        if not self._is_file and self.path.is_file():
            raise InputError(f"{self.path}: is a file: want NAME.mcap, NAME.db3 or a new folder")
        self._staging = _free_name(self.path)
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(
            self._staging / (self.path.stem if self._is_file else self.path.name), version=9, storage_plugin=plugin
        )
        if is_compressed and storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Any] = {}
        self._last_ns = -1
        self._flushed_s = time.monotonic()
        self.num_messages = 0
        self.is_open = True
        with self._writing():
            self._writer.open()

    def write(self, topic: str, msgtype: str, serialized: bytes | memoryview, stamp_ns: int) -> None:
        """Append one message.

        Args:
            topic: its full name, such as /camera/image_raw.
            msgtype: such as sensor_msgs/msg/Image.
            serialized: the message in CDR.
            stamp_ns: time. Every message is recorded at least a nanosecond after the one before, so that
                the order is kept.
        """
        if not self.is_open:
            raise InputError(f"{self.path}: is closed: nothing more can be written")
        connection = self._connections.get(topic)
        with self._writing():
            if connection is None:
                connection = self._connections[topic] = self._add(topic, msgtype)
            elif connection.msgtype != msgtype:
                raise InputError(f"topic {topic}: {msgtype} after {connection.msgtype}: want one type per topic")
            self._last_ns = max(self._last_ns + 1, stamp_ns)
            self._writer.write(connection, self._last_ns, serialized)
            self.num_messages += 1
            if time.monotonic() - self._flushed_s > FLUSH_S:
                self.flush()

    def flush(self) -> None:
        """Flush to the system, so that everything so far survives this process."""
        storage = self._writer.storage
        with self._writing():
            if isinstance(storage, McapWriter):
                if storage.chunk.msgs:
                    storage.close_chunk()
                storage.bio.flush()
            elif isinstance(storage, Sqlite3Writer):
                storage.conn.commit()
        self._flushed_s = time.monotonic()

    def close(self) -> None:
        """Finish the bag and give it its name; may be called again."""
        if not self.is_open:
            return
        self.is_open = False
        with self._writing():
            self._writer.close()
            written = self._writer.path
            if self._is_file:
                os.replace(written / f"{written.name}{self.path.suffix}", self.path)
            else:
                with suppress(OSError):
                    self.path.rmdir()
                os.replace(written, self.path)
            shutil.rmtree(self._staging, ignore_errors=True)

    def discard(self) -> None:
        """Delete the unfinished bag."""
        self.is_open = False
        with suppress(OSError, sqlite3.Error):
            self._writer.abort()
        shutil.rmtree(self._staging, ignore_errors=True)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _add(self, topic: str, msgtype: str) -> Any:
        if msgtype not in typestore().types:
            raise InputError(f"topic {topic} is a {msgtype}: no known type, it cannot be recorded")
        is_latched = topic.rsplit("/", 1)[-1] in LATCHED
        return self._writer.add_connection(
            topic, msgtype, typestore=typestore(), offered_qos_profiles=[_qos(is_latched)]
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with writing_to(self.path):
                yield
        except sqlite3.Error as error:
            raise InputError(f"cannot write {self.path.name} to folder {self.path.parent}: {error}") from error


def _storage(path: Path, storage: Storage | None) -> Storage:
    if storage is not None and storage not in get_args(Storage):
        raise InputError(f"storage={storage!r}: want one of {', '.join(get_args(Storage))}")
    by_name = SUFFIXES.get(path.suffix)
    if storage and by_name and storage != by_name:
        raise InputError(f"{path}: ends in {path.suffix}, but storage is {storage}: want one of them")
    return storage or by_name or "mcap"


def _free_name(path: Path) -> Path:
    """Temporary folder of a bag; one left by a killed process is kept."""
    name = f"{path.stem if path.suffix in SUFFIXES else path.name}{INCOMPLETE}"
    folder, number = path.with_name(name), 2
    while folder.exists():
        folder, number = path.with_name(f"{name}-{number}"), number + 1
    return folder


def _qos(is_latched: bool) -> Qos:
    never = QosTime(9223372036, 854775807)  # rmw's infinite duration
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if is_latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE,
        deadline=never,
        lifespan=never,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )
