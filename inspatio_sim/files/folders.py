"""A folder of results that appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged_folder(out: Path, own_names: Collection[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `out` to write into; it becomes `out` if the block succeeds.

    Results of an earlier run are replaced at that moment. A folder with any other files raises an error before
    any work is done, so nothing else is deleted.

    Args:
        out: where the results go; made with its parents.
        own_names: the names this kind of run writes.

    Raises:
        InputError: `out` is a file, holds other files, or cannot be written; the disk is full.
    """
    out = Path(os.path.realpath(out))
    _check_replaceable(out, own_names)
    with replacing(out) as staging:
        try:
            with writing_to(out):
                staging.mkdir()
            yield staging
        except InputError as error:  # name the folder that the user gave
            raise InputError(str(error).replace(staging.name, out.name)) from error
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise InputError(f"output folder {out}: {error.strerror}; nothing was kept") from error


def _check_replaceable(out: Path, own_names: Collection[str]) -> None:
    try:
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in own_names)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"output folder {out}: cannot be used ({error.strerror}): want a folder") from error
    if foreign:
        raise InputError(f"output folder {out}: holds other files ({foreign[0]}): want a new or empty folder")
    if out.is_mount() or os.path.samefile(out, os.curdir):  # neither can be replaced as a whole
        what = "a mount point" if out.is_mount() else "the current folder"
        raise InputError(f"output folder {out}: is {what}: want a folder in it, such as {out / 'run'}")
