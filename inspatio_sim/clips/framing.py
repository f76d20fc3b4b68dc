"""Which frames of a clip to read (`ClipRequest`), and how a frame gets its target size (`Framing`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.progress import Progress

MIN_SIDE_PX = 16  # smaller than any network's receptive field, or a broken file
MAX_IMAGE_PX = 100_000_000  # a header that asks for more is refused before anything is decoded
MIN_FPS, MAX_FPS = 0.001, 1000.0
READING = "reading the clip"  # label of the progress bar
MAX_CLIP_BYTES = 4 * 1024**3  # decoded frames and depth: 3,500 frames at 480x832

PixelT = TypeVar("PixelT", np.uint8, np.uint16)


@dataclass(frozen=True, kw_only=True)
class ClipRequest:
    """Which frames of a clip to read, and at what size."""

    size_px: tuple[int, int] | None = None  # (height, width); None keeps the size, made even
    start_frame: int = 0  # skip this many of the frames that would be read
    max_frames: int | None = None
    every: int = 1  # use every N-th frame; divides the clip's fps
    fps: float | None = None  # resample to this rate; None keeps the rate of the source
    max_bytes: int = MAX_CLIP_BYTES  # refuse clips that need more memory
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.size_px is not None:
            check_side(*self.size_px, name="size_px")
        if self.start_frame < 0:
            raise InputError(f"start_frame={self.start_frame}: want 0 or more")
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"max_frames={self.max_frames}: want at least 1")
        if self.every < 1:
            raise InputError(f"every={self.every}: want at least 1")
        if self.fps is not None and not MIN_FPS <= self.fps <= MAX_FPS:
            raise InputError(f"fps={self.fps}: want {MIN_FPS:g} to {MAX_FPS:g} Hz")

    def is_full(self, num_frames: int) -> bool:
        """Whether `num_frames` completes the request."""
        return self.max_frames is not None and num_frames >= self.max_frames

    def report(self, num_frames: int, expected: int | None) -> None:
        """Report progress; it stays at 0 for a file of unknown length."""
        if self.progress is not None:
            self.progress(READING, min(1.0, num_frames / expected) if expected else 0.0)

    def num_taken(self, num_frames: int) -> int:
        """Number of frames read, out of this many at the clip's rate."""
        num_left = max(num_frames - self.start_frame, 0)
        return num_left if self.max_frames is None else min(num_left, self.max_frames)

    def check_start(self, num_frames: int, source: str) -> None:
        """Raise InputError if the start is after the last of this many frames."""
        if self.start_frame >= num_frames:
            raise InputError(f"{source}: start_frame={self.start_frame}: the clip has {num_frames} frames")

    def choose(self, num_frames: int, source_fps: float, source: str = "the clip") -> tuple[list[int], float]:
        """Indices of the frames to read from a sequence of constant rate, and the clip's fps."""
        step = self.every * (source_fps / self.fps if self.fps else 1.0)
        num_chosen = int(np.ceil((num_frames - 0.25 * min(step, 1.0)) / step))  # rounding adds no frame
        self.check_start(num_chosen, source)
        frame_idxs = [min(int(k * step + 0.5), num_frames - 1) for k in range(num_chosen)]
        return frame_idxs[self.start_frame :][: self.max_frames], source_fps / step

    def check_memory(self, num_bytes: float, source: str) -> None:
        """Raise InputError, with advice, for a clip that does not fit in memory."""
        if num_bytes > self.max_bytes:
            need, limit = num_bytes / 1024**3, self.max_bytes / 1024**3
            raise InputError(
                f"{source}: the frames need {need:.2g} GiB of memory, more than {limit:.2g} GiB: "
                "take fewer (--max-frames, --every) or smaller ones (--size)"
            )


