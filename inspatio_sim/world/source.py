"""Where a world comes from: the one door from files and settings to a Reference, a generator, and so to a World.

Whatever asks (command line, env, node, bag, scenario, `World.from_video`), the same clip is reconstructed once per
machine, and the same generator is loaded once per process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

from inspatio_sim.clips.rgbd_layout import is_rgbd_folder
from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators import DEFAULT_GENERATOR, kind_by_name
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.mapping import MapConfig
from inspatio_sim.progress import Progress
from inspatio_sim.reconstruction import ScaleRequest, reconstruct
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


@dataclass(frozen=True, kw_only=True)
class PanoramaOptions:
    """How one equirectangular picture becomes views."""

    depth: str | None = None  # distance along the ray in the same directions, a file
    fov_deg: float = DEFAULT_FOV_DEG  # horizontal, of the views


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Which frames a world is made from, and how they get their geometry: enough to make its Reference again."""

    paths: tuple[str, ...] = ()  # as `read_clip` takes them, or a folder of `Reference.save`; empty: the demo room
    size_px: tuple[int, int] | None = None  # (height, width); None: the clip's own
    max_frames: int | None = None  # read at most so many
    every: int = 1  # take every N-th frame
    start_frame: int = 0  # leave out so many first
    fps: float | None = None  # resample to this rate; None: the clip's own
    demo_camera: DemoCamera = "moving"  # of the demo room
    panorama: PanoramaOptions | None = None  # the one path is an equirectangular picture
    reconstruct: Mapping[str, Any] = field(default_factory=dict)  # options of `reconstruct`, fit for JSON

    def reference(self, progress: Progress | None = None, *, is_cached: bool = True) -> tuple[Reference, bool]:
        """Read and reconstruct the clip, or take what was kept of that.

        Args:
            progress: told what is being done and the share that is done.
            is_cached: False makes it again and keeps nothing.

        Returns:
            The geometry, and whether it had been kept.

        Raises:
            InputError: the clip cannot be read, or not with these options.
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
        """Of all that the Reference depends on: content of the files, options, version of the code.

        Raises:
            InputError: a file cannot be read.
        """
        inputs = asdict(replace(self, paths=()))
        inputs["reconstruct"] = _without_defaults({**inputs["reconstruct"], "model_folder": None})  # its files count
        if self.panorama is not None:
            inputs["panorama"]["depth"] = None  # likewise
        try:
            return content_key(self._files(), {**inputs, "code": code_version()})
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def absolute(self) -> ClipSource:
        """The same, wherever the process runs."""
        return replace(self, paths=tuple(str(Path(path).resolve()) for path in self.paths))

    def _files(self) -> list[Path]:
        """All that is read."""
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
        """Not the demo room, a saved reconstruction, or a clip that brings its own depth."""
        if len(self.paths) != 1:
            return bool(self.paths)
        brings_depth = is_rgbd_folder(Path(self.paths[0])) and self.reconstruct.get("method") in (None, "auto", "rgbd")
        return not (brings_depth or self._is_saved)

    @property
    def _is_saved(self) -> bool:
        return len(self.paths) == 1 and (Path(self.paths[0]) / META_NAME).is_file()

    def _make(self, progress: Progress | None) -> Reference:
        options = dict(self.reconstruct)
        if isinstance(options.get("scale"), Mapping):
            options["scale"] = ScaleRequest.from_json(options["scale"])
        if self._is_saved:
            return Reference.load(self.paths[0])
        if not self.paths:
            frames, size_px, fps = self.max_frames or DEMO_FRAMES, self.size_px or DEMO_SIZE_PX, self.fps or DEMO_FPS
            clip = demo_clip(frames, size_px, fps, camera=self.demo_camera)
        elif self.panorama is not None:
            panorama = read_panorama(self.paths[0], self.panorama.depth)
            view = {"size_px": self.size_px, "fov_deg": self.panorama.fov_deg}
            return reconstruct_panorama(panorama, **view, **options, progress=progress)
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
        return reconstruct(clip, **options, progress=progress)


def _without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `reconstruct`, so that the same choice looks the same however it was written."""
    chosen = {name: value for name, value in options.items() if value not in (None, "auto")}
    scale = {name: value for name, value in (chosen.pop("scale", None) or {}).items() if value}
    return {**chosen, "scale": scale} if scale else chosen


def paths_of(video: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One path or several, as `ClipSource` holds them."""
    return (str(video),) if isinstance(video, (str, Path)) else tuple(str(path) for path in video)


@dataclass(frozen=True, kw_only=True)
class WorldSource:
    """Everything that makes a world: `World.from_source` turns it into one, and JSON carries it."""

    clip: ClipSource = field(default_factory=ClipSource)
    generator: str = DEFAULT_GENERATOR
    generator_options: Mapping[str, Any] = field(default_factory=dict)  # of `generator_by_name`
    prompt: str = ""  # what the world should look like
    seed: int = 0  # of everything random
    config: WorldConfig = field(default_factory=WorldConfig)  # how it behaves

    def load_generator(self, progress: Progress | None = None) -> Generator:
        """The generator, shared by all worlds of this process that ask for the same."""
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
        """The source that `to_json` was asked for.

        Raises:
            InputError: something is missing, or of the wrong kind.
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
