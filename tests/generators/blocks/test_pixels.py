import numpy as np
import torch
from safetensors.torch import load_file

from inspatio_sim.generators.blocks.pixels import frames_from, to_u8, video_from


def test_frames_become_numbers_from_minus_1_to_1():
    frames_u8 = np.array([0, 51, 255], np.uint8).repeat(3).reshape(1, 1, 3, 3)
    video = video_from(frames_u8)
    assert video.shape == (1, 3, 1, 3)
    torch.testing.assert_close(video[0, 0, 0], torch.tensor([-1, -0.6, 1]))


def test_bytes_as_published(test_data):
    golden = load_file(test_data / "golden" / "worldfm_render.safetensors")
    assert torch.equal(to_u8(golden["in.to_u8"]), golden["out.to_u8"])


def test_to_u8_clamps_and_truncates():
    image = torch.tensor([-2.0, -1.0, 0.0, 0.999 / 127.5, 1.0, 2.0])
    assert to_u8(image).tolist() == [0, 0, 128, 128, 255, 255]


def test_bytes_come_back_as_they_were():
    frames_u8 = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.abs(frames_from(video_from(frames_u8)).astype(int) - frames_u8).max() <= 1  # truncated
