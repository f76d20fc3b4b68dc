"""Noise levels, losses and few-step sampling, against their definitions."""

import pytest
import torch

from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.frame.sampler import FrameSampler, FrameSamplerConfig
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.training.engine.iteration import SampleRandom
from inspatio_sim.training.frame.diffusion import (
    Conditions,
    DiffusionConfig,
    draw_timestep,
    few_steps,
    many_steps,
    score_timestep,
    student_direction,
    velocity_errors,
    weights_of,
    with_noise,
)
from inspatio_sim.training.frame.networks import start_frame

SCHEDULE = DdpmSchedule()
STEPS = (999, 200)


def network(seed):
    config = FrameConfig(
        input_size=4, patch_size=1, in_channels=3, mask_channels=1, hidden_size=16, depth=2, num_heads=2,
        learns_sigma=False, has_caption=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    return FrameTransformer(config)


def conditions(batch=2):
    generator = torch.Generator().manual_seed(7)
    anchors, reference = torch.randn(2, batch, 4, 4, 6, generator=generator)
    return Conditions(anchors=anchors, reference=reference)


def noises(batch=2):
    generator = torch.Generator().manual_seed(8)
    return torch.randn(2, batch, 3, 4, 6, generator=generator)


def random(count=2, seed=0):
    return SampleRandom(range(seed, seed + count), torch.device("cpu"))


class Knows:
    """A network that knows the image behind the noise."""

    def __init__(self, x_0):
        self.x_0 = x_0

    def __call__(self, x_t, timestep, anchors=None, reference=None):
        alpha = SCHEDULE.alphas_cumprod.double()[timestep].view(-1, 1, 1, 1)
        return ((alpha.sqrt() * x_t - self.x_0) / (1 - alpha).sqrt()).float()


def test_shares_of_noise_levels():
    config = DiffusionConfig(few_step_share=0.4, high_noise_share=0.3)
    t = draw_timestep(random(4000), config)
    assert t.dtype == torch.int64
    for step in STEPS:
        assert (t == step).float().mean() == pytest.approx(0.2, abs=0.03)
    others = t[(t != 999) & (t != 200)]
    assert (others >= 500).float().mean() == pytest.approx((0.3 + 0.15) / 0.6, abs=0.04)
    assert others.min() < 20
    assert others.max() < 1000
    even = draw_timestep(random(4000), DiffusionConfig(few_step_share=0))
    assert (even < 250).float().mean() == pytest.approx(0.25, abs=0.03)
    scores = score_timestep(random(4000))
    assert (int(scores.min()), int(scores.max())) == (20, 980)


def test_conditions_get_noise_of_many_sizes_but_not_their_mask():
    latents = torch.zeros(200, 4, 8, 8)
    latents[:, -1] = 1
    noisy = with_noise(latents, random(200), 0.1)
    assert torch.equal(noisy[:, -1], latents[:, -1])
    sizes = noisy[:, :-1].flatten(1).std(1)
    assert 0.08 < sizes.max() < 0.12
    assert sizes.min() < 0.01
    assert sizes.mean() == pytest.approx(0.05, abs=0.01)
    assert torch.equal(with_noise(latents, random(200), 0), latents)


def test_who_knows_the_image_has_no_error():
    x_0, noise = noises()
    timestep = torch.tensor([999, 200])
    assert velocity_errors(Knows(x_0), x_0, noise, timestep, Conditions(), SCHEDULE).max() < 1e-8
    wrong = velocity_errors(Knows(x_0 + 1), x_0, noise, timestep, Conditions(), SCHEDULE)
    torch.testing.assert_close(wrong.double(), 1 / (1 - SCHEDULE.alphas_cumprod.double()[timestep]), rtol=1e-4, atol=0)
    for steps in ((999,), STEPS):
        made = few_steps(
            Knows(x_0), noises().__getitem__, Conditions(), steps=steps, exit_step=len(steps) - 1, schedule=SCHEDULE
        )
        torch.testing.assert_close(made, x_0, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        many_steps(Knows(x_0), noise, Conditions(), num_steps=10, schedule=SCHEDULE), x_0, rtol=0, atol=1e-4
    )


def test_min_snr_weights():
    timestep = torch.tensor([0, 200, 999])
    assert torch.equal(weights_of(timestep, SCHEDULE, None), torch.ones(3))
    alpha = SCHEDULE.alphas_cumprod[timestep]
    x_0_weights = weights_of(timestep, SCHEDULE, 5.0) / (1 - alpha)  # of the error of x_0
    torch.testing.assert_close(x_0_weights, (alpha / (1 - alpha)).clamp(max=5.0))


@pytest.mark.parametrize("steps", [(999,), STEPS])
def test_few_steps_are_those_of_the_sampler(steps):
    student, given, noise = network(0), conditions(), noises()
    with torch.no_grad():
        made = few_steps(
            student, noise.__getitem__, given, steps=steps, exit_step=len(steps) - 1, schedule=SCHEDULE
        )  # fmt: skip
    sampler = FrameSampler(student, FrameSamplerConfig(steps=steps))
    sampled = sampler.sample(noise=noise.__getitem__, anchors=given.anchors, reference=given.reference)
    torch.testing.assert_close(made, sampled, rtol=1e-5, atol=1e-5)


def test_only_the_last_step_has_a_gradient():
    student, given, noise = network(0), conditions(), noises()

    def gradients(**kinds):
        student.zero_grad()
        made = few_steps(student, noise.__getitem__, given, steps=STEPS, schedule=SCHEDULE, **kinds)
        made.square().mean().backward()
        return made, {name: p.grad.clone() for name, p in student.named_parameters()}

    made, got = gradients(exit_step=1)
    student.zero_grad()
    timestep = torch.full((2,), 999)
    with torch.no_grad():
        x_0 = SCHEDULE.clean_from_velocity(
            noise[0], student(noise[0], timestep, given.anchors, given.reference), timestep
        )
    following = torch.full((2,), 200)
    x_t = SCHEDULE.noised(x_0, noise[1], following)
    wanted = SCHEDULE.clean_from_velocity(x_t, student(x_t, following, given.anchors, given.reference), following)
    wanted.square().mean().backward()
    torch.testing.assert_close(made, wanted)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad)
    first, _ = gradients(exit_step=0)
    torch.testing.assert_close(first, x_0)


def test_no_direction_where_teacher_and_critic_agree():
    x, noise = noises()
    timestep = torch.tensor([300, 700])
    same = student_direction(x, conditions(), noise, timestep, real=network(1), fake=network(1), schedule=SCHEDULE)
    assert not same.any()
    real, fake = Knows(x + 1), Knows(x + 3)
    g = student_direction(x, conditions(), noise, timestep, real=real, fake=fake, schedule=SCHEDULE)
    torch.testing.assert_close(g, torch.full_like(g, 2.0), rtol=1e-3, atol=0)  # (fake - real) / |x - real|


def test_training_begins_with_a_velocity_of_zero():
    fresh = network(0)
    start_frame(fresh)
    x, _ = noises()
    given = conditions()
    assert not fresh(x, torch.tensor([5, 999]), given.anchors, given.reference).any()
    fresh(x, torch.tensor([5, 999])).sum().backward()
    assert fresh.final_layer.linear.weight.grad.abs().max() > 0
