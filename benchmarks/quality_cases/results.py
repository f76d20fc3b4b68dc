"""Results with their floors, from what a run measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.quality_cases.run import FRAME, FRAME_ONE_STEP, NO_MAP, Drift, Measured, Revisit, Turned
from benchmarks.report import Result, reported
from inspatio_sim.evaluation.drift import worst_departure

STUDENT, BASELINE, TEACHER = "tiny", "warp", "teacher"
UNITS = {
    "psnr_db": ("PSNR", "dB"),
    "psnr_known_db": ("PSNR, known pixels", "dB"),
    "psnr_unknown_db": ("PSNR, unknown pixels", "dB"),
    "ssim": ("SSIM", ""),
    "ssim_known": ("SSIM, known pixels", ""),
    "ssim_unknown": ("SSIM, unknown pixels", ""),
    "frechet_all": ("Fréchet distance", ""),
    "frechet_synthetic": ("Fréchet distance, synthetic", ""),
    "frechet_photo": ("Fréchet distance, photo", ""),
    "extra_flicker": ("flicker beyond the truth's", "levels"),
    "rotation_deg": ("camera, rotation", "deg"),
    "translation_percent": ("camera, translation", "% of path"),
    "recovered_percent": ("camera, frames recovered", "%"),
}
PARTS = {"PSNR": "psnr_db", "PSNR, unknown pixels": "psnr_unknown_db"}
MIN_MOTION_KEPT = 0.5  # of the truth's change from frame to frame; less is freezing


def results_of(measured: Measured) -> list[Result]:
    """The floors first, then every figure."""
    return [*floors(measured), *figures(measured)]


def floors(measured: Measured) -> list[Result]:
    """What has to be reached, as far as the run has what it takes; a figure that is missing reaches nothing."""
    rows = []
    means = {name: method.means() for name, method in measured.methods.items()}
    student = means.get(STUDENT)
    if student and BASELINE in means:
        baseline = means[BASELINE]
        rows += [
            _floor(
                f"{STUDENT} less {BASELINE}: PSNR, unknown pixels",
                student["psnr_unknown_db"] - baseline["psnr_unknown_db"],
                "dB",
                at_least=1.5,
            ),
            _floor(f"{STUDENT} less {BASELINE}: PSNR", student["psnr_db"] - baseline["psnr_db"], "dB", at_least=-0.5),
            _floor(
                f"{STUDENT} over {BASELINE}: Fréchet distance",
                student["frechet_all"] / max(baseline["frechet_all"], 1e-12),
                "",
                at_most=1.0,
            ),
        ]
    if student:
        rows += [
            _floor(f"{STUDENT}: camera, rotation", student["rotation_deg"], "deg", at_most=1.5),
            _floor(f"{STUDENT}: camera, translation", student["translation_percent"], "% of path", at_most=5),
        ]
    if NO_MAP in means and TEACHER in means:
        behind_db = means[TEACHER]["psnr_db"] - means[NO_MAP]["psnr_db"]
        rows.append(_floor(f"{TEACHER} less {NO_MAP}: PSNR", behind_db, "dB", at_most=1.0))
    if measured.revisits.get(STUDENT):
        revisit_db = mean_over(measured.revisits[STUDENT], "to_way_out_db")
        rows.append(_floor(f"{STUDENT}: way back to way out", revisit_db, "dB", at_least=20))
    if measured.drifts.get(STUDENT):
        drift = drift_figures(measured.drifts[STUDENT])
        rows += [
            _floor(f"{STUDENT}: mean of a round, drift", drift["mean_percent"], "%", at_most=15),
            _floor(f"{STUDENT}: variance of a round, drift", drift["variance_percent"], "%", at_most=15),
            _floor(
                f"{STUDENT}: motion in the last round over the truth's",
                drift["motion_kept"],
                "",
                at_least=MIN_MOTION_KEPT,
            ),
        ]
    return [*rows, *frame_floors(measured)]


def frame_floors(measured: Measured) -> list[Result]:
    """What the frame generator has to reach, likewise."""
    rows = []
    means = {name: method.means() for name, method in measured.methods.items()}
    frame = means.get(FRAME)
    if frame and BASELINE in means:
        gained_db = frame["psnr_unknown_db"] - means[BASELINE]["psnr_unknown_db"]
        rows.append(_floor(f"{FRAME} less {BASELINE}: PSNR, unknown pixels", gained_db, "dB", at_least=1.0))
    if frame and FRAME_ONE_STEP in means:
        rows += [
            _floor(f"{FRAME} less {FRAME_ONE_STEP}: {label}", frame[key] - means[FRAME_ONE_STEP][key], "dB", at_most=1)
            for label, key in PARTS.items()
        ]
    if measured.turns.get(FRAME):
        around_db, back_db = (mean_over(measured.turns[FRAME], name) for name in ("around_db", "back_db"))
        rows += [
            _floor(f"{FRAME}: first frame again after a full turn", around_db, "dB", at_least=22),
            _floor(f"{FRAME}: full turn back to full turn", back_db, "dB", at_least=22),
        ]
    return rows


def figures(measured: Measured) -> list[Result]:
    """Everything else; figures that do not exist, such as of unknown pixels where all are known, are left out."""
    rows = [reported("pixels that the reference never shows", measured.unknown_percent, "%")]
    for name, method in measured.methods.items():
        rows += [
            reported(f"{name}: {label}", value, unit)
            for key, value in method.means().items()
            for label, unit in [UNITS[key]]
        ]
    rows += [
        reported(f"recovery of cameras on true frames: {UNITS[key][0].removeprefix('camera, ')}", value, UNITS[key][1])
        for key, value in measured.camera_floor.items()
    ]
    for name, revisits in measured.revisits.items():
        rows += [
            reported(f"{name}: way back to way out", mean_over(revisits, "to_way_out_db"), "dB"),
            reported(f"{name}: way back to truth", mean_over(revisits, "to_truth_db"), "dB"),
        ]
    for name, turns in measured.turns.items():
        rows += [
            reported(f"{name}: first frame again after a full turn", mean_over(turns, "around_db"), "dB"),
            reported(f"{name}: full turn back to full turn", mean_over(turns, "back_db"), "dB"),
            reported(f"{name}: variance of a full turn over the clip's", mean_over(turns, "variance_over_clip"), ""),
        ]
    for name, latency in measured.latencies.items():
        what = f"{name}: action to frames, {latency.frames_per_step} a step"
        rows += [
            reported(f"{what}, p50", 1e3 * latency.p50_s, "ms"),
            reported(f"{what}, p95", 1e3 * latency.p95_s, "ms"),
        ]
    for name, drifts in measured.drifts.items():
        drift = drift_figures(drifts)
        rows += [
            reported(f"{name}: mean of a round, drift", drift["mean_percent"], "%"),
            reported(f"{name}: variance of a round, drift", drift["variance_percent"], "%"),
            reported(f"{name}: mean of the last round over the truth's", drift["mean_over_truth"], ""),
            reported(f"{name}: variance of the last round over the truth's", drift["variance_over_truth"], ""),
            reported(f"{name}: motion in the last round over the truth's", drift["motion_kept"], ""),
        ]
    return [row for row in rows if math.isfinite(row.value)]


def drift_figures(drifts: Sequence[Drift]) -> dict[str, float]:
    """The worst of all places; drift is the largest departure from the first round."""
    return {
        "mean_percent": 100 * max(worst_departure(drift.film.mean) for drift in drifts),
        "variance_percent": 100 * max(worst_departure(drift.film.variance) for drift in drifts),
        "mean_over_truth": float(np.mean([drift.film.mean[-1] / drift.truth.mean[0] for drift in drifts])),
        "variance_over_truth": float(np.mean([drift.film.variance[-1] / drift.truth.variance[0] for drift in drifts])),
        "motion_kept": min(float(drift.film.change[-1] / max(drift.truth.change[0], 1e-9)) for drift in drifts),
    }


def mean_over(places: Sequence[Revisit] | Sequence[Turned], name: str) -> float:
    """Of one of the figures of each place, over all of them."""
    return float(np.mean([getattr(place, name) for place in places]))


def _floor(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Result:
    """A figure to reach. A missing one is infinitely bad, since NaN is neither more nor less than any floor."""
    if at_least is not None:
        value = value if math.isfinite(value) else -1e9
        return Result(name=name, value=value, unit=unit, floor=at_least, better="higher")
    assert at_most is not None, "a floor is reached from above or from below"
    return Result(name=name, value=value if math.isfinite(value) else 1e9, unit=unit, floor=at_most, better="lower")
