"""Real clips, of which there is no truth beside the reference's own path: what can be said all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality_cases.features import FeatureNetwork, features_of
from benchmarks.quality_cases.measures import Frames
from benchmarks.quality_cases.play import PathWorld, Played, play_worlds
from benchmarks.quality_cases.run import Sheet
from benchmarks.report import Result, reported
from inspatio_sim.cli.terminal import ProgressCallback
from inspatio_sim.clips.images import files_with_suffix
from inspatio_sim.clips.video import read_clip
from inspatio_sim.condition.condition import FROM_REFERENCE
from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.fidelity import flicker, psnr_db
from inspatio_sim.evaluation.frechet import FeatureStatistics, frechet_distance
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.motion.camera import Array, pose_from
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.reference import Reference

SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi"})
MAX_FRAMES = 93  # eight blocks
SWAY = (0.12, 0.03, 0.06)  # right, down, forward; of the first frame's median depth
SWAY_FRAMES = 60  # once to and fro


@dataclass(frozen=True, kw_only=True)
class RealClips:
    """What was measured on a folder of clips."""

    results: list[Result]
    sheets: list[Sheet]


def videos_in(folder: Path) -> list[Path]:
    """At least one."""
    paths = files_with_suffix(folder, SUFFIXES)
    if not paths:
        raise InputError(f"--videos {folder}: no videos: want files that end in {', '.join(sorted(SUFFIXES))}")
    return paths


def measure_clips(
    folder: Path,
    generators: dict[str, Generator],
    network: FeatureNetwork,
    size_px: tuple[int, int],
    progress: ProgressCallback | None = None,
) -> RealClips:
    """Every video of a folder: reconstructed, and walked beside its own camera's path by every generator."""
    results, sheets = [], []
    for path in videos_in(folder):
        clip = read_clip(path, size_px=size_px, max_frames=MAX_FRAMES)
        reference = reconstruct(clip, progress=progress)
        own = FeatureStatistics.of(features_of(network, reference.frames_u8))
        films: dict[str, Frames] = {"reference": reference.frames_u8}
        for name, generator in generators.items():
            moments = np.arange(reference.num_frames)
            world = PathWorld(reference, swaying(reference), moments, generator=generator, seed=0)
            (played,) = play_worlds([world], [reference.num_frames], f"{path.stem}, {name}", progress=progress)
            films.setdefault("condition", played.render_u8)
            films[name] = played.frames_u8
            statistics = FeatureStatistics.of(features_of(network, played.frames_u8))
            results += [
                reported(f"{path.stem}, {name}: {label}", value, unit)
                for label, value, unit in (
                    ("PSNR to the warp, known", _known_db(played), "dB"),
                    ("Fréchet distance to the clip", frechet_distance(statistics, own), ""),
                    ("flicker beyond the clip's", flicker(played.frames_u8) - flicker(reference.frames_u8), "levels"),
                    ("mean over the clip's", _over(played.frames_u8, reference.frames_u8, np.mean), ""),
                    ("variance over the clip's", _over(played.frames_u8, reference.frames_u8, np.var), ""),
                )
            ]
        sheets.append(Sheet(place=path.stem, films=films))
    return RealClips(results=results, sheets=sheets)


def swaying(reference: Reference) -> Array:
    """The clip's own poses, moved aside and ahead in slow waves. [T, 4, 4]"""
    known_m = reference.depth_m[0][reference.depth_m[0] > 0]
    phase = 2 * np.pi * np.arange(reference.num_frames) / SWAY_FRAMES
    away_m = float(np.median(known_m)) * np.sin(phase)[:, None] * np.array(SWAY)
    return reference.T_world_camera @ np.stack([pose_from(t_m=t_m) for t_m in away_m])


def _known_db(played: Played) -> float:
    """Likeness to the render, where the reference's frame of the moment gives one."""
    return psnr_db(played.frames_u8, played.render_u8, played.known == FROM_REFERENCE)


def _over(frames_u8: Frames, clip_u8: Frames, statistic: Callable[[Frames], np.floating]) -> float:
    """A statistic of the last third of a film, over that of the same part of the clip."""
    last = slice(2 * len(frames_u8) // 3, None)
    return float(statistic(frames_u8[last]) / max(float(statistic(clip_u8[last])), 1e-9))
