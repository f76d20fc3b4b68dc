"""Runs each case in a process and a folder of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.unchanged import command_cases, doors, world_cases
from tests.unchanged.cases import CASES
from tests.unchanged.values import record_of

INPUTS = "inputs"
TIMEOUT_S = 1800
LOG_LINES = 12  # shown where a case failed
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
SLOW_IMPORTS = ["torch", "numba", "scipy.ndimage", "cv2", "open3d", "av", "skimage", "gymnasium", "safetensors"]
"""What is imported once, before a process is forked for each case: half of the time of most cases otherwise."""


def run_all(names: Sequence[str], inputs: Path, out: Path, jobs: int) -> Iterator[tuple[str, str]]:
    """Each name in order, as it is done, with what went wrong or nothing; what cases put out goes to `out`."""
    start = _start()
    for name in names:
        (out / f"{name}.facts").unlink(missing_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        problems = pool.map(lambda name: _run_apart(start, out / f"{name}.log", _run_case, name, inputs, out), names)
        yield from zip(names, problems, strict=True)


def film_inputs(inputs: Path) -> str:
    """Make what cases begin from; what went wrong, or nothing. It stays there: the session in it names its clip."""
    inputs.mkdir(parents=True)
    problem = _run_apart(_start(), inputs.with_suffix(".log"), _film, inputs)
    if problem:
        shutil.rmtree(inputs)
    return problem


def facts_of(path: Path) -> dict[str, Any] | None:
    """How a case went, if it went to its end."""
    facts = path.with_suffix(".facts")
    return json.loads(facts.read_text()) if facts.is_file() else None


def _start() -> Any:
    """How processes are started: forked from one that has imported what takes long."""
    os.environ |= {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
    sources = [str(path) for path in doors.SOURCES]
    sys.path[:0] = sources  # forked processes take it over
    os.environ["PYTHONPATH"] = os.pathsep.join(sources)  # and those that they start take this
    os.environ.pop("INSPATIO_WEIGHTS", None)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    return context.Process


def _run_apart(start: Any, log: Path, function: Callable[..., None], *arguments: Any) -> str:
    """Call a function in a process of its own; what went wrong, or nothing."""
    log.unlink(missing_ok=True)
    process = start(target=_run_here, args=(log, function, *arguments))
    process.start()
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
        process.join()
        ending = f"stopped after {TIMEOUT_S} s"
    else:
        ending = f"exit code {process.exitcode}"
    if process.exitcode == 0:
        log.unlink()
        return ""
    end = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.is_file() else []
    return "\n    ".join([f"{ending}; the end of {log}:", *end])


def _run_here(log: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a folder of its own, with its output in a file."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    try:
        with tempfile.TemporaryDirectory(prefix="unchanged-") as temporary:
            folder = Path(temporary).resolve()
            os.environ["INSPATIO_CACHE"] = str(folder / "cache")
            os.chdir(folder)
            function(folder, *arguments)
            os.chdir(doors.ROOT)
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def _film(folder: Path, inputs: Path) -> None:
    doors.film_clips(inputs)
    world_cases.save_worlds(inputs)
    command_cases.record_bag(inputs / "room", inputs / "session.mcap")


def _run_case(folder: Path, name: str, inputs: Path, out: Path) -> None:
    (folder / INPUTS).symlink_to(inputs)
    case = CASES[name]
    skipped = case.skipped()
    values = {} if skipped else case.run(folder)
    places = {str(folder): "FOLDER", str(inputs): INPUTS, str(doors.ROOT): "ROOT"}
    record_of(values, excluded=case.excluded, places=places).save(out / name)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(part.ru_utime + part.ru_stime for part in usage)
    facts = {"skipped": skipped, "cpu_s": round(cpu_s, 2), "num_values": len(values)}
    (out / f"{name}.facts").write_text(json.dumps(facts))
