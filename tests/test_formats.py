"""What goes into a video file is what comes out, whatever the container, codec, colours and orientation."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError

H, W = 48, 80
UNSPECIFIED, BT709, BT2020, DISPLAY_P3 = 2, 1, 9, 12  # codes of ITU-T H.273, for primaries and matrices
BT601, FCC, SMPTE240M, YCGCO = 5, 4, 7, 8  # for matrices
BT709_CURVE, PQ, HLG = 1, 16, 18  # for transfer
LIMITED, FULL = 1, 2  # for range


def moving_frames(num_frames: int = 5, speed_px: int = 2) -> np.ndarray:
    """A coloured pattern that moves to the right: brighter to the bottom right, so that no turn goes unseen."""
    y, x = np.mgrid[0:H, 0:W]
    frames = []
    for n in range(num_frames):
        waves = np.sin((x - speed_px * n) / 5.0) + np.sin(y / 6.0)
        red, green, blue = 100 + x / 2 + 28 * waves, 60 + y + 28 * waves, 150 - x / 2 + y / 3
        frames.append(np.stack([red, green, blue], axis=-1))
    return np.array(frames).round().astype(np.uint8)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2 + 1e-12))


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str,
    pix_fmt: str = "yuv420p",
    *,
    rate: Fraction | int = 10,
    options: dict[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    tags: dict[str, int] | None = None,
    frame_format: str = "rgb24",
) -> Path:
    """Write frames with PyAV.

    Args:
        path: the suffix chooses the container.
        frames: pixels as `frame_format` lays them out.
        codec: FFmpeg's name of an encoder.
        pix_fmt: what the encoder gets.
        rate: frames a second.
        options: of the encoder.
        pixel_aspect: width of a pixel over its height.
        tags: colorspace, color_range and what else the codec's context has of this kind.
        frame_format: of `frames`.
    """
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = W, H, pix_fmt
        context = stream.codec_context
        if pixel_aspect:
            context.sample_aspect_ratio = pixel_aspect
        for name, value in (tags or {}).items():
            setattr(context, name, value)
        for n, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=frame_format)
            frame.pts, frame.time_base = n, 1 / Fraction(rate)
            if tags:
                frame.colorspace, frame.color_range = tags["colorspace"], tags["color_range"]
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


# Containers and codecs

LOSSLESS_DB, GOOD_DB, FAIR_DB, PALETTE_DB = 60, 36, 32, 18

FILES = {  # name: (suffix, encoder, pixel format, least PSNR)
    "h264": (".mp4", "libx264", "yuv420p", GOOD_DB),
    "h264-mov": (".mov", "libx264", "yuv420p", GOOD_DB),
    "h264-mkv": (".mkv", "libx264", "yuv420p", GOOD_DB),
    "h264-ts": (".ts", "libx264", "yuv420p", GOOD_DB),
    "h264-flv": (".flv", "libx264", "yuv420p", GOOD_DB),
    "h264-avi": (".avi", "libx264", "yuv420p", GOOD_DB),
    "h264-3gp": (".3gp", "libx264", "yuv420p", GOOD_DB),
    "h264-raw": (".h264", "libx264", "yuv420p", GOOD_DB),
    "h264-422-10bit": (".mov", "libx264", "yuv422p10le", GOOD_DB),
    "h264-444": (".mp4", "libx264", "yuv444p", GOOD_DB),
    "h264-full-range": (".mp4", "libx264", "yuvj420p", GOOD_DB),
    "h264-rgb": (".mkv", "libx264rgb", "rgb24", GOOD_DB),
    "hevc": (".mp4", "libx265", "yuv420p", GOOD_DB),
    "hevc-10bit": (".mov", "libx265", "yuv420p10le", GOOD_DB),
    "hevc-12bit": (".mkv", "libx265", "yuv444p12le", GOOD_DB),
    "hevc-raw": (".hevc", "libx265", "yuv420p", GOOD_DB),
    "vp8": (".webm", "libvpx", "yuv420p", FAIR_DB),
    "vp8-ogg": (".ogv", "libvpx", "yuv420p", FAIR_DB),
    "vp9": (".webm", "libvpx-vp9", "yuv420p", GOOD_DB),
    "vp9-ivf": (".ivf", "libvpx-vp9", "yuv444p", GOOD_DB),
    "av1": (".mp4", "libsvtav1", "yuv420p", GOOD_DB),
    "av1-10bit": (".webm", "libsvtav1", "yuv420p10le", GOOD_DB),
    "mpeg1": (".mpg", "mpeg1video", "yuv420p", FAIR_DB),
    "mpeg2": (".mpg", "mpeg2video", "yuv420p", FAIR_DB),
    "mpeg2-ts": (".ts", "mpeg2video", "yuv420p", FAIR_DB),
    "mpeg2-mxf": (".mxf", "mpeg2video", "yuv422p", FAIR_DB),
    "mpeg4-avi": (".avi", "mpeg4", "yuv420p", FAIR_DB),
    "mpeg4-raw": (".m4v", "mpeg4", "yuv420p", FAIR_DB),
    "wmv": (".wmv", "wmv2", "yuv420p", FAIR_DB),
    "flv1": (".flv", "flv", "yuv420p", FAIR_DB),
    "mjpeg": (".avi", "mjpeg", "yuvj422p", FAIR_DB),
    "mjpeg-mov": (".mov", "mjpeg", "yuvj420p", FAIR_DB),
    "prores": (".mov", "prores_ks", "yuv422p10le", GOOD_DB),
    "ffv1": (".mkv", "ffv1", "bgr0", LOSSLESS_DB),
    "ffv1-16bit": (".mkv", "ffv1", "gbrp16le", LOSSLESS_DB),
    "huffyuv": (".avi", "huffyuv", "rgb24", LOSSLESS_DB),
    "png": (".mov", "png", "rgb24", LOSSLESS_DB),
    "qtrle": (".mov", "qtrle", "rgb24", LOSSLESS_DB),
    "rawvideo": (".avi", "rawvideo", "bgr24", LOSSLESS_DB),
    "rawvideo-nv12": (".mkv", "rawvideo", "nv12", GOOD_DB),
    "gif": (".gif", "gif", "rgb8", PALETTE_DB),
}


@pytest.mark.parametrize("name", FILES)
def test_frames_come_back_from_every_kind_of_file(tmp_path, name):
    suffix, codec, pix_fmt, least_db = FILES[name]
    frames = moving_frames()
    path = encode(tmp_path / f"clip{suffix}", frames, codec, pix_fmt, rate=25)
    clip = read_clip(path)
    assert clip.frames_u8.shape == frames.shape
    assert psnr_db(clip.frames_u8, frames) > least_db
    assert np.abs(clip.frames_u8.mean(axis=(0, 1, 2)) - frames.mean(axis=(0, 1, 2))).max() < 3
    assert clip.notes == ()


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25, 2), 60, 120])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_the_rate_is_the_streams(tmp_path, rate, suffix):
    clip = read_clip(encode(tmp_path / f"clip{suffix}", moving_frames(), "mpeg4", rate=rate))
    assert clip.frames_u8.shape == (5, H, W, 3)
    assert clip.fps == pytest.approx(float(rate), rel=1e-3)


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt", "options"), [
    (".mov", "prores_ks", "yuva444p10le", {"profile": "4444"}),
    (".mov", "png", "rgba", {}),
    (".mov", "qtrle", "argb", {}),
    (".mkv", "ffv1", "yuva420p", {}),
    (".webm", "libvpx-vp9", "yuva420p", {}),
    (".webm", "libvpx", "yuva420p", {"auto-alt-ref": "0"}),
])  # fmt: skip
def test_transparent_parts_are_black(tmp_path, suffix, codec, pix_fmt, options):
    """Also where a bright colour lies hidden in them."""
    rgba = np.concatenate([moving_frames(), np.full((5, H, W, 1), 255, np.uint8)], axis=-1)
    rgba[:, :, W // 2 :] = [240, 200, 220, 0]
    path = encode(tmp_path / f"clip{suffix}", rgba, codec, pix_fmt, options=options, frame_format="rgba")
    frames = read_clip(path).frames_u8
    assert frames[:, :, W // 2 + 4 :].max() <= 8
    assert psnr_db(frames[:, :, : W // 2 - 4], rgba[:, :, : W // 2 - 4, :3]) > FAIR_DB


# Matrix and range


WEIGHTS = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722), BT2020: (0.2627, 0.0593), FCC: (0.3, 0.11)}
WEIGHTS[SMPTE240M] = (0.212, 0.087)  # of red and blue in luma: ITU-T H.273, table 4


def encode_signal(
    path: Path, signal: np.ndarray, tags: dict[str, int], codec: str = "ffv1", matrix: int | None = None, **options: Any
) -> Path:
    """R'G'B' of 0..1 as YCbCr by the formulas of ITU-T H.273, 8.3, in 10 bits unless said otherwise. [T, H, W, 3]"""
    red_weight, blue_weight = WEIGHTS[matrix or tags["colorspace"]]
    r, g, b = np.moveaxis(signal, -1, 0)
    luma = red_weight * r + (1 - red_weight - blue_weight) * g + blue_weight * b
    blue, red = (b - luma) / (2 - 2 * blue_weight), (r - luma) / (2 - 2 * red_weight)
    black, luma_steps, chroma_steps = (64, 876, 896) if tags["color_range"] == LIMITED else (0, 1023, 1023)
    planes = np.stack([black + luma_steps * luma, 512 + chroma_steps * blue, 512 + chroma_steps * red], axis=-1)
    samples = (planes * 64).round().clip(0, 0xFFFF).astype(np.uint16)  # as 16 bits: PyAV takes these as an array
    options = {"pix_fmt": "yuv444p10le", **options}
    return encode(path, samples, codec, tags=tags, frame_format="yuv444p16le", **options)


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p10le"])
def test_matrix_and_range_are_those_of_the_tags(tmp_path, matrix, color_range, pix_fmt):
    frames = moving_frames(2)
    tags = {"colorspace": matrix, "color_range": color_range}
    path = encode_signal(tmp_path / "clip.mkv", frames / 255, tags, pix_fmt=pix_fmt)
    assert psnr_db(read_clip(path).frames_u8, frames) > GOOD_DB


