"""An equirectangular panorama becomes a Reference: perspective views all around, of one moment and one geometry.

1. The sphere is cut into views with overlap (`equirectangular.py`). The panorama has to be level: its top is up.
2. Given depth is a distance along the ray for each direction; each view's z-depth follows exactly.
3. Otherwise a single-view method estimates each view, and the estimates are merged into one map of distances
   (`merge_views.py`). All views take their depth from it, so they agree where they overlap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.clips.framing import check_side
from inspatio_sim.clips.image_kinds import is_image_file
from inspatio_sim.clips.images import check_readable, read_image
from inspatio_sim.clips.rgbd_folder import read_depth
from inspatio_sim.clips.rgbd_layout import DEPTH_SUFFIXES
from inspatio_sim.clips.video import IMAGE_FPS, Clip
from inspatio_sim.errors import InputError
from inspatio_sim.geometry.completion import shipped_completion
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.auto import Method, Recipe, backend, check_progress, naming
from inspatio_sim.reconstruction.one_view.hf import HfReconstructor
from inspatio_sim.reconstruction.one_view.horizon import Horizon
from inspatio_sim.reconstruction.one_view.model_folder import model_kind
from inspatio_sim.reconstruction.one_view.single_view import depth_of_view
from inspatio_sim.reconstruction.options import shown
from inspatio_sim.reconstruction.panorama.equirectangular import Direction, RangeMap, directions_around, picture_of
from inspatio_sim.reconstruction.panorama.merge_views import merged_range
from inspatio_sim.reconstruction.protocol import Reconstruction, Reconstructor
from inspatio_sim.reconstruction.scale import ScaleRequest, to_reference
from inspatio_sim.reference.reference import Reference

logger = logging.getLogger(__name__)

DEFAULT_FOV_DEG = 90.0
MIN_FOV_DEG, MAX_FOV_DEG = 60.0, 120.0
_ABOVE_RAD = np.deg2rad(45)  # a view that looks up more than this sees no ground
_WITHOUT_MODEL = ("rgbd", "layout", "tiny")  # which have ways of their own with a panorama
LAYOUT_VIEW_PX = 384, 192  # (height, width) of the views that `layout` guesses on


@dataclass(frozen=True, kw_only=True)
class Panorama:
    """Everything around one point: azimuth over the width, elevation over the height, +z in the middle."""

    rgb_u8: NDArray[np.uint8]  # [H, 2 H, 3]
    range_m: NDArray[np.float32] | None = None  # distance along the ray, 0 = unknown; may be of another size. [h, 2 h]
    source: str = "panorama"

    def __post_init__(self) -> None:
        if self.rgb_u8.dtype != np.uint8 or self.rgb_u8.ndim != 3 or self.rgb_u8.shape[2] != 3:
            raise InputError(f"panorama is {self.rgb_u8.dtype} {self.rgb_u8.shape}: want uint8 H x 2H x 3")
        _check_aspect(self.rgb_u8, self.source, "an equirectangular panorama is")
        if self.range_m is not None:
            if self.range_m.dtype != np.float32 or self.range_m.ndim != 2:
                raise InputError(f"distances are {self.range_m.dtype} {self.range_m.shape}: want float32 h x 2h")
            _check_aspect(self.range_m, f"{self.source}: depth", "depth of a panorama is")


def read_panorama(path: str | Path, depth: str | Path | None = None) -> Panorama:
    """Read a panorama and its distances.

    Args:
        path: an image, twice as wide as high.
        depth: distance along the ray (not z-depth) in the same directions, 0 where unknown: a 16-bit png in
            millimetres, an npy or exr file in metres.

    Raises:
        InputError: one line that names the file and what is wrong with it.
    """
    image_path = _checked_file(path, is_image_file, "an image (png, jpg, ...)")
    rgb_u8 = read_image(image_path)
    _check_aspect(rgb_u8, str(path), "an equirectangular panorama is")
    range_m = None
    if depth is not None:
        depth_path = _checked_file(depth, _is_depth_file, "depth as png, npy or exr")
        range_m = read_depth(depth_path)
        _check_aspect(range_m, str(depth), "depth of a panorama is")
    return Panorama(rgb_u8=rgb_u8, range_m=range_m, source=str(path))


def default_view_size_px(panorama: Panorama, fov_deg: float = DEFAULT_FOV_DEG) -> tuple[int, int]:
    """(height, width) of 16:9 views whose pixels in the middle are as fine as the panorama's."""
    focal_px = panorama.rgb_u8.shape[1] / (2 * np.pi)
    width_px = 2 * round(focal_px * np.tan(np.deg2rad(fov_deg) / 2))
    return 2 * round(width_px * 9 / 32), width_px


