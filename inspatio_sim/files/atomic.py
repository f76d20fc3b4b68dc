"""Atomic writes: a file or folder appears complete under its name, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from inspatio_sim.errors import InputError

MAX_STEM = 50  # characters; at four bytes each still a valid name on any file system


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Turn system errors (disk full, no permission) into one line that names the folder."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"cannot write {target.name} to folder {target.parent}: {reason}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or a folder to.

    When the block ends it is renamed to `path`; when the block raises (Ctrl-C too) it is removed
    and whatever was at `path` stays. Missing parent folders are made, and removed with it.
    """
    target = Path(path)
    missing_parents = [parent for parent in target.parents if not parent.exists()]
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:MAX_STEM]}.{uuid4().hex[:8]}.part{target.suffix}")
    try:
        yield temporary
        with writing_to(target):
            _rename(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        for parent in missing_parents:  # nearest first
            with suppress(OSError):  # a parent that is no longer empty stays
                parent.rmdir()


def _rename(temporary: Path, target: Path) -> None:
    """`os.replace` that also replaces a non-empty folder; the old one is restored if the rename fails."""
    aside = temporary.with_name(f"{temporary.name}.old")
    try:
        if temporary.is_dir() and target.is_dir():
            os.replace(target, aside)
        os.replace(temporary, target)
    finally:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        shutil.rmtree(aside, ignore_errors=True)


def save_arrays(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """Write a safetensors file; a full disk is an InputError like any other refusal."""
    try:
        with writing_to(path):
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except SafetensorError as error:
        raise InputError(f"cannot write {path.name} to folder {path.parent}: {error}") from error
