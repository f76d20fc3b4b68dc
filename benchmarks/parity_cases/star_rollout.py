"""Block-by-block generation and the schedule against the reference implementation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.golden import GoldenCase, ParityReport
from benchmarks.parity_cases.star_dit import TOLERANCE, load_transformer
from inspatio_sim.generators.blocks.flow import FlowSchedule, add_noise, clean_from_flow
from inspatio_sim.generators.star.cpu import CpuTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, FlowNetwork, SamplerConfig

SCHEDULE_TOLERANCE = 1e-6
TIMESTEP_TOLERANCE = 1e-3  # of 1000; float32


def measure(case: GoldenCase, report: ParityReport) -> None:
    """The whole roll-out with the recorded noise, every step of it, and the tables."""
    transformer = load_transformer(case)
    _measure_blocks(case, report, transformer, "")
    _measure_blocks(case, report, CpuTransformer(transformer), ", CpuTransformer")
    _measure_schedule(case, report)


@torch.no_grad()
def _measure_blocks(case: GoldenCase, report: ParityReport, transformer: FlowNetwork, suffix: str) -> None:
    steps = tuple(case["in.denoising_step_list"].tolist())
    sampler = _RecordingSampler(transformer, SamplerConfig(steps=steps))
    text = transformer.text_keys(case["in.prompt_embeds"])
    renoise = case["in.renoise"]  # [blocks, S - 1, F, 16, h, w]
    num_latents = renoise.shape[2]

    def compare(name: str, key: str, computed: Tensor) -> None:
        report.compare(f"{case.name}/{name}{suffix}", key, computed, case[key], tolerance=TOLERANCE, unit="1")

    blocks: list[Tensor] = []
    for b in range(len(renoise)):
        now = slice(b * num_latents, (b + 1) * num_latents)
        noise = [case["in.noise"][:, now], *renoise[b].unsqueeze(1)]
        sampler.calls.clear()
        block = sampler.sample(
            reference=case["in.ref_latent"][:, now],
            history=blocks[-1] if blocks else None,
            condition=torch.cat([case["in.mask_latent"][:, now], case["in.render_latent"][:, now]], dim=2),
            text=text,
            noise=noise.__getitem__,
        )
        for s, (x_t, flow) in enumerate(sampler.calls):
            compare("x_in", f"out.block{b}.step{s}.x_in", x_t)
            compare("flow", f"out.block{b}.step{s}.flow", flow)
            compare("x0", f"out.block{b}.step{s}.x0", clean_from_flow(x_t, flow, sampler.sigmas[s]))
        blocks.append(block)
    compare("latents", "out.latents", torch.cat(blocks, dim=1))


class _RecordingSampler(BlockSampler):
    """Keeps what goes in and out of every denoising pass."""

    calls: list[tuple[Tensor, Tensor]]

    def __init__(self, *arguments, **options) -> None:  # noqa: ANN002, ANN003
        super().__init__(*arguments, **options)
        self.calls = []

    def denoise(self, x_t: Tensor, *arguments, **options) -> Tensor:  # noqa: ANN002, ANN003
        flow = super().denoise(x_t, *arguments, **options)
        self.calls.append((x_t, flow))
        return flow


def _measure_schedule(case: GoldenCase, report: ParityReport) -> None:
    schedule = FlowSchedule()
    steps: Sequence[int] = case["in.denoising_step_list"].tolist()
    t = case["ex.t"]
    sigma = schedule.sigma(t).view(-1, 1, 1, 1)
    clean, noise, flow = case["ex.clean"], case["ex.noise"], case["ex.flow"]
    for key, computed, tolerance in (
        ("sched.sigmas", schedule.sigmas, SCHEDULE_TOLERANCE),
        ("sched.timesteps", schedule.timesteps, TIMESTEP_TOLERANCE),
        ("sched.warped_steps", schedule.warped(steps), TIMESTEP_TOLERANCE),
        ("sched.training_weights", schedule.training_weights(), TOLERANCE),
        ("ex.table_index", schedule.table_index(t), 0),
        ("ex.add_noise", add_noise(clean, noise, sigma), SCHEDULE_TOLERANCE),
        ("ex.flow_to_x0", clean_from_flow(noise, flow, sigma), SCHEDULE_TOLERANCE),
    ):
        name = f"{case.name}/{key.split('.')[1]}"
        report.compare(name, key, computed, case[key], tolerance=tolerance, unit="1")
