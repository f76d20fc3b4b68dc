"""World sources: files and settings become a Reference, a generator, and so a World.

Every caller uses this module (command line, env, node, bag, scenario, `World.from_video`), so the same clip is
reconstructed once per machine and the same generator is loaded once per process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import torch

from inspatio_sim.clips.rgbd_layout import is_rgbd_folder
from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators import DEFAULT_GENERATOR, kind_by_name
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.mapping import MapConfig
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction import Recipe
from inspatio_sim.reconstruction.panorama.method import DEFAULT_FOV_DEG, read_panorama, reconstruct_panorama
from inspatio_sim.reconstruction.version import code_version
from inspatio_sim.reference.cache import cached_reference, content_key
from inspatio_sim.reference.files import META_NAME
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import CameraPath as DemoCamera
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.config import WorldConfig

DEMO_FRAMES, DEMO_FPS, DEMO_SIZE_PX = 48, 12.0, (96, 160)

_lock = RLock()
_references: WeakValueDictionary[str, Reference] = WeakValueDictionary()
_generators: WeakValueDictionary[str, Generator] = WeakValueDictionary()


def _forget_lost_generators() -> None:
    """After a fork, generators on a GPU cannot be used; loading one again is refused by name."""
    if torch.cuda._is_in_bad_fork():
        _generators.clear()


os.register_at_fork(after_in_child=_forget_lost_generators)


@dataclass(frozen=True, kw_only=True)
class PanoramaOptions:
    """How an equirectangular panorama is cut into views."""

    depth: str | None = None  # file with the distances along the ray; None: they are estimated
    fov_deg: float = DEFAULT_FOV_DEG  # horizontal field of view of each view


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """The frames of a world and how they get their geometry: enough to rebuild its Reference."""

    paths: tuple[str, ...] = ()  # what `read_clip` takes, or a folder from `Reference.save`; empty: the demo room
    size_px: tuple[int, int] | None = None  # (height, width); None: the clip's own
    max_frames: int | None = None  # maximum number of frames read
    every: int = 1  # use every N-th frame
    start_frame: int = 0  # skip this many frames at the start
    fps: float | None = None  # resample to this rate; None: the clip's own
    demo_camera: DemoCamera = "moving"  # how the demo room's camera moves
    panorama: PanoramaOptions | None = None  # set if the only path is an equirectangular panorama
    reconstruct: Mapping[str, Any] = field(default_factory=dict)  # options of `reconstruct`, JSON-ready

    def reference(self, progress: Progress | None = None, *, is_cached: bool = True) -> tuple[Reference, bool]:
        """Read and reconstruct the clip, or load the cached result.

        Args:
            progress: called with the current task and the share done.
            is_cached: False skips the cache, both for reading and writing.

        Returns:
            The geometry, and whether it came from the cache.

        Raises:
            InputError: the clip cannot be read with these options.
        """
        is_backend = not isinstance(self.reconstruct.get("method", "auto"), str)  # made by the caller
        if is_backend or not is_cached:
            return self._make(progress), False
        key = self.key()
        with _lock:
            found = _references.get(key)
            if found is not None:
                return found, True
            if self._is_worth_keeping:
                reference, was_kept = cached_reference(key, lambda: self._make(progress))
                reference = replace(reference, source=self.paths[0])
            else:
                reference, was_kept = self._make(progress), False
            _references[key] = reference
            return reference, was_kept

    def key(self) -> str:
        """A hash of everything the Reference depends on: file contents, options, version of the code.

        Raises:
            InputError: a file cannot be read.
        """
        inputs = asdict(replace(self, paths=()))
        inputs["reconstruct"] = _without_defaults({**inputs["reconstruct"], "model_folder": None})  # hashed by file
        if self.panorama is not None:
            inputs["panorama"]["depth"] = None  # also hashed by its file
        try:
            return content_key(self._files(), {**inputs, "code": code_version()})
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def absolute(self) -> ClipSource:
        """The same source with absolute paths, valid in any working folder."""
        return replace(self, paths=tuple(str(Path(path).resolve()) for path in self.paths))

    def _files(self) -> list[Path]:
        """All files that are read."""
        if not self.paths:
            return []
        if self._is_saved:
            return sorted(path for path in Path(self.paths[0]).iterdir() if path.is_file())
        files = clip_files(self._video)
        if self.panorama is not None and self.panorama.depth:
            files.append(Path(self.panorama.depth))
        if folder := self.reconstruct.get("model_folder"):
            files += sorted(path for path in Path(folder).glob("*") if path.is_file())
        return files

    @property
    def _video(self) -> Path | list[Path]:
        paths = [Path(path) for path in self.paths]
        return paths[0] if len(paths) == 1 else paths

    @property
    def _is_worth_keeping(self) -> bool:
        """False for the demo room, a saved reconstruction, and a clip with measured depth."""
        if len(self.paths) != 1:
            return bool(self.paths)
        path, is_rgbd = Path(self.paths[0]), self.reconstruct.get("method") in (None, "auto", "rgbd")
        brings_depth = is_rgbd and path.is_dir() and is_rgbd_folder(path)
        return not (brings_depth or self._is_saved)

    @property
    def _is_saved(self) -> bool:
        return len(self.paths) == 1 and (Path(self.paths[0]) / META_NAME).is_file()

    def _make(self, progress: Progress | None) -> Reference:
        if self._is_saved:
            return Reference.load(self.paths[0])
        recipe = Recipe.of(self.reconstruct)
        if not self.paths:
            if self.start_frame:
                raise InputError(f"start_frame={self.start_frame}: want 0 without a clip: the demo room has no start")
            frames, size_px, fps = self.max_frames or DEMO_FRAMES, self.size_px or DEMO_SIZE_PX, self.fps or DEMO_FPS
            clip = demo_clip(frames, size_px, fps, camera=self.demo_camera)
        elif self.panorama is not None:
            panorama = read_panorama(self.paths[0], self.panorama.depth)
            view = {"size_px": self.size_px, "fov_deg": self.panorama.fov_deg}
            return reconstruct_panorama(panorama, **view, **self.reconstruct, progress=progress)
        else:
            clip = read_clip(
                self._video,
                size_px=self.size_px,
                max_frames=self.max_frames,
                every=self.every,
                start_frame=self.start_frame,
                fps=self.fps,
                progress=progress,
            )
        return recipe.reconstruct(clip, progress)


def _without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `reconstruct` without defaults, so that equal choices are equal however they were written."""
    chosen = {name: value for name, value in options.items() if value not in (None, "auto")}
    scale = {name: value for name, value in (chosen.pop("scale", None) or {}).items() if value}
    return {**chosen, "scale": scale} if scale else chosen


