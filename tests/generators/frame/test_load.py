"""From a preset's name to a generator: files, sizes, precisions, and what is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inspatio_sim.codecs import SingleFrames, TinyAutoencoder, tiny_narrow
from inspatio_sim.codecs.sd_vae import SdVae
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators import generator_by_name
from inspatio_sim.generators.blocks.loading import RANDOM_NOTICE
from inspatio_sim.generators.frame.cpu import CpuFrameTransformer
from inspatio_sim.generators.frame.load import load_frame
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.options import FrameOptions
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.frame_config import FrameConfig
from inspatio_sim.generators.presets.registry import PRESETS, frame_preset
from tests.codecs.small import make_vae

SMALL_XL = FrameConfig(input_size=8, hidden_size=48, depth=2, num_heads=4, model_max_length=3, caption_channels=16)


def made(config: FrameConfig, seed: int = 0) -> FrameTransformer:
    torch.manual_seed(seed)
    return FrameTransformer(config)


def velocity(network: object, config: FrameConfig) -> torch.Tensor:
    """What a network says of fixed latents."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, config.in_channels, 4, 6, generator=generator)
    shape = (1, config.in_channels + config.mask_channels, 4, 6)
    anchors, reference = (torch.randn(shape, generator=generator) for _ in range(2))
    with torch.inference_mode():
        return network(x, torch.tensor([500]), anchors, reference)  # pyright: ignore[reportCallIssue]


@pytest.fixture
def tiny_folder(tmp_path) -> Path:
    """Files of frame-tiny, with random weights."""
    config = frame_preset("frame-tiny").frame
    save_file(made(config).state_dict(), tmp_path / "frame_tiny.safetensors")
    save_file(TinyAutoencoder(tiny_narrow()).state_dict(), tmp_path / "tiny_codec.safetensors")
    return tmp_path


@pytest.fixture
def small_worldfm(tmp_path, monkeypatch) -> Path:
    """A published two-step model, at a size that a test can save."""
    pytest.importorskip("diffusers")
    name = "worldfm-2step"
    monkeypatch.setitem(PRESETS, name, replace(frame_preset(name), frame=SMALL_XL))
    monkeypatch.setattr(find, "SHIPPED", tmp_path / "nothing")
    folder = tmp_path / "worldfm"
    make_vae().save_pretrained(folder / "vae")
    torch.save({"state_dict": made(SMALL_XL).state_dict()}, folder / "worldfm_2-step.pth")
    return tmp_path


def test_random_weights_say_so_and_are_the_same_every_time(caplog):
    with caplog.at_level(logging.WARNING):
        first, second = (load_frame(FrameOptions(random_weights=True, device="cpu", dtype="float32")) for _ in range(2))
    assert RANDOM_NOTICE in caplog.text
    config = frame_preset("frame-tiny").frame
    assert isinstance(first.sampler.network, CpuFrameTransformer)
    assert isinstance(first.codec, SingleFrames)
    assert torch.equal(velocity(first.sampler.network, config), velocity(second.sampler.network, config))
    assert first.best_size_px == (96, 160)
    assert first.sampler.config.steps == (999, 200)


def test_weights_of_a_folder_are_what_generates(tiny_folder):
    told = []
    generator = load_frame(
        FrameOptions(weights=tiny_folder, device="cpu", dtype="float32"),
        progress=lambda what, share: told.append(share),
    )
    config = frame_preset("frame-tiny").frame
    torch.testing.assert_close(
        velocity(generator.sampler.network, config), velocity(made(config), config), atol=1e-4, rtol=1e-4
    )
    assert told[-1] == 1
    assert generator.progress is not None


def test_options_make_the_same_generator_again(tiny_folder):
    options = {"weights": tiny_folder, "dtype": "float32", "device": "cpu", "steps": [999], "max_views": 5}
    first = load_frame(FrameOptions(**options, paste_renders=False))
    assert json.loads(json.dumps(first.options)) == first.options
    again = load_frame(FrameOptions(**first.options))
    assert again.options == first.options
    assert again.sampler.config.steps == (999,)
    assert again.max_views == 5
    assert first.options["paste_renders"] is False


def test_published_files_load_as_they_are(small_worldfm):
    generator = load_frame(FrameOptions(preset="worldfm-2step", weights=small_worldfm, device="cpu", dtype="float32"))
    assert isinstance(generator.codec, SdVae)
    torch.testing.assert_close(
        velocity(generator.sampler.network, SMALL_XL), velocity(made(SMALL_XL), SMALL_XL), atol=1e-4, rtol=1e-4
    )
    assert generator.sampler.config.steps == (999, 200)
    assert generator.options["steps"] == [999, 200]


def test_a_pickle_that_is_not_weights_is_refused_in_one_line(small_worldfm):
    marker = small_worldfm / "owned"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    path = small_worldfm / "worldfm" / "worldfm_2-step.pth"
    for content, message in ((Evil(), "holds more than tensors"), ([1, 2], "holds a list: want tensors by name")):
        torch.save(content, path)
        with pytest.raises(InputError, match=message) as caught:
            load_frame(FrameOptions(preset="worldfm-2step", weights=small_worldfm, device="cpu"))
        assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_the_wrong_checkpoint_is_told_what_it_is(small_worldfm):
    path = small_worldfm / "worldfm" / "worldfm_2-step.pth"
    torch.save(made(replace(SMALL_XL, depth=3)).state_dict(), path)
    with pytest.raises(CheckpointMismatch, match="it is a frame transformer of WorldFM: width 48, 3 layers"):
        load_frame(FrameOptions(preset="worldfm-2step", weights=small_worldfm, device="cpu"))


def test_the_wrong_image_codec_is_refused(small_worldfm):
    make_vae(scaling_factor=0.18215).save_pretrained(small_worldfm / "worldfm" / "vae")
    with pytest.raises(InputError, match=r"vae: 4 latent channels, scaled by 0.18215: want .* scaled by 0.13025"):
        load_frame(FrameOptions(preset="worldfm-2step", weights=small_worldfm, device="cpu"))


def test_mistakes_are_one_line(tmp_path):
    for options, message in (
        ({"preset": "tiny"}, "'tiny': is for the generator star, not frame"),
        ({"random_weights": True, "weights": tmp_path}, "want one or the other"),
        ({"random_weights": True, "device": "tpu"}, "device='tpu'"),
        ({"random_weights": True, "dtype": "float16"}, "dtype='float16': want one of auto, float32, bfloat16"),
        ({"random_weights": True, "steps": [500, 200]}, "falling from 999"),
        ({"random_weights": True, "steps": []}, "steps="),
        ({"random_weights": True, "size_px": (97, 160)}, "97x160 px: want multiples of 8, the nearest is 96x160"),
        ({"preset": "worldfm-1step", "weights": tmp_path}, "2 files are not in .*worldfm_1-step.pth.*vae"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            generator_by_name("frame", **options)
        assert "\n" not in str(caught.value)
