"""Backend `hf`: any transformers depth-estimation model in a local folder.

The meaning of a model's output follows from its config.json:

| model_type                                | output                                              |
|-------------------------------------------|-----------------------------------------------------|
| depth_anything, prompt_depth_anything     | `depth_estimation_type`: relative (inverse) or metric |
| dpt (MiDaS; set `output="metric"` for the | relative inverse depth                              |
| NYU and KITTI fine-tunes)                 |                                                     |
| zoedepth, glpn, depth_pro, chmv2, tipsv2  | metres                                              |

Relative models give s / depth + b with unknown s and b. b is assumed to be 0 (their outputs are never
negative, 0 is the sky), and depth is cut off at 50 times the near distance.

The scale flickers from frame to frame, so each frame is fitted. With a static camera it is fitted to the temporal
median, over pixels that do not change. With a moving camera, poses, intrinsics and the target depth come from `sfm`.

The folder is read with safetensors only, without the network, and without running code from it.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.machine.devices import chosen_device
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.motion import camera_motion
from inspatio_sim.reconstruction.one_view.align import fit_affine, fit_scale
from inspatio_sim.reconstruction.one_view.horizon import find_horizon, tilted_rotation
from inspatio_sim.reconstruction.one_view.model_folder import read_config
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction

logger = logging.getLogger(__name__)

Output = Literal["inverse", "metric"]

ASSUMED_FOV_RAD = np.deg2rad(60)

_METRIC_TYPES = ("zoedepth", "glpn", "depth_pro", "chmv2", "tipsv2_dpt")
_MAX_RATIO = 50.0  # maximum ratio of far to near depth (98th percentile of inverse depth) of a relative model
_STILL_LEVEL = 12  # out of 255: pixels closer than this to the temporal median are still
_MAX_FIT_PIXELS = 20_000


@dataclass(frozen=True, kw_only=True)
class HfReconstructor:
    """A transformers depth-estimation model."""

    model_folder: Path  # with config.json, preprocessor_config.json and *.safetensors
    output: Output | None = None  # meaning of the output; None: from config.json

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def name(self) -> str:
        return "hf"

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Run the model on every frame and align the frames to one scale."""
        output = self.output or output_kind(read_config(self.model_folder), self.model_folder)
        raw, fov_rad = self._predicted(clip.frames_u8, progress)
        is_moving = len(clip.frames_u8) > 1 and camera_motion(clip).is_moving
        motion = _from_motion(clip, progress) if is_moving else None
        if isinstance(motion, Reconstruction):
            return _fitted_to_motion(raw[motion.frames.start : motion.frames.stop], output, motion)
        return _static(clip, raw, output, fov_rad, warnings=() if motion is None else (motion,))

    def depth_of_each(
        self, frames_u8: NDArray[np.uint8], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], bool]:
        """z-depth of independent images [T, H, W], and whether it is in metres."""
        output = self.output or output_kind(read_config(self.model_folder), self.model_folder)
        raw, _ = self._predicted(frames_u8, progress)
        return np.concatenate([_depth(raw[i : i + 1], output) for i in range(len(raw))]), output == "metric"

    def _predicted(
        self, frames_u8: NDArray[np.uint8], progress: Progress | None
    ) -> tuple[NDArray[np.float32], float | None]:
        raw, fov_rad = DepthModel(self.model_folder).predict(frames_u8, progress)
        if not np.all(np.isfinite(raw)) or raw.max() <= 0:
            raise InputError(f"{self.model_folder}: the model's depth is not finite and positive: damaged weights?")
        return raw, fov_rad


def output_kind(config: dict[str, Any], model_folder: Path) -> Output:
    """Whether a model gives metres or inverse depth."""
    model_type = config.get("model_type")
    if model_type in ("depth_anything", "prompt_depth_anything"):
        return "metric" if config.get("depth_estimation_type", "relative") == "metric" else "inverse"
    if model_type == "dpt":
        return "inverse"
    if model_type in _METRIC_TYPES:
        return "metric"
    raise InputError(f"{model_folder}: model_type {model_type!r} is not known here: say output='inverse' or 'metric'")


