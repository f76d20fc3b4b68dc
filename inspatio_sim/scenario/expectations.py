"""Checks of expectations: one function per kind, with all they need in a `Moment`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from skimage.metrics import structural_similarity

from inspatio_sim.clips.images import read_image
from inspatio_sim.evaluation.fidelity import psnr_db
from inspatio_sim.mapping import WorldMap
from inspatio_sim.mapping.grid import FREE
from inspatio_sim.mapping.storage import FILMED
from inspatio_sim.motion.camera import Array, inverse
from inspatio_sim.pictures import Picture
from inspatio_sim.provenance import Known
from inspatio_sim.scenario.model import (
    CollisionIs,
    CoverageIs,
    Expectation,
    ImageIs,
    KnownIs,
    LatencyIs,
    OccupancyIs,
    PoseIs,
    RevisitIs,
    Vec3,
)
from inspatio_sim.walks.walk import PROVENANCE_COLORS

MAP_PX = 320
SSIM_WINDOW_PX = 7


@dataclass(frozen=True, kw_only=True)
class View:
    """The last frame of a block."""

    rgb_u8: Picture  # [H, W, 3]
    known: NDArray[np.uint8]  # [H, W]
    T_world_camera: Array  # [4, 4]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The state at the end of a step."""

    view: View
    world_map: WorldMap
    path_m: Array  # camera positions since the last reset. [P, 3]
    T_world_start: Array  # the camera at the last reset. [4, 4]
    has_collided: bool  # in this step
    block_seconds: tuple[float, ...]  # wall time of each block of this step
    marks: Mapping[str, View] = field(default_factory=dict)

    def map_picture(self) -> Picture:
        """The map from above with the path so far."""
        return self.world_map.top_down_image(self.path_m, T_world_camera=self.view.T_world_camera, size_px=MAP_PX)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of one expectation."""

    kind: str
    line: int
    passed: bool
    measured: str
    wanted: str
    pictures: Mapping[str, Picture] = field(default_factory=dict, compare=False)  # if it failed

    @property
    def sentence(self) -> str:
        return f"{self.kind}: {self.measured}: want {self.wanted}"


def judge(expectation: Expectation, moment: Moment) -> Verdict:
    """Check one expectation at its moment."""
    expected = expectation.expected
    match expected:
        case PoseIs():
            passed, measured, wanted = _pose(expected, moment)
        case CollisionIs():
            passed = moment.has_collided == expected.has_collided
            measured, wanted = _collision_said(moment.has_collided), _collision_said(expected.has_collided)
        case CoverageIs():
            area_m2 = _free_floor_m2(moment.world_map, is_filmed=expected.source == "filmed")
            passed = expected.min_m2 <= area_m2 <= expected.max_m2
            what = "free floor, filmed" if expected.source == "filmed" else "free floor, made up or not"
            measured, wanted = f"{area_m2:.2f} m2 of {what}", _between(expected.min_m2, expected.max_m2, " m2")
        case KnownIs():
            is_filmed = expected.source == "filmed"
            known = moment.view.known
            share = float(np.mean(known != Known.MADE_UP if is_filmed else known == Known.CLIP))
            passed = expected.min <= share <= expected.max
            what = "show what was filmed" if is_filmed else "are in the reference's frame"
            high = expected.max if expected.max < 1 else math.inf
            measured, wanted = f"{share:.4f} of the pixels {what}", _between(expected.min, high, "")
        case OccupancyIs():
            log_odds = float(moment.world_map.occupancy_at([expected.point_m])[0])
            state = "unknown" if math.isnan(log_odds) or log_odds == 0 else "occupied" if log_odds > 0 else "free"
            passed = state == expected.state
            measured, wanted = f"{state} at {list(expected.point_m)}", expected.state
        case LatencyIs():
            slowest_s = max(moment.block_seconds, default=math.nan)
            passed = slowest_s <= expected.max_s
            measured, wanted = _latency_said(moment.block_seconds), f"at most {expected.max_s:g} s"
        case ImageIs():
            other_u8 = read_image(expected.file)
            return _likeness(expectation, moment, other_u8, expected.file.name, expected.min_psnr_db, expected.min_ssim)
        case RevisitIs():
            other_u8 = moment.marks[expected.mark].rgb_u8
            return _likeness(expectation, moment, other_u8, expected.mark, expected.min_psnr_db, expected.min_ssim)
    return Verdict(
        kind=expectation.kind,
        line=expectation.line,
        passed=passed,
        measured=measured,
        wanted=wanted,
        pictures={} if passed else _pictures_of_failure(moment),
    )


def rotation_from_deg(rotation_deg: Vec3) -> Array:
    """The rotation of yaw, pitch, roll in this order, from the world's axes. [3, 3]"""
    yaw, pitch, roll = np.radians(rotation_deg)
    turns = [Rotation.from_rotvec(v) for v in ([0, -yaw, 0], [pitch, 0, 0], [0, 0, roll])]
    return (turns[0] * turns[1] * turns[2]).as_matrix()


