"""Cuts are found, named and refused; whatever else changes a picture quickly is no cut."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from inspatio_sim.clips.cuts import HEIGHT_PX, WIDTH_PX, CutFinder
from inspatio_sim.clips.video import read_clip, write_clip
from inspatio_sim.errors import InputError
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import demo_clip


def place(seed: int) -> np.ndarray:
    """A wide picture with detail of all sizes, as places have. [360, 1920]"""
    rng = np.random.default_rng(seed)
    picture = np.zeros((360, 1920), np.float32)
    for size_px in (4, 12, 40, 120):
        small = rng.normal(size=(360 // size_px + 2, 1920 // size_px + 2)).astype(np.float32)
        picture += size_px**0.5 * cv2.resize(small, (1920, 360), interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        corner, color = (int(rng.integers(1920)), int(rng.integers(360))), float(rng.normal(scale=15))
        cv2.rectangle(picture, corner, (corner[0] + int(rng.integers(10, 90)), corner[1] + 40), color, -1)
    return np.clip(110 + 4.5 * picture, 0, 255).astype(np.uint8)


def pan(picture: np.ndarray, num_frames: int, step_px: int, blur_px: int = 1) -> list[np.ndarray]:
    """A camera that turns: 480 of the picture's pixels are in view, and `step_px` new ones a frame."""
    blurred = cv2.blur(picture, (blur_px, 1))
    views = (blurred[:270, n * step_px : n * step_px + 480] for n in range(num_frames))
    return [cv2.resize(view, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA) for view in views]


def cuts(thumbnails: list[np.ndarray]) -> list[float]:
    """Where they are, by the number of the frame."""
    finder = CutFinder()
    for n, thumbnail in enumerate(thumbnails):
        finder.add(n, np.ascontiguousarray(thumbnail))
    return finder.finish()


def gain(thumbnail: np.ndarray, factor: float, offset: float = 0) -> np.ndarray:
    return np.clip(thumbnail * factor + offset, 0, 255).astype(np.uint8)


KITCHEN, STREET = place(1), place(2)


@pytest.mark.parametrize("step_px", [0, 20, 100])
@pytest.mark.parametrize(("num_before", "num_after"), [(12, 12), (1, 12), (12, 1), (3, 2)])
def test_a_cut_is_found_at_its_frame(step_px, num_before, num_after):
    thumbnails = pan(KITCHEN, num_before, step_px) + pan(STREET, num_after, step_px)
    assert cuts(thumbnails) == [num_before]


def test_several_cuts_and_one_over_black():
    black = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    thumbnails = pan(KITCHEN, 8, 20) + [black] * 4 + pan(STREET, 8, 20) + pan(place(3), 8, 20)
    assert cuts(thumbnails) == [12, 20]


def test_a_logo_does_not_hide_a_cut():
    thumbnails = pan(KITCHEN, 8, 20) + pan(STREET, 8, 20)
    for thumbnail in thumbnails:
        thumbnail[4:20, 120:150] = place(4)[:160:10, :300:10]
    assert cuts(thumbnails) == [8]


@pytest.mark.parametrize("step_px", [20, 100, 200, 280])
def test_a_fast_turn_is_no_cut(step_px):
    assert cuts(pan(KITCHEN, 6, step_px)) == []
    assert cuts(pan(KITCHEN, 6, step_px, blur_px=step_px)) == []


def test_a_whip_pan_is_no_cut():
    """From rest to half a picture a frame and back, blurred as it goes."""
    at_px = np.cumsum([0, 0, 0, 10, 40, 100, 200, 240, 240, 200, 100, 40, 10, 0, 0, 0])
    blurred = [cv2.blur(KITCHEN, (max(int(step), 1), 1)) for step in np.diff(at_px, prepend=0)]
    views = [picture[:270, at : at + 480] for at, picture in zip(at_px, blurred, strict=True)]
    assert cuts([cv2.resize(view, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA) for view in views]) == []


@pytest.mark.parametrize("num_lost", [1, 3, 8])
def test_lost_frames_are_no_cut(num_lost):
    thumbnails = pan(KITCHEN, 30, 30)
    del thumbnails[10 : 10 + num_lost]
    assert cuts(thumbnails) == []


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bright", "white", "hand"])
def test_flashes_and_a_hand_over_the_lens_are_no_cuts(num_frames, kind):
    thumbnails = pan(KITCHEN, 16, 20)
    for n in range(7, 7 + num_frames):
        hand = gain(pan(place(5), 1, 0)[0], 0.3, 20)
        thumbnails[n] = {"bright": gain(thumbnails[n], 3, 60), "white": np.full_like(hand, 255), "hand": hand}[kind]
    assert cuts(thumbnails) == []


@pytest.mark.parametrize(("factor", "offset"), [(0.35, 0), (2.0, 0), (0.6, 60), (1.0, -60)])
def test_exposure_that_jumps_is_no_cut(factor, offset):
    thumbnails = pan(KITCHEN, 16, 20)
    assert cuts(thumbnails[:8] + [gain(thumbnail, factor, offset) for thumbnail in thumbnails[8:]]) == []


