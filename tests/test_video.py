"""Clips in and out: sizes, time, orientation, transparency, broken files, atomic writing."""

import hashlib
import logging
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from inspatio_sim.camera import Intrinsics
from inspatio_sim.errors import InputError
from inspatio_sim.framing import MIN_SIDE_PX, ClipRequest, Framing
from inspatio_sim.video import Clip, VideoWriter, read_clip, write_clip

H, W = 48, 64


def smooth_frames(num_frames: int, height: int = H, width: int = W) -> np.ndarray:
    """Coloured ramps whose brightness tells the frame number: frame n has red = 10 + 20 n in the middle."""
    y, x = np.mgrid[0:height, 0:width]
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for n in range(num_frames):
        frames[n, ..., 0] = 10 + 20 * (n % 12)
        frames[n, ..., 1] = 60 + 100 * y / height
        frames[n, ..., 2] = 60 + 100 * x / width
    return frames


def frame_numbers(frames_u8: np.ndarray) -> list[int]:
    """Which frames of `smooth_frames` these are."""
    red = frames_u8[:, H // 4 : -H // 4, W // 4 : -W // 4, 0].mean(axis=(1, 2))
    return [round((value - 10) / 20) for value in red]


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def encode(path, frames, *, codec="libx264", pix_fmt="yuv420p", pts_ms=None, fps=10, container=None):
    """Write a file with PyAV directly, with options `VideoWriter` does not have."""
    with av.open(str(path), "w", options=container or {}) as output:
        video = output.add_stream(codec, rate=fps)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = pix_fmt
        if pts_ms is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        for n, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            if pts_ms is not None:
                frame.pts, frame.time_base = pts_ms[n], Fraction(1, 1000)
            for packet in video.encode(frame):
                output.mux(packet)
        for packet in video.encode():
            output.mux(packet)


def turn(path: Path, degrees: int) -> None:
    """Ask players to turn an MP4 file counterclockwise, as phones do: by the matrix of its track header."""
    data = bytearray(path.read_bytes())
    matrix_at = data.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", data, matrix_at) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    cos, sin = (round(f(np.deg2rad(degrees))) << 16 for f in (np.cos, np.sin))
    struct.pack_into(">9i", data, matrix_at, cos, -sin, 0, sin, cos, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def write_tone(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000, layout="mono")
        for n in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, n * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


# Round trips


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    frames = smooth_frames(10)
    write_clip(tmp_path / f"clip{suffix}", frames, fps=12.5)
    clip = read_clip(tmp_path / f"clip{suffix}")
    assert clip.frames_u8.shape == frames.shape
    assert clip.fps == pytest.approx(12.5, rel=1e-3)
    assert psnr_db(clip.frames_u8, frames) > 38
    assert clip.source.endswith(f"clip{suffix}")


def test_colours_survive(tmp_path):
    """The matrix written (BT.709) is the one read back: saturated colours stay within a few levels."""
    frames = np.zeros((3, H, W, 3), np.uint8)
    frames[:, :, :32] = [200, 40, 30]
    frames[:, :, 32:] = [30, 190, 60]
    write_clip(tmp_path / "clip.mp4", frames, fps=10)
    read = read_clip(tmp_path / "clip.mp4").frames_u8.astype(int)
    assert np.abs(read - frames)[:, 4:-4, 8:24].max() <= 5
    assert np.abs(read - frames)[:, 4:-4, 40:56].max() <= 5


def test_written_samples_are_bt709_of_limited_range(tmp_path):
    """Other programs read the tags: the samples must be what they promise. Values: ITU-R BT.709, 3.2 to 3.5."""
    write_clip(tmp_path / "clip.mp4", np.full((3, H, W, 3), [200, 40, 30], np.uint8), fps=10)
    with av.open(str(tmp_path / "clip.mp4")) as video:
        frame = next(video.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (1, 1)
    red, green, blue = np.array([200, 40, 30]) / 255
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    wanted = [16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748]
    planes = frame.to_ndarray()  # Y over the halves of U and V. [1.5 H, W]
    came = [planes[:H].mean(), planes[H : H + H // 4].mean(), planes[H + H // 4 :].mean()]
    np.testing.assert_allclose(came, wanted, atol=1.5)


@pytest.mark.parametrize(("matrix", "red_weight", "blue_weight"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_tagged_matrix_and_range_are_used(tmp_path, matrix, red_weight, blue_weight, color_range, pix_fmt):
    """BT.709 and BT.601, limited and full range: RGB as their formulas say."""
    y, u, v = 140, 100, 170
    num_chroma = H * W // (4 if pix_fmt == "yuv420p" else 1)
    samples = np.repeat(np.array([y, u, v], np.uint8), [H * W, num_chroma, num_chroma])
    samples = samples.reshape((H * 3 // 2, W) if pix_fmt == "yuv420p" else (3, H, W))
    with av.open(str(tmp_path / "clip.mkv"), "w") as output:
        video = output.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = W, H, pix_fmt
        video.codec_context.colorspace, video.codec_context.color_range = matrix, color_range
        frame = av.VideoFrame.from_ndarray(samples, format=pix_fmt)
        frame.colorspace, frame.color_range = matrix, color_range
        output.mux(video.encode(frame))
        output.mux(video.encode())
    luma = (y - 16) / 219 if color_range == 1 else y / 255
    u, v = ((value - 128) / (224 if color_range == 1 else 255) for value in (u, v))
    red, blue = luma + 2 * (1 - red_weight) * v, luma + 2 * (1 - blue_weight) * u
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    came = read_clip(tmp_path / "clip.mkv").frames_u8[0, H // 2, W // 2]
    np.testing.assert_allclose(came, 255 * np.array([red, green, blue]), atol=3)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray16le", "yuv420p"])
def test_untagged_gray_keeps_black_and_white(tmp_path, pix_fmt):
    """Gray formats use all values of their samples, YUV formats the limited range."""
    ramp = np.tile(np.linspace(0, 255, W).round().astype(np.uint8)[:, None], (2, H, 1, 3))
    encode(tmp_path / "clip.mkv", ramp, codec="ffv1", pix_fmt=pix_fmt)
    assert np.abs(read_clip(tmp_path / "clip.mkv").frames_u8.astype(int) - ramp).max() <= 3


def test_same_frames_same_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (20, H, W, 3), dtype=np.uint8)
    digests = set()
    for n in range(3):
        write_clip(tmp_path / f"{n}.mp4", frames, fps=24)
        digests.add(hashlib.sha256((tmp_path / f"{n}.mp4").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_odd_sizes_are_padded_when_written_and_cut_when_read(tmp_path):
    frames = smooth_frames(4, 49, 67)
    write_clip(tmp_path / "padded.mp4", frames, fps=10)
    padded = read_clip(tmp_path / "padded.mp4").frames_u8
    assert padded.shape == (4, 50, 68, 3)
    assert psnr_db(padded[:, :49, :67], frames) > 38
    encode(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    odd = read_clip(tmp_path / "odd.mkv").frames_u8
    np.testing.assert_array_equal(odd, frames[:, :48, :66])


def test_avi_with_b_frames_keeps_its_order(tmp_path):
    """AVI stores no presentation times, and FFmpeg invents wrong ones."""
    encode(tmp_path / "clip.avi", smooth_frames(12))
    assert frame_numbers(read_clip(tmp_path / "clip.avi").frames_u8) == list(range(12))


def test_a_title_that_is_not_utf8_does_not_matter(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as output:
        output.metadata["title"] = "TITLE"
        video = output.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        for pixels in smooth_frames(3):
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(video.encode())
    data = (tmp_path / "clip.mkv").read_bytes()
    assert data.count(b"TITLE") >= 1
    (tmp_path / "clip.mkv").write_bytes(data.replace(b"TITLE", b"T\xff\xfeLE"))
    assert frame_numbers(read_clip(tmp_path / "clip.mkv").frames_u8) == [0, 1, 2]


# Which frames


def test_every_and_max_frames(tmp_path):
    write_clip(tmp_path / "clip.mp4", smooth_frames(12), fps=10)
    clip = read_clip(tmp_path / "clip.mp4", every=3)
    assert frame_numbers(clip.frames_u8) == [0, 3, 6, 9]
    assert clip.fps == pytest.approx(10 / 3)
    assert frame_numbers(read_clip(tmp_path / "clip.mp4", every=2, max_frames=3).frames_u8) == [0, 2, 4]


@pytest.mark.parametrize(("fps", "expected"), [(5, [0, 2, 4, 6, 8, 10]), (20, [n // 2 for n in range(24)])])
def test_resampling_to_another_rate(tmp_path, fps, expected):
    write_clip(tmp_path / "clip.mp4", smooth_frames(12), fps=10)
    clip = read_clip(tmp_path / "clip.mp4", fps=fps)
    assert clip.fps == pytest.approx(fps)
    assert len(clip.frames_u8) == len(expected)
    # at a tick half way between two frames either is the nearest
    assert np.abs(np.subtract(frame_numbers(clip.frames_u8), expected)).max() <= (1 if fps > 10 else 0)


def test_variable_frame_rate_becomes_constant(tmp_path):
    """Frames at 0, 100, 200, 600, 700 ms: at 10 Hz the gap shows its nearer neighbour."""
    encode(tmp_path / "clip.mkv", smooth_frames(5), pts_ms=[0, 100, 200, 600, 700])
    clip = read_clip(tmp_path / "clip.mkv", fps=10)
    assert frame_numbers(clip.frames_u8) == [0, 1, 2, 2, 3, 3, 3, 4]


@given(
    num_frames=st.integers(1, 200),
    source_fps=st.floats(1, 120),
    every=st.integers(1, 9),
    fps=st.one_of(st.none(), st.floats(1, 120)),
)
def test_chosen_frames_are_in_range_and_last_as_long(num_frames, source_fps, every, fps):
    frame_idxs, clip_fps = ClipRequest(every=every, fps=fps).choose(num_frames, source_fps)
    assert frame_idxs[0] == 0
    assert frame_idxs == sorted(frame_idxs)
    assert frame_idxs[-1] < num_frames
    assert abs(len(frame_idxs) / clip_fps - num_frames / source_fps) <= 1 / clip_fps + 1e-6


@given(num_frames=st.integers(1, 60), every=st.integers(1, 9))
def test_choosing_every_nth_is_a_slice(num_frames, every):
    assert ClipRequest(every=every).choose(num_frames, 24.0)[0] == list(range(num_frames))[::every]


def test_progress_counts_to_the_end(tmp_path):
    write_clip(tmp_path / "clip.mp4", smooth_frames(6), fps=10)
    seen = []
    read_clip(tmp_path / "clip.mp4", progress=lambda done, expected: seen.append((done, expected)))
    assert seen == [(n, 6) for n in range(1, 7)]


# Size


def test_target_size_by_centre_crop(tmp_path):
    """A wide clip to a square: the middle stays, the sides go."""
    frames = np.zeros((2, 48, 96, 3), np.uint8)
    frames[:, :, 24:72] = 200
    write_clip(tmp_path / "clip.mp4", frames, fps=10)
    clip = read_clip(tmp_path / "clip.mp4", size_px=(24, 24))
    assert clip.frames_u8.shape == (2, 24, 24, 3)
    assert clip.frames_u8[:, :, 2:-2].min() > 190


def test_shrinking_averages_areas(tmp_path):
    """A checkerboard of single pixels becomes even gray, not a moiré."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    small = read_clip(tmp_path / "board.png", size_px=(16, 16)).frames_u8
    np.testing.assert_array_equal(small, 100)


def test_anamorphic_pixels_become_square(tmp_path):
    with av.open(str(tmp_path / "wide.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for pixels in smooth_frames(2):
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(video.encode())
    assert read_clip(tmp_path / "wide.mkv").frames_u8.shape == (2, H, 2 * W, 3)


sides = st.integers(MIN_SIDE_PX, 300)


@given(height=sides, width=sides, target=st.one_of(st.none(), st.tuples(sides, sides)))
def test_framing_keeps_rays(height, width, target):
    """K follows the picture: a target pixel and the source pixel it shows lie on one ray."""
    framing = Framing.fit((height, width), target)
    K = Intrinsics(fx_px=200, fy_px=210, cx_px=width / 3, cy_px=height / 2, width_px=width, height_px=height)
    framed = framing.intrinsics(K)
    assert (framed.height_px, framed.width_px) == framing.size_px
    u = np.array([0, framing.width_px / 2, framing.width_px - 1])
    source_u = (u + 0.5) * framing.crop_width_px / framing.width_px - 0.5 + framing.left_px
    np.testing.assert_allclose((u - framed.cx_px) / framed.fx_px, (source_u - K.cx_px) / K.fx_px, atol=1e-9)


@given(height=sides, width=sides, target=st.tuples(sides, sides))
def test_framed_depth_is_the_nearest_sample(height, width, target):
    """Depth equal to its own column number shows where each value came from."""
    framing = Framing.fit((height, width), target)
    depth = np.tile(np.arange(width, dtype=np.float32), (height, 1))
    framed = framing.depth(depth)
    assert framed.shape == target
    u = np.arange(target[1])
    source_u = (u + 0.5) * framing.crop_width_px / target[1] - 0.5 + framing.left_px
    assert np.abs(framed[0] - source_u).max() <= 0.5 + 1e-6


@given(height=sides, width=sides)
def test_default_size_is_even_and_loses_one_line_at_most(height, width):
    framing = Framing.fit((height, width))
    assert framing.height_px % 2 == framing.width_px % 2 == 0
    assert 0 <= height - framing.height_px <= 1
    assert 0 <= width - framing.width_px <= 1
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(framing.color(image), image[: framing.height_px, : framing.width_px])


@given(height=sides, width=sides, target=st.tuples(sides, sides))
def test_crop_has_the_targets_aspect(height, width, target):
    framing = Framing.fit((height, width), target)
    assert framing.crop_height_px == height or framing.crop_width_px == width
    wanted = framing.crop_height_px * target[1] / target[0]
    assert abs(framing.crop_width_px - wanted) <= 0.5 * max(1, target[1] / target[0]) + 1e-6


# Orientation and transparency


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_rotation_metadata_turns_frames_upright(tmp_path, rotation):
    """A red bar at the top of the upright picture is at the top after reading."""
    upright = np.full((3, H, W, 3), 40, np.uint8)
    upright[:, :12] = [220, 30, 30]
    stored = np.ascontiguousarray(np.rot90(upright, -rotation // 90, axes=(1, 2)))
    encode(tmp_path / "clip.mp4", stored)
    turn(tmp_path / "clip.mp4", rotation)
    frames = read_clip(tmp_path / "clip.mp4").frames_u8
    assert frames.shape == upright.shape
    assert psnr_db(frames, upright) > 25
    assert frames[0, 5, :, 0].min() > 150


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation(tmp_path, orientation):
    upright = np.full((H, W, 3), 40, np.uint8)
    upright[:12] = [220, 30, 30]
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # 6: turn the stored picture clockwise to see it upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns))).save(tmp_path / "a.jpg", exif=exif, quality=95)
    frames = read_clip(tmp_path / "a.jpg").frames_u8
    assert frames.shape == (1, H, W, 3)
    assert psnr_db(frames[0], upright) > 25


def test_transparent_video_lies_over_black(tmp_path):
    rgba = np.full((3, H, W, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[:, :, W // 2 :, 3] = 0
    encode(tmp_path / "clip.mov", rgba, codec="qtrle", pix_fmt="argb")
    frames = read_clip(tmp_path / "clip.mov").frames_u8
    assert (frames[:, :, : W // 2] == 200).all()
    assert (frames[:, :, W // 2 :] == 0).all()


def test_image_modes(tmp_path):
    gray = np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1))
    rgba = np.dstack([gray, gray, gray, np.full_like(gray, 128)])
    images = {
        "gray": Image.fromarray(gray),
        "deep": Image.fromarray(gray.astype(np.uint16) * 257),
        "palette": Image.fromarray(np.dstack([gray] * 3)).quantize(64),
        "cmyk": Image.fromarray(np.dstack([gray] * 3)).convert("CMYK"),
        "half": Image.fromarray(rgba),
    }
    for name, image in images.items():
        path = tmp_path / f"{name}.{'tif' if name == 'cmyk' else 'png'}"
        image.save(path)
        frames = read_clip(path).frames_u8
        assert frames.shape == (1, 32, 64, 3)
        wanted = gray // 2 if name == "half" else gray
        assert np.abs(frames[0].astype(int) - wanted[..., None]).max() <= 2, name


# Images


def test_folder_of_images_in_natural_order(tmp_path):
    for n in [0, 2, 10, 1]:
        Image.fromarray(smooth_frames(11)[n]).save(tmp_path / f"frame_{n}.png")
    (tmp_path / ".frame_3.png").write_bytes(b"left over")
    (tmp_path / "notes.txt").write_text("hello")
    clip = read_clip(tmp_path, fps=6)
    assert frame_numbers(clip.frames_u8) == [0, 1, 2, 10]
    assert clip.fps == 6
    assert clip.source == str(tmp_path)


def test_list_of_images_keeps_its_order(tmp_path):
    for n in range(3):
        Image.fromarray(smooth_frames(3)[n]).save(tmp_path / f"{n}.png")
    clip = read_clip([tmp_path / "2.png", tmp_path / "0.png"])
    assert frame_numbers(clip.frames_u8) == [2, 0]


def test_images_of_different_sizes(tmp_path):
    Image.fromarray(smooth_frames(1)[0]).save(tmp_path / "a.png")
    Image.fromarray(smooth_frames(1, 50, 70)[0]).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: 70x50 px, but a\.png has 64x48"):
        read_clip(tmp_path)


# Bad input: one line that names the file


def refusal(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_clip(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_and_empty(tmp_path):
    assert "nothing.mp4: cannot be read: No such file" in refusal(tmp_path / "nothing.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4: the file is empty" in refusal(tmp_path / "empty.mp4")
    (tmp_path / "folder").mkdir()
    assert "folder: no images" in refusal(tmp_path / "folder")
    assert "no images in the list" in refusal([])


@pytest.mark.parametrize("name", ["text.mp4", "text.mkv", "text.txt", "text"])
def test_text_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("hello, I am a text\n" * 100)
    assert f"{name}: not a video" in refusal(tmp_path / name)


def test_text_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    assert "text.png: not an image" in refusal(tmp_path / "text.png")


@pytest.mark.parametrize("script", ["ffconcat version 1.0\nfile clip.mp4\n", "#EXTM3U\n#EXTINF:1,\nclip.mp4\n"])
def test_a_playlist_opens_no_other_file(tmp_path, script):
    """FFmpeg alone would follow these scripts, whatever the suffix."""
    write_clip(tmp_path / "clip.mp4", smooth_frames(3), fps=10)
    (tmp_path / "list.mp4").write_text(script)
    assert "list.mp4: not a video" in refusal(tmp_path / "list.mp4")


def test_audio_only(tmp_path):
    write_tone(tmp_path / "tone.mp4")
    assert "tone.mp4: only audio" in refusal(tmp_path / "tone.mp4")


def test_zero_frames(tmp_path):
    """A header without pictures: what is left of a recording that was cut off at once."""
    encode(tmp_path / "clip.mkv", smooth_frames(5))
    data = (tmp_path / "clip.mkv").read_bytes()
    cluster = data.index(b"\x1f\x43\xb6\x75")
    (tmp_path / "header.mkv").write_bytes(data[:cluster])
    assert "header.mkv: not a video that can be read" in refusal(tmp_path / "header.mkv")
    encode(tmp_path / "clip.mp4", smooth_frames(5), container={"movflags": "faststart"})
    data = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "header.mp4").write_bytes(data[: data.index(b"mdat") + 8])
    assert "header.mp4: no frame can be decoded" in refusal(tmp_path / "header.mp4")


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (8, 8)])
def test_tiny(tmp_path, size):
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "tiny.png")
    assert f"tiny.png: {size[1]}x{size[0]} px is too small" in refusal(tmp_path / "tiny.png")
    encode(tmp_path / "tiny.mkv", np.zeros((2, *size, 3), np.uint8), codec="ffv1", pix_fmt="bgr0")
    assert f"tiny.mkv: {size[1]}x{size[0]} px is too small" in refusal(tmp_path / "tiny.mkv")


def test_huge_image_is_refused_before_it_is_decoded(tmp_path):
    Image.new("L", (16, 16)).save(tmp_path / "small.png")
    data = bytearray((tmp_path / "small.png").read_bytes())
    for side in (12_000, 60_000):
        data[16:24] = struct.pack(">II", side, side)  # the size in the IHDR chunk, then its checksum
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        (tmp_path / "huge.png").write_bytes(data)
        assert re.search(r"huge\.png: .* too big: want at most 100 million pixels", refusal(tmp_path / "huge.png"))


def test_clip_that_needs_too_much_memory(tmp_path):
    write_clip(tmp_path / "clip.mp4", smooth_frames(12), fps=10)
    message = refusal(tmp_path / "clip.mp4", max_bytes=11 * H * W * 3)
    assert "clip.mp4" in message
    assert "--max-frames" in message
    assert len(read_clip(tmp_path / "clip.mp4", max_bytes=11 * H * W * 3, max_frames=11).frames_u8) == 11
    assert len(read_clip(tmp_path / "clip.mp4", max_bytes=12 * H * W * 3).frames_u8) == 12


def test_truncated_mp4_without_its_index(tmp_path):
    encode(tmp_path / "clip.mp4", smooth_frames(30))
    data = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert "cut.mp4: not a video" in refusal(tmp_path / "cut.mp4")


@pytest.mark.parametrize(("suffix", "options"), [("mp4", {"movflags": "faststart"}), ("mkv", {})])
def test_truncated_video_gives_what_decodes(tmp_path, caplog, suffix, options):
    noise = np.random.default_rng(0).integers(0, 255, (30, H, W, 3), dtype=np.uint8)
    encode(tmp_path / f"clip.{suffix}", noise, container=options)
    data = (tmp_path / f"clip.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    with caplog.at_level(logging.WARNING, logger="inspatio_sim.video"):
        frames = read_clip(tmp_path / f"cut.{suffix}").frames_u8
    whole = read_clip(tmp_path / f"clip.{suffix}").frames_u8
    assert 5 <= len(frames) < 30
    np.testing.assert_array_equal(frames[:5], whole[:5])
    if suffix == "mp4":  # a Matroska header promises no number of frames
        assert "cut.mp4: damaged or cut off" in caplog.text


def test_damage_in_the_middle_is_passed_over(tmp_path, caplog):
    """Three of twelve pictures are wiped out; the others come, each at its own time."""
    encode(tmp_path / "clip.mkv", smooth_frames(12), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray((tmp_path / "clip.mkv").read_bytes())
    starts = [i for i in range(len(data) - 2) if data[i : i + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 12
    for start, end in zip(starts[3:6], starts[4:7], strict=True):
        num_bytes = end - start - 40  # leave the next packet's header alone
        data[start : start + num_bytes] = bytes(num_bytes)
    (tmp_path / "hurt.mkv").write_bytes(data)
    with caplog.at_level(logging.WARNING, logger="inspatio_sim.video"):
        frames = read_clip(tmp_path / "hurt.mkv").frames_u8
    assert len(frames) == 12  # time goes on: the gap shows its neighbours
    assert frame_numbers(frames) == [0, 1, 2, 2, 6, 6, 6, 7, 8, 9, 10, 11]
    assert "hurt.mkv: damaged" in caplog.text


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> dict[str, bytes]:
    """One small file of each kind, by suffix."""
    folder = tmp_path_factory.mktemp("sound")
    encode(folder / "a.mp4", smooth_frames(8), container={"movflags": "faststart"})
    encode(folder / "a.mkv", smooth_frames(8))
    encode(folder / "a.avi", smooth_frames(8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth_frames(1)[0]).save(folder / "a.jpg", exif=exif)
    Image.fromarray(smooth_frames(1)[0]).save(folder / "a.png")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".mp4", ".mkv", ".avi", ".jpg", ".png"]), seed=st.integers(0, 2**32 - 1))
def test_random_damage_raises_nothing_but_input_errors(tmp_path, sound_files, suffix, seed):
    rng = np.random.default_rng(seed)
    data = np.frombuffer(sound_files[suffix], np.uint8).copy()
    hit = rng.integers(0, len(data), rng.integers(1, 20))
    data[hit] = rng.integers(0, 256, len(hit))
    (tmp_path / f"hurt{suffix}").write_bytes(data.tobytes()[: rng.integers(len(data) // 2, len(data) + 1)])
    try:
        num_frames, message = len(read_clip(tmp_path / f"hurt{suffix}", max_bytes=50_000_000).frames_u8), ""
    except InputError as error:
        num_frames, message = 0, str(error)
    assert num_frames >= 1 or f"hurt{suffix}" in message
    assert "\n" not in message


def test_truncated_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "clip.png")
    data = (tmp_path / "clip.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    assert "cut.png: the image is damaged" in refusal(tmp_path / "cut.png")


def test_permission_denied():
    """As another user when the tests run as root, whom nothing is denied."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "secret.mp4"
        write_clip(path, smooth_frames(2), fps=10)
        path.chmod(0)
        code = textwrap.dedent(f"""
            import os
            from inspatio_sim.video import read_clip
            if os.geteuid() == 0:
                os.setuid(65534)
            read_clip({str(path)!r})
        """)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError" in done.stderr
    assert "secret.mp4: cannot be read: Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_px": (8, 8)}, "size_px: 8x8 px is too small"),
        ({"max_frames": 0}, "max_frames=0"),
        ({"every": 0}, "every=0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"fps": -1}, "fps=-1"),
    ],
)
def test_bad_options(tmp_path, options, message):
    assert message in refusal(tmp_path, **options)


def test_clip_checks_itself():
    frames = smooth_frames(2)
    with pytest.raises(InputError, match="depth has shape"):
        Clip(frames_u8=frames, fps=1.0, source="here", depth_m=np.zeros((2, 3, 3), np.float32))
    with pytest.raises(InputError, match="fps=0"):
        Clip(frames_u8=frames, fps=0.0, source="here")


# Writing: all or nothing


def test_exception_leaves_nothing(tmp_path):
    for stop in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(stop), VideoWriter(tmp_path / "clip.mp4", fps=10) as video:  # noqa: PT012
            video.write(smooth_frames(1)[0])
            raise stop
        assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path):
    write_clip(tmp_path / "clip.mp4", smooth_frames(3), fps=10)
    before = (tmp_path / "clip.mp4").read_bytes()
    frames = [smooth_frames(1)[0], smooth_frames(1, height=50)[0]]
    with pytest.raises(InputError, match=r"frame 1 is \(50, 64\)"):
        write_clip(tmp_path / "clip.mp4", frames, fps=10)
    assert (tmp_path / "clip.mp4").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_ctrl_c_from_outside_leaves_nothing(tmp_path):
    code = textwrap.dedent(f"""
        import numpy as np
        from inspatio_sim.video import VideoWriter
        with VideoWriter({str(tmp_path / "clip.mp4")!r}, fps=10) as video:
            for n in range(100_000):
                video.write(np.full((48, 64, 3), n % 255, np.uint8))
                if n == 20:
                    print("writing", flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    assert len(list(tmp_path.iterdir())) == 1  # the temporary file
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_full_disk_names_the_folder(tmp_path):
    """A limit on file size stands in for a full disk: the system refuses the write in the same way."""
    noise = np.random.default_rng(0).integers(0, 255, (40, H, W, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"cannot write clip\.mp4 to folder {tmp_path}: File too large"):
            write_clip(tmp_path / "clip.mp4", noise, fps=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write clip.mp4 to folder"):
        write_clip(tmp_path / "file" / "clip.mp4", smooth_frames(2), fps=10)


def test_writer_refuses(tmp_path):
    with pytest.raises(InputError, match="no frames were written"):
        write_clip(tmp_path / "clip.mp4", [], fps=10)
    with pytest.raises(InputError, match="ends in"):
        VideoWriter(tmp_path / "clip.txt", fps=10)
    with pytest.raises(InputError, match="fps=0"):
        VideoWriter(tmp_path / "clip.mp4", fps=0)
    with pytest.raises(InputError, match="want uint8"):
        write_clip(tmp_path / "clip.mp4", np.zeros((2, H, W, 3), np.float32), fps=10)
    assert list(tmp_path.iterdir()) == []


# Real clips


@pytest.mark.parametrize(
    ("name", "num_frames", "fps"), [("apple.mp4", 50, 10), ("coffee.mp4", 247, 25), ("tokyo_walk.mp4", 195, 15)]
)
def test_real_clips(name, num_frames, fps):
    folder = os.environ.get("INSPATIO_TEST_DATA")
    if not folder:
        pytest.skip("INSPATIO_TEST_DATA names no folder with real clips")
    clip = read_clip(Path(folder) / "videos" / name, size_px=(96, 160))
    assert clip.frames_u8.shape == (num_frames, 96, 160, 3)
    assert clip.fps == pytest.approx(fps)
    assert clip.frames_u8.std() > 20
