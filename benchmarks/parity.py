"""Recompute golden data with our own code: `python -m benchmarks.parity DIR [--json]`.

DIR holds cases as `.safetensors` files, each with a `.json` beside it that gives its kind and
configuration. Exit code 0: all within tolerance; 1: something is not; 2: DIR cannot be used.
A new kind of case is one file in `parity_cases/` and one line in `CASES`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.golden import GoldenCase, ParityReport
from benchmarks.parity_cases import (
    mask_latent,
    star_dit,
    star_rollout,
    taehv,
    trajectory,
    warp,
    worldfm_dit,
    worldfm_render,
)
from benchmarks.report import machine
from inspatio_sim.errors import InputError

CASES: dict[str, Callable[[GoldenCase, ParityReport], None]] = {
    "trajectory": trajectory.measure,
    "mask_latent": mask_latent.measure,
    "warp": warp.measure,
    "star_dit": star_dit.measure,
    "star_rollout": star_rollout.measure,
    "taehv": taehv.measure,
    "worldfm_dit": worldfm_dit.measure,
    "worldfm_render": worldfm_render.measure,
}


def measure_folder(folder: Path) -> ParityReport:
    """Compare every case in a folder that has a counterpart here."""
    if not folder.is_dir():
        raise InputError(f"golden data {folder}: {'is no folder' if folder.exists() else 'does not exist'}")
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"golden data {folder}: has no .safetensors file")
    report = ParityReport()
    for path in paths:
        case = GoldenCase.load(path)
        kind = _kind_of(case.name)
        if kind is None:
            report.skip(case.name, "no counterpart yet")
            continue
        num_before = report.num_tensors
        CASES[kind](case, report)
        if report.num_tensors == num_before:
            raise InputError(f"golden case {path}: has no tensor that a {kind} case is known to have")
    if not report.comparisons:
        raise InputError(f"golden data {folder}: has no case with a counterpart (those are {', '.join(CASES)})")
    return report


def _kind_of(case_name: str) -> str | None:
    """`warp` for `warp`, and for variants of it such as `warp_b2`."""
    return next((kind for kind in CASES if case_name == kind or case_name.startswith(f"{kind}_")), None)


def as_json(report: ParityReport) -> dict[str, Any]:
    """The benchmark object: value is the largest error, floor the tolerance."""
    return {
        "benchmark": "parity",
        "machine": machine(),
        "passed": all(comparison.passed for comparison in report.comparisons.values()),
        "results": [
            {
                "name": comparison.name,
                "value": comparison.max_error if math.isfinite(comparison.max_error) else None,
                "unit": comparison.unit,
                "floor": comparison.tolerance,
                "better": "lower",
                "passed": comparison.passed,
                "worst": comparison.worst,
                "tensors": comparison.num_tensors,
            }
            for comparison in report.comparisons.values()
        ],
        "skipped": report.skipped,
    }


def print_table(report: ParityReport) -> None:
    """For people."""
    for comparison in report.comparisons.values():
        verdict = "ok  " if comparison.passed else "FAIL"
        print(
            f"{verdict} {comparison.name:36} {comparison.max_error:9.2e} {comparison.unit} "
            f"(tolerance {comparison.tolerance:g}; {comparison.num_tensors} tensors, worst {comparison.worst})"
        )
    for skipped in report.skipped:
        print(f"skip {skipped['name']:36} {skipped['reason']}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description="Compare with golden data.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with the golden cases")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        report = measure_folder(options.folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = as_json(report)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(report)
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
