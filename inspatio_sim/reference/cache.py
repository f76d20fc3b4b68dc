"""Reconstructions kept between runs: the same clip with the same options is reconstructed once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inspatio_sim.errors import InputError
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.reference.reference import Reference

log = logging.getLogger(__name__)

MAX_ENTRIES = 8  # the least recently used go first; a long clip at full size takes some hundred megabytes


def cached_reference(
    sources: Sequence[Path], options: dict[str, Any], make: Callable[[], Reference]
) -> tuple[Reference, bool]:
    """Load the reference of these files and options, or make and keep it.

    Args:
        sources: the files the reference is made from (clip, weights), in order; their content counts, not their names.
        options: everything else the result depends on, JSON-ready.
        make: what to do when there is none yet.

    Returns:
        The reference, and whether it came from the cache.
    """
    try:
        entry = cache_folder() / "references" / _key(sources, options)
    except OSError:
        return make(), False  # which says what is wrong with the source
    if entry.exists():
        try:
            reference = Reference.load(entry)
            os.utime(entry)  # recently used
            return reference, True
        except (OSError, ValueError) as error:
            log.warning("cached reconstruction %s is damaged (%s): making it again", entry, error)
            _remove(entry)
    reference = make()
    if reference.provenance.method != "rgbd":  # nothing to save there: its depth came with the clip
        _keep(reference, entry)
    return reference, False


def _keep(reference: Reference, entry: Path) -> None:
    """Save into the cache; a cache that cannot be written costs time, nothing else."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
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


def _key(sources: Sequence[Path], options: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([version("inspatio-sim"), options], sort_keys=True).encode())
    for path in sources:
        digest.update(f"\0{path.suffix.lower()}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:32]
