"""The CPU's form of the transformer equals the plain one."""

from dataclasses import replace

import pytest
import torch

from inspatio_sim.generators.star.cpu import CpuTransformer
from tests.generators.star.small import SMALL, make_transformer, random_latents, random_text, two_calls

BF16_STEP = 2.0**-8  # largest relative error of one rounding to bfloat16


@pytest.mark.parametrize("has_context", [True, False])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_it_equals_the_plain_network(has_context, num_layers):
    transformer = make_transformer(replace(SMALL, num_layers=num_layers))
    context = random_latents(6, batch=2, seed=1) if has_context else None
    block, text = random_latents(3, batch=2, channels=36), random_text(batch=2)
    plain = two_calls(transformer, context, block, text)
    torch.testing.assert_close(two_calls(CpuTransformer(transformer), context, block, text), plain, atol=1e-5, rtol=0)


def test_it_equals_the_plain_network_without_onednn(monkeypatch):
    transformer = make_transformer()
    context, block, text = random_latents(6, seed=1), random_latents(3, channels=36), random_text()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    unpacked = two_calls(CpuTransformer(transformer), context, block, text)
    torch.testing.assert_close(unpacked, two_calls(transformer, context, block, text), atol=1e-5, rtol=0)


def test_all_worlds_share_a_timestep():
    with pytest.raises(AssertionError, match="one modulation for all worlds"):
        CpuTransformer(make_transformer()).time_modulation(torch.tensor([1000.0, 750.0]))


@pytest.mark.parametrize("num_layers", [1, 4])
def test_bfloat16_is_no_worse_than_the_plain_network(num_layers):
    """Both round about a dozen times a layer; ours keeps the residual stream in float32, so it may not be worse.

    Against the same rounded weights in float32, relative to the flow's size.
    """
    rounded = make_transformer(replace(SMALL, num_layers=num_layers), dtype=torch.bfloat16)
    exact = make_transformer(rounded.config)
    exact.load_state_dict({name: weight.float() for name, weight in rounded.state_dict().items()})
    context, block, text = random_latents(6, seed=1), random_latents(3, channels=36), random_text()
    expected = two_calls(exact, context, block, text)

    def error(network):
        flow = two_calls(network, context, block, text)
        assert flow.dtype == torch.bfloat16
        return ((flow.float() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()).item()

    fast, plain = error(CpuTransformer(rounded)), error(rounded)
    assert fast < 1.2 * plain
    # n independent roundings of relative size up to 2^-8 / sqrt(3) add up to sqrt(n) of them
    assert fast < (12 * num_layers + 2) ** 0.5 * BF16_STEP / 3**0.5
