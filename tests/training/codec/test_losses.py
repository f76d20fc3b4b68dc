from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.codecs.tiny_network import pixels_of_latents
from inspatio_sim.errors import InputError
from inspatio_sim.training.codec.losses import (
    CodecLossConfig,
    codec_loss,
    multiscale_ssim,
    reconstruct,
    ssim,
    start_linear_path,
)

CONFIG = TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), time_alignment="causal")


def frames(seed=0, batch=1, num_frames=9, size_px=(16, 24)):
    """A grey gradient that moves: something a small codec can learn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size_px[0], : size_px[1]] / size_px[1]
    phase, colour = rng.random((batch, 1, 1, 1, 1)), rng.random((batch, 1, 1, 1, 3))
    t = np.arange(num_frames)[:, None, None, None] / 20
    waves = np.sin(6 * (x + 0.5 * y)[None, :, :, None] + 6 * phase + t)
    return torch.from_numpy(0.5 + 0.4 * waves * colour).float()


def network(seed=0):
    torch.manual_seed(seed)
    return TinyAutoencoder(CONFIG)


def test_ssim_is_scikit_images():
    rng = np.random.default_rng(0)
    a = rng.random((3, 20, 30))
    b = np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)
    expected = np.mean([structural_similarity(x, y, data_range=1, win_size=7) for x, y in zip(a, b, strict=True)])
    ours = ssim(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
    assert ours.item() == pytest.approx(expected, abs=1e-6)
    assert ssim(torch.from_numpy(a)[None], torch.from_numpy(a)[None]).item() == pytest.approx(1)


def test_coarse_scales_forgive_fine_noise():
    a = frames(size_px=(32, 48)).flatten(0, 1).movedim(-1, 1)
    noisy = a + 0.05 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    assert ssim(a, noisy) < multiscale_ssim(a, noisy) < 1
    with pytest.raises(InputError, match="want at least 7"):
        multiscale_ssim(a[..., :6, :], a[..., :6, :])


def test_training_sees_what_the_streaming_codec_does():
    net, video = network(), frames()
    decoded, latents = reconstruct(net, video)
    codec = TinyCodec(net.eval())
    streamed = codec.encode(video.movedim(-1, 2) * 2 - 1)
    torch.testing.assert_close(latents.detach().movedim(-1, 2), streamed, atol=1e-5, rtol=0)
    shown = (codec.decode(streamed) + 1) / 2
    torch.testing.assert_close(decoded.detach().clamp(0, 1).movedim(-1, 2), shown, atol=1e-5, rtol=0)


def test_a_perfect_copy_costs_only_its_latents():
    video = frames()
    latents = torch.randn(4, 3, 2, 3, 16, generator=torch.Generator().manual_seed(0))
    loss = codec_loss(video, video, latents, CodecLossConfig())
    assert loss.l1 == loss.motion == 0
    assert loss.ssim.item() == pytest.approx(0, abs=1e-5)
    scaled = codec_loss(video, video, 3 * latents, CodecLossConfig())
    assert scaled.latent > 100 * loss.latent


def test_flicker_costs_more_than_a_constant_error():
    video = frames()
    constant, flicker = video + 0.05, video.clone()
    flicker[:, ::2] += 0.05
    flicker[:, 1::2] -= 0.05
    latents = torch.zeros(1, 3, 2, 3, 16)
    assert codec_loss(constant, video, latents, CodecLossConfig()).motion.item() == pytest.approx(0, abs=1e-6)
    assert codec_loss(flicker, video, latents, CodecLossConfig()).motion.item() == pytest.approx(0.1, abs=1e-4)


def test_a_few_steps_of_training_halve_the_error():
    net, config = network(), CodecLossConfig(latent_noise=0.0)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    errors = []
    for step in range(60):
        video = frames(step % 4, batch=2)
        decoded, latents = reconstruct(net, video)
        loss = codec_loss(decoded, video, latents, config)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        errors.append(loss.l1.item())
    assert np.mean(errors[-4:]) < 0.5 * np.mean(errors[:4])


def test_frames_that_make_no_whole_latents_are_refused():
    with pytest.raises(InputError, match="10 frames: want 4n - 3"):
        reconstruct(network(), frames(num_frames=10))
    with pytest.raises(InputError, match="l1=-1"):
        CodecLossConfig(l1=-1)


LINEAR = TinyConfig(encoder_width=0, decoder_widths=(), latent_channels=8, linear_path=True, time_alignment="causal")


def smooth_frames(num_clips, seed):
    """Blobs that move: most of it lies in few directions."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_clips, 3, 3, 6, 8, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, size=(9, 32, 48), mode="trilinear")
    return frames.movedim(1, -1)


@pytest.mark.parametrize("widths", [(), (8, 8, 8, 8)])
def test_the_linear_path_starts_better_than_principal_components(widths):
    torch.manual_seed(0)
    net, frames = TinyAutoencoder(replace(LINEAR, decoder_widths=widths)), smooth_frames(48, seed=0)
    start_linear_path(net, lambda: iter(frames[:, 1:].split(16)))
    decoded, latents = reconstruct(net, frames)
    torch.testing.assert_close(latents[:, 1:].flatten(0, -2).std(0), torch.ones(8), atol=0.01, rtol=0)
    pixels = pixels_of_latents(frames[:, 1:]).flatten(0, -2)
    energy = torch.linalg.svdvals(pixels - pixels.mean(0)).square()
    components_leave = (energy[8:].sum() / pixels.numel()).item()
    left = (decoded - frames)[:, 1:].square().mean().item()
    assert 0.5 * components_leave < left < 0.99 * components_leave  # the neighbours help


def test_the_linear_path_is_the_components_where_neighbours_say_nothing():
    """Rows of latents that are independent: then least squares can do no better."""
    frames = torch.rand(400, 4, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    net = TinyAutoencoder(LINEAR)
    start_linear_path(net, lambda: [frames[:, None].flatten(0, 1), frames.flip(0) ** 2])
    both = torch.cat([frames, frames.flip(0) ** 2])
    pixels = pixels_of_latents(both).flatten(0, -2)
    energy = torch.linalg.svdvals(pixels - pixels.mean(0)).square()
    decoded, _ = net.decode(net.encode(both)[0])
    assert (decoded - both).square().mean().item() == pytest.approx(
        (energy[8:].sum() / pixels.numel()).item(), rel=1e-3
    )


def test_a_linear_path_wants_frames_and_a_place():
    with pytest.raises(InputError, match="linear_path=True"):
        start_linear_path(network(), lambda: [smooth_frames(1, seed=0)[:, 1:]])
    with pytest.raises(InputError, match="want at least 768"):
        start_linear_path(TinyAutoencoder(LINEAR), lambda: [smooth_frames(1, seed=0)[:, 1:]])
