import copy

import pytest
import torch

from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.star.chunkwise import backward, roll_out
from inspatio_sim.training.star.flows import Conditions, teacher_flow
from inspatio_sim.training.star.losses import clip_gradient
from inspatio_sim.training.star.matching import ScoreNoise, critic_loss, student_gradient

CONFIG = StarConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=16)
SCHEDULE = FlowSchedule()
F, H, W = 3, 4, 6


def network(seed, in_channels=36):
    torch.manual_seed(seed)
    return StarTransformer(StarConfig(**{**vars(CONFIG), "in_channels": in_channels}))


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_conditions(batch=2, *, with_view=True, num_latents=F):
    text = numbers(batch, 4, 8, seed=1)
    if not with_view:
        return Conditions(text=text)
    return Conditions(
        text=text,
        reference=numbers(batch, num_latents, 16, H, W, seed=2),
        view=numbers(batch, num_latents, 20, H, W, seed=3),
    )


def gradient(x, conditions, real, fake, **options):
    noise = ScoreNoise.like(x, torch.Generator().manual_seed(5))
    negative = torch.zeros_like(conditions.text)
    return student_gradient(
        x, conditions, noise, real=real, fake=fake, negative_text=negative, schedule=SCHEDULE, **options
    )


@pytest.mark.parametrize("with_view", [True, False])
def test_a_critic_that_is_the_teacher_leaves_the_student_alone(with_view):
    teacher, x = network(0), numbers(2, F, 16, H, W, seed=9)
    conditions = make_conditions(with_view=with_view)
    assert gradient(x, conditions, teacher, copy.deepcopy(teacher), guidance=0).abs().max() == 0
    assert gradient(x, conditions, teacher, copy.deepcopy(teacher)).abs().max() > 0  # guidance asks for more


def test_a_text_only_task_takes_networks_of_sixteen_channels():
    x = numbers(2, F, 16, H, W, seed=9)
    g = gradient(x, make_conditions(with_view=False), network(0, 16), network(1, 16))
    assert g.shape == x.shape
    assert g.dtype == torch.float64


def test_each_clip_is_looked_at_by_itself():
    x, conditions, real, fake = numbers(2, F, 16, H, W, seed=9), make_conditions(), network(0), network(1)
    noise = ScoreNoise.like(x, torch.Generator().manual_seed(5))
    together = gradient(x, conditions, real, fake)
    one = slice(1, 2)
    alone = student_gradient(
        x[one],
        Conditions(text=conditions.text[one], reference=conditions.reference[one], view=conditions.view[one]),
        ScoreNoise(epsilon=noise.epsilon[one], u=noise.u[one]),
        real=real,
        fake=fake,
        negative_text=torch.zeros(1, 4, 8),
        schedule=SCHEDULE,
    )
    torch.testing.assert_close(together[one], alone, atol=1e-4, rtol=1e-4)


def test_the_critic_learns_from_clips_that_learn_nothing_from_it():
    fake, conditions = network(1), make_conditions()
    x = numbers(2, F, 16, H, W, seed=9).requires_grad_()
    noise = ScoreNoise.like(x, torch.Generator().manual_seed(5))
    critic_loss(fake, x, conditions, noise, SCHEDULE).backward()
    assert x.grad is None
    assert fake.head.head.weight.grad.abs().max() > 0
    optimiser = torch.optim.Adam(fake.parameters(), lr=3e-3)
    losses = []
    for i in range(40):
        optimiser.zero_grad()
        loss = critic_loss(fake, x, conditions, ScoreNoise.like(x, torch.Generator().manual_seed(i)), SCHEDULE)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_the_same_seed_looks_the_same():
    x = numbers(2, F, 16, H, W)
    a, b = (ScoreNoise.like(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a.epsilon, b.epsilon)
    assert torch.equal(a.u, b.u)
    assert 0 <= int(a.u.min()) <= int(a.u.max()) < 1000


def test_steps_against_g_bring_the_student_nearer_to_the_teacher():
    """A student, a teacher that always sees one clip, a critic that knows the student: the clip is approached."""
    wanted = numbers(1, 2 * F, 16, H, W, seed=20)

    class Certain(StarTransformer):
        """A teacher whose every estimate is the wanted clip."""

        def forward(self, latents, time, text, rotary):
            x_t = latents[:, : 2 * F, :16]
            return (x_t - wanted) / self.sigma

    student = network(2)
    real, fake = Certain(CONFIG), Certain(CONFIG)
    conditions = make_conditions(1, num_latents=2 * F)
    optimiser = torch.optim.Adam(student.parameters(), lr=2e-3)

    def noise(k, step):
        return numbers(1, F, 16, H, W, seed=100 + k)

    def rolled():
        return roll_out(student, conditions, noise, num_chunks=2, steps=(1000,), exit_step=0, schedule=SCHEDULE)

    before = (rolled().latents - wanted).abs().mean()
    for i in range(60):
        clip = rolled()
        look = ScoreNoise.like(clip.latents, torch.Generator().manual_seed(i))
        sigma = look.on(clip.latents, SCHEDULE).sigma
        real.sigma = sigma
        own = clip.latents  # what a perfect critic sees: the student's clip itself
        fake.forward = lambda latents, time, text, rotary, own=own, sigma=sigma: (
            (latents[:, : 2 * F, :16] - own) / sigma
        )
        g = student_gradient(
            own,
            conditions,
            look,
            real=real,
            fake=fake,
            negative_text=torch.zeros(1, 4, 8),
            schedule=SCHEDULE,
        )
        optimiser.zero_grad()
        backward(student, clip, conditions, clip_gradient(g).float())
        optimiser.step()
    assert (rolled().latents - wanted).abs().mean() < 0.7 * before


def test_teacher_output_covers_the_target_only():
    x = numbers(1, F, 16, H, W)
    conditions = make_conditions(1)
    assert teacher_flow(network(0), x, torch.tensor([500.0]), conditions).shape == x.shape
