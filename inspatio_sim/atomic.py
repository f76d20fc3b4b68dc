"""Atomic writes: a file or folder appears complete under its name, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from inspatio_sim.errors import InputError


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Turn the system's refusals (disk full, no permission) into one line that names the folder."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"cannot write {target.name} to folder {target.parent}: {reason}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or a folder to.

    When the block ends it is renamed to `path`; when the block raises (Ctrl-C too) it is removed
    and what stood at `path` stays as it was. Missing parent folders are made.
    """
    target = Path(path)
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{uuid4().hex[:8]}.part{target.suffix}")
    try:
        yield temporary
        with writing_to(target):
            os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
