"""Orbits and target poses against the reference implementation."""

from __future__ import annotations

from benchmarks.golden import GoldenCase, ParityReport
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.motion.orbit import Orbit, bounce_indices, sample_row, target_poses

POSE_TOLERANCE = 2e-6
CURVE_TOLERANCE = 1e-6
INTRINSICS_TOLERANCE = 1e-5  # relative to the focal length: float32 pixels


def measure(case: GoldenCase, report: ParityReport) -> None:
    """Recompute every curve, pose, target pose, bounce and K that the case has."""
    for key, (name, num_frames, row) in case.matching(r"out\.(.+)\.n(\d+)\.curve\.(x_up|y_left|r)"):
        curve = sample_row(case.numpy(f"in.{name}.{row}"), int(num_frames), "fitpack")
        unit = "m" if row == "r" else "deg"
        report.compare(f"{case.name}/curve.{row}", key, curve, case[key], tolerance=CURVE_TOLERANCE, unit=unit)

    for key, (name, num_frames, variant) in case.matching(r"out\.(.+)\.n(\d+)\.(full|rotonly|scaled)\.c2w"):
        scales = (case.setting("radius"), case.setting("zoom_radius")) if variant == "scaled" else (1.0, 1.0)
        T_start_camera = _orbit(case, name).poses(
            int(num_frames),
            smoothing="fitpack",
            radius_scale=scales[0],
            zoom_scale=scales[1],
            rotation_only=variant == "rotonly",
        )
        name = f"{case.name}/poses.{variant}"
        report.compare(name, key, T_start_camera, case[key], tolerance=POSE_TOLERANCE, unit="m")

    targets = case.matching(r"out\.(.+)\.([^.]+)\.target_c2w\.(absolute|relative)\.(full|rotonly)")
    for key, (name, source, mode, variant) in targets:
        T_world_source = case.numpy(f"in.{name}.{source}.source_c2w")
        T_start_camera = _orbit(case, name).poses(
            len(T_world_source), smoothing="fitpack", rotation_only=variant == "rotonly"
        )
        T_target = target_poses(T_world_source, T_start_camera, follow_source=mode == "relative")
        report.compare(f"{case.name}/targets.{mode}", key, T_target, case[key], tolerance=POSE_TOLERANCE, unit="m")

    for key, (num_source, num_wanted) in case.matching(r"out\.bounce\.(\d+)_(\d+)"):
        indices = bounce_indices(int(num_source), int(num_wanted))
        report.compare(f"{case.name}/bounce", key, indices, case[key], tolerance=0, unit="frames")

    for key, (width_px, height_px) in case.matching(r"out\.scale_K\.(\d+)x(\d+)"):
        K_px = case.numpy("in.K")
        source = Intrinsics.from_matrix(K_px, round(2 * float(K_px[0, 2])), round(2 * float(K_px[1, 2])))
        scaled = source.centred(int(width_px), int(height_px))
        focal_px = case[key][0, 0].double()
        report.compare(
            f"{case.name}/scale_K",
            key,
            scaled.K_px / float(focal_px),
            case[key].double() / focal_px,
            tolerance=INTRINSICS_TOLERANCE,
            unit="of the focal length",
        )


def _orbit(case: GoldenCase, name: str) -> Orbit:
    rows = (case.numpy(f"in.{name}.{row}") for row in ("x_up", "y_left", "r"))
    return Orbit(**dict(zip(("up_deg", "left_deg", "radius_m"), rows, strict=True)))
