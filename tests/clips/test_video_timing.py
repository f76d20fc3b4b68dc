"""Which frames a video gives, and at what rate: pauses, joined recordings, edit lists, bare streams, cut-off files."""

import logging
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inspatio_sim.clips.video import Clip, read_clip
from inspatio_sim.clips.video_timing import usual_interval_s
from inspatio_sim.errors import InputError
from tests.clips.test_video import encode, frame_numbers, smooth_frames

MS = Fraction(1, 1000)


def read(path: Path, caplog, **options) -> Clip:
    """Read a clip; every note about its time must have been logged as a warning as well."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="inspatio_sim.clips.video"):
        clip = read_clip(path, **options)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: {note}" for note in clip.notes]
    return clip


def write_packets(path: Path, codec: str, pts: list[int], *, time_base=MS, rate=10, pix_fmt="yuv420p", **options):
    """Encode one frame of `smooth_frames` for each stamp, as it is: players see what a camera would have written."""
    with av.open(str(path), "w", options=options.pop("container", {})) as output:
        video = output.add_stream(codec, rate=rate, options=options.pop("codec_options", {}))
        video.height, video.width, video.pix_fmt = 48, 64, pix_fmt
        video.codec_context.time_base = time_base
        for stamp, pixels in zip(pts, smooth_frames(len(pts)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            output.mux(video.encode(frame))
        output.mux(video.encode())


def trim(path: Path, first: int, num_frames: int, frame_s: float) -> None:
    """Show only some frames of an MP4 file, as a phone's trim does: by its edit list, nothing else changes."""
    data = bytearray(path.read_bytes())
    entry_at = data.index(b"elst") + 12
    assert struct.unpack_from(">I", data, entry_at - 4) == (1,)  # one edit
    start = struct.unpack_from(">i", data, entry_at + 4)[0]
    movie_scale = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    media_scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    struct.pack_into(">I", data, entry_at, round(num_frames * frame_s * movie_scale))
    struct.pack_into(">i", data, entry_at + 4, start + round(first * frame_s * media_scale))
    path.write_bytes(data)


# Recordings joined: the stamps jump


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video")])
def test_joined_recordings_are_read_on(tmp_path, caplog, suffix, codec):
    encode(tmp_path / f"one.{suffix}", smooth_frames(12), codec=codec, fps=25)
    (tmp_path / f"two.{suffix}").write_bytes((tmp_path / f"one.{suffix}").read_bytes() * 2)
    assert frame_numbers(read(tmp_path / f"one.{suffix}", caplog).frames_u8) == list(range(12))
    clip = read(tmp_path / f"two.{suffix}", caplog)
    assert frame_numbers(clip.frames_u8) == [*range(12), *range(12)]
    assert clip.fps == pytest.approx(25)
    assert clip.notes == (
        "time stamps go back at frame 12 of the file, as where recordings are joined: read on as one",
    )


