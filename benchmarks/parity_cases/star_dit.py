"""The STAR transformer against the reference implementation: context, denoising, text-only."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.golden import GoldenCase, ParityReport
from inspatio_sim.generators.blocks.flow import FlowSchedule, clean_from_flow
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.model import BLOCK_SLOT, StarTransformer

TOLERANCE = 5e-5


def load_transformer(case: GoldenCase) -> StarTransformer:
    """The transformer of a case, with the case's weights."""
    model = case.setting("model")
    names = ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "text_len", "freq_dim")
    transformer = StarTransformer(StarConfig(in_channels=model["in_dim"], **{name: model[name] for name in names}))
    prefix = "weights."
    weights = {key.removeprefix(prefix): case[key] for key in case.tensors if key.startswith(prefix)}
    transformer.load_state_dict(weights)
    return transformer.eval()


@torch.no_grad()
def measure(case: GoldenCase, report: ParityReport) -> None:
    """Every call of the case, through the functions that generate."""
    transformer, schedule = load_transformer(case), FlowSchedule()
    noisy, timestep = case["in.noisy"], case["in.t"]
    batch, num_frames, _, h, w = noisy.shape
    text = transformer.text_keys(case["in.prompt_embeds"])
    at_zero = transformer.time_modulation(torch.zeros(1))
    at_step = transformer.time_modulation(timestep)
    block_rotary = transformer.rotary(BLOCK_SLOT + torch.arange(num_frames), h, w)
    frame_tokens = (h // PATCH) * (w // PATCH)
    cache = STCache(
        transformer.config,
        batch=batch,
        max_context_tokens=2 * num_frames * frame_tokens,
        block_tokens=num_frames * frame_tokens,
    )

    def compare(key: str, computed: Tensor) -> None:
        kind = "cache" if ".cache." in key else key.rsplit(".", 1)[-1]
        report.compare(f"{case.name}/{kind}", key, computed, case[key], tolerance=TOLERANCE, unit="1")

    def write_context(name: str, frames: Tensor) -> None:
        rotary = transformer.rotary(torch.arange(frames.shape[1]), h, w)
        transformer.write_context(frames, at_zero, text, rotary, cache)
        for layer in range(transformer.config.num_layers):
            for kind, tensor in zip("kv", cache.context(layer), strict=True):
                key = f"out.{name}.cache.{kind}.{layer}"
                if key in case.tensors:
                    compare(key, tensor)
        compare(f"out.{name}.context_head_output", transformer(frames, at_zero, text, rotary))

    def denoise(name: str, condition: list[Tensor], sigma: Tensor) -> None:
        latents = torch.cat([noisy, *condition], dim=2)
        flow = transformer.denoise(latents, at_step, text, block_rotary, cache)
        compare(f"out.{name}.flow", flow)
        if f"out.{name}.x0" in case.tensors:
            compare(f"out.{name}.x0", clean_from_flow(noisy, flow, sigma))

    view = [case["in.mask"], case["in.render"]]
    sigma = schedule.sigma(timestep).view(-1, 1, 1, 1, 1)
    write_context("a", case["in.ref"])
    denoise("b", view, sigma)
    denoise("b_mixed_t", view, schedule.sigma(case["in.t_mixed"])[..., None, None, None])
    write_context("c", torch.cat([case["in.ref"], case["in.last_pred"]], dim=1))
    denoise("c", view, sigma)
    write_context("d2", case["in.ref"])
    denoise("d2", [], sigma)
    cache.reset()
    denoise("d1", [], sigma)
