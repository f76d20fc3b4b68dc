"""Backend `da3`: Depth Anything 3, depth with intrinsics and poses from a network, weights in a local folder.

The package's network is used directly (`depth_anything_3.model`), not its `api` module, which imports
torchvision, moviepy and evo for functions not needed here. Install with
`pip install --no-deps depth-anything-3==0.1.1 && pip install einops omegaconf addict`.

| model_name                              | licence of the weights | units           |
|-----------------------------------------|------------------------|-----------------|
| da3-small, da3-base                     | Apache-2.0             | up to one scale |
| da3-large, da3-giant                    | CC BY-NC 4.0           | up to one scale |
| da3nested-giant-large                   | CC BY-NC 4.0           | metres          |

da3mono-large and da3metric-large take one view and give no poses, so they are not supported. Only `model_name` is
read from config.json; the architecture comes from the package, because its configs name code to import.

Preprocessing is the package's `upper_bound_resize`: longest side to 504 pixels (area, or cubic when
enlarging), each side to the nearest multiple of 14, ImageNet mean and standard deviation.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_model

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.machine.devices import chosen_device
from inspatio_sim.motion.camera import Array, Intrinsics, inverse, orthonormalized, pose_from
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.one_view.align import fit_scale
from inspatio_sim.reconstruction.one_view.horizon import find_horizon, tilted_rotation
from inspatio_sim.reconstruction.one_view.model_folder import read_config
from inspatio_sim.reconstruction.options import check_types
from inspatio_sim.reconstruction.protocol import Reconstruction

logger = logging.getLogger(__name__)

MODEL_NAMES = ("da3-small", "da3-base", "da3-large", "da3-giant", "da3nested-giant-large")
NON_COMMERCIAL = ("da3-large", "da3-giant", "da3nested-giant-large")

_PATCH_PX = 14
_UNUSED_PARTS = ("model.cam_enc.", "model.gs_", "_aux.")  # for given poses, Gaussians and rays, which are not used
_NUM_ANCHORS = 3  # frames in every run, to align the runs
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Output of one run of the network for N views."""

    depth: NDArray[np.float32]  # [N, h, w]
    T_world_camera: Array  # [N, 4, 4]
    focal: NDArray[np.float64]  # fx / width, fy / height. [N, 2]


@dataclass(frozen=True, kw_only=True)
class Da3Reconstructor:
    """Depth Anything 3 over all frames, in runs of a few views that share anchor frames."""

    model_folder: Path  # with config.json and model.safetensors, as published
    max_side_px: int = 504  # the network sees frames at this longest side
    views_per_run: int = 16  # memory and time grow with its square

    def __post_init__(self) -> None:
        check_types(self)
        if not _PATCH_PX <= self.max_side_px <= 2048:
            raise InputError(f"max_side_px={self.max_side_px}: want {_PATCH_PX} to 2048")
        if self.views_per_run <= _NUM_ANCHORS:
            raise InputError(f"views_per_run={self.views_per_run}: want more than {_NUM_ANCHORS}")

    @property
    def name(self) -> str:
        return "da3"

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reconstruction:
        """Run the network; align all runs to the scale of the first and to the first camera."""
        model_name, network = load_network(self.model_folder)
        num_frames, height_px, width_px = clip.frames_u8.shape[:3]
        images = preprocessed(clip.frames_u8, self.max_side_px)
        anchors, runs = split_runs(num_frames, self.views_per_run)

        depth_units = np.empty((num_frames, height_px, width_px), np.float32)
        T_first_camera = np.empty((num_frames, 4, 4))
        focal = np.empty((num_frames, 2))
        anchor_depth, run_scales = None, []
        for run_idx, run in enumerate(runs):
            views = see(network, images[[*anchors, *run]])
            depth, poses, scale = joined(views, len(anchors), anchor_depth)
            anchor_depth = depth[: len(anchors)] if anchor_depth is None else anchor_depth
            run_scales.append(scale)
            first = 0 if run_idx == 0 else len(anchors)  # anchors keep the result of the first run
            for frame_idx, view in zip([*anchors, *run][first:], range(first, len(depth)), strict=True):
                depth_units[frame_idx] = cv2.resize(depth[view], (width_px, height_px), interpolation=cv2.INTER_LINEAR)
                T_first_camera[frame_idx], focal[frame_idx] = poses[view], views.focal[view]
            if progress:
                progress("depth anything 3", (run_idx + 1) / len(runs))

        fx_px, fy_px = np.median(focal, axis=0) * (width_px, height_px)
        camera = Intrinsics(
            fx_px=float(fx_px), fy_px=float(fy_px), cx_px=(width_px - 1) / 2, cy_px=(height_px - 1) / 2,
            width_px=width_px, height_px=height_px,
        )  # fmt: skip
        horizon = find_horizon(clip.frames_u8[0], camera)
        warnings = [f"da3: direction of gravity: horizon {horizon.note}"]
        if model_name in NON_COMMERCIAL:
            warnings.append(f"da3: the weights of {model_name} are CC BY-NC 4.0: no commercial use")
        return Reconstruction(
            depth_units=depth_units,
            intrinsics=camera,
            T_world_camera=pose_from(tilted_rotation(horizon.tilt_rad)) @ T_first_camera,
            is_metric=model_name.startswith("da3nested"),
            quality={
                "focal_spread": float(np.std(np.log(focal[:, 0]))),
                "run_scale_spread": float(np.std(np.log(run_scales))),
            },
            warnings=tuple(warnings),
        )


