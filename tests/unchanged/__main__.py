"""`python -m tests.unchanged`: see the package."""

# ruff: noqa: T201 (it talks to whoever runs it)

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import tests.unchanged as net
from tests.unchanged.cases import CASES
from tests.unchanged.record import ABOUT, check, record


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.unchanged", description=net.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("record", "check"):
        command = verbs.add_parser(verb)
        command.add_argument("folder", type=Path, metavar="FOLDER")
        command.add_argument("--only", action="append", metavar="PATTERN", help="cases by their names, with * and ?")
        command.add_argument("--jobs", type=int, default=1, metavar="N", help="cases at a time (default: 1)")
    verbs.add_parser("list")
    options = parser.parse_args(arguments)
    if options.verb == "list":
        return show_cases()
    names = [name for name in CASES if any(fnmatch(name, pattern) for pattern in options.only or ["*"])]
    if not names:
        parser.error(f"--only {' '.join(options.only)}: no case is called so: see python -m tests.unchanged list")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: want at least 1")
    if options.verb == "record":
        return record(options.folder.resolve(), names, options.jobs)
    if not (options.folder / ABOUT).is_file():
        parser.error(f"{options.folder}: nothing was recorded there")
    return check(options.folder.resolve(), names, options.jobs)


def show_cases() -> int:
    """The table, for people."""
    for name, case in CASES.items():
        print(name)
        for pattern, reason in case.excluded.items():
            print(f"    without {pattern}: {reason}")
        if reason := case.skipped():
            print(f"    skipped here: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
