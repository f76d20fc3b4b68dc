"""Batches for the stages: frames of clips, or latents that were encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.training.data.sample import ClipDataset
from inspatio_sim.training.iteration import shuffled
from inspatio_sim.training.passes import Conditions


class TensorDataset(Protocol):
    """Encoded clips by index, such as `ShardDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


class FrameCrops:
    """Short crops of both videos of a clip, for the codec."""

    def __init__(self, clips: ClipDataset, *, num_frames: int, size_px: tuple[int, int], seed: int) -> None:
        """Crops of 4n - 3 frames of height x width pixels, both multiples of 8; drawn by seed and sample."""
        if (num_frames - 1) % 4 or size_px[0] % 8 or size_px[1] % 8:
            raise InputError(f"crops of {num_frames} frames, {size_px} px: want 4n - 3 frames, multiples of 8 px")
        self._clips, self._num_frames, self._size_px, self._seed = clips, num_frames, size_px, seed

    def __call__(self, samples: list[int]) -> Tensor:
        """Frames in [0, 1]. [B, T, H, W, 3]"""
        return torch.stack([self._crop(sample) for sample in samples])

    def _crop(self, sample: int) -> Tensor:
        rng = np.random.default_rng([self._seed, sample])
        clip = self._clips[shuffled(sample, len(self._clips), self._seed)]
        frames = clip.target_u8 if rng.random() < 0.5 else clip.reference_u8
        wanted = (self._num_frames, *self._size_px)
        if any(has < needs for has, needs in zip(frames.shape, wanted, strict=False)):
            raise InputError(f"clip of {frames.shape[:3]} frames and pixels: want at least {wanted} for a crop")
        t, y, x = (int(rng.integers(0, has - needs + 1)) for has, needs in zip(frames.shape, wanted, strict=False))
        num_frames, height_px, width_px = wanted
        crop = frames[t : t + num_frames, y : y + height_px, x : x + width_px]
        return torch.from_numpy(crop.copy()).float() / 255


class EncodedClips:
    """Latents of clips, batch by batch."""

    def __init__(self, clips: TensorDataset, *, seed: int, device: torch.device | str = "cpu") -> None:
        self._clips, self._seed, self._device = clips, seed, device

    def __call__(self, samples: list[int]) -> tuple[Tensor, Conditions]:
        """Clean targets [B, F, 16, h, w], and what they are generated from."""
        rows = [self._clips[shuffled(sample, len(self._clips), self._seed)] for sample in samples]
        target, reference, view, text = (self._joined(rows, name) for name in ("target", "reference", "view", "text"))
        return target, Conditions(text=text, reference=reference, view=view)

    def _joined(self, rows: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
        missing = [i for i, row in enumerate(rows) if name not in row]
        if missing:
            raise InputError(f"encoded clip has {', '.join(rows[missing[0]])}: want {name} too (see encode_sample)")
        return torch.stack([row[name] for row in rows]).float().to(self._device)
