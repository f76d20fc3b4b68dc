import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inspatio_sim.checkpoints.safetensors_file import SafetensorsFile
from inspatio_sim.cli.main import main
from inspatio_sim.errors import InputError
from inspatio_sim.geometry.depth_network import DepthNetworkConfig, load_depth_network
from inspatio_sim.training.depth.stage import SKY_M, DepthPictures, DepthStage, DepthStageConfig, new_depth_network
from inspatio_sim.training.engine.checkpoint import latest_checkpoint
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.engine.run import build
from inspatio_sim.training.engine.trainer import AdamConfig
from inspatio_sim.training.star.build import STAR

SMALL = DepthStageConfig(
    network=DepthNetworkConfig(widths=(8, 8, 16)),
    adam=AdamConfig(lr=3e-3),
    clips_per_style=2,
    frames_per_clip=2,
    fps=0.5,
    size_px=(24, 40),
)


def train(out, *options):
    return main(["train", "depth/train", "--config", "test", "--out", str(out), "--quiet", *options])


@pytest.fixture(scope="module")
def pictures():
    return DepthPictures(SMALL)


def test_pictures_are_drawn_the_same_again_whatever_the_batch(pictures):
    whole = pictures([0, 1, 2, 3])
    again = DepthPictures(SMALL)([3, 1])
    for name in ("rgb", "true_m", "known_m"):
        assert torch.equal(getattr(again, name), getattr(whole, name)[[3, 1]])


def test_what_is_known_is_true_but_for_noise(pictures):
    batch = pictures(list(range(64)))
    is_known = batch.known_m > 0
    error = (batch.known_m / batch.true_m).log()[is_known]
    assert error.std().item() == pytest.approx(SMALL.known_noise, rel=0.1)
    assert 0.2 < is_known.float().mean() < 0.9
    assert (~is_known).flatten(1).all(1).any()  # of some, nothing is known
    assert -1 <= batch.rgb.min() < batch.rgb.max() <= 1
    assert batch.true_m.max() <= SKY_M + 1


def test_nothing_is_known_of_the_sky(pictures):
    assert (pictures.depth_m == 0).any()
    batch = DepthPictures(replace(SMALL, known_noise=0.0, rendered_share=1.0))(list(range(32)))
    assert not (batch.known_m[batch.true_m == SKY_M] > 0).any()


def test_it_ships_its_average_and_goes_on_after_a_stop(tmp_path):
    assert train(tmp_path / "whole", "--set", "trainer.max_steps=8") == 0
    assert train(tmp_path / "cut", "--set", "trainer.max_steps=3") == 0
    assert train(tmp_path / "cut", "--set", "trainer.max_steps=8", "--resume") == 0
    whole, cut = (tmp_path / name / "depth" / "test_depth.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    notes = json.loads(SafetensorsFile(whole).metadata["notes"])
    assert (notes["stage"], notes["steps"], notes["seed"]) == ("depth", 8, 0)
    config = run_config(STAR, "test", "depth")
    assert (notes["training"]["clips_per_style"], notes["trainer"]["batch_size"]) == (config.depth.clips_per_style, 1)
    network = load_depth_network(whole)
    assert network.config == config.depth.network
    (kept,) = latest_checkpoint(tmp_path / "whole" / "depth" / "checkpoints").glob("*.ema.safetensors")
    for name, tensor in load_file(kept).items():
        assert torch.equal(network.state_dict()[name], tensor.half().float())
    assert list((tmp_path / "whole" / "depth" / "samples").glob("*.png"))


def test_a_file_can_be_gone_on_from(tmp_path):
    assert train(tmp_path) == 0
    path = tmp_path / "depth" / "test_depth.safetensors"
    trained = load_depth_network(path).state_dict()
    again = build(STAR, "depth", run_config(STAR, "test", "depth", out=tmp_path), Ranks(), start=path)
    assert isinstance(again, DepthStage)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in again.network.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.network.parameters())
    wider = run_config(STAR, "test", "depth", out=tmp_path, settings=["depth.network.widths=8,16,16"])
    with pytest.raises(InputError, match="want .*8, 16, 16"):
        build(STAR, "depth", wider, Ranks(), start=path)


def test_the_sheet_shows_pictures_and_their_depth(pictures):
    sheet = DepthStage(new_depth_network(SMALL), pictures, adam=SMALL.adam).sample()["depth"]
    assert sheet.shape == (4 * 24, 4 * 40, 3)
    assert sheet.dtype == np.uint8


def test_mistakes_are_named():
    with pytest.raises(InputError, match="crop_share=2"):
        replace(SMALL, crop_share=2)
    with pytest.raises(InputError, match="clips_per_style=0"):
        replace(SMALL, clips_per_style=0)
    with pytest.raises(InputError, match="min_crop=0"):
        replace(SMALL, min_crop=0)
