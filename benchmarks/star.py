"""How fast the video student is, how exact, and what memory it takes.

python -m benchmarks.star [--json]                                            one fixed configuration on two cores
python -m benchmarks.star --preset tiny [--json]                              whole steps of a preset on the CPU
python -m benchmarks.star --device cuda --preset inspatio-1.3b --random-weights [--json]

Exit code 2: there is no such device, or its weights are missing. docs/performance.md explains the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.report import Result, count_from, show, size_from
from benchmarks.star_cases.cpu import CpuCase, measure_cpu
from benchmarks.star_cases.cuda import NAMES, CudaRun, check_only, measure_cuda
from benchmarks.star_cases.machine import empty_cache_folder, in_fresh_process, say
from benchmarks.star_cases.steps import film, num_frames_for
from benchmarks.star_cases.variants import Variant, measure_variant
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.star.generator import check_size

CPU_THREADS = 2  # of the fixed configuration
FRAMES_PER_BLOCK = 12


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with empty_cache_folder():
            results, more = _measure(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show("star", results, as_json=options.json, torch=torch.__version__, **more)
    for note in () if options.json else more["notes"]:
        print(f"note {note}")
    return 0


def _measure(options: argparse.Namespace) -> tuple[list[Result], dict[str, Any]]:
    """Results, and what else the json object says."""
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: this machine has no CUDA device that PyTorch can use: want --device cpu")
        run = CudaRun(
            preset=options.preset or "inspatio-1.3b",
            random_weights=options.random_weights,
            dtype=options.dtype or "bfloat16",
            size_px=size_from(options.size or "480x832", "480x832"),
            batch=options.batch or 1,
            num_steps=options.blocks or 8,
            only=check_only(options.only.split(",")) if options.only else NAMES,
        )
        results, notes = measure_cuda(run)
        return results, {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "notes": notes}
    if options.only:
        raise InputError("--only: goes with --device cuda")
    if options.preset is None:
        given = [name for name in ("dtype", "size", "batch", "blocks") if getattr(options, name)]
        if given:
            raise InputError(f"--{given[0]}: goes with --preset; without one the configuration on the CPU is fixed")
        torch.set_num_threads(min(CPU_THREADS, os.cpu_count() or 1))
        return measure_cpu(CpuCase()), {"threads": torch.get_num_threads(), "notes": []}
    variant = Variant(
        name=options.preset,
        preset=options.preset,
        device="cpu",
        size_px=size_from(options.size or "96x160", "480x832"),
        batch=options.batch or 1,
        num_steps=options.blocks or 8,
        options={"random_weights": options.random_weights, "dtype": options.dtype or "auto"},
    )
    torch.set_num_threads(os.cpu_count() or 1)
    star_preset(variant.preset)
    check_size(*variant.size_px)
    say(f"star: {variant.name} on the CPU ...")
    reference = film(variant.size_px, num_frames_for(variant.num_steps, FRAMES_PER_BLOCK))
    measured = in_fresh_process(measure_variant, variant, reference)
    return measured.rows(), {"threads": measured.num_threads, "notes": []}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.star", description="Time the video student.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", metavar="NAME", help="default: a fixed configuration (cpu), inspatio-1.3b (cuda)")
    parser.add_argument("--random-weights", action="store_true", help="where no trained ones are at hand")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 where it is fast")
    parser.add_argument("--size", metavar="HxW", help="of the frames; default: 96x160 (cpu), 480x832 (cuda)")
    parser.add_argument("--batch", type=count_from, metavar="N", help="worlds at once; default 1")
    parser.add_argument("--blocks", type=count_from, metavar="N", help="timed steps; default 8")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(NAMES)}, on a GPU")
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