def _pose(expected: PoseIs, moment: Moment) -> tuple[bool, str, str]:
    T_frame_camera = moment.view.T_world_camera
    if expected.relative_to == "start":
        T_frame_camera = inverse(moment.T_world_start) @ T_frame_camera
    passed, measured, wanted = True, [], []
    if expected.position_m is not None:
        off_m = float(np.linalg.norm(T_frame_camera[:3, 3] - expected.position_m))
        passed &= off_m <= expected.within_m
        position = ", ".join(f"{round(value, 3) + 0.0:.3f}" for value in T_frame_camera[:3, 3])
        measured.append(f"at [{position}], {off_m:.3f} m off")
        wanted.append(f"{list(expected.position_m)} within {expected.within_m:g} m")
    if expected.rotation_deg is not None:
        R_off = rotation_from_deg(expected.rotation_deg).T @ T_frame_camera[:3, :3]
        off_deg = math.degrees(float(Rotation.from_matrix(R_off).magnitude()))
        passed &= off_deg <= expected.within_deg
        measured.append(f"turned {off_deg:.2f} degrees off")
        wanted.append(f"yaw, pitch, roll {list(expected.rotation_deg)} within {expected.within_deg:g} degrees")
    return passed, "; ".join(measured), "; ".join(wanted)


def _free_floor_m2(world_map: WorldMap, *, is_filmed: bool) -> float:
    """Area of the planning grid's free cells: only filmed ones, or all."""
    if is_filmed:
        all_cells, world_map = world_map.storage, WorldMap(world_map.config)
        log_odds = np.where(all_cells.cell_source == FILMED, all_cells.log_odds, np.float32(0))
        world_map.storage = all_cells._replace(log_odds=log_odds)
    grid = world_map.planning_grid()
    return float((grid.cells == FREE).sum()) * grid.resolution_m**2


def _likeness(
    expectation: Expectation,
    moment: Moment,
    other_u8: Picture,
    other_name: str,
    min_psnr_db: float | None,
    min_ssim: float | None,
) -> Verdict:
    frame_u8 = moment.view.rgb_u8
    psnr_wanted = "" if min_psnr_db is None else f"a PSNR of at least {min_psnr_db:g} dB"
    ssim_wanted = "" if min_ssim is None else f"an SSIM of at least {min_ssim:g}"
    wanted = " and ".join(filter(None, (psnr_wanted, ssim_wanted)))
    if frame_u8.shape != other_u8.shape:
        sizes = " against ".join(f"{picture.shape[0]}x{picture.shape[1]}" for picture in (frame_u8, other_u8))
        passed, measured, difference = False, f"the frame is {sizes} px of {other_name}", {}
    else:
        psnr = psnr_db(frame_u8[None], other_u8[None])
        ssim = float(np.asarray(structural_similarity(frame_u8, other_u8, channel_axis=-1, win_size=SSIM_WINDOW_PX)))
        passed = (min_psnr_db is None or psnr >= min_psnr_db) and (min_ssim is None or ssim >= min_ssim)
        measured = f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f} to {other_name}"
        difference = {"difference": np.abs(frame_u8.astype(np.int16) - other_u8).astype(np.uint8)}
    return Verdict(
        kind=expectation.kind,
        line=expectation.line,
        passed=passed,
        measured=measured,
        wanted=wanted,
        pictures={} if passed else {"frame": frame_u8, f"wanted: {other_name}": other_u8, **difference},
    )


def _pictures_of_failure(moment: Moment) -> dict[str, Picture]:
    return {
        "frame": moment.view.rgb_u8,
        "seen: now green, before blue, never red": PROVENANCE_COLORS[moment.view.known],
        "map and path, from above": moment.map_picture(),
    }


def _collision_said(has_collided: bool) -> str:
    return "a collision" if has_collided else "no collision"


def _latency_said(block_seconds: tuple[float, ...]) -> str:
    if not block_seconds:
        return "no block was made"
    return f"{max(block_seconds):.4f} s for the slowest of {len(block_seconds)} blocks"


def _between(low: float, high: float, unit: str) -> str:
    above = [f"at least {low:g}{unit}"] * (low > 0)
    below = [f"at most {high:g}{unit}"] * (high != math.inf)
    return " and ".join(above + below) or "anything"
