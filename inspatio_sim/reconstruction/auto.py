"""Choose a backend for a clip, say why, and make its `Reference`."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from inspatio_sim.choices import Method
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction.motion import camera_motion
from inspatio_sim.reconstruction.one_view.model_folder import model_kind
from inspatio_sim.reconstruction.options import build, check_types, shown
from inspatio_sim.reconstruction.protocol import Reconstructor
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
"""The module of each backend; imported when used, because some need large libraries."""

NEED_MODEL_FOLDER = ("da3", "hf")

_OF_EVERY_METHOD = ("method", "scale")


def backend(name: str, **options: Any) -> Reconstructor:
    """Make a backend by name.

    Args:
        name: a key of `BACKENDS`.
        **options: fields of its class, such as model_folder of those that need weights.

    Raises:
        InputError: no backend has this name, or it has no such option, or not with this value.
    """
    if name not in BACKENDS:
        raise _unknown_method(name)
    if name in NEED_MODEL_FOLDER and "model_folder" not in options:
        raise InputError(f"model_folder is missing: method {name} wants a folder with its weights")
    module, _, class_name = BACKENDS[name].partition(":")
    backend_class = getattr(importlib.import_module(module), class_name)
    return build(backend_class, options, f"method {name}", others=_OF_EVERY_METHOD)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How clips become geometry: a method with its options, checked before there is a clip."""

    method: Reconstructor | None  # None: `auto` chooses one for each clip
    reason: str = ""  # why this method
    model_folder: Path | None = None  # for `auto`: weights for da3 or hf
    scale: ScaleRequest | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Recipe:
        """Read what a keyword call, an env, a ROS parameter or a recorded session says.

        Args:
            options: `method` (a name, or a backend with options of its own; auto if there is none), `scale`
                (a `ScaleRequest`, or its fields as a mapping), and the options of the method by name, such as
                `model_folder` of da3 and hf. `auto` has `model_folder` alone.

        Raises:
            InputError: it names the option, what came, and what the method has.
        """
        if not isinstance(options, Mapping):
            raise InputError(f"reconstruct options {shown(options)}: want a mapping such as {{'method': 'sfm'}}")
        try:
            return cls._of(dict(options))
        except InputError as error:
            raise InputError(f"reconstruct option {error}") from error

    @classmethod
    def _of(cls, own: dict[str, Any]) -> Recipe:
        for name in own:
            if not isinstance(name, str):
                raise InputError(f"{shown(name)}: want names")
        method, scale = own.pop("method", "auto"), _scale_request(own.pop("scale", None))
        if own.get("model_folder", "") is None:
            del own["model_folder"]
        if isinstance(method, str) and method == "auto":
            auto = build(_AutoOptions, own, "method auto", others=_OF_EVERY_METHOD)
            return cls(method=None, model_folder=auto.model_folder, scale=scale)
        if isinstance(method, str):
            return cls(method=backend(method, **own), reason="chosen by the user", scale=scale)
        if not isinstance(method, Reconstructor) or isinstance(method, type):
            raise _unknown_method(method)
        for name, value in own.items():
            raise InputError(f"{name}={shown(value)}: want it where {type(method).__name__} is made")
        return cls(method=method, reason="chosen by the user, with options", scale=scale)

    def reconstruct(self, clip: Clip, progress: Progress | None = None) -> Reference:
        """See `reconstruct`; errors name the clip."""
        check_progress(progress)
        clip.check_one_scene()
        with naming(clip.source):
            if self.method is not None:
                result = self.method.reconstruct(clip, progress)
                return to_reference(clip, result, method=self.method.name, reason=self.reason, scale=self.scale)
            return self._by_auto(clip, progress)

    def _by_auto(self, clip: Clip, progress: Progress | None) -> Reference:
        name, reason = choose(clip, self.model_folder)
        logger.info("reconstructing %s with %s: %s", clip.source, name, reason)
        weights = {"model_folder": self.model_folder} if name in NEED_MODEL_FOLDER else {}
        warnings: tuple[str, ...] = ()
        try:
            result = backend(name, **weights).reconstruct(clip, progress)
        except InputError as error:
            if name != "sfm":
                raise
            why = str(error).removeprefix(f"{clip.source}: ")
            warnings = (f"structure from motion failed ({why}); camera motion is ignored and depth is a guess",)
            logger.warning("%s: %s", clip.source, warnings[0])
            name, reason = "layout", f"{reason}, but structure from motion failed"
            result = backend(name).reconstruct(clip, progress)
        return to_reference(clip, result, method=name, reason=reason, scale=self.scale, warnings=warnings)


@dataclass(frozen=True, kw_only=True)
class _AutoOptions:
    model_folder: Path | None = None

    def __post_init__(self) -> None:
        check_types(self)


def _scale_request(scale: object) -> ScaleRequest | None:
    if isinstance(scale, Mapping):
        return build(ScaleRequest, scale, "scale")
    if scale is None or isinstance(scale, ScaleRequest):
        return scale
    raise InputError(f"scale={shown(scale)}: want a ScaleRequest, or a mapping of its fields")


def _unknown_method(method: object) -> InputError:
    return InputError(f"method={shown(method)}: want one of {', '.join(get_args(Method))}, or a Reconstructor")


def check_progress(progress: object) -> None:
    """Refuse what cannot be called, before anything slow begins."""
    if progress is not None and not callable(progress):
        raise InputError(f"progress={shown(progress)}: want a function of (what, share_done)")


@contextmanager
def naming(source: str) -> Iterator[None]:
    """A user's error raised inside begins with the clip's name."""
    try:
        yield
    except InputError as error:
        if not str(error).startswith(f"{source}:"):
            error.args = (f"{source}: {error}",)
        raise


def reconstruct(
    clip: Clip,
    /,
    method: Method | Reconstructor = "auto",
    *,
    model_folder: str | Path | None = None,
    scale: ScaleRequest | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Reference:
    """Find depth, intrinsics and poses of a clip, in metres.

    `auto` takes the first that applies: the clip has depth, K and poses (rgbd); a model folder is given (da3
    or hf, by its config.json); the camera moves (sfm; if that fails, layout with a warning); layout.

    Args:
        clip: a clip from `read_clip`.
        method: a name, or a backend object with its own options.
        model_folder: weights for da3 or hf.
        scale: a measurement that fixes the scale, as a `ScaleRequest` or a mapping of its fields.
        progress: told what is being done and the share that is done.
        **options: of the named method: the fields of its class, such as max_keyframes of `SfmReconstructor`.

    Raises:
        InputError: this clip cannot be reconstructed this way, or there is no such option; the message says why.
    """
    recipe = Recipe.of({"method": method, "model_folder": model_folder, "scale": scale, **options})
    return recipe.reconstruct(clip, progress)


def choose(clip: Clip, model_folder: str | Path | None = None) -> tuple[str, str]:
    """The backend that `auto` chooses for a clip, and why."""
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
    return "layout", f"{motion.why_still}, and no depth model is given"