def test_a_matrix_that_cannot_be_converted_is_refused_by_name(tmp_path):
    path = encode(
        tmp_path / "clip.mkv", moving_frames(2), "libx264", "yuv444p", options={"x264-params": "colormatrix=YCgCo"}
    )
    with pytest.raises(InputError, match=r"clip\.mkv: colours are coded as YCgCo: want BT\.601, BT\.709"):
        read_clip(path)


# Orientation and pixel aspect

ORIENTATIONS = {  # display matrix (a, b, c, d): how the stored frame is to be shown
    (1, 0, 0, 1): lambda stored: stored,
    (-1, 0, 0, 1): lambda stored: stored[:, ::-1],
    (1, 0, 0, -1): lambda stored: stored[::-1],
    (-1, 0, 0, -1): lambda stored: stored[::-1, ::-1],
    (0, 1, 1, 0): lambda stored: stored.swapaxes(0, 1),
    (0, 1, -1, 0): lambda stored: np.rot90(stored, -1),
    (0, -1, 1, 0): lambda stored: np.rot90(stored, 1),
    (0, -1, -1, 0): lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
}


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write the matrix of an MP4 file's track header, as phones do."""
    data = bytearray(path.read_bytes())
    matrix_at = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, matrix_at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_all_eight_orientations(tmp_path, matrix):
    stored = moving_frames(2)
    path = encode(tmp_path / "clip.mp4", stored, "libx264")
    set_display_matrix(path, matrix)
    wanted = np.stack([ORIENTATIONS[matrix](frame) for frame in stored])
    frames = read_clip(path).frames_u8
    assert frames.shape == wanted.shape
    assert psnr_db(frames, wanted) > GOOD_DB