def reconstruct_panorama(
    panorama: Panorama,
    /,
    *,
    size_px: tuple[int, int] | None = None,
    fov_deg: float = DEFAULT_FOV_DEG,
    method: Method | Reconstructor = "auto",
    model_folder: str | Path | None = None,
    scale: ScaleRequest | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reference:
    """Cut a panorama into views with depth; all show the same moment from the same place.

    `auto` uses given distances (rgbd); with a model folder da3 or hf, by its config.json; otherwise layout.

    Args:
        panorama: a panorama from `read_panorama`.
        size_px: (height, width) of the views; None: as fine as the panorama.
        fov_deg: their horizontal field of view.
        method: a name, or da3 or hf with options of its own; rgbd only where distances came along, sfm never.
        model_folder: weights for da3 or hf.
        scale: a measurement that fixes the scale, as a `ScaleRequest` or a mapping of its fields.
        progress: told what is being done and the share that is done.
        **options: of da3 or hf; see `inspatio_sim.reconstruction.reconstruct`.

    Raises:
        InputError: this panorama cannot be reconstructed this way; the message says why.
    """
    check_progress(progress)
    recipe = Recipe.of({"method": method, "model_folder": model_folder, "scale": scale, **options})
    if not isinstance(fov_deg, Real) or not MIN_FOV_DEG <= fov_deg <= MAX_FOV_DEG:  # NaN fails too
        raise InputError(f"fov_deg={shown(fov_deg)}: want {MIN_FOV_DEG:g} to {MAX_FOV_DEG:g} degrees, horizontally")
    with naming(panorama.source):
        reconstructor, name, reason = _choose(panorama, recipe)
        if reconstructor is None and (options or not isinstance(method, str)):
            raise InputError(f"method {name} with options: want none for a panorama, whose views are not guessed so")
        height_px, width_px = size_px or default_view_size_px(panorama, fov_deg)
        check_side(height_px, width_px, "size_px")
        intrinsics = Intrinsics.from_fov(np.deg2rad(fov_deg), width_px, height_px)
        directions = directions_around(intrinsics)
        size = f"{width_px}x{height_px} px"
        logger.info("%s: %d views of %s, %s: %s", panorama.source, len(directions), size, name, reason)
        clip = Clip(
            frames_u8=np.stack([picture_of(panorama.rgb_u8, intrinsics, direction) for direction in directions]),
            fps=IMAGE_FPS,
            source=panorama.source,
            intrinsics=intrinsics,
        )
        if panorama.range_m is not None:
            geometry = _measured(panorama.range_m, intrinsics, directions)
        else:
            geometry = _guessed(clip, panorama, intrinsics, directions, name, reconstructor, progress)
        reference = to_reference(clip, geometry, method=name, reason=reason, scale=recipe.scale)
    return replace(reference, is_static=True)


def _choose(panorama: Panorama, recipe: Recipe) -> tuple[Reconstructor | None, str, str]:
    """What looks at the views (None: nothing has to, or a way of the panorama's own), its name, and why."""
    if recipe.method is not None:
        name = recipe.method.name
        if panorama.range_m is not None and name != "rgbd":
            raise InputError(f"method {name} guesses, but the panorama brings its depth: want auto or rgbd")
        if panorama.range_m is None and name == "rgbd":
            raise InputError("method rgbd wants the panorama's depth (--panorama-depth FILE)")
        if name == "sfm":
            raise InputError("method sfm: a panorama has one viewpoint: want rgbd, layout, tiny, hf or da3")
        reconstructor = None if name in _WITHOUT_MODEL else recipe.method
        return reconstructor, name, "chosen by the user, for views of a panorama"
    if panorama.range_m is not None:
        return None, "rgbd", "the panorama brings its depth"
    if recipe.model_folder is not None:
        name = model_kind(recipe.model_folder)
        reason = f"a panorama, and the model folder's config.json is one of {name}"
        return backend(name, model_folder=recipe.model_folder), name, reason
    return None, "layout", "a panorama without depth, and no depth model is given"


def _measured(range_m: NDArray[np.float32], intrinsics: Intrinsics, directions: Sequence[Direction]) -> Reconstruction:
    depth_m = _depth_of_views(range_m, intrinsics, directions)
    if not depth_m[0].any():
        raise InputError("the panorama's depth is all zero in its middle: want it known there")
    return Reconstruction(
        depth_units=depth_m,
        intrinsics=intrinsics,
        T_world_camera=np.stack([direction.T_world_camera for direction in directions]),
        is_metric=True,
        quality={"known_share": float(np.mean(depth_m > 0))},
    )


def _guessed(
    clip: Clip,
    panorama: Panorama,
    intrinsics: Intrinsics,
    directions: Sequence[Direction],
    name: str,
    reconstructor: Reconstructor | None,
    progress: Progress | None,
) -> Reconstruction:
    """Every view alone, then all of them as one surface."""
    if reconstructor is not None:
        guess = _guessed_by_model(clip, intrinsics, directions, reconstructor, progress)
    elif name == "tiny":
        guess = _guessed_by_tiny(clip, intrinsics, directions, progress)
    else:
        guess = _guessed_by_layout(panorama, progress)
    merged = merged_range(guess.depth_units, guess.intrinsics, guess.directions, guess.unit_of)
    return Reconstruction(
        depth_units=_depth_of_views(merged.range_units, intrinsics, directions),
        intrinsics=intrinsics,
        T_world_camera=np.stack([direction.T_world_camera for direction in directions]),
        is_metric=guess.is_metric,
        quality={
            "overlap_disagreement_before": merged.disagreement_before,
            "overlap_disagreement": merged.disagreement_after,
            "scale_spread": float(np.std(np.log(merged.scales))),
        },
        warnings=(
            f"{name}: depth is a guess for each of {len(guess.directions)} views, not a measurement; where they "
            f"overlap they differ by {100 * merged.disagreement_after:.0f} % after one scale each",
            "panorama: taken to be level, its top up",
            *guess.warnings,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Guess:
    """Depth of some views around the panorama's point, not necessarily those of the Reference."""

    depth_units: NDArray[np.float32]  # [V, H, W]
    intrinsics: Intrinsics
    directions: Sequence[Direction]  # [V]
    unit_of: Sequence[int] | None = None  # see `merged_range`
    is_metric: bool = False
    warnings: tuple[str, ...] = ()


def _guessed_by_layout(panorama: Panorama, progress: Progress | None) -> _Guess:
    """Ground and upright things in tall views, which see where things stand; their tilt is known.

    Everything above is assumed to be level.
    """
    height_px, width_px = LAYOUT_VIEW_PX
    intrinsics = Intrinsics.from_fov(np.deg2rad(DEFAULT_FOV_DEG), width_px, height_px)
    directions = directions_around(intrinsics)
    depth_units = np.ones((len(directions), height_px, width_px), np.float32)
    for i, direction in enumerate(directions):
        if direction.elevation_rad < _ABOVE_RAD:
            picture_u8 = picture_of(panorama.rgb_u8, intrinsics, direction)
            horizon = Horizon(tilt_rad=-direction.elevation_rad, note="known", line_share=0.0)
            depth_units[i], _ = depth_of_view(picture_u8, intrinsics, horizon)
        if progress:
            progress("layout", (i + 1) / len(directions))
    is_above = [int(direction.elevation_rad >= _ABOVE_RAD) for direction in directions]  # the rest: camera heights
    return _Guess(depth_units=depth_units, intrinsics=intrinsics, directions=directions, unit_of=is_above)


def _guessed_by_tiny(
    clip: Clip, intrinsics: Intrinsics, directions: Sequence[Direction], progress: Progress | None
) -> _Guess:
    complete = shipped_completion()
    unknown = np.zeros(clip.frames_u8.shape[1:3], np.float32)
    depth_units = []
    for picture_u8 in clip.frames_u8:
        depth_units.append(complete(picture_u8[None], unknown[None], 1.0)[0])
        if progress:
            progress("tiny", len(depth_units) / len(directions))
    warnings = ("tiny: the network has seen made-up rooms only",)
    return _Guess(depth_units=np.stack(depth_units), intrinsics=intrinsics, directions=directions, warnings=warnings)


def _guessed_by_model(
    clip: Clip,
    intrinsics: Intrinsics,
    directions: Sequence[Direction],
    reconstructor: Reconstructor,
    progress: Progress | None,
) -> _Guess:
    """One pass of da3 over all views, or hf on each. Poses and K are known, so the network's are ignored."""
    if isinstance(reconstructor, HfReconstructor):
        depth_units, is_metric = reconstructor.depth_of_each(clip.frames_u8, progress)
        return _Guess(depth_units=depth_units, intrinsics=intrinsics, directions=directions, is_metric=is_metric)
    result = reconstructor.reconstruct(clip, progress)
    return _Guess(
        depth_units=result.depth_units,
        intrinsics=intrinsics,
        directions=directions,
        is_metric=result.is_metric,
        warnings=tuple(warning for warning in result.warnings if "gravity" not in warning),
    )


def _depth_of_views(
    range_units: NDArray[np.float32], intrinsics: Intrinsics, directions: Sequence[Direction]
) -> NDArray[np.float32]:
    """[V, H, W]"""
    range_map = RangeMap(range_units)
    return np.stack([range_map.depth_of(intrinsics, direction) for direction in directions])


def _is_depth_file(path: Path) -> bool:
    return path.suffix.lower() in DEPTH_SUFFIXES


def _checked_file(path: str | Path, is_wanted: Callable[[Path], bool], want: str) -> Path:
    checked = Path(path)
    check_readable(checked)
    if not checked.is_file() or not is_wanted(checked):
        raise InputError(f"{path}: want {want}, one file")
    return checked


def _check_aspect(image: NDArray, name: str, what: str) -> None:
    height_px, width_px = image.shape[:2]
    if abs(width_px - 2 * height_px) > 1:
        raise InputError(f"{name}: {width_px}x{height_px} px: {what} twice as wide as high (360 x 180 degrees)")
