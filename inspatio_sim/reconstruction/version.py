"""A version of the reconstruction code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOMS = ("clips", "geometry", "motion", "reconstruction", "reference")  # rooms whose code can affect a result
LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow", "pycolmap", "scipy", "torch")


@cache
def code_version() -> str:
    """A hash that changes whenever results may change, so that the cache never serves a stale one."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}".encode())
    return digest.hexdigest()[:16]
