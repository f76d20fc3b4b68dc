"""What the codec learns from: short crops of filmed clips, and of photographs in motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.photo_pans import pan_over
from inspatio_sim.training.data.sample import ClipDataset
from inspatio_sim.training.data.variety import varied
from inspatio_sim.training.engine.iteration import shuffled
from inspatio_sim.training.engine.workers import in_order

Film = NDArray[np.uint8]
"""Both videos of a clip, reference and target. [2, T, H, W, 3]"""


@dataclass(frozen=True)
class FilmWork:
    """Films clips of a data set, which is made anew in each process."""

    make_clips: Callable[[], ClipDataset]

    def __call__(self) -> Callable[[int], Film]:
        clips = self.make_clips()

        def film(index: int) -> Film:
            clip = clips[index]
            return np.stack([clip.reference_u8, clip.target_u8])

        return film


def film_clips(
    make_clips: Callable[[], ClipDataset],
    num_clips: int,
    *,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> list[Film]:
    """The first clips of a data set, filmed and kept in memory.

    Args:
        make_clips: builds the data set; must pickle, if there are workers.
        num_clips: how many.
        num_workers: processes that film; 0: this one.
        progress: told the share done.
    """
    films = []
    for film in in_order(FilmWork(make_clips), range(num_clips), num_workers):
        films.append(film)
        if progress:
            progress("filming clips", len(films) / num_clips)
    return films


class FrameCrops:
    """Short crops of filmed clips for the codec, and of photographs in motion."""

    def __init__(
        self,
        films: Sequence[Film],
        *,
        num_frames: int,
        size_px: tuple[int, int],
        seed: int,
        photos_u8: Sequence[NDArray[np.uint8]] = (),
        is_varied: bool = False,
    ) -> None:
        """Crops of 4n - 3 frames of height x width pixels, both multiples of 8; drawn by seed and sample.

        Args:
            films: clips.
            num_frames: of a crop.
            size_px: of a crop.
            seed: of the crops.
            photos_u8: if any, every other crop is one of them under a moving camera. Each [h, w, 3]
            is_varied: mirrored and in other colours; see `varied`.
        """
        if (num_frames - 1) % 4 or size_px[0] % 8 or size_px[1] % 8:
            raise InputError(f"crops of {num_frames} frames, {size_px} px: want 4n - 3 frames, multiples of 8 px")
        wanted = (num_frames, *size_px)
        for film in films:
            if any(has < needs for has, needs in zip(film.shape[1:4], wanted, strict=True)):
                came = f"clip of {film.shape[1]} frames, {film.shape[2:4]} px"
                raise InputError(f"{came}: want at least {num_frames} and {size_px} for a crop")
        self._films, self._wanted, self._seed = films, wanted, seed
        self._photos_u8, self._is_varied = photos_u8, is_varied

    def __call__(self, samples: list[int]) -> Tensor:
        """Frames in [0, 1]. [B, T, H, W, 3]"""
        return torch.stack([self._crop(sample) for sample in samples])

    def _crop(self, sample: int) -> Tensor:
        rng = np.random.default_rng([self._seed, sample])
        if self._photos_u8 and sample % 2:
            num_frames, *size_px = self._wanted
            crop = pan_over(self._photos_u8, rng, num_frames=num_frames, size_px=(size_px[0], size_px[1]))
        else:
            crop = self._film_crop(sample, rng)
        crop = varied(crop, rng) if self._is_varied else crop
        return torch.from_numpy(np.ascontiguousarray(crop)).float() / 255

    def _film_crop(self, sample: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        film = self._films[shuffled(sample, len(self._films), self._seed)]
        frames = film[int(rng.integers(len(film)))]
        corner = [int(rng.integers(0, has - size + 1)) for has, size in zip(frames.shape, self._wanted, strict=False)]
        return frames[tuple(slice(at, at + size) for at, size in zip(corner, self._wanted, strict=True))]
