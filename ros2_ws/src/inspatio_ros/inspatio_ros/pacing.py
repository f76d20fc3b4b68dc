"""Callbacks that come no oftener than the node can use them, whoever sends how much."""

from __future__ import annotations

import time
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup


class PacedGroup(MutuallyExclusiveCallbackGroup):
    """One callback at a time, and the next one a while after it began.

    What comes meanwhile stays in its subscription's queue, which drops all but the newest. The executor looks into
    the queue again when something else wakes it: have a timer near by.

    Args:
        period_s: from the beginning of a callback to that of the next.
    """

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s
        self._next_s = 0.0

    def can_execute(self, entity: Any) -> bool:
        """Whether the time has come."""
        return time.monotonic() >= self._next_s and super().can_execute(entity)

    def beginning_execution(self, entity: Any) -> bool:
        """Take the turn, if it is free."""
        if not super().beginning_execution(entity):
            return False
        self._next_s = time.monotonic() + self._period_s
        return True
