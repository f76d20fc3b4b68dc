"""What WorldFM has around its network: the z-buffered point renderer (compared off its ambiguous pixels), the choice of
a reference view, and the preparation of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.golden import GoldenCase, ParityReport
from inspatio_sim.errors import InputError

if TYPE_CHECKING:
    from inspatio_sim.generators.frame.selection import SelectionConfig

DEPTH_TOLERANCE_M = 1e-5  # float32 rounding
VARIANTS: dict[str, dict[str, Any]] = {
    "fast_fp32": {},
    "fast_fp16": {"precision": "float16"},
    "softmin": {"colour": "softmin"},
    "clip_sub": {"near_m": 0.5, "far_m": 6.0, "max_points": 2000},
}
VIEW_SCALE = 0.5  # stored views are described at twice the size they are rendered at
DATABASE_TOLERANCE = 1e-5  # float32 rounding
BOUNDARY_HITS = 1  # a place at the edge of a pixel, or of the allowed depth, may count or not
IMAGE_TOLERANCE = 1e-5  # float32 rounding, of images in [-1, 1]
EDGE_PX = 2e-4  # a point this near to a rounding boundary may land on either pixel


def measure(case: GoldenCase, report: ParityReport) -> None:
    """Recompute everything that the case holds."""
    from inspatio_sim.geometry.splat import splat_plain

    points_m, rgb = case["in.points_xyz"], case["in.points_rgb"]
    for key, (variant, query) in case.matching(r"out\.([^.]+)\.(\d+)\.rgb_u8"):
        if variant not in VARIANTS:
            report.skip(f"{case.name}/{variant}.{query}", f"unknown variant: known are {', '.join(VARIANTS)}")
            continue
        height_px, width_px = case[key].shape[:2]
        T_world_camera = case["in.query_c2w"][int(query)]
        image, depth_m = splat_plain(
            points_m, rgb, case["in.K"], T_world_camera, height_px, width_px, **VARIANTS[variant]
        )
        marks = variant if f"aux.{variant}.{query}.color_ambiguous" in case.tensors else "fast_fp32"
        has_colour = case[f"aux.{marks}.{query}.color_ambiguous"] == 0
        has_depth = case[f"aux.{marks}.{query}.depth_unstable"] == 0
        levels = 1 if variant == "softmin" else 0  # a mean may fall on either side of a truncation
        name = f"{case.name}/{variant}"
        report.compare(
            f"{name}.rgb", key, image, case[key], tolerance=levels, unit="levels", where=has_colour[..., None]
        )
        key = f"out.{variant}.{query}.depth"
        report.compare(f"{name}.depth", key, depth_m, case[key], tolerance=DEPTH_TOLERANCE_M, unit="m", where=has_depth)

    for name, scale in (("out.db", 1.0), ("in.db_scaled", VIEW_SCALE)):
        key = f"{name}.depth"
        if key not in case.tensors:
            continue
        height_px, width_px = case[key].shape[1:]
        K_px = case["in.view_K"].clone()
        K_px[:2] *= scale
        for view, T_world_camera in enumerate(case["in.view_c2w"]):
            depth_m = splat_plain(points_m, rgb, K_px, T_world_camera, height_px, width_px)[1]
            report.compare(
                f"{case.name}/{name.split('.')[1]}.depth",
                f"{key}[{view}]",
                depth_m,
                case[key][view],
                tolerance=DEPTH_TOLERANCE_M,
                unit="m",
                where=_is_certain(points_m, K_px, T_world_camera, height_px, width_px),
            )
    _measure_database(case, report)
    _measure_selection(case, report)
    _measure_preprocessing(case, report)


def _measure_database(case: GoldenCase, report: ParityReport) -> None:
    """Projections and centres of the stored views."""
    from inspatio_sim.generators.frame.selection import ViewTable

    keys = [key for key, _ in case.matching(r"out\.db\.(P|centers)")]
    if not keys:
        return
    num_views = len(case["in.view_c2w"])
    views = ViewTable(
        depth_m=np.zeros((num_views, 1, 1), np.float32), K_px=_view_K_px(case), T_world_camera=case.numpy("in.view_c2w")
    )
    computed = {"out.db.P": views.P_px, "out.db.centers": views.centre_m}
    for key in keys:
        report.compare(
            f"{case.name}/database", key, computed[key], case[key], tolerance=DATABASE_TOLERANCE, unit="px, m"
        )


def _measure_selection(case: GoldenCase, report: ParityReport) -> None:
    """Hits of every stored view, and which one is chosen, for all sets of options."""
    from inspatio_sim.generators.frame.selection import ViewTable, select_view

    for key, (database, name) in case.matching(r"out\.(db|db_scaled)\.([^.]+)\.best_hits_samples_perview"):
        depth_key = "out.db.depth" if database == "db" else "in.db_scaled.depth"
        views = ViewTable(
            depth_m=case.numpy(depth_key), K_px=_view_K_px(case), T_world_camera=case.numpy("in.view_c2w")
        )
        config = _selection_config(case, name)
        for query, row in enumerate(case[key].tolist()):
            best, hits, num_samples, *hits_per_view = row
            selection = select_view(
                case.numpy(f"out.fast_fp32.{query}.depth"),
                case.numpy("in.K"),
                case.numpy("in.query_c2w")[query],
                views,
                config,
            )
            is_view = 0 <= best < len(views)
            theirs = best if is_view else selection.index
            score = selection.score_per_view
            lost = score[selection.index] - score[theirs] if is_view else np.inf  # by choosing as they do
            comparisons = {
                "samples": ([selection.num_samples], [num_samples], 0),
                "hits": (
                    [selection.hits_per_view[theirs], *selection.hits_per_view],
                    [hits, *hits_per_view],
                    BOUNDARY_HITS,
                ),
                "score": ([lost], [0.0], BOUNDARY_HITS),
            }
            for what, (computed, golden, tolerance) in comparisons.items():
                report.compare(
                    f"{case.name}/{database}.{what}",
                    f"{key}[{query}]",
                    torch.tensor(computed),
                    torch.tensor(golden),
                    tolerance=tolerance,
                    unit="samples",
                )


def _measure_preprocessing(case: GoldenCase, report: ParityReport) -> None:
    """Images to squares and back to bytes."""
    from inspatio_sim.generators.blocks.pixels import to_u8
    from inspatio_sim.generators.frame.preprocess import to_square

    for key, (way, size_px) in case.matching(r"out\.pre\.(tensor|pil)\.(\d+)"):
        image = to_square(case.numpy("in.pre.image_u8"), int(size_px), antialias=way == "pil")
        report.compare(f"{case.name}/pre.{way}", key, image, case[key], tolerance=IMAGE_TOLERANCE, unit="of 2")
    for key, _ in case.matching(r"out\.to_u8"):
        report.compare(f"{case.name}/to_u8", key, to_u8(case["in.to_u8"]), case[key], tolerance=0, unit="levels")


def _view_K_px(case: GoldenCase) -> NDArray[np.float64]:
    """Intrinsics of the stored views at the size of their depth. [3, 3]"""
    K_px = case.numpy("in.view_K").copy()
    K_px[:2] *= VIEW_SCALE
    return K_px


def _selection_config(case: GoldenCase, name: str) -> SelectionConfig:
    from inspatio_sim.generators.frame.selection import SelectionConfig

    options = case.setting("options")
    if name not in options:
        raise InputError(f"golden case {case.path}: its options have no {name!r}")
    chosen = dict(options[name])
    if "eps_abs" in chosen:
        chosen["eps_abs_m"] = chosen.pop("eps_abs")
    try:
        return SelectionConfig(**chosen)
    except TypeError as error:
        raise InputError(f"golden case {case.path}: options {name!r}: {error}") from error


def _is_certain(points_m: Tensor, K_px: Tensor, T_world_camera: Tensor, height_px: int, width_px: int) -> Tensor:
    """False at pixels that a point may or may not reach, depending on rounding. [H, W]"""
    T_camera_world = torch.linalg.inv(T_world_camera.double())
    camera_points = points_m.double() @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    camera_points = camera_points[camera_points[:, 2] > 1e-4]
    pixels = camera_points @ K_px.double().T
    uv = pixels[:, :2] / pixels[:, 2:]
    certain = torch.ones(height_px, width_px, dtype=torch.bool)
    size = torch.tensor([width_px, height_px])
    for step in torch.tensor([[-EDGE_PX, -EDGE_PX], [EDGE_PX, EDGE_PX], [EDGE_PX, -EDGE_PX], [-EDGE_PX, EDGE_PX]]):
        moved = (uv + step).round()
        reached = moved[(moved != uv.round()).any(-1) | (moved != (uv - step).round()).any(-1)]
        reached = reached[((reached >= 0) & (reached < size)).all(-1)].long()
        certain[reached[:, 1], reached[:, 0]] = False
    return certain
