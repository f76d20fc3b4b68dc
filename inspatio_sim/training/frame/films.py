"""What the frame generator's samples are cut from: clips of made-up worlds with depth, in memory or on the disk.

    runs/frame-tiny/films/5f3a.../00000000-00000100/rgb_u8.npy ...   the first 100 clips of one setting

Asked for again, what is missing is filmed; asked for more clips, they are added.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition.condition import SURFACE_TOLERANCE
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.geometry.warp import NEAR_M
from inspatio_sim.motion.camera import Array, Intrinsics, inverse
from inspatio_sim.progress import Progress
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_styles import Style
from inspatio_sim.training.engine.workers import in_order

STYLES: tuple[Style, ...] = ("synthetic", "photo")
MAX_CLIPS = 10**8
CAMERAS = 2  # of a clip, filming side by side
PART_BYTES = 128e6  # of the clips that are filmed and written together, about
PART_NAMES = ("rgb_u8", "depth_m", "T_world_camera", "intrinsics")
POINTS = (8, 12)  # of a view, rows and columns, by which others are judged

Frame = tuple[int, int]
"""Camera and moment of a frame within its clip."""


@dataclass(frozen=True, kw_only=True)
class FilmConfig:
    """Which clips to film. One frame of 96x160 pixels takes 77 kB."""

    seed: int = 0
    clips_per_style: int = 1500
    frames_per_clip: int = 8  # of each of the two cameras
    fps: float = 2.5  # few, so that the frames of a clip differ
    size_px: tuple[int, int] = (96, 160)  # height and width
    texture_folder: Path | None = None  # more photographs for the photo style
    workers: int = 2  # processes that film; 0: the training process itself

    def __post_init__(self) -> None:
        for name, least in {"clips_per_style": 1, "frames_per_clip": 1, "seed": 0, "workers": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: want at least {least}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps={self.fps}: want a positive number")

    @property
    def num_clips(self) -> int:
        """Of all styles."""
        return len(STYLES) * self.clips_per_style

    @property
    def clips_per_part(self) -> int:
        """That are filmed and written together."""
        clip_bytes = CAMERAS * self.frames_per_clip * math.prod(self.size_px) * 5
        return max(1, int(PART_BYTES / clip_bytes))


@dataclass(frozen=True, kw_only=True)
class Film:
    """One clip: T frames of both cameras."""

    rgb_u8: NDArray[np.uint8]  # [2, T, H, W, 3]
    depth_m: NDArray[np.float16]  # z-depth, 0 where a ray meets nothing. [2, T, H, W]
    T_world_camera: Array  # [2, T, 4, 4]
    intrinsics: Intrinsics


class Films:
    """N clips; the styles take turns, so that every second one is of the photo style.

    Attributes:
        rgb_u8: [N, 2, T, H, W, 3]
        depth_m: z-depth, 0 where a ray meets nothing, float16. [N, 2, T, H, W]
        T_world_camera: [N, 2, T, 4, 4]
        intrinsics: of each clip.
    """

    def __init__(self, config: FilmConfig, progress: Progress | None = None, *, folder: Path | None = None) -> None:
        """Film them all; the same bytes whatever the number of workers.

        Args:
            config: which.
            progress: told the share done.
            folder: where clips are kept, and looked for first; None: in memory.

        Raises:
            InputError: the folder cannot be written.
        """
        self.config = config
        parts = _in_memory(config, progress) if folder is None else _on_disk(config, folder, progress)
        self.rgb_u8, self.depth_m, self.T_world_camera = (Joined([p[name] for p in parts]) for name in PART_NAMES[:3])
        rows = np.concatenate([part["intrinsics"] for part in parts])[: config.num_clips]
        self.intrinsics = [_intrinsics(row.tolist(), config.size_px) for row in rows]

    def __len__(self) -> int:
        return len(self.intrinsics)

    @property
    def frames(self) -> list[Frame]:
        """All of a clip."""
        return [(camera, moment) for camera in range(CAMERAS) for moment in range(self.config.frames_per_clip)]

    def shares_seen(self, clip: int, target: Frame, frames: list[Frame]) -> Array:
        """How much of one frame's surfaces others of its clip see, 0 to 1, by a grid of points."""
        height_px, width_px = self.config.size_px
        K, poses = self.intrinsics[clip].K_px, self.T_world_camera[clip]
        v, u = (
            ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(POINTS, self.config.size_px, strict=True)
        )
        v, u = (x.ravel() for x in np.meshgrid(v, u, indexing="ij"))
        z = self.depth_m[(clip, *target)][v, u].astype(np.float64)
        u, v, z = u[z > 0], v[z > 0], z[z > 0]
        points = np.linalg.inv(K) @ (z * np.stack([u, v, np.ones_like(u)]))  # [3, S]
        shares = np.zeros(len(frames))
        for i, frame in enumerate(frames):
            T_frame_target = inverse(poses[frame]) @ poses[target]
            seen = K @ (T_frame_target[:3, :3] @ points + T_frame_target[:3, 3:])
            x, y, z = seen[:, seen[2] > NEAR_M]
            x, y = np.rint(x / z), np.rint(y / z)
            is_inside = (x >= 0) & (x < width_px) & (y >= 0) & (y < height_px)
            surface_m = self.depth_m[(clip, *frame)][y[is_inside].astype(int), x[is_inside].astype(int)]
            is_same = np.abs(surface_m - z[is_inside]) < SURFACE_TOLERANCE * z[is_inside]
            shares[i] = np.count_nonzero(is_same) / max(1, len(u))
        return shares


