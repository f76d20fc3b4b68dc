"""Textures cut out of photographs: those inside scikit-image's wheel, or a user's own files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inspatio_sim.clips.image_kinds import IMAGE_SUFFIXES
from inspatio_sim.clips.images import files_with_suffix, read_image
from inspatio_sim.errors import InputError
from inspatio_sim.scenes.textures import SIZE_PX, resized

BUNDLED = {  # file in scikit-image's data folder -> what a caption calls it
    "astronaut.png": "patterned",
    "brick.png": "brick",
    "chelsea.png": "furry",
    "coffee.png": "patterned",
    "coins.png": "spotted",
    "grass.png": "grassy",
    "gravel.png": "gravel",
    "ihc.png": "marbled",
    "moon.png": "rough",
    "motorcycle_left.png": "patterned",
    "motorcycle_right.png": "patterned",
    "retina.jpg": "smooth",
    "rocket.jpg": "patterned",
}
MAX_SIDE_PX = 1024  # larger photographs shrink to this once they are read
SMALLEST_CROP = 0.4  # of the shorter side
MEAN_LEVEL = 0.55  # brightness that photographs are brought to, as far as MAX_GAIN allows
MAX_GAIN = 2.5


@dataclass(frozen=True, kw_only=True)
class PhotoTexture:
    """A square cut out of a photograph at random, mirrored in both directions to be seamless."""

    path: str
    seed: int = 0
    contrast: float = 1.0  # 0 leaves nothing but the mean colour

    def __post_init__(self) -> None:
        if not 0 <= self.contrast <= 1:
            raise InputError(f"contrast={self.contrast}: want 0..1")

    def draw(self) -> Tensor:
        """RGB in 0..1. [SIZE_PX, SIZE_PX, 3]"""
        photo = read_photo(self.path)
        rng = np.random.default_rng(self.seed)
        shorter_px = min(photo.shape[:2])
        side_px = max(1, round(shorter_px * rng.uniform(SMALLEST_CROP, 1.0)))
        top, left = (int(rng.integers(length_px - side_px + 1)) for length_px in photo.shape[:2])
        crop = torch.from_numpy(photo[top : top + side_px, left : left + side_px].astype(np.float32) / 255)
        quarter = resized(crop.permute(2, 0, 1), (SIZE_PX // 2, SIZE_PX // 2))
        mean = torch.from_numpy(quarter.numpy().mean(axis=(1, 2), keepdims=True))  # the same for any number of threads
        gain = min(MAX_GAIN, MEAN_LEVEL / max(float(mean.mean()), 1e-3))
        quarter = torch.lerp(mean, quarter, self.contrast)
        half = torch.cat([quarter, quarter.flip(2)], dim=2)
        return (gain * torch.cat([half, half.flip(1)], dim=1)).permute(1, 2, 0)


def bundled_photos() -> dict[str, str]:
    """The photographs that came with scikit-image (nothing is downloaded): path -> word for captions."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return {str(folder / name): word for name, word in BUNDLED.items() if (folder / name).is_file()}


def photos_in(folder: Path) -> dict[str, str]:
    """A user's pictures in one folder: path -> word for captions.

    Raises:
        InputError: when the folder cannot be read, has no pictures, or one of them is broken.
    """
    paths = files_with_suffix(folder, IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"texture_folder {folder}: has no pictures: want some of {', '.join(sorted(IMAGE_SUFFIXES))}")
    for path in paths:
        read_image(path)
    return {str(path): "patterned" for path in paths}


@lru_cache(maxsize=64)
def read_photo(path: str) -> NDArray[np.uint8]:
    """RGB of moderate size. [h, w, 3]"""
    image = Image.fromarray(read_image(Path(path)))
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return np.array(image)
