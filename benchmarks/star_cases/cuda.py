"""The video student on a GPU: which settings are measured, and what they have to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.report import Result, reported
from benchmarks.star_cases.machine import MatmulShape, in_fresh_process, matmul_flop_per_s, say
from benchmarks.star_cases.steps import film, num_frames_for
from benchmarks.star_cases.variants import Measured, Variant, measure_variant
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.presets.registry import preset_by_name
from inspatio_sim.generators.star.generator import check_size

FRAMES_PER_S_FLOOR = 24
OVERHEAD_FLOOR_PERCENT = 15
MEMORY_FLOOR_GB, LOW_MEMORY_FLOOR_GB = 16, 8
FRAMES_PER_BLOCK = 12
BATCHES = (2, 4)

FASTEST = {"compile": True, "cuda_graphs": True}
SPEED_NAMES = ("eager", "compiled", "graphs", "fp8", "fp8-graphs")
OTHER_NAMES = ("memory", "low-memory", *(f"batch-{batch}" for batch in BATCHES), "14b")
NAMES = (*SPEED_NAMES, *OTHER_NAMES)
"""What `--only` may pick."""


@dataclass(frozen=True, kw_only=True)
class CudaRun:
    """What the command line asks for."""

    preset: str
    random_weights: bool
    dtype: str = "bfloat16"
    size_px: tuple[int, int] = (480, 832)
    batch: int = 1  # of all variants but batch-2 and batch-4
    num_steps: int = 8
    only: tuple[str, ...] = NAMES
    device: str = "cuda"
    matmul_shapes: tuple[MatmulShape, ...] = ((8192, 8192, 8192), (9360, 1536, 8960), (9360, 8960, 1536))


def variants_of(run: CudaRun) -> dict[str, Variant]:
    """Every variant by its short name."""
    weights = {"random_weights": run.random_weights, "dtype": run.dtype}
    common: dict[str, Any] = {"device": run.device, "size_px": run.size_px}
    ours = {**common, "preset": run.preset, "num_steps": run.num_steps}

    def variant(name: str, *, limit_gb: float | None = None, batch: int = run.batch, **options: Any) -> Variant:
        return Variant(name=name, batch=batch, limit_gb=limit_gb, options={**weights, **options}, **ours)

    graphs = f"{run.dtype} compiled, CUDA graphs"
    return {
        "eager": variant(f"{run.dtype} eager"),
        "compiled": variant(f"{run.dtype} compiled", compile=True),
        "graphs": variant(graphs, **FASTEST),
        "fp8": variant("FP8 compiled", fp8=True, compile=True),
        "fp8-graphs": variant("FP8 compiled, CUDA graphs", fp8=True, **FASTEST),
        "memory": variant(f"within {MEMORY_FLOOR_GB} GB", limit_gb=MEMORY_FLOOR_GB),
        "low-memory": variant(
            f"low_memory, within {LOW_MEMORY_FLOOR_GB} GB", limit_gb=LOW_MEMORY_FLOOR_GB, low_memory=True
        ),
        **{f"batch-{batch}": variant(f"{graphs}, {batch} worlds", batch=batch, **FASTEST) for batch in BATCHES},
        "14b": Variant(
            name="14B, one block",
            preset="inspatio-14b",
            num_steps=1,
            options={"random_weights": True, "dtype": run.dtype},  # no weights of this size are published
            **common,
        ),
    }


def measure_cuda(run: CudaRun) -> tuple[list[Result], list[str]]:
    """All results, and a note for every variant that gave none."""
    check_size(*run.size_px)
    if not run.random_weights:
        find_weights(preset_by_name(run.preset), None)  # says what is missing, once
    say(f"star: matrix products on {run.device} ...")
    rate = matmul_flop_per_s(list(run.matmul_shapes), torch.bfloat16, torch.device(run.device))
    say(f"star: {rate / 1e12:.3g} TFLOP/s in bfloat16; filming the demo room ...")
    reference = film(run.size_px, num_frames_for(run.num_steps, FRAMES_PER_BLOCK))
    measured: dict[str, Measured] = {}
    notes = []
    for key, variant in variants_of(run).items():
        if key not in run.only:
            continue
        say(f"star: {variant.name} ...")
        try:
            measured[key] = in_fresh_process(measure_variant, variant, reference)
        except (InputError, RuntimeError, OSError) as error:  # the others may still do
            notes.append(f"{variant.name}: not measured: {' '.join(str(error).split())[:400]}")
            say(f"star: {notes[-1]}")
            continue
        say(f"star: {measured[key].line()}")
    return [*floors(measured), *reported_rows(measured, rate)], notes


def floors(measured: dict[str, Measured]) -> list[Result]:
    """What has to be reached, as far as its variants were measured."""
    results = []
    speeds = [measured[key] for key in SPEED_NAMES if key in measured]
    if speeds:
        best = max(speeds, key=lambda one: one.steps.frames_per_s)
        results += [
            Result(
                name=f"World.step, best of {len(speeds)} variants ({best.variant.name})",
                value=best.steps.frames_per_s,
                unit="frames/s",
                floor=FRAMES_PER_S_FLOOR,
                better="higher",
            ),
            Result(
                name="its overhead around the model",
                value=best.steps.overhead_percent,
                unit="%",
                floor=OVERHEAD_FLOOR_PERCENT,
                better="lower",
            ),
            Result(
                name="graphs compiled after warm-up, all variants",
                value=sum(one.num_graphs_later for one in speeds),
                unit="",
                floor=0,
                better="lower",
            ),
        ]
    results += [
        Result(
            name=f"peak memory, {what}", value=measured[key].peak_bytes / 1e9, unit="GB", floor=floor, better="lower"
        )
        for key, what, floor in (
            ("memory", "as loaded", MEMORY_FLOOR_GB),
            ("low-memory", "low_memory", LOW_MEMORY_FLOOR_GB),
        )
        if key in measured
    ]
    return results


def reported_rows(measured: dict[str, Measured], rate: float) -> list[Result]:
    """Everything else."""
    rows = [reported("matrix products of this GPU, bfloat16", rate / 1e12, "TFLOP/s")]
    for one in measured.values():
        share = 100 * one.flop_per_s / rate
        rows += [*one.rows(), reported(f"{one.variant.name}: denoise, share of the bfloat16 rate", share, "%")]
    return rows


def check_only(names: Sequence[str]) -> tuple[str, ...]:
    """Short names of variants.

    Raises:
        InputError: there is no such variant.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(f"--only {name}: want some of {', '.join(NAMES)}")
    return tuple(names)