class Joined:
    """Arrays of equal length as one; what is asked for is copied, so that it may be written to."""

    def __init__(self, parts: list[NDArray[Any]]) -> None:
        self._parts = parts

    def __getitem__(self, index: int | tuple[int, ...]) -> NDArray[Any]:
        clip, *rest = index if isinstance(index, tuple) else (index,)
        part, row = divmod(clip, len(self._parts[0]))
        return np.array(self._parts[part][(row, *rest)])


Part = dict[str, NDArray[Any]]


def _in_memory(config: FilmConfig, progress: Progress | None) -> list[Part]:
    with closing(in_order(FilmWork(config), range(config.num_clips), config.workers)) as films:
        return [_part(_counted(films, config, 0, progress), config.num_clips)]


def _on_disk(config: FilmConfig, folder: Path, progress: Progress | None) -> list[Part]:
    folder = folder / _identity(config)
    length = config.clips_per_part
    starts = range(0, config.num_clips, length)
    paths = {start: folder / f"{start:08d}-{start + length:08d}" for start in starts}
    missing = [start for start, path in paths.items() if not path.is_dir()]
    indices = [index for start in missing for index in range(start, start + length)]
    done = max(0, config.num_clips - len(indices))
    with closing(in_order(FilmWork(config), indices, config.workers)) as films:
        counted = _counted(films, config, done, progress)
        for start in missing:
            part = _part(counted, length)
            with replacing(paths[start]) as temporary, writing_to(paths[start]):
                temporary.mkdir()
                for name, array in part.items():
                    np.save(temporary / f"{name}.npy", array, allow_pickle=False)
    return [{name: np.load(path / f"{name}.npy", mmap_mode="r") for name in PART_NAMES} for path in paths.values()]


def _counted(films: Iterator[Film], config: FilmConfig, num_done: int, progress: Progress | None) -> Iterator[Film]:
    for num_filmed, film in enumerate(films, start=num_done + 1):
        if progress:
            progress("filming clips", min(1.0, num_filmed / config.num_clips))
        yield film


def _part(films: Iterator[Film], length: int) -> Part:
    """The next clips as arrays; one clip is held beside them at a time."""
    part: Part = {}
    for i, film in enumerate(islice(films, length)):
        camera = film.intrinsics
        row = {**vars(film), "intrinsics": np.array([camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px])}
        for name in PART_NAMES:
            if name not in part:
                part[name] = np.empty((length, *row[name].shape), row[name].dtype)
            part[name][i] = row[name]
    return part


def _intrinsics(row: list[float], size_px: tuple[int, int]) -> Intrinsics:
    fx_px, fy_px, cx_px, cy_px = row
    height_px, width_px = size_px
    return Intrinsics(fx_px=fx_px, fy_px=fy_px, cx_px=cx_px, cy_px=cy_px, width_px=width_px, height_px=height_px)


def _identity(config: FilmConfig) -> str:
    """A digest of all that a clip depends on beside its number."""
    names = ("seed", "frames_per_clip", "fps", "size_px", "texture_folder")
    return hashlib.blake2b(repr([str(asdict(config)[name]) for name in names]).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class FilmWork:
    """Films clips by number, in any process."""

    config: FilmConfig

    def __call__(self) -> Callable[[int], Film]:
        config = self.config
        clips = [
            ProceduralClips(
                ProceduralConfig(
                    seed=config.seed,
                    style=style,
                    num_frames=config.frames_per_clip,
                    size_px=config.size_px,
                    fps=config.fps,
                    length=MAX_CLIPS,
                    texture_folder=config.texture_folder,
                )
            )
            for style in STYLES
        ]

        def film(index: int) -> Film:
            clip = clips[index % len(STYLES)][index]
            return Film(
                rgb_u8=np.stack([clip.reference_u8, clip.target_u8]),
                depth_m=np.stack([clip.reference_depth_m, clip.target_depth_m]).astype(np.float16),
                T_world_camera=np.stack([clip.T_world_reference, clip.T_world_target]),
                intrinsics=clip.intrinsics,
            )

        return film
