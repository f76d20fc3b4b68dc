"""Provenance of pixels."""

from __future__ import annotations

from enum import IntEnum


class Known(IntEnum):
    """The values of `known` for the pixels of an observation."""

    MADE_UP = 0  # by the generator, now or in an earlier step
    MAP = 1  # the clip showed it at another moment; the map remembers it
    CLIP = 2  # the clip shows it at this moment
