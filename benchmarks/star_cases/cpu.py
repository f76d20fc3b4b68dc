"""The video student on a CPU, at one fixed configuration: time, stability, accuracy, memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.report import Result, median_ms, reported
from benchmarks.star_cases.blocks import BlockInputs, block, block_flop, block_maker, random_transformer
from benchmarks.star_cases.machine import (
    MatmulShape,
    forget_peak,
    in_fresh_process,
    matmul_flop_per_s,
    peak_resident_bytes,
    resident_bytes,
    say,
)
from benchmarks.star_cases.steps import film, num_frames_for, out_and_back, start, timed_steps
from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.codecs.memory import TinyCodecMemory
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.cpu import CpuTransformer
from inspatio_sim.generators.star.fp8 import quantize_linears, relative_error
from inspatio_sim.generators.star.generator import StarGenerator, identity_of
from inspatio_sim.generators.star.memory import MemoryRequest, plan_memory
from inspatio_sim.generators.star.sampler import BlockSampler, SamplerConfig
from inspatio_sim.generators.star.warm_up import warm_up
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.text import HashedWords
from inspatio_sim.world.world import World

CPU = torch.device("cpu")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BLOCK_FLOOR_S = {"float32": 0.30, "bfloat16": 0.15}
EARLY_BLOCK = 3  # whose result is made again late in an endless run


CODEC = TinyConfig(encoder_width=16, decoder_widths=(64, 32, 16, 16), time_alignment="causal")  # a quarter of TAEHV


@dataclass(frozen=True, kw_only=True)
class CpuCase:
    """What is measured."""

    star: StarConfig = StarConfig(dim=384, ffn_dim=1536, num_heads=6, num_layers=12, text_dim=64, text_len=8)
    size_px: tuple[int, int] = (96, 160)
    repeats: int = 9  # of a block
    num_steps: int = 20  # of a world
    matmul_shapes: tuple[MatmulShape, ...] = ((2048, 2048, 2048), (360, 384, 1536), (360, 1536, 384))
    endless_star: StarConfig = StarConfig(dim=64, ffn_dim=256, num_heads=2, num_layers=2, text_dim=64, text_len=8)
    endless_size_px: tuple[int, int] = (32, 48)
    num_blocks: int = 1000  # of the endless run


def measure_cpu(case: CpuCase) -> list[Result]:
    """All results, in about the order in which a reader wants them."""
    results: list[Result] = []
    for name, part in (
        ("blocks", block_results),
        ("accuracy", accuracy_results),
        ("steps of a world", step_results),
        ("memory", memory_results),
        ("endless run", endless_results),
    ):
        say(f"star: {name} ...")
        results += part(case)
    return results


def block_results(case: CpuCase) -> list[Result]:
    """Time of a block, and how close that comes to what the machine multiplies."""
    flop = block_flop(case.star, case.size_px, SamplerConfig())
    inputs = BlockInputs.random(case.star, case.size_px)
    results, rates = [reported("operations of a block", flop / 1e9, "GFLOP")], []
    for name, dtype in PRECISIONS.items():
        plain_s = _block_s(BlockSampler(random_transformer(case.star, dtype)), inputs, case.repeats)
        fast_s = _block_s(BlockSampler(CpuTransformer(random_transformer(case.star, dtype))), inputs, case.repeats)
        rate = matmul_flop_per_s(list(case.matmul_shapes), dtype, CPU)
        results += [
            Result(name=f"block, {name}", value=fast_s, unit="s", floor=BLOCK_FLOOR_S[name], better="lower"),
            reported(f"block, {name}, plain StarTransformer", plain_s, "s"),
        ]
        rates += [
            reported(f"matrix products of this machine, {name}", rate / 1e9, "GFLOP/s"),
            reported(f"share of that rate in a block, {name}", 100 * flop / fast_s / rate, "%"),
        ]
    return results + rates


def accuracy_results(case: CpuCase) -> list[Result]:
    """What the fast forms change."""
    inputs = BlockInputs.random(case.star, case.size_px)
    exact = block(BlockSampler(random_transformer(case.star)), inputs)
    sampler = BlockSampler(CpuTransformer(random_transformer(case.star)))
    fast = block(sampler, inputs)
    rounded = block(BlockSampler(CpuTransformer(random_transformer(case.star, torch.bfloat16))), inputs)
    quantized = random_transformer(case.star)
    quantize_linears(quantized, emulate=True)
    three = BlockInputs.random(case.star, case.size_px, batch=3)
    together = block(sampler, three)
    alone = torch.cat([block(sampler, three.of_world(i)) for i in range(3)])
    return [
        _difference("CpuTransformer against StarTransformer, float32", fast, exact, floor=1e-5),
        _difference("batch of 3 against one by one, float32", together, alone, floor=1e-5),
        reported("bfloat16 against float32, relative rms", relative_error(rounded, exact), ""),
        reported(
            "FP8 (emulated) against float32, relative rms",
            relative_error(block(BlockSampler(quantized), inputs), exact),
            "",
        ),
    ]


def step_results(case: CpuCase) -> list[Result]:
    """Whole steps in bfloat16: at three latents a block, and at one for low latency."""
    results = []
    for block_latents in (BLOCK_LATENTS, 1):
        generator = make_generator(case.star, torch.bfloat16, block_latents=block_latents)
        reference = film(case.size_px, num_frames_for(case.num_steps, generator.frames_per_block))
        steps = timed_steps(start(generator, reference, 1), case.num_steps)
        what = f"World.step, {generator.frames_per_block} frames"
        if block_latents == BLOCK_LATENTS:
            share = steps.overhead_percent
            results.append(
                Result(name=f"{what}: overhead around the model", value=share, unit="%", floor=20, better="lower")
            )
        results += steps.rows(what)
    return results


def memory_results(case: CpuCase) -> list[Result]:
    """What was planned, and what a process took."""
    plan = plan_memory(
        MemoryRequest(
            config=case.star,
            height_px=case.size_px[0],
            width_px=case.size_px[1],
            batch=1,
            dtype=torch.float32,
            codec=TinyCodecMemory(CODEC),
        )
    )
    taken = in_fresh_process(bytes_taken, case.star, case.size_px)
    return [
        reported("memory taken by a generator, float32", taken / 1e6, "MB"),
        reported("memory planned over memory taken", plan["total"] / taken, ""),
    ]


def bytes_taken(config: StarConfig, size_px: tuple[int, int]) -> int:
    """Main memory that a generator takes at its fullest, libraries not counted; for a fresh process."""
    smallest = replace(config, dim=config.num_heads * 8, ffn_dim=16, num_layers=1)
    warm_up(make_generator(smallest, torch.float32), (32, 32))  # libraries load and compile what they need
    forget_peak()
    before = resident_bytes()
    warm_up(make_generator(config, torch.float32), size_px)
    return peak_resident_bytes() - before


def endless_results(case: CpuCase) -> list[Result]:
    """Whether anything grows, slows down or drifts over many blocks; in a process that did nothing else."""
    return in_fresh_process(_endless_run, case)


def _endless_run(case: CpuCase) -> list[Result]:
    generator = make_generator(case.endless_star, torch.float32)
    reference = film(case.endless_size_px, 2 * generator.frames_per_block + generator.first_block_frames)
    (world,) = start(generator, reference, 1)
    num, window, warm_ups = case.num_blocks, case.num_blocks // 10, case.num_blocks // 25
    seconds, resident, snapshot, early = [], 0, None, None
    for i in range(1, num):  # block 0 has been shown
        if i == EARLY_BLOCK:
            snapshot = world.snapshot()
        timing = world.step(out_and_back(i)).timing
        assert timing is not None, "a world always times its steps"
        seconds.append(timing.total_s)
        if i == EARLY_BLOCK:
            early = _latents(world)
        if i == window:
            resident = resident_bytes()
    growth = 100 * (resident_bytes() / resident - 1)
    slower = fmean(seconds[-window:]) / fmean(seconds[warm_ups : warm_ups + window])
    assert snapshot is not None, "the run is longer than a few blocks"
    assert early is not None, "the run is longer than a few blocks"
    world.restore(snapshot)  # the early block once more, from the state that it began with
    world.step(out_and_back(EARLY_BLOCK))
    again = f"{num} blocks: block {EARLY_BLOCK} made again after the last"
    return [
        Result(name=f"{num} blocks: last tenth over first, time", value=slower, unit="", floor=1.1, better="lower"),
        Result(name=f"{num} blocks: memory, block {window} to last", value=growth, unit="%", floor=1, better="lower"),
        _difference(again, _latents(world), early, floor=0),
    ]


def make_generator(config: StarConfig, dtype: torch.dtype, *, block_latents: int = BLOCK_LATENTS) -> StarGenerator:
    """With seeded random weights and the narrow codec."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TinyAutoencoder(CODEC).to(dtype).eval().requires_grad_(False)
    return StarGenerator(
        BlockSampler(CpuTransformer(random_transformer(config, dtype), take_over=True)),
        TinyCodec(network),
        HashedWords(text_dim=config.text_dim, text_len=config.text_len),
        codec_identity=identity_of(*network.state_dict().values()),
        block_latents=block_latents,
    )


def _latents(world: World) -> Tensor:
    """Of the block that the world has just shown."""
    return torch.from_numpy(world.snapshot().generator["history"])


def _block_s(sampler: BlockSampler, inputs: BlockInputs, repeats: int) -> float:
    return median_ms(block_maker(sampler, inputs), repeats) / 1e3


def _difference(name: str, ours: Tensor, theirs: Tensor, *, floor: float) -> Result:
    error = (ours - theirs).abs().max().item()
    return Result(name=f"{name}, largest difference", value=error, unit="", floor=floor, better="lower")
