import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.training.engine.distribution_matching import matching_gradient, matching_loss
from inspatio_sim.training.star.losses import (
    clean_estimate,
    clip_gradient,
    flow_matching_loss,
    guided,
    noised_for_scores,
    noised_on_table,
)

SCHEDULE = FlowSchedule()


def clips(seed, batch=2):
    return torch.randn(batch, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(index=st.integers(0, 999))
def test_the_true_flow_costs_nothing_and_gives_the_clip_back(index):
    x_0, epsilon = clips(0), clips(1)
    noised = noised_on_table(x_0, epsilon, torch.tensor([index, 999 - index]), SCHEDULE)
    assert flow_matching_loss(noised.target, noised) == 0
    torch.testing.assert_close(clean_estimate(noised.target, noised), x_0)


def test_table_levels_are_those_of_sampling():
    noised = noised_on_table(clips(0, 4), clips(1, 4), torch.tensor([0, 250, 500, 750]), SCHEDULE)
    expected = torch.tensor([1000, 937.5, 2500 / 3, 625], dtype=torch.float64)
    torch.testing.assert_close(noised.timestep, expected, atol=1e-3, rtol=0)


def test_loss_is_weighted_and_pure_noise_weighs_nothing():
    x_0, epsilon = clips(0), clips(1)
    noised = noised_on_table(x_0, epsilon, torch.tensor([0, 500]), SCHEDULE)
    loss = flow_matching_loss(noised.target + 1, noised)
    weights = SCHEDULE.training_weights()
    assert loss.item() == pytest.approx(float(weights[0] + weights[500]) / 2, rel=1e-5)
    assert float(weights[0]) == pytest.approx(0, abs=1e-6)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)


@settings(deadline=None)
@given(u=st.integers(0, 999))
def test_score_timesteps_are_shifted_and_clamped(u):
    noised = noised_for_scores(clips(0, 1), clips(1, 1), torch.tensor([u]), SCHEDULE)
    s = u / 1000
    assert noised.timestep.item() == pytest.approx(min(max(5000 * s / (1 + 4 * s), 20), 980))
    assert noised.sigma.item() == pytest.approx(noised.timestep.item() / 1000)


def test_gradient_of_the_loss_is_g_over_its_size():
    x, g = clips(0).requires_grad_(), matching_gradient(clips(0), clips(1), clips(2))
    matching_loss(x, g).backward()
    torch.testing.assert_close(x.grad, clip_gradient(g))
    torch.testing.assert_close(clip_gradient(g), g / x.numel())


def test_guidance_of_three_is_what_others_call_four():
    with_prompt, without = clips(0), clips(1)
    torch.testing.assert_close(guided(with_prompt, without, 3), without + 4 * (with_prompt - without))
    torch.testing.assert_close(guided(with_prompt, without, 0), with_prompt)
