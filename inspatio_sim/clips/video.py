"""Clips in and out: video files, images and image folders become a `Clip`; frames become a video file.

A video file is decoded with PyAV (FFmpeg), images with Pillow (`images.py`), a folder with depth by
`rgbd_folder.py`. Every frame is cropped and resized as it is read (`framing.py`), so full-size clips are never in
memory.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from inspatio_sim.clips.cuts import NUM_AROUND, CutFinder
from inspatio_sim.clips.framing import MAX_CLIP_BYTES, MAX_FPS, MIN_FPS, ClipRequest, Framing, check_side
from inspatio_sim.clips.image_kinds import IMAGE_SUFFIXES, NOT_READ, check_kind, is_image_file
from inspatio_sim.clips.images import Film, check_readable, files_with_suffix, open_film, read_image
from inspatio_sim.clips.rgbd_layout import check_no_depth, is_rgbd_folder, rgbd_files
from inspatio_sim.clips.video_file import opened
from inspatio_sim.clips.video_pixels import add_note, color_space, color_tags, deinterlaced, orientation, rgb_of
from inspatio_sim.clips.video_timing import Pace, Tally, Timeline, at_constant_rate, pace_of
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.progress import Progress

logger = logging.getLogger(__name__)

IMAGE_FPS = 24.0  # rate of images that come without one
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")  # what `VideoWriter` writes

_NAMED_SCENES = 2  # of a clip with many: the longest
_BT709 = 1  # ITU-T H.273 code for colour primaries, transfer and matrix
_ENCODER_THREADS = 4  # fixed: x264's bytes depend on the number of threads


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames, upright and at the target size, with any geometry that came with them."""

    frames_u8: NDArray[np.uint8]  # RGB. [T, H, W, 3]
    fps: float
    source: str  # the path that was read
    depth_m: NDArray[np.float32] | None = None  # z-depth, 0 = unknown. [T, H, W]
    intrinsics: Intrinsics | None = None
    T_world_camera: NDArray[np.float64] | None = None  # [T, 4, 4]
    start_frame: int = 0  # how many frames were skipped before the first
    cuts: tuple[int, ...] = ()  # the first frames of further scenes; looked for in video files only
    notes: tuple[str, ...] = ()  # what reading changed, one sentence each; shown in reports

    def __post_init__(self) -> None:
        if self.frames_u8.ndim != 4 or self.frames_u8.shape[3] != 3 or self.frames_u8.dtype != np.uint8:
            came = f"{self.frames_u8.dtype} {self.frames_u8.shape}"
            raise InputError(f"{self.source}: frames are {came}: want uint8 T x H x W x 3")
        T, H, W = self.frames_u8.shape[:3]
        if T < 1:
            raise InputError(f"{self.source}: no frames: want at least one")
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise InputError(f"{self.source}: fps={self.fps:g}: want {MIN_FPS:g} to {MAX_FPS:g} Hz")
        if self.depth_m is not None and self.depth_m.shape != (T, H, W):
            raise InputError(f"{self.source}: depth has shape {self.depth_m.shape}: want the frames' {(T, H, W)}")
        if self.intrinsics is not None and (self.intrinsics.height_px, self.intrinsics.width_px) != (H, W):
            size = f"{self.intrinsics.width_px}x{self.intrinsics.height_px}"
            raise InputError(f"{self.source}: intrinsics are for {size} px: want the frames' {W}x{H}")
        if self.T_world_camera is not None and self.T_world_camera.shape != (T, 4, 4):
            came = self.T_world_camera.shape
            raise InputError(f"{self.source}: poses have shape {came}: want {(T, 4, 4)}, one per frame")

    def check_one_scene(self) -> None:
        """Refuse a clip with cuts: nothing says how the places of two scenes lie to each other."""
        if not self.cuts:
            return
        edges = [self.start_frame + frame_idx for frame_idx in (0, *self.cuts, len(self.frames_u8))]
        scenes = sorted(itertools.pairwise(edges), key=lambda scene: scene[0] - scene[1])[:_NAMED_SCENES]
        named = [
            f"{start} to {stop - 1} (--start-frame {start} --max-frames {stop - start})"
            for start, stop in sorted(scenes)
        ]
        raise InputError(
            f"{self.source}: {len(self.cuts) + 1} scenes, with cuts before frame "
            f"{_listed(edges[1:-1])}: want one of them, such as frames {' or '.join(named)}"
        )


