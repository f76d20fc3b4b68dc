"""From films to numbers: each method's film of a place against the truth, and means over places."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_cases.features import FeatureNetwork, features_of
from benchmarks.quality_cases.held_out import STYLES, HeldOut
from inspatio_sim.evaluation.camera_error import CameraErrors, TrueView, camera_errors, path_length_m
from inspatio_sim.evaluation.fidelity import flicker, mean_where, psnr_db, ssim_map
from inspatio_sim.evaluation.frechet import FeatureStatistics, frechet_distance
from inspatio_sim.progress import Progress

CAMERA_STRIDE_FRAMES = 4  # the camera of every so many frames is recovered
MIN_UNKNOWN_SHARE = 0.005  # of a film's pixels; fewer say nothing about how holes are filled

Frames = NDArray[np.uint8]  # [T, H, W, 3]


@dataclass(frozen=True, kw_only=True)
class FilmMeasures:
    """Of one film of one place; NaN where there is nothing to measure."""

    psnr_db: float
    psnr_known_db: float  # pixels that the reference shows, now or earlier
    psnr_unknown_db: float
    ssim: float
    ssim_known: float
    ssim_unknown: float
    extra_flicker: float  # mean change from frame to frame beyond the truth's, in grey levels
    rotation_deg: float  # error of the camera, mean of the frames whose camera was recovered
    translation_percent: float  # likewise, of the path's length
    recovered_percent: float  # share of those frames


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A place made ready for measuring films of it."""

    place: HeldOut
    is_known: NDArray[np.bool_]  # the same for every method. [T, H, W]
    true_views: list[TrueView]  # of every `CAMERA_STRIDE_FRAMES`-th frame

    @classmethod
    def of(cls, place: HeldOut, is_known: NDArray[np.bool_]) -> Stage:
        sample = place.sample
        views = [
            TrueView.of(sample.target_u8[i], sample.target_depth_m[i], sample.intrinsics, sample.T_world_target[i])
            for i in range(0, place.num_frames, CAMERA_STRIDE_FRAMES)
        ]
        return cls(place=place, is_known=is_known, true_views=views)

    def measure(self, frames_u8: Frames) -> FilmMeasures:
        """One method's film along the place's path."""
        truth_u8, is_known, is_unknown = self.place.sample.target_u8, self.is_known, ~self.is_known
        likeness = ssim_map(frames_u8, truth_u8)
        has_unknown = is_unknown.mean() >= MIN_UNKNOWN_SHARE
        cameras = self._cameras(frames_u8, self.place.sample.T_world_target)
        return FilmMeasures(
            psnr_db=psnr_db(frames_u8, truth_u8),
            psnr_known_db=psnr_db(frames_u8, truth_u8, is_known),
            psnr_unknown_db=psnr_db(frames_u8, truth_u8, is_unknown) if has_unknown else math.nan,
            ssim=float(likeness.mean(dtype=np.float64)),
            ssim_known=mean_where(likeness, is_known),
            ssim_unknown=mean_where(likeness, is_unknown) if has_unknown else math.nan,
            extra_flicker=flicker(frames_u8) - flicker(truth_u8),
            **self._camera_measures(cameras),
        )

    def camera_floor(self) -> dict[str, float]:
        """What the recovery of cameras makes of true frames: those of the other camera, whose poses are known."""
        sample = self.place.sample
        return self._camera_measures(self._cameras(sample.reference_u8, sample.T_world_reference))

    def _cameras(self, frames_u8: Frames, T_world_camera: NDArray[np.float64]) -> CameraErrors:
        some = slice(None, None, CAMERA_STRIDE_FRAMES)
        true_views = [[view] for view in self.true_views]
        return camera_errors(frames_u8[some], true_views, self.place.sample.intrinsics, T_world_camera[some])

    def _camera_measures(self, cameras: CameraErrors) -> dict[str, float]:
        way_m = path_length_m(self.place.sample.T_world_target)
        return {
            "rotation_deg": math.degrees(_nan_mean(cameras.rotation_rad)),
            "translation_percent": 100 * _nan_mean(cameras.translation_m) / way_m,
            "recovered_percent": 100 * cameras.recovered_share,
        }


@dataclass(frozen=True, kw_only=True)
class MethodMeasures:
    """Of one method over all places."""

    films: list[FilmMeasures]  # one for each place
    frechet: dict[str, float]  # of all frames ("all"), and of each style's

    def mean(self, name: str) -> float:
        """Of one of `FilmMeasures`, over the places where there is one."""
        return _nan_mean([getattr(film, name) for film in self.films])

    def means(self) -> dict[str, float]:
        distances = {f"frechet_{name}": value for name, value in self.frechet.items()}
        return {**{field.name: self.mean(field.name) for field in fields(FilmMeasures)}, **distances}

    def rows(self, places: Sequence[HeldOut]) -> list[dict[str, float | str | None]]:
        """One for each place, fit for JSON."""
        return [
            {"place": place.name, **{name: _number(value) for name, value in asdict(film).items()}}
            for place, film in zip(places, self.films, strict=True)
        ]


class FrechetJudge:
    """Fréchet distances between films and the truth of the same paths."""

    def __init__(self, network: FeatureNetwork, places: Sequence[HeldOut]) -> None:
        self._network, self._styles = network, [place.style for place in places]
        self._truth = self._statistics([place.sample.target_u8 for place in places])

    def distances(self, films: Sequence[Frames]) -> dict[str, float]:
        """To all of the truth, and style by style."""
        found = self._statistics(films)
        return {name: frechet_distance(statistics, self._truth[name]) for name, statistics in found.items()}

    def _statistics(self, films: Sequence[Frames]) -> dict[str, FeatureStatistics]:
        features = [features_of(self._network, frames_u8) for frames_u8 in films]
        groups = {
            style: [each for each, own in zip(features, self._styles, strict=True) if own == style] for style in STYLES
        }
        groups["all"] = features
        return {name: FeatureStatistics.of(np.concatenate(some)) for name, some in groups.items() if some}


def measure_method(
    films: Sequence[Frames],
    stages: Sequence[Stage],
    judge: FrechetJudge,
    what: str,
    progress: Progress | None = None,
) -> MethodMeasures:
    """All measures of one method's films, one film for each place."""
    measured = []
    for i, (stage, frames_u8) in enumerate(zip(stages, films, strict=True)):
        measured.append(stage.measure(frames_u8))
        if progress:
            progress(f"measuring {what}", (i + 1) / len(films))
    return MethodMeasures(films=measured, frechet=judge.distances(films))


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of dicts with the same names; NaN is left out."""
    return {name: _nan_mean([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _nan_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing to average: NaN is what we want
        return float(np.nanmean(np.asarray(values, np.float64))) if len(values) else math.nan
