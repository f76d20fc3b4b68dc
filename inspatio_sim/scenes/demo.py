"""The demo clip: a camera in the demo room, with exact depth and poses, and the truth behind it.

`truth` shows the same room from anywhere at any time; benchmarks compare with it.
"""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, inverse, pose_from
from inspatio_sim.scenes.demo_room import demo_room
from inspatio_sim.scenes.raycast import Views, render

CameraPath = Literal["static", "moving", "turn"]

HORIZONTAL_FOV_RAD = math.radians(80)
SUPERSAMPLE = 2


def demo_clip(
    num_frames: int = 48,
    size_px: tuple[int, int] = (96, 160),
    fps: float = 12.0,
    seed: int = 0,
    camera: CameraPath = "moving",
    supersample: int = SUPERSAMPLE,
) -> Clip:
    """Film the demo room. The first camera is the world origin, level, looking along +z.

    Args:
        num_frames: how many frames, at least 1.
        size_px: height and width.
        fps: frames a second; the ball takes four seconds to and fro, whatever the rate.
        seed: of the room's textures.
        camera: "static" stands still, "moving" walks an arc through the room, "turn" turns once round on the spot.
        supersample: rays along each side of a pixel; more of them, less aliasing.
    """
    if num_frames < 1:
        raise InputError(f"num_frames={num_frames}: want at least 1")
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps={fps}: want a positive number")
    height_px, width_px = size_px
    intrinsics = Intrinsics.from_fov(HORIZONTAL_FOV_RAD, width_px, height_px)
    T_world_camera = camera_path(camera, num_frames)
    views = truth(T_world_camera, np.arange(num_frames) / fps, intrinsics, seed=seed, supersample=supersample)
    return Clip(
        frames_u8=views.rgb_u8.numpy(),
        depth_m=views.depth_m.numpy(),
        intrinsics=intrinsics,
        T_world_camera=T_world_camera,
        fps=fps,
        source=f"demo room, camera {camera}, seed {seed}",
    )


def truth(
    T_world_camera: ArrayLike,
    time_s: ArrayLike,
    intrinsics: Intrinsics,
    *,
    seed: int = 0,
    supersample: int = SUPERSAMPLE,
    device: str = "cpu",
) -> Views:
    """What cameras anywhere in the demo room see. [F, 4, 4], [F] -> F views"""
    return render(demo_room(seed), intrinsics, T_world_camera, time_s, supersample=supersample, device=device)


def camera_path(camera: CameraPath, num_frames: int) -> NDArray[np.float64]:
    """Camera poses of the demo clip, the first one the identity. [num_frames, 4, 4]"""
    if camera == "static":
        return np.tile(np.eye(4), (num_frames, 1, 1))
    if camera == "turn":  # the last frame is one step before the first again
        turns = np.arange(num_frames) / num_frames
        return np.stack([pose_from(R=_look(2 * math.pi * turn)) for turn in turns])
    if camera == "moving":
        poses = np.stack([_arc_pose(share) for share in np.linspace(0, 1, num_frames)])
        return inverse(poses[0]) @ poses
    raise InputError(f"camera={camera!r}: want one of {', '.join(get_args(CameraPath))}")


def _arc_pose(share: float) -> NDArray[np.float64]:
    """A walk of 1.1 m: to the right, forwards and a little up and down, turning left to keep the room in view."""
    ease = share - math.sin(2 * math.pi * share) / (4 * math.pi)  # gentle at both ends, never at rest
    t_m = (0.9 * ease, -0.1 * math.sin(math.pi * ease), 0.6 * ease)
    return pose_from(R=_look(-0.28 * ease), t_m=t_m)


def _look(yaw_rad: float) -> NDArray[np.float64]:
    """Turn to the right about the vertical. [3, 3]"""
    return Rotation.from_rotvec([0.0, yaw_rad, 0.0]).as_matrix()


def write_demo_clip(
    folder: str | PathLike[str],
    num_frames: int = 48,
    size_px: tuple[int, int] = (96, 160),
    fps: float = 12.0,
    seed: int = 0,
    camera: CameraPath = "moving",
) -> Path:
    """Write the demo clip as an RGB-D folder: colour, depth, intrinsics and poses."""
    from inspatio_sim.clips.rgbd_folder import write_rgbd_folder

    write_rgbd_folder(Path(folder), demo_clip(num_frames, size_px, fps, seed, camera))
    return Path(folder)


def write_demo_video(
    path: str | PathLike[str],
    num_frames: int = 48,
    size_px: tuple[int, int] = (96, 160),
    fps: float = 12.0,
    seed: int = 0,
    camera: CameraPath = "moving",
) -> Path:
    """Write the demo clip as a plain video, without depth and poses."""
    from inspatio_sim.clips.video import write_clip

    write_clip(Path(path), demo_clip(num_frames, size_px, fps, seed, camera).frames_u8, fps)
    return Path(path)
