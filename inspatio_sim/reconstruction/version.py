"""Which code a reconstruction was made by."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOMS = ("clips", "geometry", "motion", "reconstruction", "reference")  # of this package: what a result may depend on
LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow", "pycolmap", "scipy", "torch")


@cache
def code_version() -> str:
    """Changes whenever a reconstruction may come out otherwise, so that no stale result is served."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}".encode())
    return digest.hexdigest()[:16]