@pytest.mark.parametrize("start_s", [0, 7200], ids=["ahead", "back"])
def test_joined_recordings_hours_apart(tmp_path, caplog, start_s):
    """Ahead: a pause of two hours. Back: FFmpeg takes it for a wrap of the 33-bit stamps, 26.5 hours on."""
    for name, offset_s in (("a.ts", start_s), ("b.ts", 7200 - start_s)):
        stamps = [round((offset_s + n / 10) * 90_000) for n in range(12)]
        write_packets(
            tmp_path / name, "libx264", stamps, time_base=Fraction(1, 90_000), container={"mpegts_copyts": "1"}
        )
    (tmp_path / "two.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    clip = read(tmp_path / "two.ts", caplog, max_bytes=30 * 48 * 64 * 3)
    assert frame_numbers(clip.frames_u8) == [*range(12), *range(12)]
    assert clip.fps == pytest.approx(10)
    assert "before frame 12 of the file is taken out" in clip.notes[0]


@pytest.mark.parametrize(("start_s", "interval_s"), [(-0.6, 0.1), (-70, 10)])
def test_stamps_that_wrap_around(tmp_path, caplog, start_s, interval_s):
    """MPEG-TS counts to 2^33 ticks of 90 kHz, 26.5 hours, and starts again."""
    stamps = [(1 << 33) + round((start_s + n * interval_s) * 90_000) for n in range(12)]
    options = {"time_base": Fraction(1, 90_000), "container": {"mpegts_copyts": "1"}}
    write_packets(tmp_path / "clip.ts", "libx264", stamps, **options)
    with av.open(str(tmp_path / "clip.ts"), options={"correct_ts_overflow": "0"}) as container:
        stored = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert max(stored) - min(stored) > 1 << 32  # what the test is about
    clip = read(tmp_path / "clip.ts", caplog)
    assert frame_numbers(clip.frames_u8) == list(range(12))
    assert clip.fps == pytest.approx(1 / interval_s)
    assert clip.notes == ()


# Pauses, and rates that vary


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_long_pause_is_taken_out(tmp_path, caplog, suffix):
    pts_ms = [100 * n + (60_000 if n >= 6 else 0) for n in range(12)]
    write_packets(tmp_path / f"clip.{suffix}", "libx264", pts_ms)
    clip = read(tmp_path / f"clip.{suffix}", caplog, max_bytes=12 * 48 * 64 * 3)
    assert frame_numbers(clip.frames_u8) == list(range(12))
    assert clip.fps == pytest.approx(10)
    assert clip.notes == ("a pause of 60.0 s before frame 6 of the file is taken out",)
    assert frame_numbers(read(tmp_path / f"clip.{suffix}", caplog, every=4).frames_u8) == [0, 4, 8]


def test_several_pauses(tmp_path, caplog):
    pts_ms = [0, 100, 200, 5200, 5300, 5400, 5500, 35_500, 35_600]
    write_packets(tmp_path / "clip.mkv", "ffv1", pts_ms)
    clip = read(tmp_path / "clip.mkv", caplog)
    assert frame_numbers(clip.frames_u8) == list(range(9))
    assert clip.notes == ("2 pauses of 34.8 s in all are taken out, the longest (29.9 s) before frame 7 of the file",)


@pytest.mark.parametrize("interval_ms", [3000, 60_000])
def test_frames_that_always_come_slowly_are_no_pauses(tmp_path, caplog, interval_ms):
    write_packets(tmp_path / "lapse.mkv", "ffv1", [interval_ms * n for n in range(8)])
    clip = read(tmp_path / "lapse.mkv", caplog)
    assert frame_numbers(clip.frames_u8) == list(range(8))
    assert clip.fps == pytest.approx(1000 / interval_ms)
    assert clip.notes == ()


def test_a_slow_uneven_rate_is_resampled(tmp_path, caplog):
    """A slide show: each picture stays as long as it was shown."""
    write_packets(tmp_path / "slides.mkv", "ffv1", [0, 5000, 10_000, 15_000, 35_000, 40_000])
    clip = read(tmp_path / "slides.mkv", caplog)
    assert clip.fps == pytest.approx(0.2)
    assert np.isin(frame_numbers(clip.frames_u8), range(6)).all()
    assert len(clip.frames_u8) == 9
    assert clip.notes == ("frames come at uneven times: at a steady 0.2 Hz 0 of 6 are left out and 3 are repeats",)


def test_jitter_loses_no_frame(tmp_path, caplog):
    """A phone's 30 Hz in poor light: every frame once, at the mean rate."""
    jitter_ms = np.random.default_rng(0).integers(-8, 9, 60)
    pts_ms = [0, *(round(n * 100 / 3) + int(jitter_ms[n]) for n in range(1, 60))]
    write_packets(tmp_path / "clip.mkv", "ffv1", pts_ms, rate=15)
    clip = read(tmp_path / "clip.mkv", caplog)
    assert frame_numbers(clip.frames_u8) == [n % 12 for n in range(60)]
    assert clip.fps == pytest.approx(30, rel=0.01)
    assert clip.notes == ()


def test_lost_frames_are_held(tmp_path, caplog):
    """Of 24 frames at 25 Hz four are missing: the rate stays, and each hole shows its neighbours."""
    kept = [n for n in range(24) if n not in (5, 6, 12, 17)]
    write_packets(tmp_path / "clip.mkv", "ffv1", [40 * n for n in kept])
    clip = read(tmp_path / "clip.mkv", caplog)
    assert clip.fps == pytest.approx(25)
    assert len(clip.frames_u8) == 24
    assert clip.notes == ("frames come at uneven times: at a steady 25 Hz 0 of 20 are left out and 4 are repeats",)
    assert read(tmp_path / "clip.mkv", caplog, fps=25).notes == ()  # as asked for
    assert read(tmp_path / "clip.mkv", caplog, every=2).notes == ()


def test_frames_faster_than_usual_are_counted(tmp_path, caplog):
    pts_ms = [100 * n for n in range(8)] + [710, 720] + [100 * n for n in range(8, 14)]
    write_packets(tmp_path / "clip.mkv", "ffv1", pts_ms)
    clip = read(tmp_path / "clip.mkv", caplog)
    assert len(clip.frames_u8) == 14
    assert clip.notes == ("frames come at uneven times: at a steady 10 Hz 2 of 16 are left out and 0 are repeats",)


def test_bursts_keep_their_rate(tmp_path, caplog):
    """A screen recording, with frames only where something changes: nothing is lost, the rest is held."""
    pts_ms = [0, 33, 67, 100, 600, 633, 667, 700, 1500, 1533, 1567, 1600]
    write_packets(tmp_path / "clip.mp4", "libx264", pts_ms)
    clip = read(tmp_path / "clip.mp4", caplog)
    assert clip.fps == pytest.approx(30, rel=0.01)
    assert set(frame_numbers(clip.frames_u8)) == set(range(12))
    assert len(clip.frames_u8) == 49
    assert "0 of 12 are left out and 37 are repeats" in clip.notes[0]


@settings(deadline=None)
@given(
    hz=st.sampled_from([1.0, 12.5, 15.0, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 50.0, 60.0]),
    num_frames=st.integers(60, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_usual_interval_is_found(hz, num_frames, seed):
    """Whatever is lost, paused or rounded to milliseconds; the header names the rate among false ones."""
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(num_frames) > 0.1)
    stamps_s = (kept / hz + np.cumsum(rng.random(len(kept)) < 0.05) * rng.uniform(0, 100)).round(3)
    gaps_s = np.diff(stamps_s)
    assert 1 / usual_interval_s(gaps_s, [hz, 0.39, 1000.0], 0.001) == pytest.approx(hz, rel=1e-9)
    assert 1 / usual_interval_s(gaps_s, [], 0.001) == pytest.approx(hz, rel=0.03)


def test_pulldown_has_the_rate_of_the_film():
    assert 1 / usual_interval_s(np.tile([0.0333, 0.05], 20), [], 1e-4) == pytest.approx(24, rel=0.01)


# Rates in the stream's own header


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.h264", "libx264", {}),
        ("a.hevc", "libx265", {"x265-params": "log-level=none"}),
        ("a.m4v", "mpeg4", {}),
        ("b.m4v", "mpeg4", {"bf": "2"}),
        ("a.ivf", "libvpx", {}),
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
        ("b.ivf", "libvpx-vp9", {}),
        ("a.avi", "mpeg4", {}),
        ("b.avi", "libx264", {}),
        ("a.mpg", "mpeg2video", {}),
        ("a.flv", "flv", {}),
        ("a.wmv", "wmv2", {}),
    ],
)
@pytest.mark.parametrize("rate", [Fraction(15), Fraction(30000, 1001)])
def test_the_rate_of_bare_streams_and_old_containers(tmp_path, caplog, name, codec, options, rate):
    if codec == "mpeg2video" and rate == 15:
        rate = Fraction(25)  # it knows a few rates only
    stamps = range(12)
    write_packets(tmp_path / name, codec, list(stamps), time_base=1 / rate, rate=rate, codec_options=options)
    clip = read(tmp_path / name, caplog)
    assert clip.fps == pytest.approx(float(rate), rel=1e-4)
    assert frame_numbers(clip.frames_u8) == list(stamps)
    assert clip.notes == ()