@pytest.mark.parametrize(("options", "matrix"), [("rotate=90", (0, -1, 1, 0)), ("flip=horizontal", (-1, 0, 0, 1))])
def test_orientation_in_the_frames_themselves(tmp_path, options, matrix):
    """H.264 can carry it as a message beside each picture."""
    stored = moving_frames(2)
    path = encode(tmp_path / "plain.h264", stored, "libx264")
    with av.open(str(path)) as source, av.open(str(tmp_path / "clip.h264"), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        bsf = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{options}", stream, copy)
        for packet in source.demux(stream):
            for changed in bsf.filter(packet if packet.size else None):
                changed.stream = copy
                output.mux(changed)
    wanted = np.stack([ORIENTATIONS[matrix](frame) for frame in stored])
    frames = read_clip(tmp_path / "clip.h264").frames_u8
    assert frames.shape == wanted.shape
    assert psnr_db(frames, wanted) > GOOD_DB


@pytest.mark.parametrize(("aspect", "size_px"), [(Fraction(3, 2), (48, 120)), (Fraction(8, 9), (54, 80))])
@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), [
    (".mp4", "libx264", "yuv420p"),
    (".mov", "prores_ks", "yuv422p10le"),
    (".mkv", "libx264", "yuv420p"),
    (".mov", "qtrle", "rgb24"),  # in the container only
    (".mp4", "libsvtav1", "yuv420p"),  # the same, and the stream says 1:1
    (".avi", "mpeg4", "yuv420p"),
])  # fmt: skip
def test_pixels_become_square(tmp_path, suffix, codec, pix_fmt, aspect, size_px):
    """By stretching: no pixel is lost."""
    frames = moving_frames(3)
    path = encode(tmp_path / f"clip{suffix}", frames, codec, pix_fmt, rate=25, pixel_aspect=aspect)
    shown = read_clip(path).frames_u8
    assert shown.shape == (3, *size_px, 3)
    rows, columns = (((np.arange(side) + 0.5) * n / side).astype(int) for side, n in zip((H, W), size_px, strict=True))
    assert psnr_db(shown[:, rows][:, :, columns], frames) > 28  # resized


