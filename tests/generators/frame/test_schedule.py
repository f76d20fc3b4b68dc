"""The noise levels against the published table, closed forms and round trips."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.golden import GoldenCase
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from tests.generators.frame.small import random_latents

timesteps = st.lists(st.integers(0, 999), min_size=1, max_size=3)


def test_the_table_is_the_published_one(test_data):
    golden = GoldenCase.load(test_data / "golden" / "worldfm_dit.safetensors")
    assert torch.equal(DdpmSchedule().alphas_cumprod, golden["sched.alphas_cumprod_f64"].float())


def test_the_ends_of_the_table():
    table = DdpmSchedule().alphas_cumprod
    assert table.dtype == torch.float32
    assert table[0].item() == pytest.approx(1 - 1e-4, abs=1e-7)
    # the sum of log(1 - beta) by hand
    total = sum(math.log1p(-(1e-4 + (0.02 - 1e-4) * i / 999)) for i in range(1000))
    assert table[999].item() == pytest.approx(math.exp(total), rel=1e-5)
    assert (table.diff() < 0).all()


@settings(deadline=None, max_examples=30)
@given(t=timesteps, seed=st.integers(0, 99))
def test_clean_velocity_and_noise_lead_to_each_other(t, seed):
    schedule, timestep = DdpmSchedule(), torch.tensor(t)
    x0, noise = (random_latents(batch=len(t), seed=seed + i).double() for i in (0, 100))
    x_t = schedule.noised(x0, noise, timestep)
    velocity = schedule.velocity(x0, noise, timestep)
    torch.testing.assert_close(schedule.clean_from_velocity(x_t, velocity, timestep), x0)
    for i, step in enumerate(t):  # each item has its own
        alpha_bar = schedule.alphas_cumprod.double()[step].item()
        expected = alpha_bar**0.5 * x0[i] + (1 - alpha_bar) ** 0.5 * noise[i]
        torch.testing.assert_close(x_t[i], expected, rtol=1e-3, atol=1e-6)  # the table is float32
        square = x_t[i].pow(2) + velocity[i].pow(2)  # a turn of (x0, noise)
        torch.testing.assert_close(square, x0[i].pow(2) + noise[i].pow(2))


def test_low_precision_comes_back_as_float32():
    schedule, timestep = DdpmSchedule(), torch.tensor([200])
    x, v = random_latents().bfloat16(), random_latents(seed=1).bfloat16()
    computed = schedule.clean_from_velocity(x, v, timestep)
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed, schedule.clean_from_velocity(x.double(), v.double(), timestep).float())


def test_images_of_any_rank():
    schedule, timestep = DdpmSchedule(), torch.tensor([0, 999])
    x0, noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 5)
    scale = schedule.alphas_cumprod[[0, 999]].sqrt()[:, None]
    torch.testing.assert_close(schedule.noised(x0, noise, timestep), scale * x0)
