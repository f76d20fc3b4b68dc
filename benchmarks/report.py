"""How every benchmark times and prints: one table for people, one json object with `--json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from inspatio_sim.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure beside the number it has to reach."""

    name: str
    value: float
    unit: str
    floor: float
    better: Literal["lower", "higher"]

    @property
    def is_reached(self) -> bool:
        return self.value <= self.floor if self.better == "lower" else self.value >= self.floor

    @property
    def is_reported(self) -> bool:
        """Whether there is nothing to reach: 0 or more."""
        return self.floor == 0 and self.better == "higher"


def count_from(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def size_from(text: str, example: str) -> tuple[int, int]:
    """96x160 -> height and width; an InputError names the example."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InputError(f"--size {text}: want HEIGHTxWIDTH in pixels, such as {example}")
    return int(height), int(width)


def reported(name: str, value: float, unit: str) -> Result:
    """A figure that has nothing to reach; floor 0, whichever direction would be better."""
    return Result(name=name, value=value, unit=unit, floor=0, better="higher")


def median_ms(function: Callable[[], object], repeats: int = 9) -> float:
    """Median wall time of a call in milliseconds, after one warm-up call."""
    function()
    times_s = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times_s.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times_s))


def machine() -> str:
    """Processor, cores and Python, in words."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


def show(benchmark: str, results: Sequence[Result], *, as_json: bool, **more: Any) -> None:
    """Print results; `more` goes into the json object, and above the table what of it is a string."""
    if as_json:
        rows = [asdict(result) for result in results]
        print(json.dumps({"benchmark": benchmark, "machine": machine(), **more, "results": rows}, indent=2))
        return
    print(f"{benchmark} on {machine()}")
    for name, value in more.items():
        if isinstance(value, str):
            print(f"{name}: {value}")
    for result in results:
        sign = "<=" if result.better == "lower" else ">="
        mark = "ok  " if result.is_reached else "MISS"
        figures = f"{result.name:<58} {result.value:>10.4g} {result.unit:<10}"
        if result.is_reported:
            print(f"     {figures}".rstrip())
        else:
            print(f"{mark} {figures} (want {sign} {result.floor:g})")


def run(benchmark: str, description: str, measure: Callable[[], Sequence[Result]]) -> None:
    """The command line of a benchmark module."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    arguments = parser.parse_args()
    show(benchmark, measure(), as_json=arguments.json)
