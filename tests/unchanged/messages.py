"""ROS messages as values, from bags and from topics alike."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def message_values(messages: Iterable[Any], name: str) -> dict[str, Any]:
    """What is short as JSON, a message an entry; the numbers of images, scans and clouds one array a field."""
    numbers: dict[str, list[np.ndarray]] = {}
    values = {f"{name}/messages": [_plain(message, "", numbers) for message in messages]}
    return values | {f"{name}{path}": np.concatenate(parts) for path, parts in numbers.items()}


def bag_values(bag: Path, name: str) -> dict[str, Any]:
    """Times and messages on each topic of a bag; what is there twice counts once.

    Not their bytes: between the fields of a message rclpy writes whatever its buffer had before.
    """
    from rosbags.highlevel import AnyReader

    found: dict[str, dict[tuple[int, str], Any]] = {}
    with AnyReader([bag]) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, {})[time_ns, str(message)] = message
    values: dict[str, Any] = {}
    for topic, messages in sorted(found.items()):
        values[f"{name}{topic}/time_ns"] = np.array([time_ns for time_ns, _ in messages])
        values |= message_values(messages.values(), name + topic)
    return values


def _plain(value: Any, path: str, numbers: dict[str, list[np.ndarray]]) -> Any:
    """A message as JSON holds it; sequences of numbers go to `numbers`, in their place stands how many they were."""
    if hasattr(value, "get_fields_and_field_types"):
        names = list(value.get_fields_and_field_types())
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif isinstance(value, (array.array, np.ndarray, bytes)):
        part = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.array(value)
        numbers.setdefault(path, []).append(part)
        return len(part)
    else:
        return [_plain(item, path, numbers) for item in value] if isinstance(value, (list, tuple)) else value
    return {name: _plain(getattr(value, name), f"{path}/{name}", numbers) for name in names}