def test_a_rate_that_nothing_names_is_said(tmp_path, caplog):
    options = {"x265-params": "vui-timing-info=0:log-level=none"}
    write_packets(tmp_path / "clip.hevc", "libx265", [100 * n for n in range(12)], codec_options=options)
    clip = read(tmp_path / "clip.hevc", caplog)
    assert frame_numbers(clip.frames_u8) == list(range(12))
    assert clip.notes == ("the file names no frame rate: 25 Hz is assumed",)


def test_an_avi_whose_recorder_skipped_frames(tmp_path, caplog):
    """AVI stores an empty packet for a skipped frame: the one before is shown for longer, nothing is damaged."""
    kept = [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14]
    for codec, pix_fmt in (("mjpeg", "yuvj420p"), ("libx264", "yuv420p")):
        write_packets(tmp_path / "clip.avi", codec, kept, time_base=Fraction(1, 10), pix_fmt=pix_fmt)
        clip = read(tmp_path / "clip.avi", caplog)
        assert len(clip.frames_u8) == 15
        assert sorted(set(frame_numbers(clip.frames_u8))) == list(range(12))
        assert clip.notes == ("frames come at uneven times: at a steady 10 Hz 0 of 12 are left out and 3 are repeats",)


# Edit lists, and files that are cut off