def test_pixel_aspect_turns_with_the_picture(tmp_path):
    path = encode(tmp_path / "clip.mp4", moving_frames(2), "libx264", pixel_aspect=Fraction(3, 2))
    set_display_matrix(path, (0, 1, -1, 0))
    assert read_clip(path).frames_u8.shape == (2, W * 3 // 2, H, 3)


def test_absurd_pixel_aspect_is_refused(tmp_path):
    path = encode(tmp_path / "clip.mp4", moving_frames(2), "libx264", pixel_aspect=Fraction(3, 2))
    data = bytearray(path.read_bytes())
    struct.pack_into(">2I", data, data.index(b"pasp") + 4, 1, 60_000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"clip\.mp4: 80x2880000 px is too big"):
        read_clip(path)


# Interlaced video


def interlace(frames: np.ndarray, first: int = 0) -> np.ndarray:
    """Two moments a frame: even rows (`first` = 0, the top field) come first, or odd ones."""
    woven = frames[0::2].copy()
    woven[:, 1 - first :: 2] = frames[1::2, 1 - first :: 2]
    return woven


def encode_interlaced(path: Path, frames: np.ndarray, codec: str = "libx264") -> Path:
    if codec == "libx264":
        options = {"x264-params": "interlaced=1:tff=1", "crf": "12"}
    else:
        options = {"flags": "+ildct+ilme", "qmin": "1", "qmax": "3", "top": "1"}
    return encode(path, frames, codec, options=options, rate=25)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".h264", "libx264"), (".mpg", "mpeg2video")])
def test_interlaced_video_becomes_whole_pictures(tmp_path, suffix, codec, first):
    """As many as there were, each of its first field's moment, whichever field the flags call first."""
    moments = moving_frames(16, speed_px=4)
    combed = interlace(moments, first)
    clip = read_clip(encode_interlaced(tmp_path / f"clip{suffix}", combed, codec))
    assert clip.frames_u8.shape == combed.shape
    assert clip.fps == 25
    assert psnr_db(combed, moments[0::2]) < 30
    assert psnr_db(clip.frames_u8, moments[0::2]) > 34
    assert clip.notes == ("interlaced: each pair of fields became one whole picture (bwdif)",)


def test_progressive_video_flagged_as_interlaced_stays_as_it_is(tmp_path):
    frames = moving_frames(10, speed_px=4)
    came = read_clip(encode_interlaced(tmp_path / "clip.mp4", frames)).frames_u8
    assert len(came) == 10
    assert min(psnr_db(a, b) for a, b in zip(came[3:], frames[3:], strict=True)) > GOOD_DB
    assert psnr_db(came[:3], frames[:3]) > 30  # before the filter knows


def test_reading_stops_where_asked_in_interlaced_video(tmp_path):
    path = encode_interlaced(tmp_path / "clip.mp4", interlace(moving_frames(16)))
    every = read_clip(path).frames_u8
    np.testing.assert_array_equal(read_clip(path, max_frames=3).frames_u8, every[:3])
    np.testing.assert_array_equal(read_clip(path, every=3).frames_u8, every[::3])


# HDR and wide gamut

TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Linear BT.709 to linear BT.2020: ITU-R BT.2087-0."""


def pq_signal(nits: Any) -> np.ndarray:
    """SMPTE ST 2084."""
    power = (np.asarray(nits) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_signal(nits: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100 for a display of 1000 nits: the inverse OOTF, then the OETF. [..., 3]"""
    light = nits / 1000
    luminance = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = light * luminance ** (1 / 1.2 - 1)
    log_part = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log_part)