def read_clip(
    path: str | Path | Sequence[str | Path],
    *,
    size_px: tuple[int, int] | None = None,
    start_frame: int = 0,
    max_frames: int | None = None,
    every: int = 1,
    fps: float | None = None,
    max_bytes: int = MAX_CLIP_BYTES,
    progress: Progress | None = None,
) -> Clip:
    """Read a video, an image, several images, a folder of images or an RGB-D folder.

    A variable frame rate becomes constant: each tick gets the frame nearest in time. An animation
    (GIF, WebP, PNG, AVIF or a TIFF of several pages) is also a video. Frames are
    turned upright by rotation metadata or EXIF, except in RGB-D folders, where K belongs to the
    pixels as stored. Transparent parts are composited over black. A damaged video gives the frames that
    can be decoded, with a logged warning; if there are none it raises InputError.

    Args:
        path: a file, a folder, or a list of image files.
        size_px: target (height, width), reached by centre crop and resize; K follows. None keeps the
            size, without an odd last row or column.
        start_frame: number of frames to skip, counted after `fps` and `every`.
        max_frames: maximum number of frames.
        every: use every N-th frame; divides the clip's fps.
        fps: for video and RGB-D folders: resample to this rate before `every`. For images: the
            rate they were taken at (24 if None).
        max_bytes: raise InputError for clips whose frames need more memory.
        progress: called with the share read.

    Raises:
        InputError: one line that names the file and what is wrong with it.
    """
    request = ClipRequest(
        size_px=size_px,
        start_frame=start_frame,
        max_frames=max_frames,
        every=every,
        fps=fps,
        max_bytes=max_bytes,
        progress=progress,
    )
    if not isinstance(path, (str, Path)):
        return _read_images(_checked_image_list([Path(p) for p in path]), request)
    source = Path(path)
    check_readable(source)
    if source.is_dir():
        return _read_folder(source, request)
    if not source.is_file():
        raise InputError(f"{source}: want a file or a folder")
    if not is_image_file(source):
        return _read_video(source, request)
    film = open_film(source)
    return _read_film(film, request) if film else _read_images([source], request)


