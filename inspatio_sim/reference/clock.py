"""The reference's clock: which reference frame each generated frame belongs to."""

from __future__ import annotations

from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.reference.reference import ClockMode

MAX_SLOW_FACTOR = 1000
MAX_ADVANCE = 1_000_000


class Clock:
    """Plays a reference of N frames; time is an action, so every call may choose its own mode.

    The first frame ever shown is frame 0. From then on each shown frame moves the clock first:

    | mode      | each frame moves by  | at the ends                                              |
    |-----------|----------------------|----------------------------------------------------------|
    | once      | +1                   | stays on the last frame                                  |
    | loop      | +1                   | after the last frame comes frame 0                       |
    | ping-pong | +1                   | 0 1 .. N-1 N-2 .. 1 0 1 ..: turns round, period 2N - 2   |
    | freeze    | 0                    | -                                                        |
    | slow      | +1 / slow_factor     | as the clock's own mode says                             |
    | reverse   | -1                   | as the clock's own mode: stays on 0, wraps, or turns     |

    `reverse` undoes time: on the way back of a ping-pong it runs towards the last frame again, so k
    frames forward and k in reverse always end where they began (unless `once` has stopped). A clock
    whose own mode is freeze, slow or reverse turns round at the ends, like ping-pong.

    Time is counted in whole ticks of 1 / slow_factor frame, so no rounding ever accumulates.
    """

    def __init__(self, num_frames: int, *, mode: ClockMode = "ping-pong", slow_factor: int = 4) -> None:
        if num_frames < 1:
            raise InputError(f"num_frames={num_frames}: want at least 1")
        if not 1 <= slow_factor <= MAX_SLOW_FACTOR or slow_factor != int(slow_factor):
            raise InputError(f"slow_factor={slow_factor}: want a whole number from 1 to {MAX_SLOW_FACTOR}")
        self.num_frames = num_frames
        self.mode: ClockMode = _checked(mode)
        self.slow_factor = int(slow_factor)
        self._tick = 0  # on the unfolded ping-pong circle: 0 .. (2N - 2) * slow_factor
        self._has_started = False

    @property
    def frame_idx(self) -> int:
        """The frame shown last, or to be shown first."""
        return self._folded(self._tick) // self.slow_factor

    def advance(self, num_frames: int, mode: ClockMode | None = None) -> NDArray[np.int64]:
        """Show the next `num_frames` frames.

        Args:
            num_frames: how many frames to show.
            mode: how the clip plays during this call only; None: the clock's own mode.

        Returns:
            Their indices in the reference. [num_frames]
        """
        if not 1 <= num_frames <= MAX_ADVANCE:
            raise InputError(f"num_frames={num_frames}: want 1 to {MAX_ADVANCE}")
        running = self.mode if mode is None else _checked(mode)
        frame_idxs = np.empty(num_frames, np.int64)
        for i in range(num_frames):
            if self._has_started:
                self._move(running)
            self._has_started = True
            frame_idxs[i] = self.frame_idx
        return frame_idxs

    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly, as JSON-ready numbers."""
        return {"tick": self._tick, "has_started": self._has_started}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()` of a clock with the same length and slow factor."""
        tick, has_started = state.get("tick"), state.get("has_started")
        if type(tick) is not int or not 0 <= tick < self._circle_ticks or type(has_started) is not bool:
            raise InputError(f"clock state {state}: want a tick from 0 to {self._circle_ticks - 1} and has_started")
        self._tick, self._has_started = tick, has_started

    @property
    def _circle_ticks(self) -> int:
        return max(2 * self.num_frames - 2, 1) * self.slow_factor

    def _folded(self, tick: int) -> int:
        """Ticks from the start of the clip, in either direction of play."""
        frame, part = divmod(tick, self.slow_factor)
        return min(frame, 2 * self.num_frames - 2 - frame) * self.slow_factor + part if frame else part

    def _move(self, mode: ClockMode) -> None:
        step = {"freeze": 0, "slow": 1, "reverse": -self.slow_factor}.get(mode, self.slow_factor)
        ends = mode if mode in ("once", "loop", "ping-pong") else self.mode
        if step == 0:
            return
        if ends == "once":
            last_tick = (self.num_frames - 1) * self.slow_factor
            self._tick = min(max(self._folded(self._tick) + step, 0), last_tick)
        elif ends == "loop":
            self._tick = (self._folded(self._tick) + step) % (self.num_frames * self.slow_factor)
        else:
            self._tick = (self._tick + step) % self._circle_ticks


def _checked(mode: str) -> ClockMode:
    if mode not in get_args(ClockMode):
        raise InputError(f"clock mode {mode!r}: want one of {', '.join(get_args(ClockMode))}")
    return cast(ClockMode, mode)
