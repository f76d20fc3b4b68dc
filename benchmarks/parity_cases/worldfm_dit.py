"""The frame transformer against the reference implementation: forward passes, positions, one and two steps."""

from __future__ import annotations

import torch
from einops import rearrange

from benchmarks.golden import GoldenCase, ParityReport
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.sampler import FIRST_STEP, FrameSampler, FrameSamplerConfig
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from inspatio_sim.generators.presets.frame_config import NUM_IMAGES, FrameConfig

NETWORK_TOLERANCE = 5e-5
SAMPLE_TOLERANCE = 1e-4
TABLE_TOLERANCE = 1e-6  # float32


def load_transformer(case: GoldenCase) -> FrameTransformer:
    """The transformer of a case, with the case's weights."""
    transformer = FrameTransformer(FrameConfig(**case.setting("model")))
    weights = {key.removeprefix("weights."): case[key] for key, _ in case.matching(r"weights\..+")}
    transformer.load_state_dict(weights)
    return transformer.eval()


@torch.no_grad()
def measure(case: GoldenCase, report: ParityReport) -> None:
    """Every call of the case, through the functions that generate."""
    transformer = load_transformer(case)
    config = transformer.config

    def compare(name: str, key: str, computed: torch.Tensor, tolerance: float = NETWORK_TOLERANCE) -> None:
        report.compare(f"{case.name}/{name}", key, computed, case[key], tolerance=tolerance, unit="1")

    compare("positions", "weights.pos_embed", FrameTransformer(config).pos_embed, TABLE_TOLERANCE)
    for _, (name,) in case.matching(r"in\.([^.]+)\.x"):
        x, anchors, reference = (case[f"in.{name}.{image}"] for image in ("x", "cond1", "cond2"))
        both = transformer(x, case[f"in.{name}.t"], anchors, reference)
        for part, computed in zip(("eps", "sigma"), both.split(config.in_channels, dim=1), strict=True):
            compare(part, f"out.{name}.{part}", computed)
        h, w = x.shape[-2:]
        columns = w // config.patch_size
        joined = rearrange(transformer.positions(h, w), "(i r c) d -> (r i c) d", i=NUM_IMAGES, c=columns)
        compare("positions", f"out.{name}.pos_embed", joined, TABLE_TOLERANCE)

    noise = {0: "in.sample.noise0", 1: "in.sample.noise_mid"}
    for _, (number,) in case.matching(r"out\.sample(\d+)\.latent"):
        steps = (FIRST_STEP, case.setting("mid_t"))[: int(number)]
        sampler = FrameSampler(transformer, FrameSamplerConfig(steps=steps))
        latents = sampler.sample(
            noise=lambda step: case[noise[step]],
            anchors=case["in.sample.cond1_latent"],
            reference=case["in.sample.cond2_latent"],
        )
        compare("samples", f"out.sample{number}.latent", latents, SAMPLE_TOLERANCE)
    for key, (call,) in case.matching(r"out\.(sample\d+\.call\d+)\.eps"):
        x, timestep = case[f"out.{call}.x"], case[f"out.{call}.t"]
        eps = transformer(x, timestep, case["in.sample.cond1_latent"], case["in.sample.cond2_latent"])
        compare("eps", key, eps[:, : config.in_channels])
    for key, _ in case.matching(r"sched\.alphas_cumprod_f64"):
        compare("schedule", key, DdpmSchedule().alphas_cumprod, TABLE_TOLERANCE)