@pytest.mark.parametrize(("first", "num_frames"), [(0, 12), (5, 7), (9, 20), (13, 11)])
def test_an_edit_list_leaves_out_frames_and_no_warning(tmp_path, caplog, first, num_frames):
    """Also where it starts some groups of pictures into the file."""
    encode(tmp_path / "clip.mp4", np.concatenate([smooth_frames(12)] * 3), fps=10)
    trim(tmp_path / "clip.mp4", first, num_frames, 0.1)
    clip = read(tmp_path / "clip.mp4", caplog, max_bytes=num_frames * 48 * 64 * 3)
    assert frame_numbers(clip.frames_u8) == [n % 12 for n in range(first, first + num_frames)]
    assert clip.notes == ()


def cut_off(path: Path, share: float) -> Path:
    data = path.read_bytes()
    cut = path.with_name(f"cut{path.suffix}")
    cut.write_bytes(data[: int(len(data) * share)])
    return cut


NOISE = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("flv", "flv"), ("ivf", "libvpx")]
)
def test_a_file_that_is_cut_off_is_named(tmp_path, caplog, suffix, codec):
    encode(tmp_path / f"clip.{suffix}", NOISE, codec=codec, container={"movflags": "faststart"})
    assert read(tmp_path / f"clip.{suffix}", caplog).notes == ()
    clip = read(cut_off(tmp_path / f"clip.{suffix}", 2 / 3), caplog)
    assert 5 <= len(clip.frames_u8) < 28
    assert clip.notes[0].startswith(f"damaged or cut off: using the {len(clip.frames_u8)}")
    assert read(tmp_path / f"cut.{suffix}", caplog, max_frames=4).notes == ()  # these are all there


def test_an_edit_list_does_not_hide_that_a_file_is_cut_off(tmp_path, caplog):
    encode(tmp_path / "clip.mp4", NOISE, container={"movflags": "faststart"})
    trim(tmp_path / "clip.mp4", 4, 26, 0.1)
    assert read(tmp_path / "clip.mp4", caplog).notes == ()
    clip = read(cut_off(tmp_path / "clip.mp4", 2 / 3), caplog)
    assert clip.notes[0].startswith("damaged or cut off")