def patches(colors: Any) -> np.ndarray:
    """Two frames of vertical bars. [2, H, W, 3]"""
    colors = np.asarray(colors, float)
    return np.broadcast_to(colors[np.arange(W) * len(colors) // W], (2, H, W, 3)).copy()


def patch_colors(frames_u8: np.ndarray, num: int) -> np.ndarray:
    """The middle of each bar. [num, 3]"""
    return frames_u8[0, H // 2, (np.arange(num) * 2 + 1) * W // (2 * num)].astype(int)


HDR = {"colorspace": BT2020, "color_range": LIMITED, "color_primaries": BT2020}


@pytest.mark.parametrize(("transfer", "to_signal"), [(PQ, pq_signal), (HLG, hlg_signal)])
def test_hdr_in_the_range_of_sdr_keeps_its_light(tmp_path, transfer, to_signal):
    """Gray to 30 nits lies below the shoulder: an SDR display, with white at 100 nits, shows the same nits."""
    nits = np.array([0.0, 1, 2, 5, 10, 15, 20, 26])
    signal = to_signal(patches(np.repeat(nits[:, None], 3, axis=1)))
    clip = read_clip(encode_signal(tmp_path / "clip.mkv", signal, {**HDR, "color_trc": transfer}))
    wanted = 255 * (nits / 100) ** (1 / 2.4)  # ITU-R BT.1886
    np.testing.assert_allclose(patch_colors(clip.frames_u8, len(nits)), np.repeat(wanted[:, None], 3, axis=1), atol=2)
    name = {PQ: "PQ", HLG: "HLG"}[transfer]
    assert clip.notes == (f"HDR ({name}, BT.2020): tone-mapped to SDR (BT.709), 1000 to 100 nits",)


@pytest.mark.parametrize(("transfer", "to_signal"), [(PQ, pq_signal), (HLG, hlg_signal)])
def test_colours_of_hdr_are_those_of_bt709(tmp_path, transfer, to_signal):
    colors = 20 * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.5, 0.1, 0.1], [0.2, 0.3, 0.5]])
    signal = to_signal(patches(colors) @ TO_BT2020.T)
    frames = read_clip(encode_signal(tmp_path / "clip.mkv", signal, {**HDR, "color_trc": transfer})).frames_u8
    error = patch_colors(frames, len(colors)) - 255 * (colors / 100) ** (1 / 2.4)
    assert np.abs(error[colors > 0]).max() <= 2.5
    assert np.abs(error).max() <= 12  # beside a saturated colour: a thousandth of light is 14 levels


def test_hdr_without_a_matrix_or_primaries_is_bt2020(tmp_path):
    frames = moving_frames(2)
    signal = hlg_signal(100 * (frames / 255) ** 2.4 @ TO_BT2020.T)
    tags = {"colorspace": UNSPECIFIED, "color_range": LIMITED, "color_trc": HLG}
    path = encode_signal(tmp_path / "clip.mkv", signal, tags, matrix=BT2020)
    assert psnr_db(read_clip(path).frames_u8, frames) > GOOD_DB


@pytest.mark.parametrize(("transfer", "reference_white", "peak"), [(PQ, 0.58, 0.75), (HLG, 0.75, 1.0)])
def test_highlights_are_rolled_off(tmp_path, transfer, reference_white, peak):
    """Reference white (203 nits) as ITU-R BT.2408-7, table 1 has it stays just below white; 1000 nits are white."""
    levels = np.linspace(0, peak, 16)
    levels[12] = reference_white
    levels.sort()
    signal = patches(np.repeat(levels[:, None], 3, axis=1))
    frames = read_clip(encode_signal(tmp_path / "clip.mkv", signal, {**HDR, "color_trc": transfer})).frames_u8
    gray = patch_colors(frames, len(levels))[:, 1]
    assert (np.diff(gray) >= 0).all()
    assert gray[0] == 0
    assert gray[-1] >= 254
    assert 235 <= gray[levels == reference_white][0] <= 248


@pytest.mark.parametrize(("transfer", "to_signal"), [(PQ, pq_signal), (HLG, hlg_signal)])
def test_an_sdr_picture_in_an_hdr_file_comes_back(tmp_path, transfer, to_signal):
    frames = moving_frames(2)
    nits = 100 * (frames / 255) ** 2.4 @ TO_BT2020.T
    path = encode_signal(tmp_path / "clip.mkv", to_signal(nits), {**HDR, "color_trc": transfer})
    assert psnr_db(read_clip(path).frames_u8, frames) > GOOD_DB
    small = read_clip(path, size_px=(24, 40)).frames_u8.astype(float)
    assert psnr_db(small, frames.reshape(2, 24, 2, 40, 2, 3).mean(axis=(2, 4))) > GOOD_DB