@dataclass(frozen=True, kw_only=True)
class Framing:
    """A centre crop to the target's aspect, then a resize: the same for colour, depth and K."""

    source_height_px: int
    source_width_px: int
    top_px: int
    left_px: int
    crop_height_px: int
    crop_width_px: int
    height_px: int
    width_px: int

    @classmethod
    def fit(
        cls, source_px: tuple[int, int], size_px: tuple[int, int] | None = None, pixel_aspect: float = 1.0
    ) -> Framing:
        """Cut as little as possible.

        Args:
            source_px: (height, width) of the source.
            size_px: target (height, width). None: the source's own size, stretched to square pixels, odd rows and
                columns cut.
            pixel_aspect: width of a source pixel over its height; not 1 in anamorphic video.
        """
        height_px, width_px = source_px
        if size_px is None and pixel_aspect == 1.0:
            size_px = crop = (_even(height_px), _even(width_px))
        else:
            if size_px is None:  # stretch to square pixels without losing any
                taller, wider = max(1.0, 1 / pixel_aspect), max(1.0, pixel_aspect)
                size_px = _even(round(height_px * taller)), _even(round(width_px * wider))
            aspect = size_px[1] / size_px[0] / pixel_aspect  # aspect of the crop, in source pixels
            crop = (
                min(height_px, max(1, round(width_px / aspect))),
                min(width_px, max(1, round(height_px * aspect))),
            )
        return cls(
            source_height_px=height_px,
            source_width_px=width_px,
            top_px=(height_px - crop[0]) // 2,
            left_px=(width_px - crop[1]) // 2,
            crop_height_px=crop[0],
            crop_width_px=crop[1],
            height_px=size_px[0],
            width_px=size_px[1],
        )

    @property
    def size_px(self) -> tuple[int, int]:
        """The target: (height, width)."""
        return self.height_px, self.width_px

    def fits(self, image: NDArray) -> bool:
        """Whether the image has the source size of this framing."""
        return image.shape[:2] == (self.source_height_px, self.source_width_px)

    def _cropped(self, image: NDArray) -> NDArray:
        rows = slice(self.top_px, self.top_px + self.crop_height_px)
        return image[rows, self.left_px : self.left_px + self.crop_width_px]

    def color(self, rgb: NDArray[PixelT]) -> NDArray[PixelT]:
        """Crop and resize a picture, area-averaged when it shrinks; 8 or 16 bits stay. [H, W, 3]"""
        crop = self._cropped(rgb)
        if crop.shape[:2] == self.size_px:
            return np.ascontiguousarray(crop)
        is_smaller = self.height_px * self.width_px < self.crop_height_px * self.crop_width_px
        method = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
        return cv2.resize(crop, (self.width_px, self.height_px), interpolation=method).astype(rgb.dtype, copy=False)

    def depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Crop and resize depth by nearest sample, so that near and far do not mix. [H, W]"""
        rows = ((np.arange(self.height_px) + 0.5) * (self.crop_height_px / self.height_px)).astype(int)
        cols = ((np.arange(self.width_px) + 0.5) * (self.crop_width_px / self.width_px)).astype(int)
        return self._cropped(depth_m)[np.ix_(rows, cols)]

    def intrinsics(self, intrinsics: Intrinsics) -> Intrinsics:
        """K of the framed image: the same ray through the same content."""
        crop = intrinsics.cropped(self.left_px, self.top_px, self.crop_width_px, self.crop_height_px)
        return crop.resized(self.width_px, self.height_px)


def check_side(height_px: int, width_px: int, name: str) -> None:
    """Raise InputError for images that are too small or too big."""
    if min(height_px, width_px) < MIN_SIDE_PX:
        raise InputError(f"{name}: {width_px}x{height_px} px is too small: want at least {MIN_SIDE_PX}x{MIN_SIDE_PX}")
    if height_px * width_px > MAX_IMAGE_PX:
        limit = MAX_IMAGE_PX // 1_000_000
        raise InputError(f"{name}: {width_px}x{height_px} px is too big: want at most {limit} million pixels")


def _even(side_px: int) -> int:
    return side_px - side_px % 2
