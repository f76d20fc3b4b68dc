"""Counted costs against PyTorch's own counter, the real model's parameters and the known totals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.star_config import StarConfig, star_1_3b, star_14b, star_tiny
from inspatio_sim.generators.star.cache import STCache
from inspatio_sim.generators.star.cost import BlockCost, block_cost, num_parameters
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler, SamplerConfig

SMALL = StarConfig(dim=48, ffn_dim=112, num_heads=2, num_layers=3, text_dim=20, text_len=5, freq_dim=16)


@pytest.mark.parametrize("context_latents", [0, 3, 6])
@pytest.mark.parametrize("batch", [1, 2])
def test_flop_are_those_that_torch_counts(context_latents: int, batch: int) -> None:
    torch.manual_seed(0)
    grid, steps = (6, 8), (1000, 500)
    sampler = BlockSampler(StarTransformer(SMALL), SamplerConfig(steps=steps))
    text = sampler.transformer.text_keys(torch.randn(batch, 4, SMALL.text_dim))
    frames = {n: torch.randn(batch, 3, n, *grid) for n in (16, 20)}

    def sample() -> None:
        sampler.sample(
            reference=frames[16] if context_latents else None,
            history=frames[16] if context_latents == 6 else None,
            condition=frames[20] if context_latents else None,
            text=text,
            noise=lambda step: frames[16] + step,
        )

    sample()  # what is made once is made now
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the others are not counted on CPUs
        sample()
    counts = counter.get_flop_counts()["Global"]
    attention = counts.pop(torch.ops.aten.bmm)
    cost = block_cost(SMALL, grid=grid, context_latents=context_latents, num_steps=len(steps), batch=batch)
    assert cost.attention_flop == attention > 0
    assert cost.linear_flop == sum(counts.values())
    assert cost.total_flop == counter.get_total_flops()


@pytest.mark.parametrize("config", [SMALL, star_tiny(), star_1_3b(), star_14b()], ids=["small", "tiny", "1.3b", "14b"])
def test_parameters_are_the_models(config: StarConfig) -> None:
    with torch.device("meta"):
        model = StarTransformer(config)
    assert num_parameters(config) == sum(p.numel() for p in model.parameters())


def test_bytes_are_the_models_and_the_caches() -> None:
    cost = block_cost(SMALL, grid=(6, 8), context_latents=6, batch=2, dtype=torch.float32)
    cache = STCache(SMALL, batch=2, max_context_tokens=cost.context_tokens, block_tokens=cost.block_tokens)
    assert cost.cache_bytes == cache.nbytes
    assert cost.weight_bytes == sum(p.nbytes for p in StarTransformer(SMALL).parameters())


def test_published_model_at_its_size() -> None:
    cost = block_cost(star_1_3b(), grid=(60, 104), context_latents=6)
    assert (cost.context_tokens, cost.block_tokens) == (9360, 4680)
    assert cost.denoise.linear_flop / 4 == pytest.approx(11.7e12, rel=0.01)
    assert cost.denoise.self_attention_flop / 4 == pytest.approx(12.1e12, rel=0.01)
    assert cost.context.self_attention_flop == pytest.approx(16e12, rel=0.05)
    assert cost.total_flop == pytest.approx(137e12, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    block_latents=st.integers(1, 4),
    steps=st.integers(1, 4),
    batch=st.integers(1, 3),
)
def test_linear_work_is_proportional_to_tokens(
    height: int, width: int, block_latents: int, steps: int, batch: int
) -> None:
    def cost(context_latents: int, **changes: Any) -> BlockCost:
        sizes: dict[str, Any] = {"block_latents": block_latents, "num_steps": steps, "batch": batch, **changes}
        return block_cost(SMALL, grid=(2 * height, 2 * width), context_latents=context_latents, **sizes)

    both, first = cost(2 * block_latents), cost(block_latents)
    assert both.context.linear_flop == 2 * first.context.linear_flop
    assert both.context.cross_attention_flop == 2 * first.context.cross_attention_flop
    assert both.context.self_attention_flop == 4 * first.context.self_attention_flop
    assert 2 * both.denoise.self_attention_flop == 3 * first.denoise.self_attention_flop
    assert cost(block_latents, num_steps=2 * steps).denoise == first.denoise * 2
    assert cost(block_latents, num_steps=2 * steps).context == first.context
    assert cost(block_latents, batch=2 * batch).total_flop == 2 * first.total_flop
    assert cost(0).context.total_flop == 0


def test_one_layer_has_a_context_of_keys_and_values_alone() -> None:
    config = replace(SMALL, num_layers=1)
    cost = block_cost(config, grid=(2, 2), context_latents=3)
    assert cost.context.linear_flop == 2 * 3 * (64 * 48 + 2 * 48 * 48)
    assert cost.context.attention_flop == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": (5, 8)}, "grid=(5, 8): want two even"),
        ({"grid": (0, 8)}, "grid=(0, 8)"),
        ({"context_latents": -1}, "context_latents=-1: want 0 or more"),
        ({"num_steps": 0}, "num_steps=0: want 1 or more"),
        ({"batch": 0}, "batch=0"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        block_cost(SMALL, **{"grid": (6, 8), "context_latents": 6, **changes})
    assert message in str(error.value)
