"""Progress of long work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called as `progress(what, share_done)`: a short phrase, and a share from 0 to 1. A new phrase begins a new bar."""
