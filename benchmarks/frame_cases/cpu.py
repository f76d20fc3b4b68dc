"""The small image student on a CPU: whole steps, with two denoising steps and one, one world and several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.frame_cases.variants import Measured, Variant, measure_variant
from benchmarks.report import Result, reported
from benchmarks.star_cases.machine import MatmulShape, matmul_flop_per_s, say
from benchmarks.star_cases.steps import MAX_FILMED, film
from inspatio_sim.reference.reference import Reference

PRESET = "frame-tiny"
STEPS: dict[str, tuple[int, ...]] = {"2 steps": (999, 200), "1 step": (999,)}
STEPS_PER_S_FLOOR = {"2 steps": 24, "1 step": 36}
LATENCY_FLOOR_MS = 60


@dataclass(frozen=True, kw_only=True)
class CpuRun:
    """What is measured."""

    size_px: tuple[int, int] = (96, 160)
    num_steps: int = 150  # timed
    batch: int = 4  # worlds of the last variant
    options: dict[str, Any] = field(default_factory=dict)  # of `load_frame`, for all
    matmul_shapes: tuple[MatmulShape, ...] = ((2048, 2048, 2048), (720, 256, 1024), (720, 1024, 256))


def measure_cpu(run: CpuRun) -> list[Result]:
    """The floors first, then every figure."""
    reference = film(run.size_px, MAX_FILMED)
    results, rows = [], []
    rate = 0.0
    for steps, timesteps in STEPS.items():
        measured = _measured(run, reference, steps, timesteps, batch=1)
        if not rate:
            shapes, dtype = list(run.matmul_shapes), getattr(torch, measured.dtype)
            rate = matmul_flop_per_s(shapes, dtype, torch.device("cpu"))
            rows.append(reported(f"matrix products of this machine, {measured.dtype}", rate / 1e9, "GFLOP/s"))
        results += floors(measured, STEPS_PER_S_FLOOR[steps])
        share = 100 * measured.flop_per_s / rate
        rows += [
            *measured.rows(),
            reported(f"{measured.variant.name}: denoise, share of the machine's rate", share, "%"),
        ]
    together = _measured(run, reference, "2 steps", STEPS["2 steps"], batch=run.batch)
    return [*results, *rows, *together.rows()]


def floors(measured: Measured, steps_per_s: float) -> list[Result]:
    """What one world has to reach."""
    name, latency_s = measured.variant.name, measured.steps.latency_s(95)
    return [
        Result(
            name=f"{name}: whole steps", value=measured.steps_per_s, unit="steps/s", floor=steps_per_s, better="higher"
        ),
        Result(
            name=f"{name}: action to frame, p95",
            value=1e3 * latency_s,
            unit="ms",
            floor=LATENCY_FLOOR_MS,
            better="lower",
        ),
    ]


def _measured(run: CpuRun, reference: Reference, steps: str, timesteps: tuple[int, ...], *, batch: int) -> Measured:
    variant = Variant(
        name=f"{PRESET}, {steps}" + (f", {batch} worlds" if batch > 1 else ""),
        preset=PRESET,
        device="cpu",
        size_px=run.size_px,
        batch=batch,
        num_steps=run.num_steps,
        options={**run.options, "steps": timesteps},
    )
    say(f"frame: {variant.name} ...")
    return measure_variant(variant, reference)