def clip_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that `read_clip` would read, in order; raises InputError for anything that cannot be a clip."""
    if not isinstance(path, (str, Path)):
        return _checked_image_list([Path(p) for p in path])
    source = Path(path)
    check_readable(source)
    if source.is_dir():
        return _folder_files(source)
    if not source.is_file():
        raise InputError(f"{source}: want a file or a folder")
    return [source]


def _folder_files(folder: Path) -> list[Path]:
    from inspatio_sim.reference.files import META_NAME

    if (folder / META_NAME).is_file():  # its preview is an image, but not a clip
        raise InputError(
            f"{folder}: a saved reconstruction: want the clip that it was made from, or World(Reference.load(folder))"
        )
    if is_rgbd_folder(folder):
        return rgbd_files(folder)
    paths = files_with_suffix(folder, IMAGE_SUFFIXES)
    if not paths:
        for path in files_with_suffix(folder, frozenset(NOT_READ)):
            check_kind(path)  # raises
        raise InputError(f"{folder}: no images and no RGB-D layout in this folder: want png or jpg files")
    return paths


def _read_folder(folder: Path, request: ClipRequest) -> Clip:
    from inspatio_sim.clips.rgbd_folder import read_rgbd_folder  # it imports Clip from here

    if is_rgbd_folder(folder):
        return read_rgbd_folder(folder, request)
    return _read_images(_folder_files(folder), request, source=folder)


# Images


def _checked_image_list(paths: list[Path]) -> list[Path]:
    if not paths:
        raise InputError("no images in the list: want at least one path")
    for path in paths:
        check_readable(path)
        if path.suffix.lower() not in IMAGE_SUFFIXES and not is_image_file(path):
            raise InputError(f"{path}: in a list of several paths each must be an image (png, jpg, ...)")
    check_no_depth(paths)
    return paths


def _read_images(paths: list[Path], request: ClipRequest, source: Path | None = None) -> Clip:
    frame_idxs, fps = request.choose(len(paths), request.fps or IMAGE_FPS, str(source or paths[0]))
    pixels = bytearray()
    framing = None
    for num_done, frame_idx in enumerate(frame_idxs):
        rgb_u8 = read_image(paths[frame_idx])
        if framing is None:
            framing = Framing.fit(_size_px(rgb_u8), request.size_px)
            request.check_memory(len(frame_idxs) * framing.height_px * framing.width_px * 3, str(source or paths[0]))
        if not framing.fits(rgb_u8):
            size = f"{framing.source_width_px}x{framing.source_height_px}"
            came = f"{rgb_u8.shape[1]}x{rgb_u8.shape[0]}"
            raise InputError(f"{paths[frame_idx]}: {came} px, but {paths[0].name} has {size}: want one size")
        pixels += framing.color(rgb_u8).data
        request.report(num_done + 1, len(frame_idxs))
    assert framing is not None, "choose() returns at least one index"
    return Clip(
        frames_u8=_as_frames(pixels, framing),
        fps=fps,
        source=str(source or paths[0]),
        start_frame=request.start_frame,
    )


def _read_film(film: Film, request: ClipRequest) -> Clip:
    """An animation, at its usual rate; an image that is shown longer is repeated."""
    durations_s = np.array(film.durations_s or [1 / (request.fps or IMAGE_FPS)] * len(film.pages))
    usual_s = float(np.clip(np.median(durations_s), 1 / MAX_FPS, 1 / MIN_FPS))
    is_pause = np.array([Pace(interval_s=usual_s, duration_s=0).is_pause(s) for s in durations_s])
    notes = [f"pauses of {durations_s[is_pause].sum():.1f} s in all are taken out"] if is_pause.any() else []
    ends_s = np.cumsum(np.where(is_pause, usual_s, durations_s))
    step_s = request.every / (request.fps or 1 / usual_s)
    num_ticks = int(np.ceil((ends_s[-1] - 0.25 * min(step_s, usual_s)) / step_s))  # rounding adds no frame
    request.check_start(num_ticks, str(film.path))
    num_frames = request.num_taken(num_ticks)
    framing = Framing.fit(_size_px(next(film.frames())), request.size_px)
    request.check_memory(num_frames * framing.height_px * framing.width_px * 3, str(film.path))

    times_s = (request.start_frame + np.arange(num_frames)) * step_s + min(step_s, usual_s) / 2
    num_shown = np.bincount(np.searchsorted(ends_s, times_s))  # number of repeats of each image
    pixels = bytearray()
    for times, rgb_u8 in zip(num_shown.tolist(), film.frames(), strict=False):  # the last ones may be unused
        pixels += framing.color(rgb_u8).tobytes() * times
        request.report(len(pixels) // (framing.height_px * framing.width_px * 3), num_frames)
    if film.durations_s and request.fps is None and request.every == 1:
        num_seen = num_shown[np.flatnonzero(num_shown)[0] :]
        num_left_out, num_repeats = int((num_seen == 0).sum()), int(np.maximum(num_seen - 1, 0).sum())
        tally = Tally(num_frames=len(num_seen), num_left_out=num_left_out, num_repeats=num_repeats)
        notes += tally.notes(1 / usual_s)
    for note in notes:
        logger.warning("%s: %s", film.path, note)
    return Clip(
        frames_u8=_as_frames(pixels, framing),
        fps=1 / step_s,
        source=str(film.path),
        start_frame=request.start_frame,
        notes=tuple(notes),
    )


def _listed(frame_idxs: list[int]) -> str:
    """A few of them, and how many more."""
    more = f" and {len(frame_idxs) - 5} more" if len(frame_idxs) > 5 else ""
    return ", ".join(map(str, frame_idxs[:5])) + more


def _as_frames(pixels: bytearray, framing: Framing) -> NDArray[np.uint8]:
    """View the collected bytes as [T, H, W, 3], without a copy."""
    return np.frombuffer(pixels, np.uint8).reshape(-1, framing.height_px, framing.width_px, 3)


def _size_px(image: NDArray) -> tuple[int, int]:
    """(height, width)."""
    return image.shape[0], image.shape[1]


# Video in


def _read_video(path: Path, request: ClipRequest) -> Clip:
    with opened(path) as (container, stream):
        check_side(stream.codec_context.height, stream.codec_context.width, str(path))
        pace = pace_of(container, stream, request)
    step_s = request.every / (request.fps or pace.fps)
    expected = request.num_taken(max(1, round(pace.duration_s / step_s)))
    with opened(path) as (container, stream):
        pixel_aspect = float(stream.sample_aspect_ratio or 1)  # the container's takes precedence over the stream's
        container_tags = color_tags(stream.codec_context)
        notes: list[str] = []
        pixels = bytearray()
        framing = turn = None
        times_s: list[float] = []
        timeline, tally, finder = Timeline(container, stream, pace), Tally(), CutFinder()
        watched = finder.watch(deinterlaced(timeline, path, notes))
        timed_frames = at_constant_rate(watched, step_s, pace.interval_s, tally)
        for time_s, frame in itertools.islice(timed_frames, request.start_frame, None):
            times_s.append(time_s)
            num_frames = len(times_s)
            space = color_space(frame, stream.codec_context, container_tags)
            turn = orientation(frame, turn)
            rgb = turn.upright(rgb_of(frame, path, space))
            if framing is None or not framing.fits(rgb):
                aspect = 1 / pixel_aspect if turn.is_transposed else pixel_aspect
                framing = Framing.fit(_size_px(rgb), framing.size_px if framing else request.size_px, aspect)
                check_side(*framing.size_px, str(path))
            frame_bytes = framing.height_px * framing.width_px * 3
            request.check_memory(max(expected, num_frames) * frame_bytes, str(path))
            framed = framing.color(rgb)
            if space is not None:
                framed = space.to_sdr(framed)
                add_note(notes, path, space.note)
            pixels += framed.data
            request.report(num_frames, expected)
            if request.is_full(num_frames):
                break
        if framing is None and tally.num_frames:
            request.check_start(tally.num_ticks, str(path))
        if framing is None:
            raise InputError(f"{path}: no frame can be decoded: the video is empty or cut off")
        keeps_rate = request.fps is None and request.every == 1
        of_time = [*timeline.notes(path), *(tally.notes(pace.fps) if keeps_rate else [])]
        for note in of_time:
            logger.warning("%s: %s", path, note)
        for _ in itertools.islice(watched, NUM_AROUND):  # a cut near the end may be a flash
            pass
        cuts = np.searchsorted(times_s, finder.finish())
    return Clip(
        frames_u8=_as_frames(pixels, framing),
        fps=1 / step_s,
        source=str(path),
        start_frame=request.start_frame,
        cuts=tuple(int(cut) for cut in np.unique(cuts) if 0 < cut < len(times_s)),
        notes=(*notes, *of_time),
    )


# Video out


class VideoWriter:
    """Writes an H.264 file frame by frame; the file appears under its name when the block succeeds.

    On an exception or Ctrl-C nothing is left behind. Odd sizes are padded to even ones by repeating
    the last row or column. The same frames give the same bytes.

        with VideoWriter("walk.mp4", fps=24) as video:
            video.write(rgb_u8)
    """

    def __init__(self, path: str | Path, fps: float, *, crf: int = 18) -> None:
        """Set up; nothing is written yet.

        Args:
            path: .mp4, .mov or .mkv.
            fps: frames per second.
            crf: x264's quality, 0 (lossless) to 51; 18 is visually lossless.
        """
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise InputError(f"{self.path}: want a file name that ends in {', '.join(VIDEO_SUFFIXES)}")
        if not MIN_FPS <= fps <= MAX_FPS:
            raise InputError(f"fps={fps}: want {MIN_FPS:g} to {MAX_FPS:g} Hz")
        if not 0 <= crf <= 51:
            raise InputError(f"crf={crf}: want 0 to 51")
        self.fps = fps
        self.crf = crf
        self.num_frames = 0
        self._size_px: tuple[int, int] | None = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        self._session = self._writing()
        self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, traceback)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write to a temporary file that becomes the real one at the end."""
        with replacing(self.path) as temporary:
            with writing_to(self.path):
                self._container = av.open(str(temporary.absolute()), "w")
            try:
                yield
                if self._stream is None:
                    raise InputError(f"{self.path}: no frames were written: want at least one")
                self._mux(None)
                with writing_to(self.path):
                    self._container.close()
            finally:
                with suppress(OSError):  # a second close is harmless; after an error the file is removed anyway
                    self._container.close()

    def write(self, rgb_u8: NDArray[np.uint8]) -> None:
        """Append a frame; all must have the size of the first. [H, W, 3]"""
        if rgb_u8.ndim != 3 or rgb_u8.shape[2] != 3 or rgb_u8.dtype != np.uint8:
            raise InputError(f"frame {self.num_frames} is {rgb_u8.dtype} {rgb_u8.shape}: want uint8 H x W x 3")
        if self._stream is None:
            self._add_stream(*_size_px(rgb_u8))
        height_px, width_px = _size_px(rgb_u8)
        if (height_px, width_px) != self._size_px:
            raise InputError(f"frame {self.num_frames} is {_size_px(rgb_u8)}: want {self._size_px} like the first")
        even = np.pad(rgb_u8, ((0, height_px % 2), (0, width_px % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts = self.num_frames
        self._mux(frame)
        self.num_frames += 1

    def _add_stream(self, height_px: int, width_px: int) -> None:
        self._size_px = (height_px, width_px)
        rate = Fraction(self.fps).limit_denominator(1001)  # 29.97 stays exact
        options = {"crf": str(self.crf), "preset": "veryfast"}
        stream = self._container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = width_px + width_px % 2, height_px + height_px % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.thread_count = _ENCODER_THREADS
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._stream = stream

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or flush the encoder with None."""
        with writing_to(self.path):
            for packet in self._stream.encode(frame):
                self._container.mux(packet)


def write_clip(path: str | Path, frames_u8: Iterable[NDArray[np.uint8]], fps: float, *, crf: int = 18) -> None:
    """Write all frames to one video file; see `VideoWriter`. [T, H, W, 3] or any iterable of [H, W, 3]"""
    with VideoWriter(path, fps, crf=crf) as video:
        for rgb_u8 in frames_u8:
            video.write(rgb_u8)
