"""The schedule and the conversions against golden tables, closed forms and round trips."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import (
    DISTILLED_STEPS,
    FlowSchedule,
    add_noise,
    clean_from_flow,
    flow_from_clean,
)

sigmas = st.floats(0.00498, 1.0)


def random_pair(seed=0, shape=(2, 3, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def test_tables_and_conversions_match_the_published_ones(test_data):
    golden = load_file(test_data / "golden" / "star_rollout.safetensors")
    schedule = FlowSchedule()

    def close(computed, key, atol):
        torch.testing.assert_close(computed, golden[key], atol=atol, rtol=0)

    close(schedule.sigmas, "sched.sigmas", 1e-6)
    close(schedule.timesteps, "sched.timesteps", 1e-3)
    close(schedule.training_weights(), "sched.training_weights", 5e-5)
    close(schedule.warped(golden["in.denoising_step_list"].tolist()), "sched.warped_steps", 1e-3)
    t = golden["ex.t"]
    assert torch.equal(schedule.table_index(t), golden["ex.table_index"])
    sigma = schedule.sigma(t).view(-1, 1, 1, 1)
    close(add_noise(golden["ex.clean"], golden["ex.noise"], sigma), "ex.add_noise", 1e-6)
    close(clean_from_flow(golden["ex.noise"], golden["ex.flow"], sigma), "ex.flow_to_x0", 1e-6)


def test_the_four_steps_and_the_end_of_the_table():
    schedule = FlowSchedule()
    timesteps = schedule.warped(DISTILLED_STEPS)
    assert timesteps.tolist() == pytest.approx([1000, 937.5, 2500 / 3, 625])
    assert schedule.sigma(timesteps).tolist() == pytest.approx([1, 0.9375, 2.5 / 3, 0.625])
    assert schedule.sigma(torch.zeros(1)).item() == pytest.approx(0.005 / 1.004)  # 0.00498, not 0
    assert schedule.warped((1000, 0)).tolist() == [1000, 0]


@pytest.mark.parametrize("steps", [(1000, 750, 500, 250), (1000, 500), (1000,), (750.0, np.int64(1))])
@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
def test_any_steps_at_any_shift(steps, shift):
    s = np.array(steps) / 1000
    warped = FlowSchedule(shift).warped(steps)
    np.testing.assert_allclose(warped, 1000 * shift * s / (1 + (shift - 1) * s), rtol=1e-6)
    np.testing.assert_allclose(FlowSchedule(shift).sigma(warped), warped / 1000, rtol=1e-6)


@settings(deadline=None)
@given(t=st.floats(-10, 1100), shift=st.sampled_from([1.0, 3.0, 5.0]))
def test_sigma_is_that_of_the_nearest_timestep(t, shift):
    schedule = FlowSchedule(shift)
    t_tensor = torch.tensor([[t]])
    distances = np.abs(schedule.timesteps.numpy() - np.float32(t))
    assert schedule.sigma(t_tensor).shape == (1, 1)
    assert schedule.table_index(t_tensor).item() == np.flatnonzero(distances == distances.min())[0]
    assert schedule.sigma(t_tensor).item() == schedule.sigmas[schedule.table_index(t_tensor)].item()


def test_of_two_equally_near_timesteps_the_first_counts():
    schedule = FlowSchedule(1.0)
    assert schedule.timesteps[[499, 500]].tolist() == [501, 500]
    assert schedule.table_index(torch.tensor(500.5)).item() == 499


def test_training_weights_are_a_bell_of_mean_1():
    schedule = FlowSchedule()
    weights = schedule.training_weights()
    assert weights.mean().item() == pytest.approx(1)
    at = weights[schedule.table_index(torch.tensor([1000.0, 937, 833, 625, 500, 250, 20]))]
    assert at.tolist() == pytest.approx([0, 0.40, 1.03, 1.91, 2.08, 1.46, 0.13], abs=0.006)


@settings(deadline=None)
@given(sigma=sigmas, seed=st.integers(0, 1000))
def test_clean_flow_and_noise_lead_to_each_other(sigma, seed):
    x_0, epsilon = random_pair(seed)
    x_t = add_noise(x_0, epsilon, sigma)
    atol = 1e-6 / sigma  # rounding of x_t, divided by sigma
    torch.testing.assert_close(flow_from_clean(x_t, x_0, sigma), epsilon - x_0, atol=atol, rtol=1e-5)
    torch.testing.assert_close(clean_from_flow(x_t, epsilon - x_0, sigma), x_0, atol=1e-6, rtol=1e-5)
    v = random_pair(seed + 1)[0]  # not only flows that noise made
    torch.testing.assert_close(flow_from_clean(x_t, clean_from_flow(x_t, v, sigma), sigma), v, atol=atol, rtol=1e-5)


def test_each_item_may_have_its_own_sigma():
    x_0, epsilon = random_pair()
    sigma = torch.tensor([0.25, 1.0]).view(2, 1, 1)
    x_t = add_noise(x_0, epsilon, sigma)
    assert torch.equal(x_t[1], epsilon[1])
    clean = clean_from_flow(x_t, epsilon - x_0, sigma)
    for i in range(2):
        assert torch.equal(clean[i], clean_from_flow(x_t[i], (epsilon - x_0)[i], sigma[i].item()))
    assert flow_from_clean(x_t, x_0, sigma).dtype == torch.float32


def test_bfloat16_is_converted_in_float64():
    x_t, v = (x.bfloat16() for x in random_pair())
    exact = x_t.double() - 0.9375 * v.double()
    assert torch.equal(clean_from_flow(x_t, v, 0.9375), exact.bfloat16())


@pytest.mark.parametrize("shift", [0, -1.0, float("nan"), float("inf")])
def test_a_shift_that_is_not_positive_is_refused(shift):
    with pytest.raises(InputError, match=f"shift={shift}: want a positive number"):
        FlowSchedule(shift)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), r"steps=\[\]: want whole numbers from 0 to 1000, at least one"),
        ((1001, 500), r"steps=\[1001, 500\]: want whole numbers"),
        ((500, -1), "want whole numbers"),
        ((750.5,), "want whole numbers"),
        ((float("nan"),), "want whole numbers"),
        ((500, 1000), r"want them falling, each once, such as \[1000, 750, 500, 250\]"),
        ((500, 500), "want them falling, each once"),
    ],
)
def test_bad_steps_are_refused(steps, message):
    with pytest.raises(InputError, match=message):
        FlowSchedule().warped(steps)
