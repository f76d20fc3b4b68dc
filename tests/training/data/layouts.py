"""A made-up clip, written in each of the layouts that clips are read from."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from inspatio_sim.clips.rgbd_folder import write_rgbd_folder
from inspatio_sim.clips.video import IMAGE_FPS, Clip, VideoWriter
from inspatio_sim.motion.camera import inverse
from inspatio_sim.training.data.sample import Sample

UNREAL_TO_OPENCV = np.array([[0, 1.0, 0, 0], [0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])


def write_clip_folder(sample: Sample, folder: Path) -> None:
    """One clip of a folder of clips."""
    cameras = {
        "reference": (sample.reference_u8, sample.reference_depth_m, sample.T_world_reference),
        "target": (sample.target_u8, sample.target_depth_m, sample.T_world_target),
    }
    for name, (frames_u8, depth_m, T_world_camera) in cameras.items():
        clip = Clip(
            frames_u8=frames_u8,
            fps=IMAGE_FPS,
            source=name,
            depth_m=depth_m,
            intrinsics=sample.intrinsics,
            T_world_camera=T_world_camera,
        )
        write_rgbd_folder(folder / name, clip, depth_format="npy")
    if sample.caption:
        (folder / "caption.txt").write_text(sample.caption + "\n", encoding="utf-8")


def write_re10k(sample: Sample, folder: Path) -> None:
    """The target's video as a clip of RealEstate10K, with depth."""
    K, (height_px, width_px) = sample.intrinsics, sample.target_u8.shape[1:3]
    shares = [K.fx_px / width_px, K.fy_px / height_px, (K.cx_px + 0.5) / width_px, (K.cy_px + 0.5) / height_px]
    for name in ("frames", "depth"):
        (folder / name / "walk").mkdir(parents=True)
    lines = ["https://example.org/walk"]
    for n, T_world_camera in enumerate(sample.T_world_target):
        numbers = [*shares, 0, 0, *inverse(T_world_camera)[:3].ravel()]
        lines.append(f"{1000 + n} " + " ".join(f"{value:.12f}" for value in numbers))
        Image.fromarray(sample.target_u8[n]).save(folder / "frames" / "walk" / f"{1000 + n}.png")
        np.save(folder / "depth" / "walk" / f"{1000 + n}.npy", sample.target_depth_m[n])
    (folder / "walk.txt").write_text("\n".join(lines))


def write_multicam(sample: Sample, folder: Path) -> None:
    """Both cameras as a scene of MultiCamVideo, with depth; pictures have to be square."""
    scene = folder / "train" / "f18_aperture10" / "scene1"
    for name in ("videos", "cameras", "depth/cam01", "depth/cam02"):
        (scene / name).mkdir(parents=True)
    cameras = {
        "cam01": (sample.reference_u8, sample.reference_depth_m, sample.T_world_reference),
        "cam02": (sample.target_u8, sample.target_depth_m, sample.T_world_target),
    }
    extrinsics: dict[str, dict[str, str]] = {}
    for name, (frames_u8, depth_m, T_world_camera) in cameras.items():
        with VideoWriter(scene / "videos" / f"{name}.mp4", fps=15, crf=4) as video:
            for n, frame_u8 in enumerate(frames_u8):
                video.write(frame_u8)
                np.save(scene / "depth" / name / f"{n}.npy", depth_m[n])
                pose = UNREAL_TO_OPENCV.T @ T_world_camera[n] @ UNREAL_TO_OPENCV
                pose[:3, 3] *= 100
                rows = " ".join("[" + " ".join(f"{value:.9g}" for value in row) + "]" for row in pose.T)
                extrinsics.setdefault(f"frame{n}", {})[name] = rows
    (scene / "cameras" / "camera_extrinsics.json").write_text(json.dumps(extrinsics))
