"""Safe Ctrl-C: signals are held back while a block runs and raised where the block allows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def stop_signals() -> list[signal.Signals]:
    """Ctrl-C, termination, and a closed terminal unless the caller chose to ignore that (as nohup does)."""
    can_hang_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if can_hang_up else [])]


@contextmanager
def interrupts_held(
    signals: Iterable[signal.Signals] = (signal.SIGINT,), *, is_patient: bool = True
) -> Iterator[Callable[[], None]]:
    """Hold signals back while the block runs; any that arrived take effect when it ends.

    Python interrupts only its main thread, so other threads hold nothing.

    Args:
        signals: the signals to hold.
        is_patient: hold every signal; otherwise the second raises KeyboardInterrupt at once.

    Yields:
        A function that raises KeyboardInterrupt if a signal has arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []

    def note(signal_number: int, frame: Any) -> None:
        came.append(signal_number)
        if len(came) > 1 and not is_patient:
            check()

    def check() -> None:
        if came:
            came.clear()
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, note) for number in signals}
    try:
        yield check
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
