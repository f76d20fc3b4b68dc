"""Reference: the video as geometry (frames, depth, K, poses), and where its metres come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.choices import ClockMode as ClockMode
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, check_poses
from inspatio_sim.reference.files import Contents, naming_the_file, read_contents, write_contents

ScaleSource = Literal["sensor", "metric-model", "camera-height", "length", "assumed"]

ASSUMED_MEDIAN_DEPTH_M = 3.0


@dataclass(frozen=True, kw_only=True)
class ScaleCard:
    """Where the metres come from.

    `assumed` means that nothing was measured: the median depth of the first frame was set to 3 m.
    """

    source: ScaleSource
    note: str  # one sentence for the user
    metres_per_unit: float = 1.0  # what the reconstruction's own units were multiplied by

    def __post_init__(self) -> None:
        if self.source not in get_args(ScaleSource):
            raise InputError(f"scale source {self.source!r}: want one of {', '.join(get_args(ScaleSource))}")
        if not (np.isfinite(self.metres_per_unit) and self.metres_per_unit > 0):
            raise InputError(f"metres_per_unit={self.metres_per_unit}: want a positive number")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a Reference was made, and how well."""

    method: str  # rgbd, sfm, da3, hf, layout or tiny
    reason: str  # why this method: what `auto` saw, or that the user chose it
    quality: dict[str, float] = field(default_factory=dict)  # reprojection_error_px, inlier_share, ...
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A clip with geometry, on a timeline.

    Shapes: T frames of H x W pixels. Depth is z-depth in metres, 0 = unknown.
    """

    frames_u8: NDArray[np.uint8]  # RGB. [T, H, W, 3]
    depth_m: NDArray[np.float32]  # [T, H, W]
    intrinsics: Intrinsics
    T_world_camera: NDArray[np.float64]  # [T, 4, 4]
    fps: float
    scale: ScaleCard
    provenance: Provenance
    source: str  # the file or folder it came from
    is_static: bool = False  # all frames show the same moment; their order is not time

    def __post_init__(self) -> None:
        T, H, W = self.frames_u8.shape[:3]
        if self.frames_u8.dtype != np.uint8 or self.frames_u8.shape != (T, H, W, 3) or T < 1:
            raise InputError(f"frames are {self.frames_u8.dtype} {self.frames_u8.shape}: want uint8 T x H x W x 3")
        if self.depth_m.shape != (T, H, W) or self.depth_m.dtype != np.float32:
            raise InputError(f"depth is {self.depth_m.dtype} {self.depth_m.shape}: want float32 {(T, H, W)}")
        if (self.intrinsics.height_px, self.intrinsics.width_px) != (H, W):
            size = f"{self.intrinsics.width_px}x{self.intrinsics.height_px}"
            raise InputError(f"intrinsics are for {size} px: want the frames' {W}x{H}")
        if not np.all(np.isfinite(self.depth_m)) or self.depth_m.min() < 0:
            raise InputError("depth has NaN, inf or negative values: want metres, 0 where unknown")
        if not np.any(self.depth_m[0] > 0):
            raise InputError("depth of the first frame is all zero: want at least some known depth")
        if len(check_poses(self.T_world_camera, "T_world_camera")) != T:
            raise InputError(f"{len(self.T_world_camera)} poses for {T} frames: want one per frame")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps={self.fps}: want a positive number")

    @property
    def num_frames(self) -> int:
        return len(self.frames_u8)

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width)."""
        return self.frames_u8.shape[1], self.frames_u8.shape[2]

    @cached_property
    def typical_depth_m(self) -> float:
        """Median of the known depth of the first frame."""
        return float(np.median(self.depth_m[0][self.depth_m[0] > 0]))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write a folder of ordinary files; it appears whole or not at all.

        Raises:
            InputError: the folder exists (unless `overwrite`), holds other files, or cannot be written.
        """
        write_contents(self._contents(), Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> Reference:
        """Read what `save` wrote, bit-exact; the content hash is checked.

        Raises:
            InputError: a file is missing, damaged or of another version; the message names it.
        """
        folder = Path(folder)
        contents, expected = read_contents(folder)
        with naming_the_file(folder):
            described = dict(contents.described)
            intrinsics = Intrinsics(**described["intrinsics"])
            scale = ScaleCard(**described["scale"])
            provenance = described["provenance"]
            provenance = Provenance(**{**provenance, "warnings": tuple(provenance["warnings"])})
            fps, is_static = float(described["fps"]), described.get("is_static", False)  # present only if true
            if type(is_static) is not bool:
                raise InputError(f"is_static is {is_static!r}: want true or false")
        try:
            reference = cls(
                frames_u8=contents.frames_u8,
                depth_m=contents.depth_m,
                intrinsics=intrinsics,
                T_world_camera=contents.T_world_camera,
                fps=fps,
                scale=scale,
                provenance=provenance,
                source=contents.source,
                is_static=is_static,
            )
        except InputError as error:
            raise InputError(f"reference folder {folder}: {error}") from error
        if contents.fingerprint() != expected:
            raise InputError(f"reference folder {folder}: content does not match its fingerprint: damaged or edited")
        return reference

    def fingerprint(self) -> str:
        """SHA-256 of everything in it but `source`: equal content, equal fingerprint, wherever it is stored."""
        return self._contents().fingerprint()

    def _contents(self) -> Contents:
        described = {
            "fps": float(self.fps),
            "intrinsics": asdict(self.intrinsics),
            "scale": asdict(self.scale),
            "provenance": {**asdict(self.provenance), "warnings": list(self.provenance.warnings)},
        }
        return Contents(
            frames_u8=self.frames_u8,
            depth_m=self.depth_m,
            T_world_camera=self.T_world_camera,
            described=described | {"is_static": True}
            if self.is_static
            else described,  # others keep their fingerprints
            source=self.source,
        )
