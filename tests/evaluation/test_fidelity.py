import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.fidelity import MAX_PSNR_DB, flicker, mean_where, psnr_db, ssim_map


@pytest.fixture
def films():
    rng = np.random.default_rng(0)
    truth_u8 = rng.integers(0, 256, (2, 24, 32, 3)).astype(np.uint8)
    noise = rng.normal(0, 20, truth_u8.shape)
    return np.clip(truth_u8 + noise, 0, 255).astype(np.uint8), truth_u8


def test_psnr_of_a_known_error():
    dark, light = np.full((2, 8, 8, 3), 100, np.uint8), np.full((2, 8, 8, 3), 110, np.uint8)
    assert psnr_db(dark, light) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_db(light, light) == MAX_PSNR_DB


def test_psnr_counts_masked_pixels_alone_and_all_of_them_together():
    frames_u8, truth_u8 = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)
    frames_u8[0, :4], frames_u8[0, 4:] = 10, 200
    is_upper = np.zeros((2, 8, 8), bool)
    is_upper[:, :4] = True
    assert psnr_db(frames_u8, truth_u8, is_upper) == pytest.approx(10 * math.log10(255**2 / (100 / 2)))
    assert math.isnan(psnr_db(frames_u8, truth_u8, np.zeros_like(is_upper)))


def test_ssim_is_that_of_scikit_image(films):
    found = ssim_map(*films)
    assert found.shape == films[0].shape[:3]
    for own, a, b in zip(found, *films, strict=True):
        mean, full = structural_similarity(a, b, channel_axis=-1, full=True)
        np.testing.assert_allclose(own[3:-3, 3:-3], full.mean(-1)[3:-3, 3:-3], atol=1e-6)
        assert own[3:-3, 3:-3].mean() == pytest.approx(mean, abs=1e-6)
    np.testing.assert_allclose(ssim_map(films[1], films[1]), 1)


def test_mean_where(films):
    values = np.array([[1, 2], [3, 4]], np.float32)
    assert mean_where(values, values > 2) == 3.5
    assert math.isnan(mean_where(values, values > 9))


def test_flicker():
    frames_u8 = np.zeros((3, 4, 4, 3), np.uint8)
    frames_u8[1] = 6
    assert flicker(frames_u8) == 6
    assert flicker(frames_u8[:1]) == 0


def test_what_does_not_fit_is_refused(films):
    frames_u8, truth_u8 = films
    with pytest.raises(InputError, match="want both uint8 T x H x W x 3"):
        psnr_db(frames_u8[:1], truth_u8)
    with pytest.raises(InputError, match="float64"):
        psnr_db(frames_u8.astype(np.float64), truth_u8)
    with pytest.raises(InputError, match="mask has shape"):
        psnr_db(frames_u8, truth_u8, np.ones((2, 3, 3), bool))
    with pytest.raises(InputError, match="frames of 4x5 px"):
        ssim_map(frames_u8[:, :4, :5], truth_u8[:, :4, :5])
