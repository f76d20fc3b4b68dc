"""Reconstructions kept between runs: the same clip with the same options is reconstructed once per machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from inspatio_sim.errors import InputError
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.reference.reference import Reference

log = logging.getLogger(__name__)

MAX_ENTRIES = 8  # the least recently used go first; a long clip at full size takes some hundred megabytes


def content_key(files: Sequence[Path], inputs: dict[str, Any]) -> str:
    """A hash of file contents (not names) and of everything else a result depends on.

    Args:
        files: in order.
        inputs: JSON-ready options.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for path in files:
        digest.update(f"\0{path.suffix.lower()}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:32]


def cached_reference(key: str, make: Callable[[], Reference]) -> tuple[Reference, bool]:
    """Load the reference of this key, or make and keep it; concurrent callers wait for that.

    Args:
        key: see `content_key`.
        make: makes the reference if it is not cached.

    Returns:
        The reference, and whether it was cached.
    """
    entry = cache_folder() / "references" / key
    try:
        lock = FileLock(cache_folder() / "locks" / key)
        for folder in (entry.parent, Path(lock.lock_file).parent):
            folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.warning("reconstruction not cached: %s", error)
        return make(), False
    try:
        found = _load(entry)
        if found is not None:
            return found, True
        reference = make()
        _keep(reference, entry)
        return reference, False
    finally:
        lock.release()


def _load(entry: Path) -> Reference | None:
    if not entry.exists():
        return None
    try:
        reference = Reference.load(entry)
        os.utime(entry)  # recently used
        return reference
    except (OSError, ValueError) as error:
        log.warning("cached reconstruction %s is damaged (%s): making it again", entry, error)
        _remove(entry)
        return None


def _keep(reference: Reference, entry: Path) -> None:
    """Save into the cache; a failure to write is logged and ignored."""
    try:
        reference.save(entry)
        entries = sorted(
            (path for path in entry.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        for old in entries[:-MAX_ENTRIES]:
            _remove(old)
    except (OSError, InputError) as error:
        log.warning("reconstruction not cached: %s", error)


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()