def paths_of(video: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One path or several, in the form of `ClipSource.paths`."""
    return (str(video),) if isinstance(video, (str, Path)) else tuple(str(path) for path in video)


@dataclass(frozen=True, kw_only=True)
class WorldSource:
    """Everything needed to make a world with `World.from_source`; converts to and from JSON."""

    clip: ClipSource = field(default_factory=ClipSource)
    generator: str = DEFAULT_GENERATOR
    generator_options: Mapping[str, Any] = field(default_factory=dict)  # options of `generator_by_name`
    prompt: str = ""  # what the world should look like
    seed: int = 0  # random seed
    config: WorldConfig = field(default_factory=WorldConfig)  # how the world behaves

    def load_generator(self, progress: Progress | None = None) -> Generator:
        """The generator, shared by all worlds of this process with the same settings."""
        options, size_px = self.generator_options, self.clip.size_px
        key = json.dumps([self.generator, dict(options), size_px], sort_keys=True, default=str)
        with _lock:
            found = _generators.get(key)
            if found is None:
                found = kind_by_name(self.generator).load(options, size_px=size_px, progress=progress)
                _generators[key] = found
            return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WorldSource:
        """The source that `to_json` wrote.

        Raises:
            InputError: a field is missing or has the wrong type.
        """
        try:
            clip, config = dict(values["clip"]), dict(values["config"])
            clip["paths"] = tuple(clip["paths"])
            clip["size_px"] = tuple(clip["size_px"]) if clip["size_px"] else None
            clip["panorama"] = PanoramaOptions(**clip["panorama"]) if clip["panorama"] else None
            config["map"] = MapConfig(**config["map"]) if config["map"] else None
            return cls(**{**values, "clip": ClipSource(**clip), "config": WorldConfig(**config)})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"world source: damaged, or of another version ({error})") from error
