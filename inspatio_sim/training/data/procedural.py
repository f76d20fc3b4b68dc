"""Made-up training clips: random places filmed by two cameras at once, with exact depth and poses.

Clip `index` of a seed is always the same, byte for byte, whichever process makes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.scenes.fast_raycast import render_fast
from inspatio_sim.training.data.procedural_cameras import draw_cameras
from inspatio_sim.training.data.procedural_captions import caption
from inspatio_sim.training.data.procedural_scenes import make_place
from inspatio_sim.training.data.procedural_sensor import Sensor
from inspatio_sim.training.data.procedural_styles import Style, palette
from inspatio_sim.training.data.sample import Sample

FOV_RAD = (math.radians(55), math.radians(90))  # horizontal, drawn per clip
PLACES_TRIED = 200  # a place is given up when no pair of camera paths fits into it
MIN_SIDE_PX = 16
HELD_OUT_SEED = 899_999  # of what sample pictures show
MAX_SEED = 800_000  # seeds above are for clips that are never trained on; evaluation has 900000 and up


@dataclass(frozen=True, kw_only=True)
class ProceduralConfig:
    """Which clips to make."""

    seed: int = 0
    style: Style = "synthetic"  # "photo": photographs as textures, and a camera that adds noise
    num_frames: int = 45
    size_px: tuple[int, int] = (96, 160)  # height and width
    fps: float = 15.0
    length: int = 10_000  # clips in one epoch
    texture_folder: Path | None = None  # more photographs for style "photo"
    num_threads: int = 1  # that look at frames side by side; more than 1 where there are no loader workers

    def __post_init__(self) -> None:
        for name in ("num_frames", "length", "num_threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: want at least 1")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: want at least 0")
        if min(self.size_px) < MIN_SIDE_PX:
            raise InputError(f"size_px={self.size_px}: want height and width of at least {MIN_SIDE_PX}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps={self.fps}: want a positive number")


class ProceduralClips:
    """A `ClipDataset` of made-up clips."""

    def __init__(self, config: ProceduralConfig | None = None) -> None:
        self.config = config or ProceduralConfig()
        self.palette = palette(self.config.style, self.config.texture_folder)

    def __len__(self) -> int:
        return self.config.length

    def __getitem__(self, index: int) -> Sample:
        """Make one clip.

        Raises:
            IndexError: outside 0..length - 1.
        """
        config = self.config
        if not 0 <= index < config.length:
            raise IndexError(f"clip {index} of {config.length}")
        rng = np.random.default_rng([config.seed, index])
        height_px, width_px = config.size_px
        intrinsics = Intrinsics.from_fov(float(rng.uniform(*FOV_RAD)), width_px, height_px)
        for _ in range(PLACES_TRIED):
            place = make_place(rng, self.palette)
            cameras = draw_cameras(rng, place, intrinsics, config.num_frames, config.fps)
            if cameras is not None:
                break
        else:
            raise AssertionError(f"no camera path fits into any of {PLACES_TRIED} places")
        time_s = np.arange(config.num_frames) / config.fps
        poses = np.concatenate([cameras.T_world_reference, cameras.T_world_target])
        views = render_fast(place.scene, intrinsics, poses, np.tile(time_s, 2), num_threads=config.num_threads)
        reference_u8, target_u8 = np.split(views.rgb_u8.numpy(), 2)
        reference_depth_m, target_depth_m = np.split(views.depth_m.numpy(), 2)
        if config.style == "photo":
            sensor = Sensor.draw(rng)
            reference_u8, target_u8 = (sensor.expose(frames, time_s, rng) for frames in (reference_u8, target_u8))
        return Sample(
            reference_u8=reference_u8,
            target_u8=target_u8,
            reference_depth_m=reference_depth_m,
            target_depth_m=target_depth_m,
            intrinsics=intrinsics,
            T_world_reference=cameras.T_world_reference,
            T_world_target=cameras.T_world_target,
            caption=caption(place, cameras.seen),
        )
