"""The image student on a GPU, plain and compiled; nothing has to be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.frame_cases.variants import Variant, measure_variant
from benchmarks.report import Result, reported
from benchmarks.star_cases.machine import MatmulShape, in_fresh_process, matmul_flop_per_s, say
from benchmarks.star_cases.steps import MAX_FILMED, film
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.presets.registry import frame_preset

SETTINGS: dict[str, dict[str, Any]] = {"eager": {}, "compiled": {"compile": True}}
NAMES = tuple(SETTINGS)


@dataclass(frozen=True, kw_only=True)
class CudaRun:
    """What the command line asks for."""

    preset: str = "worldfm-2step"
    options: dict[str, Any]  # of `load_frame`, for all
    dtype: str = "bfloat16"
    size_px: tuple[int, int] = (512, 512)
    batch: int = 1
    num_steps: int = 60  # timed
    only: Sequence[str] = NAMES
    device: str = "cuda"
    matmul_shapes: tuple[MatmulShape, ...] = ((8192, 8192, 8192), (3072, 1152, 4608), (3072, 4608, 1152))


def measure_cuda(run: CudaRun) -> tuple[list[Result], list[str]]:
    """All results, and a note for every setting that gave none."""
    preset = frame_preset(run.preset)
    if not run.options.get("random_weights"):
        find_weights(preset, run.options.get("weights"))  # says what is missing, once
    say(f"frame: matrix products on {run.device} ...")
    rate = matmul_flop_per_s(list(run.matmul_shapes), torch.bfloat16, torch.device(run.device))
    say(f"frame: {rate / 1e12:.3g} TFLOP/s in bfloat16; filming the demo room ...")
    reference = film(run.size_px, MAX_FILMED)
    results, notes = [reported("matrix products of this GPU, bfloat16", rate / 1e12, "TFLOP/s")], []
    for key in run.only:
        variant = Variant(
            name=f"{run.preset}, {run.dtype} {key}" + (f", {run.batch} worlds" if run.batch > 1 else ""),
            preset=run.preset,
            device=run.device,
            size_px=run.size_px,
            batch=run.batch,
            num_steps=run.num_steps,
            options={**run.options, "dtype": run.dtype, **SETTINGS[key]},
        )
        say(f"frame: {variant.name} ...")
        try:
            measured = in_fresh_process(measure_variant, variant, reference)
        except (InputError, RuntimeError, OSError) as error:  # the other may still do
            notes.append(f"{variant.name}: not measured: {' '.join(str(error).split())[:400]}")
            say(f"frame: {notes[-1]}")
            continue
        say(f"frame: {measured.line()}")
        share = 100 * measured.flop_per_s / rate
        results += [*measured.rows(), reported(f"{variant.name}: denoise, share of the bfloat16 rate", share, "%")]
    return results, notes