def test_sound_that_goes_on_after_the_picture_is_no_damage(tmp_path, caplog):
    with av.open(str(tmp_path / "clip.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = output.add_stream("aac", rate=48000, layout="mono")
        for pixels in smooth_frames(6):
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(video.encode())
        for n in range(200):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48000, n * 1024
            output.mux(audio.encode(sound))
        output.mux(audio.encode())
    clip = read(tmp_path / "clip.mkv", caplog)
    assert frame_numbers(clip.frames_u8) == list(range(6))
    assert clip.notes == ()


# A part of a clip


def test_a_clip_can_start_later(tmp_path, caplog):
    encode(tmp_path / "clip.mp4", smooth_frames(12))
    assert frame_numbers(read(tmp_path / "clip.mp4", caplog, start_frame=4).frames_u8) == list(range(4, 12))
    clip = read(tmp_path / "clip.mp4", caplog, start_frame=4, max_frames=3)
    assert frame_numbers(clip.frames_u8) == [4, 5, 6]
    assert clip.fps == pytest.approx(10)
    clip = read(tmp_path / "clip.mp4", caplog, start_frame=1, every=3)
    assert frame_numbers(clip.frames_u8) == [3, 6, 9]  # those of `every`, but the first
    seen = []
    read_clip(tmp_path / "clip.mp4", start_frame=4, progress=lambda *done: seen.append(done))
    assert seen == [(n, 8) for n in range(1, 9)]
    assert frame_numbers(read(tmp_path / "clip.mp4", caplog, max_frames=1).frames_u8) == [0]
    assert frame_numbers(read(tmp_path / "clip.mp4", caplog, start_frame=11).frames_u8) == [11]


def test_images_and_films_of_images_can_start_later(tmp_path):
    images = [Image.fromarray(pixels) for pixels in smooth_frames(6)]
    for n, image in enumerate(images):
        image.save(tmp_path / f"{n}.png")
    assert frame_numbers(read_clip(tmp_path, start_frame=2, max_frames=3).frames_u8) == [2, 3, 4]
    assert frame_numbers(read_clip(tmp_path, start_frame=1, every=2).frames_u8) == [2, 4]
    with pytest.raises(InputError, match=rf"{tmp_path}: start_frame=6: the clip has 6 frames"):
        read_clip(tmp_path, start_frame=6)
    images[0].save(tmp_path / "film.webp", save_all=True, append_images=images[1:], duration=100, lossless=True)
    assert frame_numbers(read_clip(tmp_path / "film.webp", start_frame=2, max_frames=3).frames_u8) == [2, 3, 4]
    with pytest.raises(InputError, match=r"film\.webp: start_frame=6: the clip has 6 frames"):
        read_clip(tmp_path / "film.webp", start_frame=6)


def test_a_start_after_the_end_is_refused(tmp_path):
    encode(tmp_path / "clip.mp4", smooth_frames(12))
    with pytest.raises(InputError, match=r"clip\.mp4: start_frame=12: the clip has 12 frames"):
        read_clip(tmp_path / "clip.mp4", start_frame=12)
    with pytest.raises(InputError, match="start_frame=-1: want 0 or more"):
        read_clip(tmp_path / "clip.mp4", start_frame=-1)


# Files that went wrong


@pytest.mark.parametrize(
    ("name", "num_frames", "fps", "note"),
    [
        ("joined_same.ts", 48, 15, "time stamps go back at frame 24"),
        ("pause.mp4", 24, 15, "a pause of 60.0 s before frame 12"),
        ("raw.h264", 24, 15, None),
        ("trimmed.mp4", 15, 15, None),
        ("editlist_small.mp4", 23, 25, None),
    ],
)
def test_cases(test_data, caplog, name, num_frames, fps, note):
    clip = read(test_data / "cases" / "clips" / name, caplog)
    assert len(clip.frames_u8) == num_frames
    assert clip.fps == pytest.approx(fps)
    assert len(clip.notes) == (note is not None)
    assert note is None or clip.notes[0].startswith(note)
