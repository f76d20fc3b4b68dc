"""How the world is doing, in numbers."""

from __future__ import annotations

import resource
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from inspatio_ros.simulation import Counters

SLOW_SHARE = 0.05  # lost share of real time above which it counts as slow
PAGE_BYTES = resource.getpagesize()
NUM_LATENCIES = 256


class Gauge:
    """Times that are taken while frames go out; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies_s: deque[float] = deque(maxlen=NUM_LATENCIES)
        self._send_s = 0.0
        self._num_sent = 0

    def latency(self, latency_s: float) -> None:
        """From a command's arrival to the first frame that obeys it."""
        with self._lock:
            self._latencies_s.append(latency_s)

    def sent(self, duration_s: float) -> None:
        """Time to make and publish the messages of a frame."""
        with self._lock:
            self._send_s += duration_s
            self._num_sent += 1

    def take(self) -> dict[str, float]:
        """What came since the last call, in milliseconds; nothing where nothing came."""
        with self._lock:
            values: dict[str, float] = {}
            if self._latencies_s:
                values["command_to_pixels_ms_mean"] = 1000 * sum(self._latencies_s) / len(self._latencies_s)
                values["command_to_pixels_ms_max"] = 1000 * max(self._latencies_s)
            if self._num_sent:
                values["message_ms_per_frame"] = 1000 * self._send_s / self._num_sent
            self._latencies_s.clear()
            self._send_s, self._num_sent = 0.0, 0
            return values


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is published, and whether the world keeps up."""

    values: dict[str, str]
    lost_share: float  # lost share of real time since the previous report

    @property
    def is_slow(self) -> bool:
        return self.lost_share > SLOW_SHARE


def report(before: Counters, now: Counters, facts: dict[str, Any], times: dict[str, float]) -> Report:
    """Rates between two readings of the counters, and other figures."""
    wall_s = max(now.wall_s - before.wall_s, 1e-9)
    num_blocks = now.num_blocks - before.num_blocks
    values = {
        **facts,
        "frames_per_second": f"{(now.num_frames_shown - before.num_frames_shown) / wall_s:.2f}",
        "sim_over_wall_time": f"{(now.time_s - before.time_s) / wall_s:.3f}",
        "block_ms": f"{1000 * (now.busy_s - before.busy_s) / num_blocks:.1f}" if num_blocks else "",
        "late_s": f"{now.late_s:.2f}",
        "blocks_dropped": str(now.num_blocks_dropped),
        **{name: f"{value:.2f}" for name, value in times.items()},
        "memory_mb": f"{rss_bytes() / 1e6:.0f}",
    }
    return Report(values={k: str(v) for k, v in values.items()}, lost_share=(now.late_s - before.late_s) / wall_s)


def message(name: str, summary: str, level: int, values: dict[str, str], stamp: Time) -> Any:
    """A DiagnosticArray with one status."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    status = DiagnosticStatus(
        level=bytes([level]), name=name, message=summary, hardware_id="inspatio-sim", values=pairs
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


def rss_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
