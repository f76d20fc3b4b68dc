"""Rate-limited callbacks, however many messages arrive."""

from __future__ import annotations

import time
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup


class PacedGroup(MutuallyExclusiveCallbackGroup):
    """One callback at a time, with a minimum period between starts.

    Messages that arrive meanwhile stay in the subscription's queue, which drops all but the newest. The executor checks
    the queue again only when something else wakes it, so a timer must run as well.

    Args:
        period_s: time from the start of a callback to that of the next.
    """

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s
        self._next_s = 0.0

    def can_execute(self, entity: Any) -> bool:
        """Whether the period is over."""
        return time.monotonic() >= self._next_s and super().can_execute(entity)

    def beginning_execution(self, entity: Any) -> bool:
        """Start a callback if allowed."""
        if not super().beginning_execution(entity):
            return False
        self._next_s = time.monotonic() + self._period_s
        return True
