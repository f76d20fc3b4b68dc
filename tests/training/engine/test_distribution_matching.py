import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.training.engine.distribution_matching import matching_gradient


def clips(seed, batch=2):
    return torch.randn(batch, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_critic_that_agrees_with_the_teacher_says_nothing():
    x, real = clips(0), clips(1)
    assert matching_gradient(x, real, real).abs().max() == 0
    assert matching_gradient(real, real, real).abs().max() == 0  # 0 / 0


@settings(deadline=None)
@given(sigma=st.floats(0.05, 0.95), scale=st.floats(0.1, 10))
def test_g_points_along_the_difference_of_scores_whatever_the_size_of_the_clip(sigma, scale):
    x, real, fake, x_t = clips(0, 1), clips(1, 1), clips(2, 1), clips(3, 1)
    g = matching_gradient(x, real, fake)
    score_difference = ((1 - sigma) * fake - x_t) / sigma**2 - ((1 - sigma) * real - x_t) / sigma**2
    ratio = score_difference / g
    assert ratio.min() > 0
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    torch.testing.assert_close(matching_gradient(scale * x, scale * real, scale * fake), g)


def test_a_student_pushed_along_minus_g_comes_to_what_the_teacher_sees():
    teacher = clips(1)
    x = clips(0)
    for _ in range(300):
        critic = x.clone()  # a perfect critic sees the student's own clips
        x = x - 0.05 * matching_gradient(x, teacher, critic)
    assert (x - teacher).abs().mean() < 0.1 * (clips(0) - teacher).abs().mean()
