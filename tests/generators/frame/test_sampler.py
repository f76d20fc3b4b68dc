"""Frames against the golden samples, closed forms, and each step by hand."""

import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
@pytest.mark.parametrize("steps", [(999,), (999, 200), (999, 600, 300, 0)])
@pytest.mark.parametrize("learns_sigma", [False, True])
@torch.no_grad()
def test_any_steps_by_hand(network_kind, prediction, steps, learns_sigma):
    sampler = make_sampler(network_kind, replace(SMALL, learns_sigma=learns_sigma), steps=steps, prediction=prediction)
    given = inputs()
    table = DdpmSchedule().alphas_cumprod.double()
    x = given["noise"](0).double()
    for i, step in enumerate(steps):
        signal, sigma = table[step].sqrt(), (1 - table[step]).sqrt()
        if i:
            x = signal * x + sigma * given["noise"](i).double()
        timestep = torch.tensor([step])
        result = sampler.network(x.float(), timestep, given["anchors"], given["reference"])[:, :4].double()
        x = signal * x - sigma * result if prediction == "velocity" else (x - sigma * result) / signal
    size = x.abs().max().item()  # epsilon makes large numbers of a network that was never trained
    torch.testing.assert_close(sampler.sample(**given).double(), x, atol=1e-4 * max(size, 1), rtol=0)


def test_noise_is_asked_for_once_a_step():
    for options, expected in (({}, [0, 1]), ({"steps": (999,)}, [0]), ({"solver": "dpm", "num_dpm_steps": 5}, [0])):
        if options.get("solver") == "dpm":
            pytest.importorskip("diffusers")
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


@pytest.mark.parametrize("solver", ["few-step", "dpm"])
def test_low_precision_gives_float32(solver):
    if solver == "dpm":
        pytest.importorskip("diffusers")
    sampler = FrameSampler(make_transformer(dtype=torch.bfloat16), FrameSamplerConfig(solver=solver, num_dpm_steps=3))
    exact = FrameSampler(make_transformer(), sampler.config)
    latents, expected = sampler.sample(**inputs()), exact.sample(**inputs())
    assert latents.dtype == torch.float32
    assert 0 < (latents - expected).norm() / expected.norm() < 0.05


# Closed forms


class GaussianNetwork:
    """The ideal network of images whose numbers are normal, with a given mean and spread."""

    config, dtype, device = SMALL, torch.float32, torch.device("cpu")

    def __init__(self, mean, std, prediction):
        self.mean, self.std, self.prediction = mean, std, prediction
        self.alphas_cumprod = DdpmSchedule().alphas_cumprod.double()

    def modulation(self, timestep):
        return timestep

    def denoise(self, x, time, anchors=None, reference=None):
        alpha_bar = self.alphas_cumprod[time].item()
        signal, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        x0 = self.mean + signal * self.std**2 * (x - signal * self.mean) / (alpha_bar * self.std**2 + sigma**2)
        noise = (x - signal * x0) / sigma
        return noise if self.prediction == "epsilon" else signal * noise - sigma * x0

    def __call__(self, x, timestep, anchors=None, reference=None):
        return self.denoise(x, timestep)


def sampled(network, **options):
    sampler = FrameSampler(network, FrameSamplerConfig(prediction=network.prediction, **options))
    return sampler.sample(noise=noise_of(), anchors=None, reference=None)


@settings(deadline=None, max_examples=10)
@given(
    num_steps=st.integers(1, 12) | st.just(999),
    prediction=st.sampled_from(["velocity", "epsilon"]),
    value=st.floats(-3, 3),
)
def test_the_solver_finds_the_only_image_in_any_steps(num_steps, prediction, value):
    pytest.importorskip("diffusers")
    network = GaussianNetwork(value, 0.0, prediction)
    latents = sampled(network, solver="dpm", num_dpm_steps=num_steps)
    torch.testing.assert_close(latents, torch.full_like(latents, value), atol=1e-3, rtol=0)


def test_the_solver_takes_as_many_steps_as_there_are():
    pytest.importorskip("diffusers")
    latents = sampled(GaussianNetwork(0.5, 0.0, "velocity"), solver="dpm", num_dpm_steps=999)
    torch.testing.assert_close(latents, torch.full_like(latents, 0.5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
def test_the_solver_follows_the_flow_of_a_gaussian(prediction):
    """Of the probability flow, noise ends at mean + std * noise, but for what is left of the mean at t = 999.

    Twice the steps bring the second-order solver at least half nearer.
    """
    pytest.importorskip("diffusers")
    network = GaussianNetwork(0.5, 0.3, prediction)
    signal = DdpmSchedule().alphas_cumprod[999].double().sqrt().item()
    expected = 0.5 + 0.3 * (noise_of()(0) - signal * 0.5)
    error = {
        num_steps: (sampled(network, solver="dpm", num_dpm_steps=num_steps) - expected).abs().max().item()
        for num_steps in (20, 40, 80)
    }
    assert error[80] < 0.01
    assert error[40] < error[20] / 2
    assert error[80] < error[40] / 2


@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
@pytest.mark.parametrize("steps", [(999,), (999, 200)])
def test_few_steps_find_the_only_image(prediction, steps):
    latents = sampled(GaussianNetwork(0.7, 0.0, prediction), steps=steps)
    torch.testing.assert_close(latents, torch.full_like(latents, 0.7), atol=1e-4, rtol=0)


def test_the_solver_forgets_the_frame_before():
    pytest.importorskip("diffusers")
    sampler = make_sampler(solver="dpm", num_dpm_steps=4)
    first = sampler.sample(**inputs())
    sampler.sample(**inputs(seed=7, batch=2))
    assert torch.equal(sampler.sample(**inputs()), first)


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
        ({"prediction": "x0"}, "prediction='x0': want one of velocity, epsilon"),
        ({"solver": "euler"}, "solver='euler': want one of few-step, dpm"),
        ({"num_dpm_steps": 0}, "num_dpm_steps=0: want a whole number from 1 to 999"),
        ({"num_dpm_steps": 1000}, "num_dpm_steps=1000"),
        ({"num_dpm_steps": 2.5}, "num_dpm_steps=2.5"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FrameSamplerConfig(**options)


def test_steps_given_as_a_list_become_a_tuple():
    config = FrameSamplerConfig(steps=[999, 200])  # type: ignore[arg-type]
    assert config == FrameSamplerConfig()
    assert hash(config) is not None


def test_the_solver_asks_for_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.schedulers.scheduling_dpmsolver_multistep", None)
    with pytest.raises(
        InputError, match=r"solver='dpm' needs the package diffusers: pip install 'inspatio-sim\[wan\]'"
    ):
        make_sampler(solver="dpm")
