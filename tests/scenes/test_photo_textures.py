"""Textures out of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.photo_textures import PhotoTexture, bundled_photos, photos_in
from inspatio_sim.scenes.textures import SIZE_PX, texture_image


def test_every_bundled_photograph_makes_a_seamless_texture():
    photos = bundled_photos()
    assert len(photos) >= 10
    for path in photos:
        image = texture_image(PhotoTexture(path=path))
        assert image.shape == (SIZE_PX, SIZE_PX, 3)
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.01, path
        torch.testing.assert_close(image[0], image[-1])  # mirrored: the edges meet
        torch.testing.assert_close(image[:, 0], image[:, -1])


def test_seeds_cut_out_different_parts_and_contrast_calms():
    path = next(iter(bundled_photos()))
    first, second = (PhotoTexture(path=path, seed=seed).draw() for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, PhotoTexture(path=path, seed=0).draw())
    calm = PhotoTexture(path=path, seed=0, contrast=0.25).draw()
    torch.testing.assert_close(calm - calm.mean((0, 1)), 0.25 * (first - first.mean((0, 1))), rtol=1e-3, atol=1e-4)


def test_a_users_picture_is_used(tmp_path: Path):
    Image.fromarray(np.full((20, 30, 3), (200, 100, 50), np.uint8)).save(tmp_path / "wall.png")
    (path,) = photos_in(tmp_path)
    mean = texture_image(PhotoTexture(path=path)).mean((0, 1))
    torch.testing.assert_close(mean / mean[0], torch.tensor([1.0, 0.5, 0.25]), rtol=1e-3, atol=0)


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="has no pictures"):
        photos_in(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        photos_in(tmp_path / "missing")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png: not an image"):
        photos_in(tmp_path)
    with pytest.raises(InputError, match=r"contrast=2\.0: want 0\.\.1"):
        PhotoTexture(path="x.png", contrast=2.0)
