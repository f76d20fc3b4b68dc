"""The batch-weighted forward warp against the reference implementation, on stable pixels."""

from __future__ import annotations

import re

import torch

from benchmarks.golden import GoldenCase, ParityReport

IMAGE_TOLERANCE = 1e-4
VARIANTS = r"single|batch\d+|identity|mask_K2|behind"


def measure(case: GoldenCase, report: ParityReport) -> None:
    """Recompute every variant's image and known mask; its batch is the first frames of the inputs."""
    from inspatio_sim.geometry.batch_weighted import forward_warp_batch_weighted

    for key, (variant,) in case.matching(r"out\.(.+)\.image"):
        if not re.fullmatch(VARIANTS, variant):
            report.skip(f"{case.name}/{variant}", f"unknown variant: known are {VARIANTS}")
            continue
        batch = len(case[key])
        T_source_world = case["in.w2c_source"][:batch]
        poses = {"identity": "in.w2c_source", "behind": "in.w2c_target_behind"}
        T_target_world = case[poses.get(variant, "in.w2c_target")][:batch]
        image, known = forward_warp_batch_weighted(
            case["in.frame"][:batch],
            case["in.depth"][:batch],
            case["in.K"][:batch],
            case["in.K2" if variant == "mask_K2" else "in.K"][:batch],
            T_target_world @ torch.linalg.inv(T_source_world),
            case["in.mask"][:batch] if variant == "mask_K2" else None,
        )
        is_stable = case[f"aux.{variant}.stable"]
        for output, computed in (("image", image), ("known", known)):
            report.compare(
                f"{case.name}/{variant}.{output}",
                f"out.{variant}.{output}",
                computed,
                case[f"out.{variant}.{output}"],
                tolerance=IMAGE_TOLERANCE if output == "image" else 0,
                unit="1",
                where=is_stable,
            )
    for key, _ in case.matching(r"out\..+\.(projected|image_u8|known_u8)"):
        report.skip(f"{case.name}/{key}", "no counterpart: our warp neither keeps coordinates nor returns bytes")
