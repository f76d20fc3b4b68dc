"""One setting of a preset, measured in whole steps: the same code on a CPU and on a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.frame_cases.walk import motion_at, walkers
from benchmarks.report import Result, reported
from benchmarks.star_cases.machine import peak_resident_bytes, synchronize
from benchmarks.star_cases.steps import Steps, timed_steps
from inspatio_sim.generators.blocks.compiled import num_compiled_graphs
from inspatio_sim.generators.blocks.flop import flop_by_layers, flop_of
from inspatio_sim.generators.frame.load import load_frame
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.options import FrameOptions
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.latents import SPATIAL_STRIDE
from inspatio_sim.reference.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting."""

    name: str
    preset: str
    device: str
    size_px: tuple[int, int]
    batch: int = 1
    num_steps: int = 150  # timed
    options: dict[str, Any] = field(default_factory=dict)  # further ones of `FrameOptions`


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of it."""

    variant: Variant
    load_s: float
    warm_up_s: float  # the clip's views, first frames, and whatever is compiled for them
    num_graphs_later: int  # compiled by the steps after that
    steps: Steps
    num_passes: int  # of the network, for a frame
    pass_flop: int  # operations of one, of one world
    num_views: int  # remembered in the end
    peak_bytes: int  # of GPU memory taken by PyTorch's allocator, or of main memory
    dtype: str

    @property
    def steps_per_s(self) -> float:
        """Mean: a step that remembers its frame takes longer than others, and counts."""
        return len(self.steps.timings) / sum(timing.total_s for timing in self.steps.timings)

    @property
    def flop_per_s(self) -> float:
        flop = self.variant.batch * self.num_passes * self.pass_flop
        return flop / self.steps.stages_s()["denoise"]

    def line(self) -> str:
        """For who waits."""
        stages = self.steps.stages_s()
        return (
            f"{self.variant.name}: {self.steps_per_s:.1f} steps/s, step {1e3 * stages['total']:.1f} ms, "
            f"denoise {1e3 * stages['denoise']:.1f} ms, peak {self.peak_bytes / 1e9:.2f} GB"
        )

    def rows(self) -> list[Result]:
        """As figures with nothing to reach."""
        name = self.variant.name
        return [
            *self.steps.rows(name),
            reported(f"{name}: overhead around the model", self.steps.overhead_percent, "%"),
            reported(f"{name}: operations of a pass", self.pass_flop / 1e9, "GFLOP"),
            reported(f"{name}: denoise, rate", self.flop_per_s / 1e9, "GFLOP/s"),
            reported(f"{name}: views remembered", self.num_views, ""),
            reported(f"{name}: peak memory", self.peak_bytes / 1e9, "GB"),
            reported(f"{name}: loading", self.load_s, "s"),
            reported(f"{name}: warm-up, compilation included", self.warm_up_s, "s"),
            reported(f"{name}: graphs compiled after that", self.num_graphs_later, ""),
        ]


def measure_variant(variant: Variant, reference: Reference) -> Measured:
    """Load, warm up, step; best in a fresh process, whose peak memory is then that of this setting alone.

    Raises:
        NotEnoughMemory: it does not fit.
    """
    device = torch.device(variant.device)
    started_s = time.perf_counter()
    generator = load_frame(
        FrameOptions(preset=variant.preset, device=variant.device, **variant.options),
        size_px=variant.size_px,
        batch=variant.batch,
    )
    loaded_s = time.perf_counter()
    worlds = walkers(generator, reference, variant.batch)
    timed_steps(worlds, 1, motion_at=motion_at)
    synchronize(device)
    warm_s, graphs_warm = time.perf_counter(), num_compiled_graphs()
    worlds = walkers(generator, reference, variant.batch)
    steps = timed_steps(worlds, variant.num_steps, motion_at=motion_at)
    return Measured(
        variant=variant,
        load_s=loaded_s - started_s,
        warm_up_s=warm_s - loaded_s,
        num_graphs_later=num_compiled_graphs() - graphs_warm,
        steps=steps,
        num_passes=len(generator.sampler.config.steps),
        pass_flop=pass_flop(
            generator.sampler.network.config,
            (variant.size_px[0] // SPATIAL_STRIDE, variant.size_px[1] // SPATIAL_STRIDE),
        ),
        num_views=len(worlds[0].snapshot().generator["memory.frame_idx"]),
        peak_bytes=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_resident_bytes(),
        dtype=str(generator.sampler.network.dtype).removeprefix("torch."),
    )


def pass_flop(config: FrameConfig, grid: tuple[int, int]) -> int:
    """Operations of one pass over three images of so many latents, the timestep's modulation included."""

    def count(config: FrameConfig) -> int:
        with torch.device("meta"):
            network, timestep = FrameTransformer(config), torch.empty(1)
            x = torch.empty(1, config.in_channels, *grid)
            beside = torch.empty(1, config.in_channels + config.mask_channels, *grid)
        return flop_of(lambda: network(x, timestep, beside, beside))

    return flop_by_layers(config, "depth", count)
