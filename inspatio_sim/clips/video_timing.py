"""Timing of video frames: from the time stamps of cameras and editors to a steady rate.

A player shows a frame until the next one's time. Two irregularities are removed: a long
pause between two frames, and stamps that jump because recordings were joined. Everything removed, dropped
or repeated is counted and reported.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from inspatio_sim.clips.framing import ClipRequest
from inspatio_sim.clips.video_file import opened
from inspatio_sim.clips.video_pixels import TimedFrame, decoder

DEFAULT_FPS = 25.0  # FFmpeg's default for streams without a rate
MIN_PAUSE_S = 2.0  # a gap between frames is a pause if it is longer than this ...
PAUSE_INTERVALS = 10.0  # ... and than this many usual gaps, so that a slow rate is not a pause
_STEADY, _STEADY_SHARE = 0.05, 0.7  # tolerance around the median gap, and share of gaps within it for a steady clock
_USUAL_RANGE = (0.55, 1.75)  # otherwise, in medians: includes 2:3 pulldown (33 and 50 ms), excludes lost frames
_SAME_RATE = 0.002  # a rate this close to one named by the file is that rate
_MIN_PACKETS, _MAX_PACKETS = 1000, 100_000  # number of packets examined
_SHORT_SHARE = 0.9  # share of the header's length below which a file counts as cut off

_NAMES_LENGTH = {"avi", "matroska,webm", "flv", "ivf", "asf"}  # formats whose header has the length


# The pace


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The pace of a video from its packets, before anything is decoded."""

    interval_s: float  # the usual time from frame to frame
    duration_s: float  # duration of the examined packets, without pauses
    is_assumed: bool = False  # the file has no rate

    @property
    def fps(self) -> float:
        """The usual rate."""
        return 1 / self.interval_s

    def is_pause(self, gap_s: float) -> bool:
        """Whether a gap between two frames is too long to be part of the video."""
        return gap_s > max(PAUSE_INTERVALS * self.interval_s, MIN_PAUSE_S)


def pace_of(container: Any, stream: Any, request: ClipRequest) -> Pace:
    """Examine the packets; the file must be reopened to decode it."""
    gaps_s, num_packets, num_others = _gaps_s(container, stream, _packets_needed(stream, request))
    if len(gaps_s) == 0:  # a single frame, or a bare stream: what its own header says
        named_hz = stream.codec_context.framerate or stream.guessed_rate or stream.average_rate
        is_assumed = num_packets > 1 and not stream.codec_context.framerate
        interval_s = 1 / float(named_hz or DEFAULT_FPS)
        return Pace(interval_s=interval_s, duration_s=num_packets * interval_s, is_assumed=is_assumed)
    rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    interval_s = usual_interval_s(gaps_s, [float(rate) for rate in rates if rate], float(stream.time_base))
    pace = Pace(interval_s=interval_s, duration_s=0)
    kept_s = [interval_s if pace.is_pause(gap_s) else gap_s for gap_s in gaps_s]
    return Pace(interval_s=interval_s, duration_s=sum(kept_s) + num_others * interval_s)