class DepthModel:
    """The network and its image processor, loaded from a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation, utils  # seconds to import
        except ImportError as error:
            raise InputError("method hf: package transformers is missing: pip install transformers") from error
        read_config(folder)  # a clear error for a wrong folder
        utils.logging.disable_progress_bar()  # a library does not print
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(str(folder), **safe)
            self.network, info = AutoModelForDepthEstimation.from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, dtype=torch.float32, **safe
            )
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
            raise InputError(f"{folder}: not a depth model that transformers can load: {first_line}") from error
        absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
        if absent:
            raise InputError(f"{folder}: {len(absent)} weights are missing or of another shape, such as {absent[0]}")
        self.device = chosen_device("auto")
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def predict(
        self, frames_u8: NDArray[np.uint8], progress: Progress | None
    ) -> tuple[NDArray[np.float32], float | None]:
        """The model's own numbers at the frames' size [T, H, W], and the field of view if the model gives one."""
        num_frames, height_px, width_px = frames_u8.shape[:3]
        sizes: dict[str, Any] = {"target_sizes": [(height_px, width_px)]}
        if "source_sizes" in inspect.signature(self.processor.post_process_depth_estimation).parameters:
            sizes["source_sizes"] = [(height_px, width_px)]  # ZoeDepth cuts off its padding
        raw = np.empty((num_frames, height_px, width_px), np.float32)
        fovs_deg = []
        for i, rgb_u8 in enumerate(frames_u8):
            inputs = self.processor(images=rgb_u8, input_data_format="channels_last", return_tensors="pt")
            result = self.processor.post_process_depth_estimation(self.network(**inputs.to(self.device)), **sizes)[0]
            raw[i] = result["predicted_depth"].squeeze().float().cpu().numpy()
            if result.get("field_of_view") is not None:
                fovs_deg.append(float(result["field_of_view"]))
            if progress:
                progress("depth model", (i + 1) / num_frames)
        return raw, np.deg2rad(float(np.median(fovs_deg))) if fovs_deg else None


def _static(
    clip: Clip, raw: NDArray[np.float32], output: Output, fov_rad: float | None, warnings: tuple[str, ...]
) -> Reconstruction:
    """Static camera: fit the frames to their temporal median."""
    num_frames, height_px, width_px = raw.shape
    notes = list(warnings)
    camera = clip.intrinsics
    if camera is None:
        camera = Intrinsics.from_fov(fov_rad or ASSUMED_FOV_RAD, width_px, height_px)
        if fov_rad is None:
            notes.append("hf: focal length assumed (60 degrees horizontal field of view)")
    horizon = find_horizon(clip.frames_u8[0], camera)
    notes.append(f"hf: direction of gravity: horizon {horizon.note}")
    stable, flicker = stabilised(raw, clip.frames_u8, output) if num_frames > 1 else (raw, 0.0)
    return Reconstruction(
        depth_units=_depth(stable, output),
        intrinsics=camera,
        T_world_camera=np.repeat(pose_from(tilted_rotation(horizon.tilt_rad))[None], num_frames, axis=0),
        is_metric=output == "metric",
        quality={"scale_flicker": flicker},
        warnings=tuple(notes),
    )


def stabilised(
    raw: NDArray[np.float32], frames_u8: NDArray[np.uint8], output: Output
) -> tuple[NDArray[np.float32], float]:
    """Fit each frame of a static camera to the temporal median, over pixels that do not change.

    Returns:
        The fitted numbers [T, H, W], and the spread of the frames' scales (standard deviation of the log).
    """
    sample_idxs = np.unique(np.linspace(0, len(raw) - 1, 15).astype(int))
    background_u8 = np.median(frames_u8[sample_idxs], axis=0).astype(np.int16)
    target = np.median(raw[sample_idxs], axis=0)
    fitted, scales = np.empty_like(raw), []
    for i, values in enumerate(raw):
        is_still = (np.abs(frames_u8[i] - background_u8).max(axis=-1) < _STILL_LEVEL) & (values > 0) & (target > 0)
        scale, shift = _fit(values, target, is_still, output)
        scales.append(scale)
        fitted[i] = np.maximum(scale * values + shift, 0)
    return fitted, float(np.std(np.log(scales)))


def _fitted_to_motion(raw: NDArray[np.float32], output: Output, motion: Reconstruction) -> Reconstruction:
    """Moving camera: combine the model's detail with scale, poses and intrinsics from structure from motion."""
    depth_units = np.empty_like(raw)
    scales = []
    for i, values in enumerate(raw):
        measured = motion.depth_units[i]
        is_known = (measured > 0) & (values > 0)
        with np.errstate(divide="ignore"):
            target = np.where(is_known, 1 / measured if output == "inverse" else measured, 0)
        if not is_known.any():
            depth_units[i] = 0
            continue
        scale, shift = _fit(values, target, is_known, output)
        scales.append(scale)
        aligned = scale * values + shift
        if output == "inverse":
            floor = float(np.percentile(target[is_known], 98)) / _MAX_RATIO
            aligned = 1 / np.maximum(aligned, floor)
        depth_units[i] = np.maximum(aligned, 0)
    quality = {**motion.quality, "scale_flicker": float(np.std(np.log(scales)))}
    T_world_camera = motion.T_world_camera.copy()
    if output == "metric":  # the model's metres, one factor for the whole clip
        metres_per_unit = 1 / float(np.median(scales))
        depth_units *= np.float32(metres_per_unit)
        T_world_camera[:, :3, 3] *= metres_per_unit
    return replace(
        motion,
        depth_units=depth_units,
        T_world_camera=T_world_camera,
        is_metric=output == "metric",
        quality=quality,
    )


def _from_motion(clip: Clip, progress: Progress | None) -> Reconstruction | str:
    """The result of structure from motion, or why it failed."""
    from inspatio_sim.reconstruction.sfm.method import SfmReconstructor  # imports pycolmap

    try:
        return SfmReconstructor().reconstruct(clip, progress)
    except InputError as error:
        logger.warning("%s: structure from motion failed: %s", clip.source, error)
        return f"hf: the camera moves but its motion was not found ({error}): poses are held fixed"


def _fit(values: NDArray, target: NDArray, mask: NDArray[np.bool_], output: Output) -> tuple[float, float]:
    """(scale, shift) of a frame; metres have no shift."""
    source, wanted = values[mask], target[mask]
    if len(source) < 10:
        return 1.0, 0.0
    step = max(1, len(source) // _MAX_FIT_PIXELS)
    if output == "metric":
        return fit_scale(source[::step], wanted[::step]), 0.0
    return fit_affine(source[::step], wanted[::step])


def _depth(values: NDArray[np.float32], output: Output) -> NDArray[np.float32]:
    """The model's output as depth: metres, or units of the near distance. [T, H, W]"""
    if output == "metric":
        return np.maximum(values, 0)
    near = float(np.percentile(values[0], 98))
    return (1 / np.maximum(values / near, 1 / _MAX_RATIO)).astype(np.float32)
