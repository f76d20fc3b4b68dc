"""Two synchronised camera paths through a made-up place: smooth, clear of everything, with something to see.

The reference camera stands, walks, turns or circles a thing. The target camera starts at its pose, or near it, and
departs by up to `MAX_AWAY_M` and `MAX_AWAY_RAD`; both breathe a little, as in a hand.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from inspatio_sim.motion.camera import Array, Intrinsics, pose_from
from inspatio_sim.scenes.fast_raycast import render_fast
from inspatio_sim.training.data.procedural_scenes import Place, Thing

MAX_AWAY_M = 1.0
MAX_AWAY_RAD = math.radians(40)
MIN_CLEARANCE_M = 0.25
HEIGHT_M = (0.6, 1.7)  # of the reference camera at the start
MAX_SPEED_MPS = 0.6
MAX_TURN_RADPS = math.radians(18)
PATHS_TRIED = 40
PREVIEW_PX = (12, 20)
PREVIEW_FRAMES = 4
MIN_NEAR_M = 0.3  # of the nearest twentieth of a picture
MIN_MEDIAN_M = 0.9
MIN_THINGS = 0.04  # share of every picture that shows something other than the bare place
MAX_SKY = 0.6


@dataclass(frozen=True, kw_only=True)
class CameraPair:
    """T poses of both cameras, and how much of the pictures each thing fills."""

    T_world_reference: Array  # [T, 4, 4]
    T_world_target: Array  # [T, 4, 4]
    seen: Counter[int]  # place in `Place.things` -> pixels of the previews


@dataclass(frozen=True, kw_only=True)
class _Path:
    """Where a camera is and looks. T frames"""

    position_m: Array  # [T, 3]
    yaw_rad: Array  # to the right of +z. [T]
    pitch_rad: Array  # upwards. [T]

    def poses(self, roll_rad: Array) -> Array:
        """[T] -> [T, 4, 4]"""
        angles = np.stack([self.yaw_rad, self.pitch_rad, roll_rad], axis=-1)
        R = Rotation.from_euler("YXZ", angles).as_matrix()
        return np.stack([pose_from(R=R_t, t_m=t_m) for R_t, t_m in zip(R, self.position_m, strict=True)])


def draw_cameras(
    rng: np.random.Generator, place: Place, intrinsics: Intrinsics, num_frames: int, fps: float
) -> CameraPair | None:
    """Draw a pair of paths; None when none of those tried was fit to be filmed."""
    time_s = np.arange(num_frames) / fps
    for _ in range(PATHS_TRIED):
        reference = _reference_path(rng, place, time_s)
        target = _target_path(rng, reference, time_s)
        reference, target = _breathe(rng, reference, time_s), _breathe(rng, target, time_s)
        points_m = np.concatenate([reference.position_m, target.position_m])
        if not _is_free(place, points_m):
            continue
        T_world_reference = reference.poses(_waves(rng, time_s, math.radians(0.4)))
        T_world_target = target.poses(_waves(rng, time_s, math.radians(0.4)))
        seen = _preview(place, intrinsics, (T_world_reference, T_world_target), time_s)
        if seen is not None:
            return CameraPair(T_world_reference=T_world_reference, T_world_target=T_world_target, seen=seen)
    return None


def _reference_path(rng: np.random.Generator, place: Place, time_s: Array) -> _Path:
    """Start anywhere, with a thing in view, then stand, walk, turn or circle."""
    low_m, high_m = np.array(place.scene.low_m), np.array(place.scene.high_m)
    start_m = low_m + rng.uniform(0.08, 0.92, 3) * (high_m - low_m)
    start_m[1] = -rng.uniform(*HEIGHT_M)
    subject = place.things[int(rng.integers(len(place.things)))] if place.things else None
    yaw_rad, pitch_rad = _look_at(start_m, subject)
    yaw_rad += rng.uniform(-0.3, 0.3)
    pitch_rad = float(np.clip(pitch_rad + rng.uniform(-0.1, 0.1), -0.45, 0.1))
    duration_s, share = float(time_s[-1]), _ease(rng, len(time_s))
    still = np.full(len(time_s), 1.0)
    kind = str(rng.choice(["stand", "walk", "turn", "circle"], p=[0.15, 0.45, 0.15, 0.25]))
    turn_rad = rng.uniform(-1, 1) * MAX_TURN_RADPS * duration_s
    way_m = rng.uniform(0.2, 1.0) * MAX_SPEED_MPS * duration_s
    if kind == "circle" and subject is not None:
        middle_m = np.array([subject.x_m, start_m[1], subject.z_m])
        arm_m = start_m - middle_m
        angle_rad = share * way_m / max(float(np.linalg.norm(arm_m)), 0.5) * (1 if turn_rad > 0 else -1)
        arms_m = Rotation.from_rotvec(angle_rad[:, None] * np.array([0.0, 1.0, 0.0])).apply(arm_m)
        return _Path(position_m=middle_m + arms_m, yaw_rad=yaw_rad + angle_rad, pitch_rad=pitch_rad * still)
    if kind == "stand":
        way_m, turn_rad = 0.0, 0.0
    elif kind == "turn":
        way_m *= 0.1
    heading_rad = yaw_rad + float(rng.normal(0, 0.8)) + (math.pi if rng.random() < 0.2 else 0.0)
    bend_rad = heading_rad + 0.5 * turn_rad * share  # the way bends with the view
    step_m = np.diff(share, prepend=0.0) * way_m
    steps_m = np.stack([np.sin(bend_rad) * step_m, 0.1 * step_m * rng.uniform(-1, 1), np.cos(bend_rad) * step_m], -1)
    return _Path(
        position_m=start_m + np.cumsum(steps_m, axis=0),
        yaw_rad=yaw_rad + turn_rad * share * (1.0 if kind == "turn" else 0.5),
        pitch_rad=pitch_rad * still,
    )


def _target_path(rng: np.random.Generator, reference: _Path, time_s: Array) -> _Path:
    """Away from the reference camera and, now and then, back again."""
    num_frames = len(time_s)
    away = _ease(rng, num_frames)
    if rng.random() < 0.25:
        away = np.sin(math.pi * away) ** 2
    if rng.random() < 0.3:  # near, not at, the reference's pose
        away = 0.2 * rng.random() + 0.8 * away
    direction = rng.normal(size=3) * (1.0, 0.35, 1.0)
    direction /= max(float(np.linalg.norm(direction)), 1e-9)
    offset_m = 0.95 * MAX_AWAY_M * rng.random() ** 0.7 * away[:, None] * direction
    R = Rotation.from_euler("Y", reference.yaw_rad[:, None]).as_matrix()  # [T, 3, 3]
    yaw_rad = 0.85 * MAX_AWAY_RAD * rng.uniform(-1, 1) * away
    if rng.random() < 0.5:  # keep looking at what is straight ahead of the reference
        ahead_m = rng.uniform(1.5, 3.5)
        yaw_rad = np.arctan2(-offset_m[:, 0], ahead_m - offset_m[:, 2])
    pitch_rad = 0.25 * MAX_AWAY_RAD * rng.uniform(-1, 1) * away
    return _Path(
        position_m=reference.position_m + np.einsum("tij,tj->ti", R, offset_m),
        yaw_rad=reference.yaw_rad + np.clip(yaw_rad, -0.85 * MAX_AWAY_RAD, 0.85 * MAX_AWAY_RAD),
        pitch_rad=reference.pitch_rad + pitch_rad,
    )


def _look_at(from_m: Array, thing: Thing | None) -> tuple[float, float]:
    """Yaw and pitch of the view of a thing."""
    if thing is None:
        return 0.0, 0.0
    x_m, z_m = thing.x_m - from_m[0], thing.z_m - from_m[2]
    return math.atan2(x_m, z_m), math.atan2(from_m[1] + 0.5 * thing.height_m, max(math.hypot(x_m, z_m), 0.1))


def _ease(rng: np.random.Generator, num_frames: int) -> Array:
    """From 0 to 1, between an even pace and one that starts and ends at rest. [T]"""
    even = np.linspace(0, 1, num_frames)
    softness = rng.random()
    return even - softness * np.sin(2 * math.pi * even) / (2 * math.pi)


def _waves(rng: np.random.Generator, time_s: Array, size: float) -> Array:
    """Two slow waves, 0 at the start. [T]"""
    waves = sum(np.sin(2 * math.pi * rng.uniform(0.2, 1.2) * time_s) * rng.uniform(-0.5, 0.5) for _ in range(2))
    return size * np.asarray(waves)


def _breathe(rng: np.random.Generator, path: _Path, time_s: Array) -> _Path:
    sway_m = np.stack([_waves(rng, time_s, 0.012) for _ in range(3)], axis=-1)
    return _Path(
        position_m=path.position_m + sway_m,
        yaw_rad=path.yaw_rad + _waves(rng, time_s, math.radians(0.6)),
        pitch_rad=path.pitch_rad + _waves(rng, time_s, math.radians(0.6)),
    )


def _is_free(place: Place, points_m: Array) -> bool:
    low_m, high_m = np.array(place.scene.low_m), np.array(place.scene.high_m)
    is_inside = np.all((points_m > low_m) & (points_m < high_m))
    return bool(is_inside) and bool(np.all(place.clearance_m(points_m) > MIN_CLEARANCE_M))


def _preview(place: Place, intrinsics: Intrinsics, paths: tuple[Array, Array], time_s: Array) -> Counter[int] | None:
    """Look along both paths in stamp size: what fills the pictures, None if any of them is not worth it."""
    small = intrinsics.resized(PREVIEW_PX[1], PREVIEW_PX[0])
    frames = np.unique(np.linspace(0, len(time_s) - 1, PREVIEW_FRAMES).round().astype(int))
    views = render_fast(
        place.scene, small, np.concatenate([path[frames] for path in paths]), np.tile(time_s[frames], 2)
    )
    thing_of = np.full(len(place.scene.solids) + 1, -1)
    for number, thing in enumerate(place.things):
        thing_of[list(thing.object_ids)] = number
    seen: Counter[int] = Counter()
    for ids, depth_m in zip(views.object_id.numpy(), views.depth_m.numpy(), strict=True):
        if np.mean(ids < 0) > MAX_SKY:
            return None
        known_m = depth_m[depth_m > 0]
        if np.quantile(known_m, 0.05) < MIN_NEAR_M or np.median(known_m) < MIN_MEDIAN_M:
            return None
        things = thing_of[ids]
        if np.mean(things >= 0) < MIN_THINGS:
            return None
        seen.update(things[things >= 0].tolist())
    return seen
