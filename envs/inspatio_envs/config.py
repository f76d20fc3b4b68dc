"""All arguments of an env, checked before anything is loaded."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

import numpy as np

from inspatio_envs.actions import ActionName
from inspatio_envs.episodes import Difficulty
from inspatio_envs.shared import Video
from inspatio_envs.spaces import Layout, ObservationName
from inspatio_envs.tasks import TaskName
from inspatio_sim.clips.video import clip_files
from inspatio_sim.errors import InputError
from inspatio_sim.generators import DEFAULT_GENERATOR, GENERATORS
from inspatio_sim.mapping import MapConfig
from inspatio_sim.world.config import WorldConfig

MAX_SIDE_PX = 8192
MAX_GRID_CELLS = 1024


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Arguments of `gymnasium.make`; all of them are plain JSON."""

    video: Video | None = None  # a clip, image, folder or list of images; None: the procedural demo room
    size_px: tuple[int, int] = (96, 160)  # height and width of the frames
    start_frame: int = 0  # number of frames to skip at the start of the clip
    max_frames: int | None = None  # maximum number of frames read from the clip
    fps: float | None = None  # resample the clip to this rate; None: as it is (the demo room: 12)
    reconstruct_options: Mapping[str, Any] = field(default_factory=dict)  # for `inspatio_sim.reconstruction`
    generator: str = DEFAULT_GENERATOR  # star, frame or warp
    preset: str | None = None  # model of star or frame; None: tiny or frame-tiny
    generator_options: Mapping[str, Any] = field(default_factory=dict)  # more options of `generator_by_name`
    prompt: str = ""
    world_options: Mapping[str, Any] = field(default_factory=dict)  # fields of `WorldConfig`: clock, body_radius_m, ...

    task: TaskName = "free"
    task_options: Mapping[str, Any] = field(default_factory=dict)  # fields of the task's config, see `tasks`
    sparse: bool = False  # reward success only
    episodes: str | None = None  # file of episodes to draw from; None: draw new ones
    episode_options: Mapping[str, Any] = field(default_factory=dict)  # fields of `EpisodeConfig`, for new episodes
    difficulty: Difficulty | None = None  # None: any

    observations: tuple[ObservationName, ...] | None = None  # None: rgb depth known pose, and what the task shows
    layout: Layout = "plain"  # see `spaces`
    grid_cells: int = 48  # along each side of the observation `grid`
    grid_cell_m: float = 0.1
    action: ActionName = "discrete"
    action_options: Mapping[str, float] = field(default_factory=dict)  # sizes or limits, see `actions`
    time_control: bool = False  # the agent also chooses the clock mode
    chunk_actions: bool = False  # one action for each frame of a block
    frame_skip: int = 1  # blocks that one action is spread over (Box: held for)

    max_steps: int | None = None  # truncate after this many steps
    max_hallucinated_fraction: float | None = None  # truncate above this share of never-seen pixels in a step
    max_drift: float | None = None  # truncate when frames differ more than this from geometry, 0..1
    seed: int | None = None  # seed of the first reset if it gets none

    def __post_init__(self) -> None:
        for name in ("size_px", "observations"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.video, list):
            object.__setattr__(self, "video", tuple(self.video))
        if self.video is not None:
            if not _is_video(self.video):
                raise InputError(f"video={self.video!r}: want a path as a string, a list of images, or None")
            clip_files(self.video if isinstance(self.video, str) else list(self.video))
        size = self.size_px
        if not isinstance(size, tuple) or len(size) != 2 or not all(_is_count(side, 8, MAX_SIDE_PX) for side in size):
            raise InputError(f"size_px={size!r}: want (height, width), two whole numbers from 8 to {MAX_SIDE_PX}")
        object.__setattr__(self, "size_px", (int(size[0]), int(size[1])))
        if self.episodes is not None and not isinstance(self.episodes, str):
            raise InputError(f"episodes={self.episodes!r}: want the path of a file as a string, or None")
        if self.fps is not None and not (_is_number(self.fps) and self.fps > 0):
            raise InputError(f"fps={self.fps!r}: want a positive number, or None")
        for name in ("sparse", "time_control", "chunk_actions"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}={getattr(self, name)!r}: want True or False")
        if self.generator not in GENERATORS:
            raise InputError(f"generator={self.generator!r}: want one of {', '.join(GENERATORS)}")
        if not _is_count(self.start_frame, 0):
            raise InputError(f"start_frame={self.start_frame!r}: want a whole number from 0 on")
        if self.start_frame and self.video is None:
            raise InputError(f"start_frame={self.start_frame}: want 0 without a video: the demo room has no start")
        for name in ("max_frames", "max_steps"):
            value = getattr(self, name)
            if value is not None and not _is_count(value, 1):
                raise InputError(f"{name}={value!r}: want a whole number of at least 1, or None")
        if not _is_count(self.frame_skip, 1, 1000):
            raise InputError(f"frame_skip={self.frame_skip!r}: want a whole number from 1 to 1000")
        if self.chunk_actions and self.frame_skip > 1:
            raise InputError(
                f"chunk_actions with frame_skip={self.frame_skip}: want frame_skip=1, or one action per block"
            )
        if not _is_count(self.grid_cells, 1, MAX_GRID_CELLS):
            raise InputError(f"grid_cells={self.grid_cells!r}: want a whole number from 1 to {MAX_GRID_CELLS}")
        if not _is_number(self.grid_cell_m) or not 0 < self.grid_cell_m <= 10:
            raise InputError(f"grid_cell_m={self.grid_cell_m!r}: want more than 0, at most 10 m")
        for name in ("max_hallucinated_fraction", "max_drift"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value <= 1):
                raise InputError(f"{name}={value!r}: want 0 to 1, or None")
        for name, choices in (("task", TaskName), ("layout", Layout), ("action", ActionName)):
            _check_choice(name, getattr(self, name), get_args(choices))
        if self.difficulty is not None:
            _check_choice("difficulty", self.difficulty, get_args(Difficulty))
        if self.observations is not None:
            self._check_observations(self.observations)
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name.endswith("_options") and not isinstance(value, Mapping):
                raise InputError(f"{option.name}={value!r}: want a dict")
        try:
            json.dumps([dict(value) for value in (self.reconstruct_options, self.generator_options)])
        except TypeError as error:
            raise InputError(
                f"reconstruct_options or generator_options: {error}: want plain numbers, strings, lists"
            ) from error
        self.world  # noqa: B018 - checks itself

    @property
    def world(self) -> WorldConfig:
        """How the world behaves."""
        unknown = sorted(set(self.world_options) - {option.name for option in fields(WorldConfig)})
        if unknown:
            raise InputError(
                f"world_options has {', '.join(unknown)}: want fields of inspatio_sim.world.world.WorldConfig"
            )
        if self.world_options.get("map") is not None and not isinstance(self.world_options["map"], MapConfig):
            raise InputError(f"world_options has map={self.world_options['map']!r}: want a MapConfig, or None")
        try:
            return WorldConfig(**self.world_options)
        except TypeError as error:
            raise InputError(f"world_options: {error}: want fields of inspatio_sim.world.world.WorldConfig") from error

    def _check_observations(self, names: object) -> None:
        known = get_args(ObservationName)
        if not isinstance(names, tuple) or not names:
            raise InputError(f"observations={names!r}: want a list of {', '.join(known)}")
        for name in names:
            _check_choice("observations", name, known)
        if len(set(names)) < len(names):
            raise InputError(f"observations={names!r}: want each name once")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> EnvConfig:
        """Check names before values, so that a typo gets a hint."""
        known = [option.name for option in fields(cls)]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise InputError(f"unknown argument {name!r}: {hint}known are {', '.join([*known, 'render_mode'])}")
        return cls(**options)


def _is_video(value: object) -> bool:
    paths = value if isinstance(value, tuple) else (value,)
    return bool(paths) and all(isinstance(path, str) for path in paths)


def _is_count(value: object, least: int, most: float = np.inf) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(least <= value <= most)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r}: want one of {', '.join(choices)}")
