"""Structure from motion against the truth: the procedural clip, stripped to its pictures.

`python -m benchmarks.reconstruction [--json]`. The bounds are the project's own.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Result, run
from inspatio_sim.reconstruction.sfm.method import SfmReconstructor
from inspatio_sim.scenes.demo import demo_clip

NUM_FRAMES = 48
SIZE_PX = (240, 400)


def trajectory_error_share(T_estimated: NDArray[np.float64], T_true: NDArray[np.float64]) -> float:
    """Absolute trajectory error (RMS) after the best similarity, as a share of the true path's length.

    Source: Umeyama, Least-squares estimation of transformation parameters, PAMI 1991.
    """
    estimated, true = T_estimated[:, :3, 3], T_true[:, :3, 3]
    a, b = estimated - estimated.mean(0), true - true.mean(0)
    U, S, Vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(U @ Vt))])
    fitted = (S @ signs) / (a**2).sum() * a @ ((U * signs) @ Vt).T
    path = np.linalg.norm(np.diff(true, axis=0), axis=1).sum()
    return float(np.sqrt(((fitted - b) ** 2).sum(1).mean()) / path)


def depth_error_share(depth_units: NDArray[np.float32], depth_m: NDArray[np.float32]) -> float:
    """Median relative depth error after one scale for the whole clip."""
    is_known = (depth_units > 0) & (depth_m > 0)
    ratio = depth_units[is_known] / depth_m[is_known]
    return float(np.median(np.abs(ratio / np.median(ratio) - 1)))


def measure() -> list[Result]:
    """Reconstruct the demo room from its pictures alone."""
    truth = demo_clip(NUM_FRAMES, SIZE_PX, camera="moving")
    assert truth.depth_m is not None, "the demo clip carries its depth"
    assert truth.T_world_camera is not None, "the demo clip carries its poses"
    start = time.perf_counter()
    found = SfmReconstructor().reconstruct(replace(truth, depth_m=None, T_world_camera=None, intrinsics=None))
    seconds = time.perf_counter() - start
    ate_percent = 100 * trajectory_error_share(found.T_world_camera, truth.T_world_camera)
    depth_percent = 100 * depth_error_share(found.depth_units, truth.depth_m)
    size = f"{SIZE_PX[0]}x{SIZE_PX[1]}, {NUM_FRAMES} frames"
    return [
        Result(name=f"sfm: trajectory error, {size}", value=ate_percent, unit="% of path", floor=2.0, better="lower"),
        Result(name=f"sfm: depth median error, {size}", value=depth_percent, unit="%", floor=8.0, better="lower"),
        Result(name=f"sfm: time, {size}", value=seconds, unit="s", floor=180.0, better="lower"),
    ]


def results() -> list[dict[str, Any]]:
    """The figures as plain dictionaries: name, value, unit, floor, better."""
    return [asdict(result) for result in measure()]


if __name__ == "__main__":
    run("reconstruction", "Structure from motion against the procedural clip's truth.", measure)
