"""The z-buffered point renderer against the reference implementation, off its ambiguous pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.golden import GoldenCase, ParityReport

DEPTH_TOLERANCE_M = 1e-5  # float32 rounding
VARIANTS: dict[str, dict[str, Any]] = {
    "fast_fp32": {},
    "fast_fp16": {"precision": "float16"},
    "softmin": {"colour": "softmin"},
    "clip_sub": {"near_m": 0.5, "far_m": 6.0, "max_points": 2000},
}
VIEW_SCALE = 0.5  # stored views are described at twice the size they are rendered at
EDGE_PX = 2e-4  # a point this near to a rounding boundary may land on either pixel


def measure(case: GoldenCase, report: ParityReport) -> None:
    """Recompute every render and the depth of the stored views."""
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
    later = {"selection": r"out\.db.*\.best_hits_samples_perview", "database": r"out\.db\.(P|centers)"}
    later["preprocessing"] = r"out\.(pre\..+|to_u8)"
    for name, pattern in later.items():
        num_tensors = len(list(case.matching(pattern)))
        if num_tensors:
            report.skip(f"{case.name}/{name}", f"{num_tensors} tensors: not built yet, comes with the frame generator")


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