def usual_interval_s(gaps_s: NDArray[np.float64], named_hz: list[float], stamp_s: float) -> float:
    """The usual time between frames, despite pauses, lost frames and jitter.

    Args:
        gaps_s: times between frames, all positive.
        named_hz: rates named by the file; the nearest is used if it matches up to rounding.
        stamp_s: rounding of time stamps.
    """
    median_s = float(np.sort(gaps_s)[(len(gaps_s) - 1) // 2])
    is_usual = np.abs(gaps_s - median_s) <= max(1.01 * stamp_s, _STEADY * median_s)
    if is_usual.mean() < _STEADY_SHARE:
        is_usual = (gaps_s > _USUAL_RANGE[0] * median_s) & (gaps_s < _USUAL_RANGE[1] * median_s)
    interval_s = float(gaps_s[is_usual].mean())
    num_roundings = 1 + (~is_usual).sum()  # between neighbours they cancel
    tolerance = _SAME_RATE + num_roundings * stamp_s / (is_usual.sum() * interval_s)
    nearest_hz = min(named_hz, key=lambda hz: abs(hz * interval_s - 1), default=0.0)
    return 1 / nearest_hz if abs(nearest_hz * interval_s - 1) <= tolerance else interval_s


def _gaps_s(container: Any, stream: Any, max_packets: int) -> tuple[NDArray[np.float64], int, int]:
    """Times between frames in the order they are shown in; how many packets there are, and last or without a stamp."""
    recordings: list[list[int]] = [[]]  # their stamps
    num_packets, last_dts = 0, None
    with suppress(FFmpegError):  # the rest of a damaged file; decoding reports it
        for packet in itertools.islice(container.demux(stream), max_packets):
            if packet.size == 0 or packet.is_discard:
                continue
            num_packets += 1
            if last_dts is not None and packet.dts is not None and packet.dts < last_dts:
                recordings.append([])
            last_dts = packet.dts
            stamp = packet.dts if _has_only_dts(container) else packet.pts
            if stamp is not None:  # the second field of a frame has no stamp
                recordings[-1].append(stamp)
    gaps = np.concatenate([np.diff(np.sort(stamps)) for stamps in recordings])
    num_others = num_packets - sum(len(stamps) - 1 for stamps in recordings)
    return gaps[gaps > 0] * float(stream.time_base), num_packets, num_others


def _has_only_dts(container: Any) -> bool:
    """AVI stores only decoding times; FFmpeg guesses display times, wrongly if the two differ."""
    return container.format.name == "avi"


def _packets_needed(stream: Any, request: ClipRequest) -> int:
    if request.max_frames is None:
        return _MAX_PACKETS
    source_fps = float(stream.guessed_rate or stream.average_rate or DEFAULT_FPS)
    step = request.every * (source_fps / request.fps if request.fps else 1)
    num_frames = (request.start_frame + request.max_frames) * step
    return int(min(max(num_frames, _MIN_PACKETS), _MAX_PACKETS))


# The frames


class Timeline:
    """The frames of a video in display order with the seconds since the first; damaged packets are skipped."""

    def __init__(self, container: Any, stream: Any, pace: Pace) -> None:
        """Set up; nothing is decoded yet."""
        self._container, self._stream, self._pace = container, stream, pace
        # with decoding stamps only, the n-th displayed frame gets the n-th stamp
        self._dts: deque[int | None] | None = deque() if _has_only_dts(container) else None
        self._end_s: float | None = None  # end of the last frame, by the file's stamps
        self._num_frames = self._num_damaged = 0
        self._is_at_end = False
        self._pauses: list[tuple[int, float]] = []  # index of the frame after the pause, and its length in seconds
        self._restarts: list[int] = []  # frames whose stamp is not after the previous one

    def __iter__(self) -> Iterator[TimedFrame]:
        time_s, last_stamp_s = 0.0, None
        for frame in self._frames():
            stamp_s = self._stamp_s(frame)
            if self._num_frames:
                time_s += self._gap_s(last_stamp_s, stamp_s)
            self._num_frames += 1
            last_stamp_s = stamp_s
            if stamp_s is not None:
                self._end_s = stamp_s + max(self._pace.interval_s, float(frame.duration * (frame.time_base or 0)))
            yield time_s, frame
        self._is_at_end = True

    def _frames(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        context = decoder(self._stream)
        while True:
            try:
                packet = next(packets)
                if self._dts is not None and packet.size:
                    self._dts.append(packet.dts)
                frames = context.decode(packet)
            except StopIteration:
                return
            except FFmpegError:  # the next packet may be sound; after a broken container comes StopIteration
                self._num_damaged += 1
                if self._dts:
                    self._dts.pop()
                continue
            yield from frames

    def _stamp_s(self, frame: av.VideoFrame) -> float | None:
        if self._dts is None:
            return frame.time
        stamp = self._dts.popleft() if self._dts else None
        return None if stamp is None else float(stamp * self._stream.time_base)

    def _gap_s(self, last_stamp_s: float | None, stamp_s: float | None) -> float:
        """Time from the previous frame to this one in the clip."""
        if last_stamp_s is None or stamp_s is None:
            return self._pace.interval_s
        gap_s = stamp_s - last_stamp_s
        if gap_s <= 0:
            self._restarts.append(self._num_frames)
        elif self._pace.is_pause(gap_s):
            self._pauses.append((self._num_frames, gap_s - self._pace.interval_s))
        else:
            return gap_s
        return self._pace.interval_s

    def notes(self, path: Path) -> list[str]:
        """Notes about irregularities in the frames so far; call it while the file is open."""
        notes = []
        if self._num_damaged or (self._is_at_end and self._is_cut_off(path)):
            promised = f" of {self._stream.frames}" if self._stream.frames else ""
            notes.append(f"damaged or cut off: using the {self._num_frames}{promised} frames that decode")
        if self._pauses:
            frame_idx, longest_s = max(self._pauses, key=lambda pause: pause[1])
            where = f"before frame {frame_idx} of the file"
            if len(self._pauses) == 1:
                notes.append(f"a pause of {longest_s:.1f} s {where} is taken out")
            else:
                total_s = sum(pause_s for _, pause_s in self._pauses)
                notes.append(
                    f"{len(self._pauses)} pauses of {total_s:.1f} s in all are taken out, "
                    f"the longest ({longest_s:.1f} s) {where}"
                )
        if self._restarts:
            more = f" and {len(self._restarts) - 1} more" if len(self._restarts) > 1 else ""
            notes.append(
                f"time stamps go back at frame {self._restarts[0]}{more} of the file, as where recordings "
                "are joined: read on as one"
            )
        if self._pace.is_assumed:
            notes.append(f"the file names no frame rate: {self._pace.fps:g} Hz is assumed")
        return notes

    def _is_cut_off(self, path: Path) -> bool:
        """Whether frames promised by the header are missing, not counting those that an edit list drops."""
        if self._container.format.name.startswith("mov"):
            return self._num_frames < self._stream.frames and _num_readable(path) < self._stream.frames
        promised_s = _promised_s(self._container, self._stream)
        return promised_s is not None and self._end_s is not None and self._end_s < _SHORT_SHARE * promised_s


def _num_readable(path: Path) -> int:
    with opened(path, {"ignore_editlist": "1"}) as (container, stream), suppress(FFmpegError):
        return sum(1 for packet in container.demux(stream) if packet.size and not packet.is_corrupt)
    return 0


def _promised_s(container: Any, stream: Any) -> float | None:
    """End of the video by its header; None if the format has no length or FFmpeg only estimates it."""
    if container.format.name not in _NAMES_LENGTH:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := re.fullmatch(r"([0-9]+):([0-9]+):([0-9.]+)", stream.metadata.get("DURATION", "")):  # Matroska
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None


# A steady rate


@dataclass
class Tally:
    """Counts of dropped and repeated frames at a steady rate."""

    num_frames: int = 0
    num_ticks: int = 0
    num_left_out: int = 0
    num_repeats: int = 0

    def notes(self, fps: float) -> list[str]:
        """A note for the user; a single repeat is not worth one."""
        if self.num_left_out == 0 and self.num_repeats <= 1:
            return []
        return [
            f"frames come at uneven times: at a steady {fps:.4g} Hz {self.num_left_out} of {self.num_frames} "
            f"are left out and {self.num_repeats} are repeats"
        ]


def at_constant_rate(
    timed_frames: Iterable[TimedFrame], step_s: float, last_frame_s: float, tally: Tally
) -> Iterator[TimedFrame]:
    """Yield for each tick (0, step_s, 2 step_s, ...) the frame nearest in time.

    Args:
        timed_frames: frames with non-decreasing times from 0.
        step_s: seconds between ticks.
        last_frame_s: duration of the last frame.
        tally: counts to update.
    """
    shown: TimedFrame | None = None
    for following in itertools.chain(timed_frames, [None]):
        if shown is not None:
            num_ticks = tally.num_ticks
            while tally.num_ticks * step_s < _end_s(shown, following, step_s, last_frame_s):
                yield shown
                tally.num_ticks += 1
            tally.num_frames += 1
            tally.num_left_out += tally.num_ticks == num_ticks
            tally.num_repeats += max(tally.num_ticks - num_ticks - 1, 0)
        shown = following


def _end_s(shown: TimedFrame, following: TimedFrame | None, step_s: float, last_frame_s: float) -> float:
    """The time until which a frame is the nearest."""
    if following is not None:
        return (shown[0] + following[0]) / 2
    return shown[0] + last_frame_s - 0.25 * min(step_s, last_frame_s)  # rounding adds no frame