def test_noise_and_flat_pictures_have_no_cuts():
    rng = np.random.default_rng(0)
    noisy = [np.clip(view + rng.normal(0, 25, view.shape), 0, 255).astype(np.uint8) for view in pan(KITCHEN, 12, 20)]
    assert cuts(noisy) == []
    assert cuts([rng.integers(0, 255, (HEIGHT_PX, WIDTH_PX), dtype=np.uint8) for _ in range(8)]) == []
    assert cuts([np.full((HEIGHT_PX, WIDTH_PX), 25 * n, np.uint8) for n in range(8)]) == []


# Clips


def write_scenes(path: Path, num_frames: tuple[int, ...], step_px: int = 20) -> None:
    views = [view for seed, num in enumerate(num_frames) for view in pan(place(10 + seed), num, step_px)]
    write_clip(path, np.repeat(np.stack(views)[..., None], 3, axis=3), fps=10)


def test_a_clip_names_its_cuts(tmp_path):
    write_scenes(tmp_path / "clip.mp4", (12, 9, 7))
    assert read_clip(tmp_path / "clip.mp4").cuts == (12, 21)
    assert read_clip(tmp_path / "clip.mp4", every=5).cuts == (3, 5)  # frames 15 and 25
    assert read_clip(tmp_path / "clip.mp4", start_frame=15).cuts == (6,)
    assert read_clip(tmp_path / "clip.mp4", start_frame=12, max_frames=9).cuts == ()
    assert read_clip(tmp_path / "clip.mp4", max_frames=13).cuts == (12,)


def test_frames_after_the_last_one_tell_a_flash_from_a_cut(tmp_path):
    views = np.repeat(np.stack(pan(KITCHEN, 12, 20))[..., None], 3, axis=3)
    views[6:8] = gain(pan(place(5), 1, 0)[0], 0.3, 20)[..., None]
    write_clip(tmp_path / "clip.mp4", views, fps=10)
    assert read_clip(tmp_path / "clip.mp4", max_frames=7).cuts == ()


def test_two_scenes_are_refused_with_what_to_take(tmp_path):
    write_scenes(tmp_path / "clip.mp4", (12, 9))
    message = (
        r"clip\.mp4: 2 scenes, with cuts before frame 12: want one of them, such as frames "
        r"0 to 11 \(--start-frame 0 --max-frames 12\) or 12 to 20 \(--start-frame 12 --max-frames 9\)"
    )
    for method in ("auto", "layout", "sfm"):
        with pytest.raises(InputError, match=message):
            reconstruct(read_clip(tmp_path / "clip.mp4"), method)
    part = read_clip(tmp_path / "clip.mp4", start_frame=12, max_frames=9)
    assert reconstruct(part, "layout").num_frames == 9
    with pytest.raises(InputError, match=r"5 to 11 \(--start-frame 5 --max-frames 7\)"):
        reconstruct(read_clip(tmp_path / "clip.mp4", start_frame=5))


def test_of_many_scenes_the_longest_are_named(tmp_path):
    write_scenes(tmp_path / "clip.mp4", (3, 8, 4, 9, 4, 4, 4))
    with pytest.raises(InputError) as caught:
        reconstruct(read_clip(tmp_path / "clip.mp4"), "layout")
    assert "7 scenes, with cuts before frame 3, 11, 15, 24, 28 and 1 more: " in str(caught.value)
    assert str(caught.value).endswith(
        "frames 3 to 10 (--start-frame 3 --max-frames 8) or 15 to 23 (--start-frame 15 --max-frames 9)"
    )


def test_images_are_never_refused(tmp_path):
    """Photos of one place may have nothing in common."""
    for n, seed in enumerate((1, 1, 2, 2)):
        cv2.imwrite(str(tmp_path / f"{n}.png"), pan(place(seed), 1, 0)[0])
    assert read_clip(tmp_path).cuts == ()


def test_damage_is_no_cut(tmp_path):
    """A file whose middle is lost goes on in the same scene."""
    views = np.repeat(np.stack(pan(KITCHEN, 24, 10))[..., None], 3, axis=3)
    with av.open(str(tmp_path / "clip.mkv"), "w") as output:
        video = output.add_stream("mjpeg", rate=10)
        video.height, video.width, video.pix_fmt = HEIGHT_PX, WIDTH_PX, "yuvj420p"
        for n, view in enumerate(views):
            if not 8 <= n < 12:
                frame = av.VideoFrame.from_ndarray(view, format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 10)
                output.mux(video.encode(frame))
        output.mux(video.encode())
    assert read_clip(tmp_path / "clip.mkv").cuts == ()


def test_a_clip_with_its_own_cameras_is_not_looked_at():
    clip = demo_clip(num_frames=4, size_px=(48, 80))
    assert clip.cuts == ()


# Real clips


@pytest.mark.parametrize("name", ["apple.mp4", "coffee.mp4", "tokyo_walk.mp4"])
def test_real_clips_have_no_cuts(test_data, name):
    assert read_clip(test_data / "videos" / name, size_px=(96, 160)).cuts == ()


def test_the_case_with_a_cut(test_data):
    clip = read_clip(test_data / "cases" / "clips" / "cut3.mp4", size_px=(96, 160))
    assert clip.cuts == (32,)
    with pytest.raises(InputError, match=r"cut3\.mp4: 2 scenes, with cuts before frame 32"):
        reconstruct(clip)
    assert replace(clip, cuts=()).check_one_scene() is None  # for who knows better
