import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from inspatio_sim.checkpoints.safetensors_file import SafetensorsFile
from inspatio_sim.errors import InputError
from inspatio_sim.geometry.depth_network import DepthNetworkConfig, load_depth_network
from inspatio_sim.training.depth_stage import SKY_M, DepthPictures, DepthStageConfig, make_depth_stage, train_depth
from inspatio_sim.training.stages import AdamConfig
from inspatio_sim.training.trainer import TrainerConfig

SMALL = DepthStageConfig(
    network=DepthNetworkConfig(widths=(8, 8, 16)),
    adam=AdamConfig(lr=3e-3),
    clips_per_style=2,
    frames_per_clip=2,
    fps=0.5,
    size_px=(24, 40),
)


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


def test_it_learns_ships_its_average_and_goes_on_after_a_stop(tmp_path):
    def trainer(name, steps, *, resume=False):
        return TrainerConfig(
            out=tmp_path / name, max_steps=steps, batch_size=8, ema_decay=0.9, checkpoint_every=4, resume=resume
        )

    def stop_at_6(steps_done, max_steps, newest):
        if steps_done == 6:
            raise KeyboardInterrupt

    for name in ("whole", "cut"):
        try:
            train_depth(
                SMALL, trainer(name, 12), tmp_path / f"{name}.safetensors", stop_at_6 if name == "cut" else None
            )
        except KeyboardInterrupt:
            assert not (tmp_path / "cut.safetensors").exists()
            train_depth(SMALL, trainer(name, 12, resume=True), tmp_path / f"{name}.safetensors")
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "cut.safetensors").read_bytes()
    notes = json.loads(SafetensorsFile(tmp_path / "whole.safetensors").metadata["notes"])
    assert (notes["steps"], notes["batch_size"], notes["training"]["seed"]) == (12, 8, 0)
    assert load_depth_network(tmp_path / "whole.safetensors").config == SMALL.network


def test_the_sheet_shows_pictures_and_their_depth():
    sheet = make_depth_stage(SMALL).sample()["depth"]
    assert sheet.shape == (4 * 24, 4 * 40, 3)
    assert sheet.dtype == np.uint8


def test_mistakes_are_named():
    with pytest.raises(InputError, match="crop_share=2"):
        replace(SMALL, crop_share=2)
    with pytest.raises(InputError, match="clips_per_style=0"):
        replace(SMALL, clips_per_style=0)
    with pytest.raises(InputError, match="min_crop=0"):
        replace(SMALL, min_crop=0)
