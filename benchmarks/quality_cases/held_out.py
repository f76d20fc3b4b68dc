"""Made-up places that no training ever saw: clips with a truth for every view along the target camera's path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, se3_exp
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import Provenance, Reference, ScaleCard
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.data.sample import Sample

STYLES: tuple[Style, ...] = ("synthetic", "photo")
FPS = 15.0


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One place, filmed by two cameras at once: the reference, which a world is made of, and the truth."""

    seed: int
    style: Style
    sample: Sample
    reference: Reference

    @property
    def name(self) -> str:
        return f"{self.seed} {self.style}"

    @property
    def num_frames(self) -> int:
        return len(self.sample.target_u8)


class Way(Protocol):
    """What a world can be led along: a place, and each frame's pose and moment of the clip."""

    @property
    def place(self) -> HeldOut: ...
    @property
    def frame_idx(self) -> NDArray[np.int64]: ...  # [N]
    @property
    def T_world_camera(self) -> Array: ...  # [N, 4, 4]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A way through a place: which pose of the target's path, and which moment of the clip, each frame has."""

    place: HeldOut
    frame_idx: NDArray[np.int64]  # [N]

    @property
    def T_world_camera(self) -> Array:
        return self.place.sample.T_world_target[self.frame_idx]

    @property
    def truth_u8(self) -> NDArray[np.uint8]:
        return self.place.sample.target_u8[self.frame_idx]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Once around on the spot where the target's path ends, and back; time stands still.

    Where the path begins the target's camera is the reference's, and nothing has to be made up.
    """

    place: HeldOut
    num_frames: int  # of the way round; the frame after so many has the first one's pose

    @property
    def frame_idx(self) -> NDArray[np.int64]:
        return np.full(2 * self.num_frames + 1, self.place.num_frames - 1, np.int64)

    @property
    def T_world_camera(self) -> Array:
        way = np.arange(2 * self.num_frames + 1)
        step = np.minimum(way, 2 * self.num_frames - way) % self.num_frames
        to_the_right = np.array([0, 0, 0, 0, 2 * np.pi, 0])
        return self.place.sample.T_world_target[-1] @ se3_exp(step[:, None] / self.num_frames * to_the_right)


def seeds_from(text: str) -> range:
    """900000:900008 -> 900000 ... 900007"""
    start, separator, stop = text.partition(":")
    if not (separator and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise InputError(f"--seeds {text}: want START:END with START < END, such as 900000:900008")
    return range(int(start), int(stop))


def held_out(
    seeds: Sequence[int], size_px: tuple[int, int], num_frames: int, progress: Progress | None = None
) -> list[HeldOut]:
    """The first clip of every seed, in both styles."""
    places = []
    for i, seed in enumerate(seeds):
        for style in STYLES:
            config = ProceduralConfig(
                seed=seed, style=style, num_frames=num_frames, size_px=size_px, fps=FPS, length=1, num_threads=2
            )
            sample = ProceduralClips(config)[0]
            places.append(HeldOut(seed=seed, style=style, sample=sample, reference=_reference(sample, seed, style)))
        if progress:
            progress(f"places of {num_frames} frames", (i + 1) / len(seeds))
    return places


def straight_on(place: HeldOut) -> Walk:
    """Along the whole path once."""
    return Walk(place=place, frame_idx=np.arange(place.num_frames))


def out_and_back(place: HeldOut) -> Walk:
    """To the path's end and back to its start, time with it: the last frame's truth is the first one's."""
    return to_and_fro(place, 2 * place.num_frames - 1)


def to_and_fro(place: HeldOut, num_frames: int) -> Walk:
    """Along the path and back, over and over; a round is 2 T - 2 frames of a clip of T."""
    way = np.arange(num_frames) % max(2 * place.num_frames - 2, 1)
    return Walk(place=place, frame_idx=np.minimum(way, 2 * place.num_frames - 2 - way))


def _reference(sample: Sample, seed: int, style: Style) -> Reference:
    return Reference(
        frames_u8=sample.reference_u8,
        depth_m=sample.reference_depth_m,
        intrinsics=sample.intrinsics,
        T_world_camera=sample.T_world_reference,
        fps=FPS,
        scale=ScaleCard(source="sensor", note="The place is made up in metres."),
        provenance=Provenance(method="rgbd", reason="exact depth and poses of a made-up place"),
        source=f"procedural {style} {seed}",
    )