@pytest.mark.parametrize(("light_level", "peak_nits"), [
    ("max-cll=100,50", 100),
    ("max-cll=4000,400", 4000),
    ("master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(6000000,1)", 600),
    ("hdr10=0", 1000),
])  # fmt: skip
def test_pq_is_rolled_off_from_the_peak_that_the_file_names(tmp_path, light_level, peak_nits):
    levels = pq_signal([100, peak_nits])
    path = encode_signal(
        tmp_path / "clip.hevc",
        patches(np.repeat(levels[:, None], 3, axis=1)),
        {**HDR, "color_trc": PQ},
        "libx265",
        options={"x265-params": f"log-level=none:crf=4:{light_level}"},
    )
    clip = read_clip(path)
    assert clip.notes == (f"HDR (PQ, BT.2020): tone-mapped to SDR (BT.709), {peak_nits} to 100 nits",)
    at_100, at_peak = patch_colors(clip.frames_u8, 2)[:, 1]
    assert at_peak >= 253
    assert (at_100 >= 253) == (peak_nits == 100)


def test_transparent_hdr_that_only_the_container_tells(tmp_path):
    """FFmpeg's ProRes encoder leaves the tags in its own stream empty."""
    rgba = np.full((2, H, W, 4), 128, np.uint8)
    rgba[..., 3] = 255
    rgba[:, :, W // 2 :] = [240, 200, 220, 0]
    path = encode(
        tmp_path / "clip.mov",
        rgba,
        "prores_ks",
        "yuva444p10le",
        options={"profile": "4444"},
        tags={**HDR, "color_trc": HLG},
        frame_format="rgba",
    )
    clip = read_clip(path)
    frames = clip.frames_u8
    assert frames[:, :, W // 2 + 4 :].max() <= 2
    assert frames[:, :, : W // 2 - 4].min() > 180  # HLG at half signal: 50 nits
    assert clip.notes == ("HDR (HLG, BT.2020): tone-mapped to SDR (BT.709), 1000 to 100 nits",)


@pytest.mark.parametrize(("primaries", "name"), [(BT2020, "BT.2020"), (DISPLAY_P3, "Display P3")])
def test_a_wide_gamut_is_converted(tmp_path, primaries, name):
    """A colour of BT.709, told in wider primaries, comes back."""
    colors = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5], [1, 1, 1]])
    to_p3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])  # both white D65
    wide = patches(colors) @ (TO_BT2020 if primaries == BT2020 else to_p3).T
    tags = {**HDR, "color_primaries": primaries, "color_trc": BT709_CURVE}
    clip = read_clip(encode_signal(tmp_path / "clip.mkv", wide ** (1 / 2.4), tags))
    np.testing.assert_allclose(patch_colors(clip.frames_u8, len(colors)), 255 * colors ** (1 / 2.4), atol=2.5)
    assert clip.notes == (f"wide gamut ({name}): converted to BT.709; more saturated colours are clipped",)


# Handed clips


def test_real_hdr_looks_like_its_sdr_master(test_data):
    clips = test_data / "cases" / "clips"
    came, wanted = read_clip(clips / "hlg.mov").frames_u8, read_clip(clips / "base.mp4").frames_u8
    assert abs(came.mean() - wanted.mean()) < 4
    assert psnr_db(came, wanted) > 25


def test_real_interlaced_clip(test_data):
    clips = test_data / "cases" / "clips"
    clip, moments = read_clip(clips / "inter.mp4"), read_clip(clips / "base.mp4").frames_u8
    assert clip.frames_u8.shape == (23, 180, 320, 3)
    assert min(psnr_db(a, b) for a, b in zip(clip.frames_u8, moments[0::2], strict=False)) > 24
    assert clip.notes


def test_real_mirrored_and_anamorphic_clips(test_data):
    clips = test_data / "cases" / "clips"
    mirrored, wide = read_clip(clips / "mirrored.mp4").frames_u8, read_clip(clips / "sar_container.mkv").frames_u8
    assert mirrored.shape == wide.shape == (24, 180, 320, 3)
    assert psnr_db(mirrored[:, :, ::-1], wide) > 24
