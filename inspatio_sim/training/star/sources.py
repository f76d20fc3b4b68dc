"""Batches for the stages: latents that were encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.progress import Progress
from inspatio_sim.training.engine.iteration import Source, shuffled
from inspatio_sim.training.star.flows import Conditions


class TensorDataset(Protocol):
    """Encoded clips by index, such as `ShardDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


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
