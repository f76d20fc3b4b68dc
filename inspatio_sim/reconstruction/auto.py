"""Choosing a backend and saying why: the one door from a `Clip` to a `Reference`."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import get_args

from inspatio_sim.choices import Method
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.reconstruction.motion import camera_motion
from inspatio_sim.reconstruction.one_view.model_folder import model_kind
from inspatio_sim.reconstruction.protocol import Progress, Reconstructor
from inspatio_sim.reconstruction.scale import ScaleRequest, to_reference
from inspatio_sim.reference.reference import Reference

logger = logging.getLogger(__name__)

BACKENDS: dict[str, str] = {
    "rgbd": "inspatio_sim.reconstruction.rgbd:RgbdReconstructor",
    "sfm": "inspatio_sim.reconstruction.sfm.method:SfmReconstructor",
    "da3": "inspatio_sim.reconstruction.one_view.da3:Da3Reconstructor",
    "hf": "inspatio_sim.reconstruction.one_view.hf:HfReconstructor",
    "layout": "inspatio_sim.reconstruction.one_view.layout:LayoutReconstructor",
    "tiny": "inspatio_sim.reconstruction.one_view.tiny:TinyReconstructor",
}
"""Where each backend lives; imported when used, because some bring large libraries along."""

NEED_MODEL_FOLDER = ("da3", "hf")


def backend(name: str, model_folder: str | Path | None = None) -> Reconstructor:
    """Make a backend by name.

    Args:
        name: a key of `BACKENDS`.
        model_folder: weights, for those that need some.
    """
    if name not in BACKENDS:
        raise InputError(f"reconstruction method {name!r}: want one of {', '.join(get_args(Method))}")
    if name in NEED_MODEL_FOLDER and model_folder is None:
        raise InputError(f"reconstruction method {name}: model_folder is missing: want a folder with its weights")
    module, _, class_name = BACKENDS[name].partition(":")
    backend_class = getattr(importlib.import_module(module), class_name)
    return backend_class(model_folder=Path(str(model_folder))) if name in NEED_MODEL_FOLDER else backend_class()


def reconstruct(
    clip: Clip,
    method: Method | Reconstructor = "auto",
    *,
    model_folder: str | Path | None = None,
    scale: ScaleRequest | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Find depth, intrinsics and poses of a clip, in metres.

    `auto` takes the first that applies: depth, K and poses came along (rgbd); a model folder is given (da3
    or hf, by its config.json); the camera moves (sfm; should that fail, layout, with a warning); layout.

    Args:
        clip: what `read_clip` gave.
        method: a name, or a backend with options of its own.
        model_folder: weights for da3 or hf.
        scale: a measurement that fixes the scale.
        progress: told what is being done and the share that is done.

    Raises:
        InputError: this clip cannot be reconstructed this way; the message says why.
    """
    if not isinstance(method, str):
        result = method.reconstruct(clip, progress)
        return to_reference(clip, result, method=method.name, reason="chosen by the user, with options", scale=scale)
    if method != "auto":
        result = backend(method, model_folder).reconstruct(clip, progress)
        return to_reference(clip, result, method=method, reason="chosen by the user", scale=scale)

    name, reason = choose(clip, model_folder)
    logger.info("reconstructing %s with %s: %s", clip.source, name, reason)
    warnings: tuple[str, ...] = ()
    try:
        result = backend(name, model_folder).reconstruct(clip, progress)
    except InputError as error:
        if name != "sfm":
            raise
        warnings = (f"structure from motion failed ({error}); camera motion is ignored and depth is a guess",)
        logger.warning("%s: %s", clip.source, warnings[0])
        name, reason = "layout", f"{reason}, but structure from motion failed"
        result = backend(name).reconstruct(clip, progress)
    return to_reference(clip, result, method=name, reason=reason, scale=scale, warnings=warnings)


def choose(clip: Clip, model_folder: str | Path | None = None) -> tuple[str, str]:
    """The backend that `auto` takes for a clip, and why."""
    num_frames = len(clip.frames_u8)
    if (
        clip.depth_m is not None
        and clip.intrinsics is not None
        and (clip.T_world_camera is not None or num_frames == 1)
    ):
        return "rgbd", "the clip brings depth, intrinsics and poses"
    if model_folder is not None:
        name = model_kind(Path(model_folder))
        return name, f"a model folder is given and its config.json is one of {name}"
    if num_frames == 1:
        return "layout", "a single image, and no depth model is given"
    motion = camera_motion(clip)
    if motion.is_moving:
        return "sfm", "the camera moves"
    return "layout", f"the camera is {motion.kind} (no parallax to measure depth by), and no depth model is given"