def load_network(folder: Path) -> tuple[str, torch.nn.Module]:
    """(model name, network with its weights); every weight must be present."""
    model_name = str(read_config(folder).get("model_name", ""))
    if model_name not in MODEL_NAMES:
        raise InputError(f"{folder / 'config.json'}: model_name {model_name!r}: want one of {', '.join(MODEL_NAMES)}")
    try:
        from depth_anything_3.cfg import create_object, load_config  # pyright: ignore[reportMissingImports]
        from depth_anything_3.registry import MODEL_REGISTRY  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        install = "pip install --no-deps depth-anything-3==0.1.1 && pip install einops omegaconf addict"
        raise InputError(f"method da3: {error}: install it with: {install}") from error
    path = folder / "model.safetensors"
    network: Any = create_object(load_config(MODEL_REGISTRY[model_name]))
    try:
        missing, extra = load_model(torch.nn.ModuleDict({"model": network}), path, strict=False)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}): want the published weights") from error
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: these are not the weights of {model_name}: {line}") from error
    absent = sorted(name for name in missing if not any(part in name for part in _UNUSED_PARTS))
    if absent:
        what = f"{len(absent)} weights are missing, such as {absent[0]}"
        raise InputError(f"{path}: these are not the weights of {model_name}: {what}")
    if extra:
        logger.warning("%s: %d weights are not used, such as %s", path, len(extra), sorted(extra)[0])
    return model_name, network.float().to(chosen_device("auto")).eval()


def preprocessed(frames_u8: NDArray[np.uint8], max_side_px: int) -> torch.Tensor:
    """Frames in the network's input format. [T, 3, h, w] float32, h and w multiples of 14"""
    height_px, width_px = frames_u8.shape[1:3]
    scale = max_side_px / max(height_px, width_px)
    bounded = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    patched = tuple(max(_PATCH_PX, (side + _PATCH_PX // 2) // _PATCH_PX * _PATCH_PX) for side in bounded)
    is_larger = patched[0] > bounded[0] or patched[1] > bounded[1]
    images = []
    for rgb_u8 in frames_u8:
        image = cv2.resize(rgb_u8, bounded, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        image = cv2.resize(image, patched, interpolation=cv2.INTER_CUBIC if is_larger else cv2.INTER_AREA)
        images.append(image)
    stacked = (np.stack(images).astype(np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def split_runs(num_frames: int, views_per_run: int) -> tuple[list[int], list[list[int]]]:
    """Anchor frames, the first frame first, and the other frames cut into runs of neighbours."""
    if num_frames <= views_per_run:
        return [0], [list(range(1, num_frames))]
    anchors = [int(i) for i in np.linspace(0, num_frames - 1, _NUM_ANCHORS).round()]
    others = [i for i in range(num_frames) if i not in anchors]
    num_runs = -(-len(others) // (views_per_run - _NUM_ANCHORS))
    return anchors, [[int(i) for i in run] for run in np.array_split(others, num_runs)]


@torch.inference_mode()
def see(network: torch.nn.Module, images: torch.Tensor) -> Views:
    """One run of the network. images: [N, 3, h, w]"""
    height_px, width_px = images.shape[-2:]
    device = next(network.parameters()).device
    try:
        output = network(images[None].to(device), ref_view_strategy="first")
    except AssertionError as error:  # the nested model finds only sky
        raise InputError(f"da3: the network finds no geometry in these frames: {error}") from error
    depth = output["depth"][0].float().reshape(len(images), height_px, width_px).cpu().numpy()
    T_camera_world = np.tile(np.eye(4), (len(images), 1, 1))
    T_camera_world[:, :3] = output["extrinsics"][0].double().cpu().numpy()[:, :3]
    K = output["intrinsics"][0].double().cpu().numpy()
    if not (
        np.isfinite(depth).all() and np.isfinite(T_camera_world).all() and np.isfinite(K).all() and (depth > 0).any()
    ):
        raise InputError("da3: the network's output is not finite: damaged weights?")
    poses = inverse(np.stack([orthonormalized(T) for T in T_camera_world]))
    focal = np.stack([K[:, 0, 0] / width_px, K[:, 1, 1] / height_px], axis=1)
    return Views(depth=np.maximum(depth, 0), T_world_camera=poses, focal=focal)


def joined(
    views: Views, num_anchors: int, anchor_depth: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], Array, float]:
    """A run on the scale of the first run (by the anchors' depth), seen from the first anchor's camera.

    Returns:
        Depth [N, h, w], poses [N, 4, 4], and the applied factor.
    """
    scale = 1.0
    if anchor_depth is not None:
        ours = views.depth[:num_anchors]
        is_known = (ours > 0) & (anchor_depth > 0)
        scale = fit_scale(ours[is_known], anchor_depth[is_known]) if is_known.any() else 1.0
    poses = inverse(views.T_world_camera[0]) @ views.T_world_camera
    poses[:, :3, 3] *= scale
    return views.depth * np.float32(scale), poses, scale
