"""Walk through a world: motions go in; videos, map, path and a report come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim import pictures
from inspatio_sim.clips.video import VideoWriter
from inspatio_sim.condition.observation import Observation
from inspatio_sim.errors import InputError
from inspatio_sim.mapping.map_server import write_grid
from inspatio_sim.motion.actions import ScriptConfig, parse_script
from inspatio_sim.motion.camera import Array, PoseDelta, inverse
from inspatio_sim.motion.trajectory import save_tum
from inspatio_sim.provenance import Known
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.world import World

OUTPUTS = {
    "observation.mp4": "what the camera saw",
    "side_by_side.mp4": "reference, render, observation, depth, where each pixel comes from, map and path",
    "contact_sheet.png": "the run on one page",
    "map.ply": "the map as coloured points, metres",
    "occupancy.pgm": "free, occupied and unknown ground, for map_server",
    "occupancy.yaml": "where that grid lies",
    "trajectory.tum": "the camera's path: time x y z qx qy qz qw, camera to world",
    "report.json": "inputs, method, scale, quality, what was invented, timings",
}

SHEET_FRAMES = 16
PANEL_HEIGHT_PX = 240


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of `World.step`."""

    delta: PoseDelta
    clock: ClockMode | None = None  # how the reference plays during the step; None: as configured


