"""`record` and `check`: what cases put out, kept in a folder and compared with it."""

# ruff: noqa: T201 (it talks to whoever runs it)

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.unchanged import doors
from tests.unchanged.processes import INPUTS, facts_of, film_inputs, run_all
from tests.unchanged.values import Record, differences

ABOUT = "about.json"
PACKAGES = ("numpy", "torch", "numba", "scipy", "opencv-python-headless", "av", "open3d", "pycolmap", "gymnasium")
MAX_LINES = 8  # shown of a case that differs


def record(folder: Path, names: list[str], jobs: int) -> int:
    """Run cases and keep what they put out; 1 if one failed."""
    if not (folder / INPUTS).is_dir():
        print("filming the inputs", flush=True)
        if problem := film_inputs(folder / INPUTS):
            print(problem)
            return 1
    (folder / ABOUT).write_text(json.dumps(_about(), indent=1))
    num_failed = 0
    for name, problem in run_all(names, folder / INPUTS, folder, jobs):
        num_failed += bool(problem)
        _say("FAILED" if problem else "recorded", folder / name, problem.splitlines())
    return 1 if num_failed else 0


def check(folder: Path, names: list[str], jobs: int) -> int:
    """Run cases again and compare; 1 if something differs, failed or was never recorded."""
    for line in _other_circumstances(json.loads((folder / ABOUT).read_text()), _about()):
        print(f"note: {line}")
    out = Path(tempfile.mkdtemp(prefix="unchanged-"))
    num_bad = 0
    for name, problem in run_all(names, folder / INPUTS, out, jobs):
        lines = problem.splitlines() or _compared(folder / name, out / name)
        num_bad += bool(lines)
        more = [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES and not problem else []
        verdict = "FAILED" if problem else "DIFFERENT" if lines else "equal"
        _say(verdict, out / name, lines if problem else [*lines[:MAX_LINES], *more])
    if num_bad:
        print(f"{num_bad} of {len(names)} cases are not what they were; what was put out now is in {out}")
        return 1
    shutil.rmtree(out)
    print(f"equal: all of {len(names)} cases")
    return 0


def _compared(before: Path, now: Path) -> list[str]:
    """What differs between two records."""
    was, came = facts_of(before), facts_of(now)
    if was is None or came is None:
        return ["was never recorded: record it with --only"]
    if was["skipped"] != came["skipped"]:
        return [f"was {_outcome(was)}, is {_outcome(came)}"]
    return list(differences(Record.load(before), Record.load(now)))


def _outcome(facts: dict[str, Any]) -> str:
    return f"skipped ({facts['skipped']})" if facts["skipped"] else "run"


def _say(verdict: str, path: Path, lines: list[str]) -> None:
    facts = facts_of(path)
    if facts is None:
        about = ""
    elif facts["skipped"]:
        about = f"skipped: {facts['skipped']}"
    else:
        about = f"{facts['cpu_s']:6.1f} s of a core {facts['num_values']:6} values"
    print(f"{verdict:9} {path.name:17} {about}", *(f"    {line}" for line in lines), sep="\n", flush=True)


def _about() -> dict[str, Any]:
    """What results depend on, and the commit."""
    processor = {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    }
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed": _git("status", "--short").splitlines(),
        "python": platform.python_version(),
        "processor": processor.get("model name"),
        "instructions": processor.get("flags"),
        "cores": os.cpu_count(),
        **{name: _version(name) for name in PACKAGES},
    }


def _other_circumstances(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name in now:
        if name not in ("commit", "changed") and before.get(name) != now[name]:
            yield f"{name} was {before.get(name)} when recorded, is {now[name]}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=doors.ROOT, capture_output=True, text=True).stdout.strip()
