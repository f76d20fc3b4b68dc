"""A decoded video frame as an image: deinterlaced, upright, 8-bit RGB as an SDR screen shows it.

The tags (matrix, range, transfer, primaries, display matrix, field flags) are those of
ITU-T H.273, which FFmpeg passes on with every frame.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from inspatio_sim.clips.framing import PixelT
from inspatio_sim.clips.images import over_black
from inspatio_sim.errors import InputError

logger = logging.getLogger(__name__)

TimedFrame = tuple[float, av.VideoFrame]
"""Seconds since the first frame, and the frame."""

_FULL_RANGE_FORMATS = ("gray", "ya", "yuvj")  # 0 is black and 255 white, unless tagged otherwise

# H.273 matrix codes; swscale reads unspecified as BT.601, fails on the reserved ones, and lacks the others
_UNSPECIFIED_MATRIX, _RESERVED_MATRIX, _BT601_MATRIX, _BT2020_MATRIX = 2, 3, 5, 9
_UNKNOWN_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "Y'D'zD'x",
    12: "chromaticity-derived",
    13: "chromaticity-derived with constant luminance",
    14: "ICtCp",
    15: "IPT-C2 (Dolby Vision)",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}

# H.273 transfer codes
_UNSPECIFIED, _GAMMA22, _GAMMA28, _SRGB, _PQ, _HLG = 2, 4, 5, 13, 16, 18
_TRANSFER_NAMES = {_PQ: "PQ", _HLG: "HLG"}

# H.273 primaries codes
_BT709, _BT2020, _DCI_P3, _DISPLAY_P3 = 1, 9, 11, 12
_PRIMARIES_NAMES = {_BT709: "BT.709", _BT2020: "BT.2020", _DCI_P3: "DCI-P3", _DISPLAY_P3: "Display P3"}
_P3_XY = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_PRIMARIES_XY = {
    _BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),  # ITU-R BT.709-6
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # ITU-R BT.2020-2
    _DCI_P3: _P3_XY,  # SMPTE RP 431-2; cameras that write this code mean D65 as white
    _DISPLAY_P3: _P3_XY,  # SMPTE EG 432-1
}
_D65_XY = (0.3127, 0.3290)

_SDR_WHITE_NITS = 100.0  # white of the SDR reference display: ITU-R BT.2035
_SDR_GAMMA = 2.4  # gamma of that display: ITU-R BT.1886
_HLG_PEAK_NITS, _HLG_SYSTEM_GAMMA = 1000.0, 1.2  # ITU-R BT.2100-2, table 5: the nominal display
_PQ_PEAK_NITS = 1000.0  # if the file does not state its peak
_PQ_MAX_NITS = 10_000.0
_ROLL_OFF_STEPS = 4096  # steps of the table over the root of light: finer than 8 bits everywhere

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's decoder; for transparent VP8 and VP9 libvpx, since FFmpeg's own decoders drop transparency."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1":
        return stream.codec_context
    context: Any = av.CodecContext.create(name, "r")
    return context


# Whole pictures


def deinterlaced(timed_frames: Iterable[TimedFrame], path: Path, notes: list[str]) -> Iterator[TimedFrame]:
    """Deinterlace frames, each at the time of its first field; progressive frames pass unchanged.

    The flags in files are often wrong, so `idet` looks at the fields themselves: progressive video that is
    flagged as interlaced is left alone, and the field order is the one that makes motion smooth.

    Args:
        timed_frames: decoded frames; the output has the same number and times.
        path: the file, for the log.
        notes: gets an entry if frames were deinterlaced.
    """
    deinterlacer = None
    for time_s, frame in timed_frames:
        if deinterlacer is not None and not deinterlacer.fits(frame):
            yield from deinterlacer.flush()
            deinterlacer = None
        if deinterlacer is None and not frame.interlaced_frame:
            yield time_s, frame
            continue
        if deinterlacer is None:
            deinterlacer = _Deinterlacer(frame)
            add_note(notes, path, "interlaced: each pair of fields became one whole picture (bwdif)")
        yield from deinterlacer.push(time_s, frame)
    if deinterlacer is not None:
        yield from deinterlacer.flush()


class _Deinterlacer:
    """FFmpeg's filters `idet` and `bwdif` for frames of one size and format; they look one frame ahead."""

    def __init__(self, first: av.VideoFrame) -> None:
        """Set up for frames like the first."""
        self._shape = _shape(first)
        self._times_s: deque[float] = deque()
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base
        )
        detector = self._graph.add("idet")
        filler = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = self._graph.add("buffersink")
        for left, right in ((source, detector), (detector, filler), (filler, sink)):
            left.link_to(right)
        self._graph.configure()

    def fits(self, frame: av.VideoFrame) -> bool:
        return _shape(frame) == self._shape

    def push(self, time_s: float, frame: av.VideoFrame) -> Iterator[TimedFrame]:
        self._times_s.append(time_s)
        self._graph.push(frame)
        return self._pull()

    def flush(self) -> Iterator[TimedFrame]:
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> Iterator[TimedFrame]:
        while self._times_s:
            try:
                frame: Any = self._graph.pull()
            except (BlockingIOError, EOFError):  # waiting for the next frame
                return
            yield self._times_s.popleft(), frame


