"""How fast the image student is: one action, one frame.

python -m benchmarks.frame [--json]                      frame-tiny on two cores: two denoising steps and one
python -m benchmarks.frame --soak [STEPS] [--json]       so many steps of one world, and nothing else
python -m benchmarks.frame --device cuda [--preset worldfm-2step] --random-weights [--json]

Exit code 2: there is no such device, or its weights are missing. docs/ladder.md explains the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.frame_cases.cpu import CpuRun, measure_cpu
from benchmarks.frame_cases.cuda import NAMES, CudaRun, measure_cuda
from benchmarks.frame_cases.soak import NUM_STEPS, SoakRun, soak
from benchmarks.report import Result, count_from, show, size_from
from benchmarks.star_cases.machine import empty_cache_folder, in_fresh_process, say
from inspatio_sim.errors import InputError

CPU_THREADS = 2
SIZE_CPU, SIZE_CUDA = "96x160", "512x512"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with empty_cache_folder():
            results, more = _measure(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show("frame", results, as_json=options.json, torch=torch.__version__, **more)
    for note in () if options.json else more["notes"]:
        print(f"note {note}")
    return 0


def _measure(options: argparse.Namespace) -> tuple[list[Result], dict[str, Any]]:
    """Results, and what else the json object says."""
    loading = {"weights": options.weights, "random_weights": options.random_weights}
    if options.device == "cuda":
        if options.soak is not None:
            raise InputError("--soak: goes with --device cpu")
        if not torch.cuda.is_available():
            raise InputError("--device cuda: this machine has no CUDA device that PyTorch can use: want --device cpu")
        run = CudaRun(
            preset=options.preset or "worldfm-2step",
            options=loading,
            dtype=options.dtype or "bfloat16",
            size_px=size_from(options.size or SIZE_CUDA, SIZE_CUDA),
            batch=options.batch or 1,
            num_steps=options.steps or 60,
            only=_only(options.only) if options.only else NAMES,
        )
        results, notes = measure_cuda(run)
        return results, {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "notes": notes}
    for name in ("preset", "only"):
        if getattr(options, name):
            raise InputError(f"--{name}: goes with --device cuda")
    loading |= {"dtype": options.dtype or "auto"}
    size_px = size_from(options.size or SIZE_CPU, SIZE_CUDA)
    torch.set_num_threads(min(CPU_THREADS, os.cpu_count() or 1))
    more = {"threads": torch.get_num_threads(), "notes": []}
    if options.soak is not None:
        say(f"frame: soak, {options.soak} steps ...")
        run = SoakRun(num_steps=options.soak, size_px=size_px, options=loading)
        return in_fresh_process(soak, run).rows(), more
    run = CpuRun(size_px=size_px, num_steps=options.steps or 150, batch=options.batch or 4, options=loading)
    return measure_cpu(run), more


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frame", description="Time the image student.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--soak", type=int, nargs="?", const=NUM_STEPS, metavar="STEPS", help=f"default {NUM_STEPS}")
    parser.add_argument("--preset", metavar="NAME", help="on a GPU; default: worldfm-2step")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: those of the package")
    parser.add_argument("--random-weights", action="store_true", help="where no trained ones are at hand")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 where it is fast")
    parser.add_argument("--size", metavar="HxW", help=f"of the frames; default: {SIZE_CPU} (cpu), {SIZE_CUDA} (cuda)")
    parser.add_argument(
        "--batch", type=count_from, metavar="N", help="worlds at once; default: 4 for one row, 1 on a GPU"
    )
    parser.add_argument("--steps", type=count_from, metavar="N", help="timed; default: 150 (cpu), 60 (cuda)")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(NAMES)}, on a GPU")
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    return parser


def _only(names: str) -> tuple[str, ...]:
    for name in names.split(","):
        if name not in NAMES:
            raise InputError(f"--only {name}: want some of {', '.join(NAMES)}")
    return tuple(names.split(","))


if __name__ == "__main__":
    sys.exit(main())
