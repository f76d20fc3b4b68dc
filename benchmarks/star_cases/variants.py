"""One setting of a preset, measured in whole steps: the same code on a CPU and on a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.report import Result, reported
from benchmarks.star_cases.blocks import block_flop
from benchmarks.star_cases.machine import peak_resident_bytes
from benchmarks.star_cases.steps import Steps, start, timed_steps
from inspatio_sim.generators.blocks.compiled import num_compiled_graphs
from inspatio_sim.generators.options import StarOptions
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.star.load import load_star
from inspatio_sim.generators.star.warm_up import warm_up
from inspatio_sim.reference.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting."""

    name: str
    preset: str
    device: str
    size_px: tuple[int, int]
    batch: int = 1
    num_steps: int = 8  # timed
    limit_gb: float | None = None  # of GPU memory that this process may take
    options: dict[str, Any] = field(default_factory=dict)  # further ones of `StarOptions`


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of it."""

    variant: Variant
    load_s: float
    warm_up_s: float
    num_graphs: int  # compiled while loading and warming up
    num_graphs_later: int  # compiled by the steps after that, with time running forward
    steps: Steps
    reversed_steps: Steps  # with time running backward: the reference is encoded live
    peak_bytes: int  # of GPU memory taken by PyTorch's allocator, or of main memory
    denoise_flop: int  # operations of one step's denoising, of all worlds
    num_threads: int  # of PyTorch on the CPU

    @property
    def flop_per_s(self) -> float:
        return self.denoise_flop / self.steps.stages_s()["denoise"]

    def line(self) -> str:
        """For who waits."""
        stages = self.steps.stages_s()
        return (
            f"{self.variant.name}: {self.steps.frames_per_s:.2f} frames/s, step {stages['total']:.3f} s, "
            f"denoise {stages['denoise']:.3f} s, peak {self.peak_bytes / 1e9:.2f} GB, "
            f"warm-up {self.warm_up_s:.1f} s, {self.num_graphs} graphs, {self.num_graphs_later} later"
        )

    def rows(self) -> list[Result]:
        """As figures with nothing to reach."""
        name, back = self.variant.name, self.reversed_steps
        return [
            *self.steps.rows(name),
            reported(f"{name}: overhead around the model", self.steps.overhead_percent, "%"),
            reported(f"{name}: denoise, rate", self.flop_per_s / 1e12, "TFLOP/s"),
            reported(f"{name}: encode, time reversed", back.stages_s()["encode"], "s"),
            reported(f"{name}: frames, time reversed", back.frames_per_s, "frames/s"),
            reported(f"{name}: peak memory", self.peak_bytes / 1e9, "GB"),
            reported(f"{name}: loading", self.load_s, "s"),
            reported(f"{name}: warm-up, compilation included", self.warm_up_s, "s"),
            reported(f"{name}: graphs compiled by then", self.num_graphs, ""),
        ]


def measure_variant(variant: Variant, reference: Reference) -> Measured:
    """Load, warm up, step; best in a fresh process, whose peak memory is then that of this setting alone.

    Raises:
        NotEnoughMemory: it does not fit.
    """
    device = torch.device(variant.device)
    if variant.limit_gb is not None:
        total_bytes = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, variant.limit_gb * 1e9 / total_bytes))
    graphs_before, started_s = num_compiled_graphs(), time.perf_counter()
    generator = load_star(
        StarOptions(preset=variant.preset, device=variant.device, **variant.options),
        size_px=variant.size_px,
        batch=variant.batch,
    )
    loaded_s = time.perf_counter()
    warm_up(generator, variant.size_px, batch=variant.batch)
    warm_s = time.perf_counter()
    worlds = start(generator, reference, variant.batch)  # encodes the clip
    graphs_warm = num_compiled_graphs()
    steps = timed_steps(worlds, variant.num_steps)
    graphs_stepped = num_compiled_graphs()
    reversed_steps = timed_steps(worlds, max(1, variant.num_steps // 2), clock="reverse")
    return Measured(
        variant=variant,
        load_s=loaded_s - started_s,
        warm_up_s=warm_s - loaded_s,
        num_graphs=graphs_warm - graphs_before,
        num_graphs_later=graphs_stepped - graphs_warm,
        steps=steps,
        reversed_steps=reversed_steps,
        peak_bytes=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_resident_bytes(),
        denoise_flop=block_flop(
            star_preset(variant.preset).star,
            variant.size_px,
            generator.sampler.config,
            batch=variant.batch,
            block_latents=generator.block_latents,
        ),
        num_threads=torch.get_num_threads(),
    )
