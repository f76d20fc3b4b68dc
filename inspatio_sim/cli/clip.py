"""Shared by the commands that take a clip: its checks, its source, and parts of a report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inspatio_sim.cli.options import ClipOptions
from inspatio_sim.clips.video import clip_files
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.reconstruction.auto import NEED_MODEL_FOLDER
from inspatio_sim.reconstruction.panorama.method import read_panorama
from inspatio_sim.reconstruction.scale import ScaleRequest
from inspatio_sim.reference.reference import Reference
from inspatio_sim.world.source import ClipSource, PanoramaOptions, paths_of

REPORT = "report.json"
VERSIONS_OF = ("inspatio-sim", "torch", "numpy", "av", "opencv-python-headless", "open3d", "pycolmap")


def check_clip(paths: tuple[Path, ...], options: ClipOptions) -> None:
    if not paths:
        raise InputError("no clip: want a video, images, or a folder")
    files = clip_files(paths[0] if len(paths) == 1 else paths)
    _check_panorama(files, options)
    if options.model_folder is not None and not options.model_folder.is_dir():
        raise InputError(f"--model-folder {options.model_folder}: no such folder")
    if options.model_folder is not None and options.method not in ("auto", *NEED_MODEL_FOLDER):
        raise InputError(f"--model-folder: method {options.method} uses no model: want da3, hf or auto")


def _check_panorama(files: list[Path], options: ClipOptions) -> None:
    default = ClipOptions()
    if not options.panorama:
        of_panoramas = {
            "--panorama-depth": options.panorama_depth is not None,
            "--panorama-fov-deg": options.panorama_fov_deg != default.panorama_fov_deg,
        }
        refuse(of_panoramas, "only works with --panorama")
        return
    if len(files) != 1:
        raise InputError(f"--panorama: {len(files)} files: want one image, twice as wide as high")
    of_videos = {
        "--start-frame": options.start_frame != default.start_frame,
        "--max-frames": options.max_frames is not None,
        "--every": options.every != default.every,
    }
    refuse(of_videos, "a panorama has only one moment")
    read_panorama(files[0], options.panorama_depth)


def clip_source(paths: Sequence[Path], options: ClipOptions) -> ClipSource:
    """The clip of a command; no paths: the demo room."""
    pixels = options.length_pixels
    scale = ScaleRequest(
        camera_height_m=options.camera_height_m,
        length_m=options.length_m,
        length_pixels=(pixels[:2], pixels[2:]) if pixels else None,
        length_frame=options.length_frame,
    )
    panorama = None
    if options.panorama:
        depth = None if options.panorama_depth is None else str(options.panorama_depth)
        panorama = PanoramaOptions(depth=depth, fov_deg=options.panorama_fov_deg)
    return ClipSource(
        paths=paths_of(paths),
        size_px=options.size_px if paths or options.size != "auto" else None,
        start_frame=options.start_frame,
        max_frames=options.max_frames,
        every=options.every,
        panorama=panorama,
        reconstruct={
            "method": options.method,
            "model_folder": None if options.model_folder is None else str(options.model_folder),
            "scale": asdict(scale),
        },
    )


def clip_inputs(options: ClipOptions) -> dict[str, Any]:
    """The options that a reconstruction depends on, JSON-ready."""
    inputs = asdict(options)
    del inputs["no_cache"]
    files = {"model_folder": options.model_folder, "panorama_depth": options.panorama_depth}
    return {**inputs, **{name: str(path) if path else None for name, path in files.items()}}


def reconstruction_report(reference: Reference, was_cached: bool) -> dict[str, Any]:
    height_px, width_px = reference.size_px
    return {
        **asdict(reference.provenance),
        "scale": asdict(reference.scale),
        "num_frames": reference.num_frames,
        "size_px": [height_px, width_px],
        "fps": reference.fps,
        "intrinsics": asdict(reference.intrinsics),
        "was_cached": was_cached,
    }


def write_report(folder: Path, report: dict[str, Any]) -> None:
    with replacing(folder / REPORT) as temporary, writing_to(folder / REPORT):
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in VERSIONS_OF}}


def refuse(is_given: dict[str, bool], reason: str) -> None:
    for name, was_given in is_given.items():
        if was_given:
            raise InputError(f"{name}: {reason}")


def since(started_s: float) -> float:
    return round(time.perf_counter() - started_s, 3)
