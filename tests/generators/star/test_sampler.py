"""Blocks against the golden roll-out, closed forms, and themselves at other times."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.golden import GoldenCase
from benchmarks.parity_cases.star_dit import load_transformer
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.star.sampler import (
    MAX_CACHES,
    BlockSampler,
    SamplerConfig,
    consistency_sample,
    euler_sample,
)
from tests.generators.star.small import (
    MAKE_NETWORK,
    make_cache,
    make_transformer,
    random_latents,
    random_text,
    two_calls,
)


def noise_of(seed=0, **options):
    """The same noise for the same step."""
    return lambda step: random_latents(3, seed=1000 * seed + step, **options)


def make_sampler(network_kind="plain", **config):
    return BlockSampler(MAKE_NETWORK[network_kind](make_transformer()), SamplerConfig(**config))


def inputs(sampler, *, has_history=True, batch=1, grid=(4, 6), seed=0):
    return {
        "reference": random_latents(3, grid, batch=batch, seed=seed + 1),
        "history": random_latents(3, grid, batch=batch, seed=seed + 2) if has_history else None,
        "condition": random_latents(3, grid, batch=batch, channels=20, seed=seed + 3),
        "text": sampler.transformer.text_keys(random_text(batch=batch, seed=seed + 4)),
        "noise": lambda step: random_latents(3, grid, batch=batch, seed=seed + 10 + step),
    }


def test_the_roll_out_matches_the_published_one(test_data, network_kind):
    golden = GoldenCase.load(test_data / "golden" / "star_rollout.safetensors")
    network = MAKE_NETWORK[network_kind](load_transformer(golden))
    sampler = BlockSampler(network, SamplerConfig(steps=tuple(golden["in.denoising_step_list"].tolist())))
    text = network.text_keys(golden["in.prompt_embeds"])
    view = torch.cat([golden["in.mask_latent"], golden["in.render_latent"]], dim=2)
    blocks = []
    for b, renoise in enumerate(golden["in.renoise"].unsqueeze(2)):
        now = slice(3 * b, 3 * b + 3)
        block = sampler.sample(
            reference=golden["in.ref_latent"][:, now],
            history=blocks[-1] if blocks else None,
            condition=view[:, now],
            text=text,
            noise=[golden["in.noise"][:, now], *renoise].__getitem__,
        )
        blocks.append(block)
    torch.testing.assert_close(torch.cat(blocks, 1), golden["out.latents"], atol=5e-5, rtol=0)


def test_a_block_does_not_depend_on_how_many_came_before(network_kind):
    sampler = make_sampler(network_kind, steps=(1000, 500))
    first = sampler.sample(**inputs(sampler))
    for i in range(48):
        sampler.sample(**inputs(sampler, seed=100 * i, has_history=i % 3 > 0, batch=1 + i % 2))
    assert torch.equal(sampler.sample(**inputs(sampler)), first)


@pytest.mark.parametrize("steps", [(1000, 750, 500, 250), (1000, 500), (1000,)])
def test_any_number_of_steps(network_kind, steps):
    """Each step by hand, with the two calls of the network."""
    sampler = make_sampler(network_kind, steps=steps)
    given = inputs(sampler)
    context = torch.cat([given["reference"], given["history"]], 1)
    schedule = FlowSchedule()
    x = given["noise"](0).double()
    for i, timestep in enumerate(schedule.warped(steps)):
        sigma = timestep.item() / 1000
        if i:
            x = (1 - sigma) * x + sigma * given["noise"](i).double()
        block = torch.cat([x.float(), given["condition"]], 2)
        x = x - sigma * two_calls(sampler.transformer, context, block, random_text(seed=4), timestep.item())
    torch.testing.assert_close(sampler.sample(**given).double(), x, atol=2e-5, rtol=0)


def test_noise_is_asked_for_once_a_step():
    sampler = make_sampler()
    asked = []
    noise = noise_of()
    sampler.sample(**{**inputs(sampler), "noise": lambda step: (asked.append(step), noise(step))[1]})
    assert asked == [0, 1, 2, 3]


def test_noise_is_scaled_in_every_step(network_kind):
    plain, scaled = make_sampler(network_kind), make_sampler(network_kind, noise_scale=0.5)
    given = inputs(plain)
    halved = {**given, "noise": lambda step: 0.5 * given["noise"](step)}
    assert torch.equal(scaled.sample(**given), plain.sample(**halved))


def test_a_batch_is_its_worlds_one_by_one(network_kind):
    sampler = make_sampler(network_kind)
    given = inputs(sampler, batch=3)
    together = sampler.sample(**given)
    for i in range(3):
        alone = {k: given[k][i : i + 1] for k in ("reference", "history", "condition")}
        alone["text"] = sampler.transformer.text_keys(random_text(batch=3, seed=4)[i : i + 1])
        alone["noise"] = lambda step, i=i: given["noise"](step)[i : i + 1]
        torch.testing.assert_close(sampler.sample(**alone), together[i : i + 1], atol=2e-5, rtol=0)


# Text only


def test_text_alone_makes_a_video(network_kind):
    sampler = make_sampler(network_kind, steps=(1000,))
    given = {**inputs(sampler, has_history=False), "reference": None, "condition": None}
    noise = given["noise"](0)
    first = sampler.sample(**given)
    text = random_text(seed=4)
    torch.testing.assert_close(first, noise - two_calls(sampler.transformer, None, noise, text, 1000.0))
    sampler.sample(**inputs(sampler))  # leaves a context in the same cache
    assert torch.equal(sampler.sample(**given), first)


@torch.inference_mode()
def test_history_stays_in_its_slots_without_a_reference():
    sampler = make_sampler(steps=(1000,))
    network, given = sampler.transformer, inputs(sampler)
    given |= {"reference": None, "condition": None}
    block = sampler.sample(**given)
    at_zero, at_step = (network.time_modulation(torch.tensor([t])) for t in (0.0, 1000.0))
    noise = given["noise"](0)

    def by_hand(history_slot):
        cache = make_cache(network, noise)
        slots = network.rotary(history_slot + torch.arange(3), 4, 6)
        network.write_context(given["history"], at_zero, given["text"], slots, cache)
        slots = network.rotary(6 + torch.arange(3), 4, 6)
        return noise - network.denoise(noise, at_step, given["text"], slots, cache)

    torch.testing.assert_close(block, by_hand(3), atol=1e-6, rtol=0)
    assert (block - by_hand(0)).abs().max() > 1e-4


# Buffers


def test_caches_are_made_once_a_size_and_only_a_few_are_kept():
    sampler = make_sampler(steps=(1000,))
    sampler.sample(**inputs(sampler, has_history=False))
    (cache,) = sampler._caches.values()
    size, place = cache.nbytes, cache.keys.data_ptr()
    for i in range(5):
        sampler.sample(**inputs(sampler, seed=i))
    assert [(c.nbytes, c.keys.data_ptr()) for c in sampler._caches.values()] == [(size, place)]
    wanted = {columns: sampler.sample(**inputs(sampler, grid=(4, columns))) for columns in range(2, 16, 2)}
    assert len(sampler._caches) == MAX_CACHES
    for columns, block in wanted.items():  # some of their caches were thrown away
        assert torch.equal(sampler.sample(**inputs(sampler, grid=(4, columns))), block)
    assert len(sampler._caches) == MAX_CACHES


# Closed forms


@settings(deadline=None, max_examples=25)
@given(rate=st.floats(-2, 2), num_steps=st.integers(1, 8))
def test_euler_on_a_linear_field(rate, num_steps):
    """v = rate x multiplies x by 1 - rate (sigma - sigma_next) a step; in the limit by exp(-rate)."""
    sigmas = [1 - i / num_steps for i in range(num_steps)]
    x = torch.tensor([2.0, -1.0], dtype=torch.float64)
    expected = x * (1 - rate / num_steps) ** num_steps
    torch.testing.assert_close(euler_sample(lambda x, _: rate * x, sigmas, x), expected)
    fine = euler_sample(lambda x, _: rate * x, torch.linspace(1, 0, 1001)[:-1].tolist(), x)
    torch.testing.assert_close(fine, x * math.exp(-rate), rtol=4e-3, atol=0)


def test_euler_is_exact_on_a_straight_path_at_any_steps():
    x_0, epsilon = random_latents(3).double(), random_latents(3, seed=1).double()
    sigmas = FlowSchedule().sigma(FlowSchedule().warped((1000, 900, 10))).tolist()
    torch.testing.assert_close(euler_sample(lambda *_: epsilon - x_0, sigmas, epsilon), x_0)


def test_consistency_sampling_of_a_linear_field():
    sigmas, rate = [1.0, 0.8, 0.3], 0.7
    noises = [torch.full((1,), value, dtype=torch.float64) for value in (2.0, -1.0, 0.5)]
    x_0 = 2.0 * (1 - 1.0 * rate)
    x_0 = (0.2 * x_0 + 0.8 * -1.0) * (1 - 0.8 * rate)
    x_0 = (0.7 * x_0 + 0.3 * 0.5) * (1 - 0.3 * rate)
    sampled = consistency_sample(lambda x, _: rate * x, sigmas, noises[0], noises.__getitem__)
    assert sampled.item() == pytest.approx(x_0, rel=1e-12)


def test_consistency_sampling_finds_the_only_picture():
    target = random_latents(3)
    sigmas = [1.0, 0.9375, 0.8333, 0.625]
    sampled = consistency_sample(lambda x, i: (x - target) / sigmas[i], sigmas, noise_of()(0), noise_of())
    torch.testing.assert_close(sampled, target, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": (500, 1000)}, "want them falling"),
        ({"steps": ()}, "at least one"),
        ({"noise_scale": -0.1}, "want 0 to 2"),
        ({"noise_scale": float("nan")}, "want 0 to 2"),
        ({"shift": 0}, "shift=0"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SamplerConfig(**options)


def test_steps_given_as_a_list_become_a_tuple():
    config = SamplerConfig(steps=[1000, 500])  # type: ignore[arg-type]
    assert config == replace(config, steps=(1000, 500))
    assert hash(config) is not None
