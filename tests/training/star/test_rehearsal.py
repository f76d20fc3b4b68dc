import copy

import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.star.flows import Conditions, student_flow
from inspatio_sim.training.star.losses import clean_estimate, flow_matching_loss, noised_on_table
from inspatio_sim.training.star.rehearsal import draw_levels, rehearse
from inspatio_sim.training.star.trajectories import regression_loss, teacher_trajectory

CONFIG = StarConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=16)
SCHEDULE = FlowSchedule()
STEPS = (1000, 750, 500, 250)
F, N, H, W = 3, 2, 4, 6


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return StarTransformer(CONFIG).to(dtype)


def make_conditions(batch=2, dtype=torch.float64):
    return Conditions(
        text=numbers(batch, 4, 8, seed=1, dtype=dtype),
        reference=numbers(batch, N * F, 16, H, W, seed=2, dtype=dtype),
        view=numbers(batch, N * F, 20, H, W, seed=3, dtype=dtype),
    )


@pytest.mark.parametrize("own", [False, True])
def test_chunks_add_up_to_the_gradient_of_the_whole(own):
    target, epsilon = numbers(2, N * F, 16, H, W, seed=4), numbers(2, N * F, 16, H, W, seed=5)
    index, conditions, student = torch.tensor([[100, 900], [400, 30]]), make_conditions(), network()
    full = copy.deepcopy(student)
    loss = rehearse(
        student,
        target,
        conditions,
        epsilon=epsilon,
        index=index,
        uses_own_history=[own] * N,
        schedule=SCHEDULE,
    )
    losses, history = [], None
    for k in range(N):
        now = slice(k * F, (k + 1) * F)
        noised = noised_on_table(target[:, now], epsilon[:, now], index[k], SCHEDULE)
        flow = student_flow(full, noised.x_t, noised.timestep, conditions.chunk(k, F), history)
        losses.append(flow_matching_loss(flow, noised))
        history = clean_estimate(flow, noised).detach() if own else target[:, now]
    expected = torch.stack(losses).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(student.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_rehearsing_lowers_the_loss():
    student = network(dtype=torch.float32)
    optimiser = torch.optim.Adam(student.parameters(), lr=2e-3)
    losses = []
    for i in range(60):
        still = numbers(2, 1, 16, H, W, dtype=torch.float32).expand(-1, N * F, -1, -1, -1)
        optimiser.zero_grad()
        losses.append(
            rehearse(
                student,
                still,
                Conditions(text=torch.zeros(2, 4, 8)),
                epsilon=numbers(*still.shape, seed=i % 3, dtype=torch.float32),
                index=torch.full((N, 2), 400 + 50 * (i % 3)),
                uses_own_history=[False] * N,
                schedule=SCHEDULE,
            )
        )
        optimiser.step()
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_levels_are_even_and_repeatable():
    levels = draw_levels(100, 50, torch.Generator().manual_seed(0))
    assert torch.equal(levels, draw_levels(100, 50, torch.Generator().manual_seed(0)))
    assert 480 < levels.double().mean() < 520
    assert 0 <= int(levels.min()) < int(levels.max()) < 1000


def test_what_does_not_fit_is_refused():
    target = numbers(2, N * F, 16, H, W)
    options = {"epsilon": target, "schedule": SCHEDULE, "uses_own_history": [False] * N}
    with pytest.raises(InputError, match="clips of 5 latents: want a multiple of 3"):
        rehearse(network(), target[:, :5], make_conditions(), index=torch.zeros(N, 2).long(), **options)
    with pytest.raises(InputError, match=r"want \[2, 2\] and 2"):
        rehearse(network(), target, make_conditions(), index=torch.zeros(3, 2).long(), **options)


class Straight(StarTransformer):
    """A teacher whose paths are straight lines to one clip."""

    wanted: torch.Tensor
    num_calls: int = 0

    def forward(self, latents, time, text, rotary):
        self.num_calls += 1
        sigma = self.sigmas[self.num_calls - 1]
        return (latents[:, : self.wanted.shape[1], :16] - self.wanted) / sigma


def test_a_straight_trajectory_passes_through_the_students_levels():
    teacher, noise = Straight(CONFIG).double(), numbers(1, N * F, 16, H, W, seed=7)
    teacher.wanted = numbers(1, N * F, 16, H, W, seed=8)
    s = torch.arange(48, 0, -1, dtype=torch.float64) / 48
    teacher.sigmas = 5 * s / (1 + 4 * s)
    trajectory = teacher_trajectory(teacher, make_conditions(1), noise, steps=STEPS, schedule=SCHEDULE)
    assert teacher.num_calls == 48
    torch.testing.assert_close(trajectory.final, teacher.wanted)
    for state, sigma in zip(trajectory.states, (1, 0.9375, 2.5 / 3, 0.625), strict=True):
        torch.testing.assert_close(state, (1 - sigma) * teacher.wanted + sigma * noise, atol=1e-9, rtol=0)


def test_guidance_looks_twice():
    teacher, conditions = network(), make_conditions(1)
    noise, options = numbers(1, N * F, 16, H, W, seed=7), {"steps": (1000, 500), "schedule": SCHEDULE}
    negative = torch.zeros(1, 4, 8, dtype=torch.float64)
    plain = teacher_trajectory(teacher, conditions, noise, num_euler_steps=4, **options)
    led = teacher_trajectory(
        teacher, conditions, noise, num_euler_steps=4, guidance=3, negative_text=negative, **options
    )
    assert torch.equal(plain.states[0], led.states[0])
    assert not torch.allclose(plain.final, led.final)
    with pytest.raises(InputError, match="want a negative text"):
        teacher_trajectory(teacher, conditions, noise, guidance=3, **options)
    with pytest.raises(InputError, match="50 Euler steps do not pass through"):
        teacher_trajectory(teacher, conditions, noise, num_euler_steps=50, steps=STEPS, schedule=SCHEDULE)


def test_a_student_learns_where_the_teacher_goes():
    teacher, student, conditions = (
        network(1, torch.float32),
        network(0, torch.float32),
        make_conditions(1, torch.float32),
    )
    noise = numbers(1, N * F, 16, H, W, seed=7, dtype=torch.float32)
    trajectory = teacher_trajectory(teacher, conditions, noise, steps=STEPS, schedule=SCHEDULE, num_euler_steps=8)
    assert trajectory.states.shape == (4, 1, N * F, 16, H, W)
    optimiser = torch.optim.Adam(student.parameters(), lr=2e-3)
    losses = []
    for i in range(40):
        optimiser.zero_grad()
        loss = regression_loss(
            student, trajectory, conditions, step_of_chunk=[i % 4, (i + 1) % 4], steps=STEPS, schedule=SCHEDULE
        )
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