def _shape(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


# Upright


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """Orientation of stored pixels: transposed first, then mirrored."""

    is_transposed: bool = False
    is_mirrored: bool = False  # left to right
    is_flipped: bool = False  # top to bottom

    def upright(self, pixels: NDArray[PixelT]) -> NDArray[PixelT]:
        """Apply the orientation. [H, W, C]"""
        if self.is_transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.is_flipped else 1, :: -1 if self.is_mirrored else 1]


def orientation(frame: av.VideoFrame, before: Orientation | None) -> Orientation:
    """The nearest of the eight orientations to the frame's display matrix.

    Args:
        frame: a decoded frame; its side data includes the container's.
        before: orientation of the previous frame; a message beside a key frame holds for the frames after it.
    """
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Orientation() if before is None or frame.key_frame else before
    matrix = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)[:2, :2]
    (a, b), (c, d) = matrix.tolist()  # shown at x' = a x + c y, y' = b x + d y
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(is_transposed=True, is_mirrored=c < 0, is_flipped=b < 0)
    return Orientation(is_mirrored=a < 0, is_flipped=d < 0)


# Colours


@dataclass(frozen=True, kw_only=True)
class ColorSpace:
    """Colour space of a frame that an SDR screen would show wrongly: HDR or wide gamut."""

    transfer: int  # H.273 codes
    primaries: int
    peak_nits: float  # peak brightness; unused unless HDR

    @property
    def is_hdr(self) -> bool:
        return self.transfer in _TRANSFER_NAMES

    @property
    def note(self) -> str:
        primaries = _PRIMARIES_NAMES[self.primaries]
        if self.is_hdr:
            transfer = _TRANSFER_NAMES[self.transfer]
            return f"HDR ({transfer}, {primaries}): tone-mapped to SDR (BT.709), {self.peak_nits:g} to 100 nits"
        return f"wide gamut ({primaries}): converted to BT.709; more saturated colours are clipped"

    def to_sdr(self, rgb_u16: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Show on an SDR display (BT.709, white at 100 nits).

        HDR light above white is rolled off, in each channel (ITU-R BT.2390-8, 5.4.1); primaries are
        converted in linear light (ITU-R BT.2087), and colours outside BT.709 are clipped.

        Args:
            rgb_u16: signal, 65535 = 1. [H, W, 3]

        Returns:
            RGB. [H, W, 3]
        """
        light = _light_table(self)[rgb_u16]
        to_xyz = _rgb_to_xyz(self.primaries)
        if self.transfer == _HLG:
            luminance = cv2.transform(light, to_xyz[1:2]).reshape(*light.shape[:2], 1)
            light *= np.power(luminance, np.float32(_HLG_SYSTEM_GAMMA - 1))
            light = _roll_off_table(self.peak_nits)[(np.sqrt(light) * (_ROLL_OFF_STEPS - 1) + 0.5).astype(np.uint16)]
        linear = cv2.transform(light, np.linalg.inv(_rgb_to_xyz(_BT709)) @ to_xyz)
        signal = np.power(np.clip(linear, 0, 1), np.float32(1 / _gamma(self.transfer)))
        return (255 * signal + 0.5).astype(np.uint8)


def color_tags(context: av.VideoCodecContext) -> tuple[int, int]:
    """Transfer and primaries: of the container before anything is decoded, later of the stream as far as it came."""
    return int(context.color_trc), int(context.color_primaries)


def color_space(
    frame: av.VideoFrame, context: av.VideoCodecContext, container_tags: tuple[int, int]
) -> ColorSpace | None:
    """HDR or a wide gamut; None for what an SDR screen shows as it is.

    Args:
        frame: a decoded frame, whose tags count.
        context: its decoder, for PyAV 16, whose frames have none.
        container_tags: what counts where the frame is silent.
    """
    own_tags = (frame.color_trc, frame.color_primaries) if hasattr(frame, "color_trc") else color_tags(context)
    transfer, primaries = (
        other if own == _UNSPECIFIED else int(own) for own, other in zip(own_tags, container_tags, strict=True)
    )
    is_hdr = transfer in _TRANSFER_NAMES
    if primaries not in _PRIMARIES_XY:
        primaries = _BT2020 if is_hdr and primaries == _UNSPECIFIED else _BT709
    if not is_hdr and primaries == _BT709:
        return None
    peak_nits = _pq_peak_nits(frame) if transfer == _PQ else _HLG_PEAK_NITS
    return ColorSpace(transfer=transfer, primaries=primaries, peak_nits=peak_nits)


def _pq_peak_nits(frame: av.VideoFrame) -> float:
    """The content's brightest pixel, else its mastering display's white, else a common value."""
    nits = 0.0
    light_level: Any = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    if light_level is not None:
        nits = struct.unpack_from("=I", bytes(light_level))[0]  # AVContentLightMetadata.MaxCLL
    mastering: Any = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if nits == 0 and mastering is not None:
        numerator, denominator = struct.unpack_from("=2i", bytes(mastering), 72)  # its max_luminance
        nits = numerator / denominator if denominator else 0.0
    return float(np.clip(nits or _PQ_PEAK_NITS, _SDR_WHITE_NITS, _PQ_MAX_NITS))


@lru_cache(maxsize=4)
def _light_table(space: ColorSpace) -> NDArray[np.float32]:
    """Signal to light per channel: scene light for HLG (1 = peak), else display light (1 = SDR white). [65536]"""
    signal = np.arange(1 << 16) / 0xFFFF
    if space.transfer == _HLG:  # ITU-R BT.2100-2, table 5: the inverse OETF
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    elif space.transfer == _PQ:
        light = _rolled_off(_pq_nits(signal), space.peak_nits)
    else:
        light = signal ** _gamma(space.transfer)
    return light.astype(np.float32)


@lru_cache(maxsize=4)
def _roll_off_table(peak_nits: float) -> NDArray[np.float32]:
    """Root of light (1 = peak) to light on the SDR display (1 = white). [steps]"""
    return _rolled_off(peak_nits * np.linspace(0, 1, _ROLL_OFF_STEPS) ** 2, peak_nits).astype(np.float32)


def _rolled_off(nits: NDArray[np.float64], peak_nits: float) -> NDArray[np.float64]:
    """Light on a display whose white is `_SDR_WHITE_NITS`, 1 = white: ITU-R BT.2390-8, 5.4.1 (EETF) in its symbols."""
    L_W = _pq_signal(peak_nits)
    maxLum = _pq_signal(_SDR_WHITE_NITS) / L_W
    E_1 = np.minimum(_pq_signal(nits) / L_W, 1)
    KS = 1.5 * maxLum - 0.5
    T = np.maximum(E_1 - KS, 0) / max(1 - KS, 1e-9)
    P = (2 * T**3 - 3 * T**2 + 1) * KS + (T**3 - 2 * T**2 + T) * (1 - KS) + (3 * T**2 - 2 * T**3) * maxLum
    return _pq_nits(np.where(E_1 < KS, E_1, P) * L_W) / _SDR_WHITE_NITS


_M_1, _M_2, _C_1, _C_2, _C_3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # BT.2100-2, table 4


def _pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The display's light: EOTF."""
    root = signal ** (1 / _M_2)
    return _PQ_MAX_NITS * (np.maximum(root - _C_1, 0) / (_C_2 - _C_3 * root)) ** (1 / _M_1)


def _pq_signal(nits: Any) -> Any:
    """The inverse EOTF, of a number or an array."""
    power = (nits / _PQ_MAX_NITS) ** _M_1
    return ((_C_1 + _C_2 * power) / (1 + _C_3 * power)) ** _M_2


def _gamma(transfer: int) -> float:
    """Of the display that the signal is, or is to be, shown on."""
    return {_GAMMA22: 2.2, _SRGB: 2.2, _GAMMA28: 2.8}.get(transfer, _SDR_GAMMA)


@lru_cache(maxsize=4)
def _rgb_to_xyz(primaries: int) -> NDArray[np.float64]:
    """Linear RGB to CIE XYZ, white being D65. Source: SMPTE RP 177. [3, 3]"""
    (white_x, white_y), xy = _D65_XY, np.array(_PRIMARIES_XY[primaries])
    columns = np.stack([xy[:, 0], xy[:, 1], 1 - xy.sum(axis=1)])
    white = np.array([white_x, white_y, 1 - white_x - white_y]) / white_y
    return columns * np.linalg.solve(columns, white).astype(np.float64)


# RGB


def rgb_of(frame: av.VideoFrame, path: Path, space: ColorSpace | None) -> NDArray[Any]:
    """Convert a frame of any pixel format to RGB, transparent parts over black.

    Args:
        frame: a deinterlaced frame.
        path: the file, for errors.
        space: colour space of the frame.

    Returns:
        uint8, or uint16 if `space` has to convert it further. [H, W, 3]
    """
    if frame.colorspace in _UNKNOWN_MATRICES:
        raise InputError(
            f"{path}: colours are coded as {_UNKNOWN_MATRICES[frame.colorspace]}: want BT.601, BT.709, BT.2020 or RGB"
        )
    has_alpha = any(component.is_alpha for component in frame.format.components)
    if space is None:
        rgb_format = "rgba" if has_alpha else "rgb24"
    else:
        rgb_format = "gbrap16le" if has_alpha else "gbrp16le"
    frame.colorspace = _matrix(frame, space)  # the argument of `reformat` knows no BT.2020 in PyAV 17
    pixels = _converted(frame, rgb_format)
    return over_black(pixels) if has_alpha else pixels


def _matrix(frame: av.VideoFrame, space: ColorSpace | None) -> int:
    """The H.273 code to convert with, with a default for untagged frames."""
    if frame.colorspace == _RESERVED_MATRIX:
        return _BT601_MATRIX
    if frame.colorspace == _UNSPECIFIED_MATRIX and space is not None and space.primaries == _BT2020:
        return _BT2020_MATRIX
    return frame.colorspace


def _converted(frame: av.VideoFrame, rgb_format: str) -> NDArray[Any]:
    """Convert with the matrix and range the frame is tagged with. [H, W, 3 or 4]

    PyAV 16 uses the tags only if matrix or range change in the conversion, and never reads the range
    itself. So both are given; the target's matrix has no meaning for RGB and can be any.
    """
    color_range = frame.color_range
    if color_range == ColorRange.UNSPECIFIED and frame.format.name.startswith(_FULL_RANGE_FORMATS):
        color_range = ColorRange.JPEG
    rgb = frame.reformat(format=rgb_format, dst_colorspace=Colorspace.DEFAULT, src_color_range=color_range)
    return rgb.to_ndarray()


# Notes


def add_note(notes: list[str], path: Path, note: str) -> None:
    """Add a note once, to the log and to the clip."""
    if note not in notes:
        notes.append(note)
        logger.info("%s: %s", path, note)
