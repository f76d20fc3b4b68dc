"""Batches for the stages: frames of clips that were filmed once, or latents that were encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.photo_pans import pan_over
from inspatio_sim.training.data.sample import ClipDataset
from inspatio_sim.training.data.variety import varied
from inspatio_sim.training.engine.iteration import Batch, BatchPlan, Source, shuffled
from inspatio_sim.training.engine.workers import in_order
from inspatio_sim.training.star.passes import Conditions

Film = NDArray[np.uint8]
"""Both videos of a clip, reference and target. [2, T, H, W, 3]"""


class TensorDataset(Protocol):
    """Encoded clips by index, such as `ShardDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


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


class Joined:
    """Data sets of one length as one: a row of the first, one of the second, and so on."""

    def __init__(self, datasets: Sequence[TensorDataset]) -> None:
        lengths = {len(dataset) for dataset in datasets}
        if len(lengths) != 1:
            raise InputError(f"data sets of {sorted(lengths)} clips: want one length")
        self._datasets = datasets

    def __len__(self) -> int:
        return len(self._datasets) * len(self._datasets[0])

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        row, which = divmod(index, len(self._datasets))
        return self._datasets[which][row]


class InMemory:
    """A data set that was read once. Tensors are as they were stored."""

    def __init__(self, clips: TensorDataset, progress: Progress | None = None) -> None:
        self._rows: list[Mapping[str, Tensor]] = []
        for index in range(len(clips)):
            self._rows.append(clips[index])
            if progress:
                progress("reading latents", (index + 1) / len(clips))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        return self._rows[index]


class EncodedClips:
    """Latents of clips, or of stretches of them, batch by batch."""

    def __init__(
        self,
        clips: TensorDataset,
        *,
        seed: int,
        window_latents: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`window_latents`: how long a stretch is; it begins with any chunk. None: whole clips."""
        self._clips, self._seed, self._window_latents, self._device = clips, seed, window_latents, device

    def __call__(self, samples: list[int]) -> tuple[Tensor, Conditions]:
        """Clean targets [B, F, C, h, w], and what they are generated from."""
        return joined_rows([self._row(sample) for sample in samples], self._device)

    def _row(self, sample: int) -> Mapping[str, Tensor]:
        row = self._clips[shuffled(sample, len(self._clips), self._seed)]
        if self._window_latents is None:
            return row
        num_starts = (len(row["target"]) - self._window_latents) // BLOCK_LATENTS + 1
        if num_starts < 1:
            raise InputError(f"clip of {len(row['target'])} latents: want at least {self._window_latents}")
        start = BLOCK_LATENTS * int(np.random.default_rng([self._seed, sample]).integers(num_starts))
        return {
            name: value if name == "text" else value[start : start + self._window_latents]
            for name, value in row.items()
        }


def joined_rows(rows: Sequence[Mapping[str, Tensor]], device: torch.device | str) -> tuple[Tensor, Conditions]:
    """Encoded clips as one batch, in float32."""

    def joined(name: str) -> Tensor:
        missing = [i for i, row in enumerate(rows) if name not in row]
        if missing:
            raise InputError(f"encoded clip has {', '.join(rows[missing[0]])}: want {name} too (see encode_sample)")
        return torch.stack([row[name] for row in rows]).to(device).float()

    target, reference, view, text = (joined(name) for name in ("target", "reference", "view", "text"))
    return target, Conditions(text=text, reference=reference, view=view)


@dataclass(frozen=True)
class TextAlone:
    """Clips without reference and view, for a text-to-video model."""

    clips: Source[tuple[Tensor, Conditions]]

    def __call__(self, samples: list[int]) -> tuple[Tensor, Conditions]:
        target, conditions = self.clips(samples)
        return target, replace(conditions, reference=None, view=None)


class Prefetched(Generic[Batch]):
    """A source whose next batch is made by a thread while the step runs; the same batches as without.

    A step may ask for its batches again (another update), so those of one step are kept.
    """

    def __init__(self, source: Source[Batch], plan: BatchPlan, *, world_size: int = 1, every: int = 1) -> None:
        """`every`: the source serves every n-th step, such as one of n tasks that take turns."""
        self._source, self._plan, self._world_size, self._every = source, plan, world_size, every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._batches: OrderedDict[tuple[int, ...], Future[Batch]] = OrderedDict()

    def __call__(self, samples: list[int]) -> Batch:
        batch = self._begun(samples)
        self._begun(self._following(samples))
        while len(self._batches) > self._plan.accumulate + 1:
            self._batches.popitem(last=False)
        return batch.result()

    def _begun(self, samples: list[int]) -> Future[Batch]:
        key = tuple(samples)
        if key not in self._batches:
            self._batches[key] = self._thread.submit(self._source, samples)
        self._batches.move_to_end(key)
        return self._batches[key]

    def _following(self, samples: list[int]) -> list[int]:
        """What comes after these: the step's next micro-batch, or the first of the next step."""
        plan = self._plan
        ahead = plan.batch_size * self._world_size
        micro_idx = samples[0] // ahead % plan.accumulate
        if micro_idx + 1 == plan.accumulate:
            ahead *= 1 + (self._every - 1) * plan.accumulate
        return [sample + ahead for sample in samples]
