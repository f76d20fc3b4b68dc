"""Where results are kept between runs, also where neither the home nor the package can be written."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

VARIABLE = "INSPATIO_CACHE"
NOWHERE = Path(os.devnull)  # nothing can be written below it: whoever tries says so and goes on


def cache_folder() -> Path:
    """$INSPATIO_CACHE, or the place where this system keeps caches, or a temporary one where that cannot be written."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    with suppress(RuntimeError):  # this user has no home
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inspatio-sim"
        if is_writable(folder):
            return folder
    return temporary_folder() or NOWHERE


def is_writable(folder: Path) -> bool:
    """Whether this user can write to a folder, made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@cache
def temporary_folder() -> Path | None:
    """This user's folder below the system's temporary one, for what finds no better place; said once.

    Compiled code is loaded from there, so nobody else may be able to write to it.

    Returns:
        The folder, None where there is none.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"inspatio-sim-{os.getuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if not is_ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{folder} is another user's, or another user can write to it")
    except OSError as error:
        log.warning(
            "neither home, package nor a temporary folder can be written (%s), so nothing is kept between runs and "
            "every process compiles its kernels; set INSPATIO_CACHE and NUMBA_CACHE_DIR to folders of your own",
            error,
        )
        return None
    os.environ.setdefault(VARIABLE, str(folder))  # worker processes need not say it again
    log.warning(
        "home or package cannot be written: caches and logs go to %s; INSPATIO_CACHE, NUMBA_CACHE_DIR and ROS_LOG_DIR "
        "choose other folders",
        folder,
    )
    return folder
