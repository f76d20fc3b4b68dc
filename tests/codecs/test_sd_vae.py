"""The image autoencoder of the published frame models: as diffusers has it; folders that lack something."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspatio_sim.codecs import ImageCodec, SdVae
from inspatio_sim.codecs.sd_vae import sdxl_network
from inspatio_sim.errors import CheckpointMismatch, InputError
from tests.codecs.small import make_vae

pytest.importorskip("diffusers", reason="the image codec needs diffusers")

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def codec() -> SdVae:
    return SdVae(make_vae())


@pytest.fixture
def folder(tmp_path, codec) -> Path:
    codec.vae.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def random_images(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def refused(message: str, folder: Path, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind, match=message) as caught:
        SdVae.from_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.no_grad()
def test_images_and_latents_are_as_in_diffusers(codec):
    as_protocol: ImageCodec = codec  # checked by type
    assert (as_protocol.latent_channels, as_protocol.spatial_stride) == (4, 8)
    images = random_images(2)
    latents = codec.encode(images)
    assert latents.shape == (2, 4, 2, 3)
    assert torch.equal(latents, codec.vae.encode(images).latent_dist.mean * 0.13025)
    assert torch.equal(codec.encode(images), latents)
    decoded = codec.vae.decode(latents / 0.13025).sample
    assert torch.equal(codec.decode(latents), decoded.clamp(-1, 1))


def test_a_batch_is_each_of_its_images(codec):
    images = random_images(3)
    alone = torch.cat([codec.encode(image[None]) for image in images])
    torch.testing.assert_close(codec.encode(images), alone, atol=1e-5, rtol=0)


def test_saved_folders_give_the_same_codec(codec, folder):
    loaded, images = SdVae.from_folder(folder), random_images()
    assert loaded.latent_scale == 0.13025
    assert torch.equal(loaded.encode(images), codec.encode(images))
    assert torch.equal(loaded.decode(codec.encode(images)), codec.decode(codec.encode(images)))
    fast = SdVae.from_folder(folder, dtype=torch.bfloat16)
    assert fast.encode(images).dtype == torch.float32
    torch.testing.assert_close(fast.encode(images), codec.encode(images), atol=0.02, rtol=0.05)


def test_the_scale_is_the_configs_or_sdxls(folder):
    change_config(folder, scaling_factor=0.5)
    assert SdVae.from_folder(folder).latent_scale == 0.5
    config = json.loads((folder / "config.json").read_text())
    del config["scaling_factor"]
    (folder / "config.json").write_text(json.dumps(config))
    assert SdVae.from_folder(folder).latent_scale == 0.13025


def test_missing_files_are_named_with_the_command_that_gets_them(tmp_path, folder):
    command = "hf download inspatio/worldfm --include 'vae/*' --local-dir weights/worldfm"
    message = refused("nothing: lacks config.json and diffusion_pytorch_model.safetensors", tmp_path / "nothing")
    assert command in message
    (folder / WEIGHTS).unlink()
    assert command in refused("vae: lacks diffusion_pytorch_model.safetensors", folder)


def test_damaged_folders_are_refused(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:5000])
    refused("no image autoencoder that diffusers can load", folder)
    (folder / WEIGHTS).write_bytes(whole)
    weights = load_file(folder / WEIGHTS)
    missing = {name: tensor for name, tensor in weights.items() if name != "decoder.conv_out.bias"}
    save_file(missing, folder / WEIGHTS)
    refused("1 weights are missing or of another shape, such as decoder.conv_out.bias", folder, CheckpointMismatch)
    weights["decoder.conv_out.bias"][0] = float("nan")
    save_file(weights, folder / WEIGHTS)
    refused("decoder.conv_out.bias holds NaN", folder)


def test_other_models_are_refused(folder):
    change_config(folder, shift_factor=0.1)
    refused("latents are shifted", folder)
    change_config(folder, shift_factor=None, scaling_factor="wide")
    refused("scaling_factor=wide: want a number above 0", folder)
    change_config(folder, _class_name="AutoencoderKLWan")
    refused("describes 'AutoencoderKLWan': want AutoencoderKL", folder)
    (folder / "config.json").write_text("{not json")
    refused("not JSON", folder)


def test_missing_diffusers_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.autoencoder_kl", None)
    refused(r"diffusers is missing: pip install 'inspatio-sim\[wan\]'", folder)


def test_the_published_sizes():
    with torch.device("meta"):
        codec = SdVae(sdxl_network())
    assert sum(weight.numel() for weight in codec.vae.parameters()) == 83_653_863
    assert (codec.latent_channels, codec.spatial_stride, codec.latent_scale) == (4, 8, 0.13025)
