import gc
import weakref

import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule, add_noise, clean_from_flow
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.star.sampler import BlockSampler
from inspatio_sim.training.star.chunkwise import backward, roll_out
from inspatio_sim.training.star.flows import Conditions, student_flow, teacher_flow

CONFIG = StarConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=16)
STEPS = (1000, 750, 500, 250)
SCHEDULE = FlowSchedule()
F, H, W = 3, 4, 6


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_student(dtype=torch.float64):
    torch.manual_seed(0)
    return StarTransformer(CONFIG).to(dtype)


def make_conditions(num_chunks, *, batch=1, with_view=True, dtype=torch.float64):
    text = numbers(batch, 4, 8, seed=1, dtype=dtype)
    if not with_view:
        return Conditions(text=text)
    num_latents = num_chunks * F
    return Conditions(
        text=text,
        reference=numbers(batch, num_latents, 16, H, W, seed=2, dtype=dtype),
        view=numbers(batch, num_latents, 20, H, W, seed=3, dtype=dtype),
    )


def make_noise(batch=1, dtype=torch.float64):
    return lambda k, step: numbers(batch, F, 16, H, W, seed=100 + 10 * k + step, dtype=dtype)


def rolled_out(student, conditions, num_chunks, exit_step, noise):
    return roll_out(
        student, conditions, noise, num_chunks=num_chunks, steps=STEPS, exit_step=exit_step, schedule=SCHEDULE
    )


@pytest.mark.parametrize("exit_step", [0, 1, 3])
@pytest.mark.parametrize("with_view", [True, False])
def test_gradients_are_those_of_the_full_graph(exit_step, with_view):
    num_chunks, conditions, noise = 4, make_conditions(4, with_view=with_view), make_noise()
    gradient = numbers(1, num_chunks * F, 16, H, W, seed=50)
    student = make_student()
    rolled = rolled_out(student, conditions, num_chunks, exit_step, noise)
    again = backward(student, rolled, conditions, gradient)
    torch.testing.assert_close(again, rolled.latents, atol=1e-12, rtol=0)

    full = make_student()
    timesteps = SCHEDULE.warped(STEPS)
    sigmas = SCHEDULE.sigma(timesteps).tolist()
    chunks = []
    for k in range(num_chunks):
        now = conditions.chunk(k, F)
        history = chunks[-1].detach() if chunks else None
        x = noise(k, 0)
        for step in range(exit_step + 1):
            if step:
                x = add_noise(x.detach(), noise(k, step), sigmas[step])
            x = clean_from_flow(x, student_flow(full, x, timesteps[step : step + 1], now, history), sigmas[step])
        chunks.append(x)
    (torch.cat(chunks, dim=1) * gradient).sum().backward()
    for (name, ours), theirs in zip(student.named_parameters(), full.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
            continue
        assert ours.grad is not None, name
        assert (ours.grad - theirs.grad).abs().max() <= 1e-8 * max(1, float(theirs.grad.abs().max())), name


def test_the_context_is_trained_too():
    student, conditions = make_student(), make_conditions(2)
    rolled = rolled_out(student, conditions, 2, 0, make_noise())
    reference = conditions.reference.requires_grad_()
    backward(student, rolled, conditions, torch.ones_like(rolled.latents))
    assert reference.grad is not None
    assert reference.grad.abs().max() > 0


def test_training_passes_compute_what_generation_does():
    student, conditions, noise = (
        make_student(torch.float32),
        make_conditions(3, dtype=torch.float32),
        make_noise(1, torch.float32),
    )
    rolled = rolled_out(student, conditions, 3, 3, noise)
    sampler = BlockSampler(student.eval())
    with torch.inference_mode():
        text = student.text_keys(conditions.text)
    history = None
    for k in range(3):
        now = conditions.chunk(k, F)
        history = sampler.sample(
            reference=now.reference,
            history=history,
            condition=now.view,
            text=text,
            noise=lambda step, k=k: noise(k, step),
        )
        torch.testing.assert_close(rolled.latents[:, k * F : (k + 1) * F], history, atol=2e-5, rtol=0)


def test_memory_does_not_grow_with_the_number_of_chunks():
    def peak(num_chunks):
        student, conditions = make_student(), make_conditions(num_chunks)
        rolled = rolled_out(student, conditions, num_chunks, 1, make_noise())
        alive, most = 0, 0

        class Saved:
            def __init__(self, tensor):
                nonlocal alive, most
                self.tensor = tensor
                size = tensor.nbytes
                alive += size
                most = max(most, alive)
                weakref.finalize(self, release, size)

        def release(size):
            nonlocal alive
            alive -= size

        gc.collect()
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            backward(student, rolled, conditions, torch.ones_like(rolled.latents))
        return most

    assert peak(12) <= 1.1 * peak(4)


def test_a_batch_is_the_sum_of_its_clips():
    conditions, noise = make_conditions(2, batch=2), make_noise(2)
    student = make_student()
    rolled = rolled_out(student, conditions, 2, 1, noise)
    gradient = numbers(2, 2 * F, 16, H, W, seed=9)
    backward(student, rolled, conditions, gradient)
    alone = make_student()
    for b in range(2):
        one = slice(b, b + 1)
        own = Conditions(text=conditions.text[one], reference=conditions.reference[one], view=conditions.view[one])
        rolled_alone = rolled_out(alone, own, 2, 1, lambda k, step, one=one: noise(k, step)[one])
        torch.testing.assert_close(rolled_alone.latents, rolled.latents[one])
        backward(alone, rolled_alone, own, gradient[one])
    for ours, theirs in zip(student.parameters(), alone.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_trainer_sends_back_each_chunk_once():
    sent = []

    def halved(chunk, gradient):
        sent.append(1)
        chunk.backward(gradient / 2)

    student, plain, conditions = make_student(), make_student(), make_conditions(4)
    rolled = rolled_out(student, conditions, 4, 0, make_noise())
    backward(student, rolled, conditions, torch.ones_like(rolled.latents), send_back=halved)
    backward(plain, rolled, conditions, torch.ones_like(rolled.latents))
    assert len(sent) == 4
    for ours, theirs in zip(student.parameters(), plain.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(2 * ours.grad, theirs.grad)


def test_the_teacher_sees_the_reference_behind_the_target():
    teacher, conditions = make_student(), make_conditions(1)
    x_t, timestep = numbers(1, F, 16, H, W, seed=7), torch.tensor([625.0], dtype=torch.float64)
    flow = teacher_flow(teacher, x_t, timestep, conditions)
    zeros = torch.zeros(1, F, 20, H, W, dtype=torch.float64)
    target, reference = torch.cat([x_t, conditions.view], 2), torch.cat([conditions.reference, zeros], 2)
    expected = teacher(
        torch.cat([target, reference], 1),
        teacher.time_modulation(timestep),
        teacher.text_keys(conditions.text),
        teacher.rotary(torch.arange(2 * F), H, W),
    )[:, :F]
    torch.testing.assert_close(flow, expected)
    text_alone = teacher_flow(teacher, x_t, timestep, make_conditions(1, with_view=False))
    assert text_alone.shape == x_t.shape
    assert not torch.allclose(text_alone, flow)


def test_half_a_condition_is_refused():
    text, clip = numbers(1, 4, 8), numbers(1, F, 16, H, W)
    with pytest.raises(InputError, match="want both, or neither"):
        Conditions(text=text, reference=clip)
    with pytest.raises(InputError, match="want the same clips"):
        Conditions(text=text, reference=clip, view=numbers(1, F + 1, 20, H, W))
