"""Frames against the golden samples, closed forms, and each step by hand."""

from dataclasses import replace

import pytest
import torch

from benchmarks.golden import GoldenCase
from benchmarks.parity_cases.worldfm_dit import load_transformer
from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.sampler import FrameSampler, FrameSamplerConfig
from inspatio_sim.generators.frame.schedule import DdpmSchedule
from tests.generators.frame.small import MAKE_NETWORK, SMALL, make_transformer, random_images, random_latents


def noise_of(seed=0, **options):
    """The same noise for the same step."""
    return lambda step: random_latents(seed=1000 * seed + 500 + step, **options)


def make_sampler(network_kind="plain", config=SMALL, **options):
    return FrameSampler(MAKE_NETWORK[network_kind](make_transformer(config)), FrameSamplerConfig(**options))


def inputs(*, batch=1, seed=0, config=SMALL):
    _, anchors, reference = random_images(config, batch=batch, seed=seed)
    return {"noise": noise_of(seed, batch=batch), "anchors": anchors, "reference": reference}


@pytest.mark.parametrize("num_steps", [1, 2])
def test_samples_match_the_published_ones(test_data, network_kind, num_steps):
    golden = GoldenCase.load(test_data / "golden" / "worldfm_dit.safetensors")
    network = MAKE_NETWORK[network_kind](load_transformer(golden))
    sampler = FrameSampler(network, FrameSamplerConfig(steps=(999, 200)[:num_steps]))
    latents = sampler.sample(
        noise=[golden["in.sample.noise0"], golden["in.sample.noise_mid"]].__getitem__,
        anchors=golden["in.sample.cond1_latent"],
        reference=golden["in.sample.cond2_latent"],
    )
    torch.testing.assert_close(latents, golden[f"out.sample{num_steps}.latent"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [(999,), (999, 200), (999, 600, 300, 0)])
@pytest.mark.parametrize("learns_sigma", [False, True])
@torch.no_grad()
def test_any_steps_by_hand(network_kind, steps, learns_sigma):
    sampler = make_sampler(network_kind, replace(SMALL, learns_sigma=learns_sigma), steps=steps)
    given = inputs()
    table = DdpmSchedule().alphas_cumprod.double()
    x = given["noise"](0).double()
    for i, step in enumerate(steps):
        signal, sigma = table[step].sqrt(), (1 - table[step]).sqrt()
        if i:
            x = signal * x + sigma * given["noise"](i).double()
        timestep = torch.tensor([step])
        result = sampler.network(x.float(), timestep, given["anchors"], given["reference"])[:, :4].double()
        x = signal * x - sigma * result
    torch.testing.assert_close(sampler.sample(**given).double(), x, atol=1e-4, rtol=0)


def test_noise_is_asked_for_once_a_step():
    for options, expected in (({}, [0, 1]), ({"steps": (999,)}, [0])):
        asked = []
        noise = noise_of()
        make_sampler(**options).sample(**{**inputs(), "noise": lambda step: (asked.append(step), noise(step))[1]})  # noqa: B023
        assert asked == expected


def test_times_are_worked_out_once():
    sampler = make_sampler()
    times = []
    plain = sampler.network.modulation
    sampler.network.modulation = lambda timestep: (times.append(timestep.tolist()), plain(timestep))[1]
    first = sampler.sample(**inputs())
    sampler.sample(**inputs(seed=5, batch=2))
    assert torch.equal(sampler.sample(**inputs()), first)
    assert times == [[999], [200]]


def test_a_batch_is_its_worlds_one_by_one(network_kind):
    sampler = make_sampler(network_kind)
    given = inputs(batch=3)
    together = sampler.sample(**given)
    for i in range(3):
        alone = {name: given[name][i : i + 1] for name in ("anchors", "reference")}
        alone["noise"] = lambda step, i=i: given["noise"](step)[i : i + 1]
        torch.testing.assert_close(sampler.sample(**alone), together[i : i + 1], atol=2e-5, rtol=0)


def test_an_image_from_noise_alone(network_kind):
    sampler = make_sampler(network_kind, steps=(999,))
    noise = noise_of()
    alone = sampler.sample(noise=noise, anchors=None, reference=None)
    result = sampler.network(noise(0), torch.tensor([999]))
    expected = DdpmSchedule().clean_from_velocity(noise(0), result, torch.tensor([999]))
    torch.testing.assert_close(alone, expected)
    assert (sampler.sample(**inputs()) - alone).abs().max() > 1e-2


def test_low_precision_gives_float32():
    sampler = FrameSampler(make_transformer(dtype=torch.bfloat16))
    exact = FrameSampler(make_transformer(), sampler.config)
    latents, expected = sampler.sample(**inputs()), exact.sample(**inputs())
    assert latents.dtype == torch.float32
    assert 0 < (latents - expected).norm() / expected.norm() < 0.05


# Closed forms


class GaussianNetwork:
    """The ideal network of images whose numbers are normal, with a given mean and spread."""

    config, dtype, device = SMALL, torch.float32, torch.device("cpu")

    def __init__(self, mean, std):
        self.mean, self.std = mean, std
        self.alphas_cumprod = DdpmSchedule().alphas_cumprod.double()

    def modulation(self, timestep):
        return timestep

    def denoise(self, x, time, anchors=None, reference=None):
        alpha_bar = self.alphas_cumprod[time].item()
        signal, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        x0 = self.mean + signal * self.std**2 * (x - signal * self.mean) / (alpha_bar * self.std**2 + sigma**2)
        noise = (x - signal * x0) / sigma
        return signal * noise - sigma * x0

    def __call__(self, x, timestep, anchors=None, reference=None):
        return self.denoise(x, timestep)


@pytest.mark.parametrize("steps", [(999,), (999, 200)])
def test_few_steps_find_the_only_image(steps):
    sampler = FrameSampler(GaussianNetwork(0.7, 0.0), FrameSamplerConfig(steps=steps))
    latents = sampler.sample(noise=noise_of(), anchors=None, reference=None)
    torch.testing.assert_close(latents, torch.full_like(latents, 0.7), atol=1e-4, rtol=0)


# Configurations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": ()}, r"steps=\[\]: want whole numbers from 999 down to 0, at least one"),
        ({"steps": (1000, 200)}, "want whole numbers from 999"),
        ({"steps": (999, 200.5)}, "want whole numbers from 999"),
        ({"steps": (200,)}, r"steps=\[200\]: want them falling from 999, each once, such as \[999, 200\]"),
        ({"steps": (999, 200, 300)}, "want them falling from 999"),
        ({"steps": (999, 999)}, "want them falling from 999"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FrameSamplerConfig(**options)


def test_steps_given_as_a_list_become_a_tuple():
    config = FrameSamplerConfig(steps=[999, 200])  # type: ignore[arg-type]
    assert config == FrameSamplerConfig()
    assert hash(config) is not None