def steps_of_script(text: str, fps: float, frames_per_block: int) -> list[Step]:
    """Turn a script into steps; each command is spread evenly over its frames, in whole blocks."""
    steps: list[Step] = []
    clock: ClockMode | None = None  # `time` holds until the next `time`
    for word in parse_script(text, ScriptConfig(fps=fps)):
        clock = word.clock or clock
        num_blocks = -(-word.num_frames // frames_per_block)
        if num_blocks:
            steps += num_blocks * [Step(delta=word.delta.part(1 / num_blocks), clock=clock)]
    return steps


def steps_of_path(T_start_camera: Array, frames_per_block: int, T_world_reference: Array | None = None) -> list[Step]:
    """Turn a path into steps, one per block; a first pose other than the start takes an extra step.

    Args:
        T_start_camera: poses relative to the start, or each to the reference's camera at its time. [N, 4, 4]
        frames_per_block: frames that one step makes.
        T_world_reference: the reference's cameras, if the path is relative to them. [T, 4, 4]

    Raises:
        InputError: two frames are farther apart than one step can move.
    """
    if T_world_reference is None:
        T_world_target = T_start_camera
        T_before = np.eye(4)
    else:
        frame_idx = np.minimum(np.arange(len(T_start_camera)), len(T_world_reference) - 1)
        T_world_target = T_world_reference[frame_idx] @ T_start_camera
        T_before = T_world_reference[0]
    steps = []
    if np.allclose(T_world_target[0], T_before, atol=1e-9):
        T_world_target = T_world_target[1:]
    ends = [*range(frames_per_block - 1, len(T_world_target), frames_per_block)]
    if len(T_world_target) and (not ends or ends[-1] != len(T_world_target) - 1):
        ends.append(len(T_world_target) - 1)
    for frame_idx, T_target in zip(ends, T_world_target[ends], strict=True):
        try:
            steps.append(Step(delta=PoseDelta.from_matrix(inverse(T_before) @ T_target)))
        except InputError as error:
            raise InputError(f"frame {frame_idx + 1}: {error}; more frames make smaller steps") from error
        T_before = T_target
    return steps


def explore(
    world: World, steps: Sequence[Step], folder: Path, progress: Callable[[str, float], None] | None = None
) -> dict[str, Any]:
    """Walk through the world and write everything in `OUTPUTS` but the report.

    Args:
        world: a world, reset or not; it is reset here.
        steps: the motions.
        folder: an existing folder to write into.
        progress: called as `progress(what, share_done)`.

    Returns:
        The run's part of the report, JSON-ready.
    """
    started_s = time.perf_counter()
    generator = world.generator
    record = _Record(num_frames=generator.first_block_frames + len(steps) * generator.frames_per_block)
    panels = _Panels.of(world)
    fps = world.reference.fps
    with (
        VideoWriter(folder / "observation.mp4", fps) as observation_video,
        VideoWriter(folder / "side_by_side.mp4", fps) as panel_video,
    ):
        for step_idx in range(len(steps) + 1):
            if step_idx == 0:
                observation = world.reset()
            else:
                observation = world.step(steps[step_idx - 1].delta, steps[step_idx - 1].clock)
            record.add(observation)
            for frame_idx, rgb_u8 in enumerate(observation.rgb_u8):
                observation_video.write(rgb_u8)
                panel_video.write(panels.draw(observation, frame_idx, record.path_m))
            if progress:
                progress("exploring", (step_idx + 1) / (len(steps) + 1))
    run_s = time.perf_counter() - started_s

    labels = [f"{record.time_s[i]:.2f} s" for i in sorted(record.sheet_frames)]
    sheet_u8 = pictures.contact_sheet(np.stack(record.sheet_u8), max_frames=SHEET_FRAMES, labels=labels)
    pictures.save_png(folder / "contact_sheet.png", sheet_u8)
    write_map(world, folder)
    save_tum(folder / "trajectory.tum", record.T_world_camera, record.time_s)
    return {**record.summary(), "map": _map_summary(world), "seconds": round(run_s, 3)}


def write_map(world: World, folder: Path) -> None:
    """What the world has seen so far: points and ground grid."""
    world.map.write_ply(folder / "map.ply")
    write_grid(world.map.planning_grid(), folder / "occupancy")


def _map_summary(world: World) -> dict[str, Any]:
    return {
        "num_points": world.map.num_points,
        "memory_mb": round(world.map.memory_bytes / 1e6, 1),
        "occupancy_voxel_m": world.map.config.occupancy_voxel_m,
    }


PROVENANCE_COLORS = np.array([[200, 60, 50], [60, 110, 200], [70, 160, 80]], dtype=np.uint8)
"""Colours of Known.MADE_UP, Known.MAP and Known.CLIP."""


@dataclass(frozen=True, kw_only=True)
class _Panels:
    """The frames of the side-by-side video, with one colour scale of depth throughout."""

    world: World
    near_m: float
    far_m: float

    @classmethod
    def of(cls, world: World) -> _Panels:
        depth_m = world.reference.depth_m[0]
        near_m, far_m = np.percentile(depth_m[depth_m > 0], [2, 98])
        return cls(world=world, near_m=float(near_m) / 2, far_m=float(far_m))

    def draw(self, observation: Observation, frame_idx: int, path_m: Array) -> NDArray[np.uint8]:
        """One frame of the block that the world just made."""
        reference = self.world.reference
        depth_u8 = pictures.colour_depth(observation.depth_m[frame_idx], min_m=self.near_m, max_m=self.far_m)
        panels = {
            "reference": reference.frames_u8[observation.reference_frame_idx[frame_idx]],
            "render (black: unknown)": observation.render_u8[frame_idx],
            "observation": observation.rgb_u8[frame_idx],
            "depth (red: near)": depth_u8,
            "seen: now green, before blue, never red": PROVENANCE_COLORS[observation.known[frame_idx]],
            "map and path, from above": self.world.map.top_down_image(
                path_m, T_world_camera=observation.T_world_camera[frame_idx], size_px=PANEL_HEIGHT_PX
            ),
        }
        return pictures.side_by_side({label: _small(panel) for label, panel in panels.items()})


def _small(picture_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most `PANEL_HEIGHT_PX` tall."""
    height_px, width_px = picture_u8.shape[:2]
    if height_px <= PANEL_HEIGHT_PX:
        return picture_u8
    size = (round(width_px * PANEL_HEIGHT_PX / height_px), PANEL_HEIGHT_PX)
    return cv2.resize(picture_u8, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


class _Record:
    """The figures collected during a run."""

    def __init__(self, num_frames: int) -> None:
        self.sheet_frames = set(np.linspace(0, num_frames - 1, SHEET_FRAMES).round().astype(int).tolist())
        self.sheet_u8: list[NDArray[np.uint8]] = []
        self.T_world_camera: list[Array] = []
        self.time_s: list[float] = []
        self.generated_share: list[float] = []  # per frame
        self.collision_times_s: list[float] = []

    def add(self, observation: Observation) -> None:
        for frame_idx, T_world_camera in enumerate(observation.T_world_camera):
            if len(self.time_s) in self.sheet_frames:
                self.sheet_u8.append(_small(observation.rgb_u8[frame_idx]))
            self.T_world_camera.append(T_world_camera)
            self.time_s.append(float(observation.time_s[frame_idx]))
            self.generated_share.append(float(np.mean(observation.known[frame_idx] == Known.MADE_UP)))
        if observation.has_collided:
            self.collision_times_s.append(float(observation.time_s[0]))

    @property
    def path_m(self) -> Array:
        """Camera positions so far. [N, 3]"""
        return np.stack(self.T_world_camera)[:, :3, 3]

    def summary(self) -> dict[str, Any]:
        share = np.array(self.generated_share)
        steps_m = np.linalg.norm(np.diff(self.path_m, axis=0), axis=1)
        return {
            "num_frames": len(self.time_s),
            "path_length_m": round(float(steps_m.sum()), 4),
            "hallucinated_fraction": {
                "mean": round(float(share.mean()), 4),
                "max": round(float(share.max()), 4),
                "per_frame": [round(float(value), 4) for value in share],
            },
            "collisions": {
                "num": len(self.collision_times_s),
                "times_s": [round(value, 3) for value in self.collision_times_s],
            },
        }
