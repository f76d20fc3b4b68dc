"""Made-up clips: the same bytes again, true geometry, free cameras."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inspatio_sim.errors import InputError
from inspatio_sim.geometry.warp import forward_warp
from inspatio_sim.motion.camera import Intrinsics, inverse
from inspatio_sim.scenes.primitives import Box
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.data.procedural_cameras import MAX_AWAY_M, MAX_AWAY_RAD, MIN_CLEARANCE_M, draw_cameras
from inspatio_sim.training.data.procedural_scenes import make_place
from inspatio_sim.training.data.procedural_sensor import Sensor
from inspatio_sim.training.data.procedural_styles import Style, color_word, palette
from inspatio_sim.training.data.sample import Sample

CONFIG = ProceduralConfig(seed=7, num_frames=9, size_px=(48, 80), fps=3.0)  # three seconds, as long as a whole clip
STYLES: tuple[Style, ...] = ("synthetic", "photo")
NUM_CLIPS = 8
CAMERA = Intrinsics.from_fov(1.3, 80, 48)


def fingerprint(sample: Sample) -> str:
    digest = hashlib.sha256(sample.caption.encode())
    for value in vars(sample).values():
        if isinstance(value, np.ndarray):
            digest.update(value.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def clips() -> dict[Style, list[Sample]]:
    sets: dict[Style, ProceduralClips] = {style: ProceduralClips(replace(CONFIG, style=style)) for style in STYLES}
    return {style: [clip_set[i] for i in range(NUM_CLIPS)] for style, clip_set in sets.items()}


def test_shapes_and_types(clips: dict[Style, list[Sample]]):
    for sample in (*clips["synthetic"], *clips["photo"]):
        assert sample.reference_u8.shape == sample.target_u8.shape == (9, 48, 80, 3)
        assert sample.reference_u8.dtype == sample.target_u8.dtype == np.uint8
        assert sample.reference_depth_m.shape == sample.target_depth_m.shape == (9, 48, 80)
        assert sample.reference_depth_m.dtype == sample.target_depth_m.dtype == np.float32
        assert sample.T_world_reference.shape == sample.T_world_target.shape == (9, 4, 4)
        assert (sample.intrinsics.height_px, sample.intrinsics.width_px) == (48, 80)


@pytest.mark.parametrize("style", STYLES)
def test_another_process_makes_the_same_bytes(style: Style, clips: dict[Style, list[Sample]]):
    code = (
        "from tests.training.data.test_procedural import *;"
        f"print(fingerprint(ProceduralClips(replace(CONFIG, style={style!r}, num_threads=2))[3]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == fingerprint(clips[style][3])


def test_seeds_indices_and_styles_differ(clips: dict[Style, list[Sample]]):
    other_seed = ProceduralClips(replace(CONFIG, seed=8))[0]
    prints = [fingerprint(sample) for sample in (*clips["synthetic"], *clips["photo"], other_seed)]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(("style", "min_psnr_db"), [("synthetic", 25.0), ("photo", 22.0)])  # a photo has noise
def test_both_cameras_see_one_place(style: Style, min_psnr_db: float, clips: dict[Style, list[Sample]]):
    for sample in clips[style]:
        for frame in (0, -1):
            T_target_reference = inverse(sample.T_world_target[frame]) @ sample.T_world_reference[frame]
            seen = forward_warp(
                sample.reference_u8[frame],
                sample.reference_depth_m[frame],
                sample.intrinsics,
                sample.intrinsics,
                T_target_reference,
            )
            depth_m = sample.target_depth_m[frame]
            shared = seen.is_known & (np.abs(seen.depth_m - depth_m) < 0.02 * depth_m)  # else one hides it
            if frame == 0:
                assert shared.mean() > 0.5
                assert psnr_db(seen.rgb_u8, sample.target_u8[0], seen.is_known) > min_psnr_db
            elif shared.mean() > 0.05:
                assert psnr_db(seen.rgb_u8, sample.target_u8[frame], shared) > min_psnr_db


def psnr_db(a_u8: np.ndarray, b_u8: np.ndarray, where: np.ndarray) -> float:
    error = a_u8[where].astype(float) - b_u8[where]
    return 10 * math.log10(255**2 / max(1e-9, np.mean(error**2)))


def test_the_target_starts_near_the_reference_and_departs(clips: dict[Style, list[Sample]]):
    departures_m = []
    for sample in clips["synthetic"]:
        away = inverse(sample.T_world_reference) @ sample.T_world_target
        distance_m = np.linalg.norm(away[:, :3, 3], axis=1)
        angle_rad = np.arccos(np.clip((np.trace(away[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1))
        assert distance_m[0] < 0.25
        assert distance_m.max() < MAX_AWAY_M + 0.05
        assert angle_rad.max() < MAX_AWAY_RAD + 0.05
        departures_m.append(distance_m.max())
        for poses in (sample.T_world_reference, sample.T_world_target):
            steps_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
            assert steps_m.max() * CONFIG.fps < 3.0  # metres a second
    assert max(departures_m) > 0.3


def test_depth_is_finite_everywhere_and_positive_indoors(clips: dict[Style, list[Sample]]):
    num_indoors = 0
    for sample in (*clips["synthetic"], *clips["photo"]):
        depth_m = np.stack([sample.reference_depth_m, sample.target_depth_m])
        assert np.isfinite(depth_m).all()
        assert (depth_m >= 0).all()
        if "open space" not in sample.caption:
            assert (depth_m > 0.05).all()
            num_indoors += 1
    assert num_indoors > 0


def test_no_camera_is_in_or_near_a_solid_at_any_time():
    colors, num_made = palette("synthetic"), 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        place = make_place(rng, colors)
        cameras = draw_cameras(rng, place, CAMERA, num_frames=9, fps=3.0)
        if cameras is None:
            continue
        num_made += 1
        for frame in range(9):  # moving things are where they are then
            at_m = np.stack([cameras.T_world_reference[frame, :3, 3], cameras.T_world_target[frame, :3, 3]])
            assert place.scene.distance(torch.from_numpy(at_m), frame / 3.0).min() > MIN_CLEARANCE_M - 1e-3
    assert num_made > 6


def test_a_place_without_room_has_no_cameras():
    rng = np.random.default_rng(0)
    place = make_place(rng, palette("synthetic"))
    full = Box(center_m=(0.0, 0.0, 0.0), size_m=(40.0, 40.0, 40.0), material=place.scene.solids[0].material)
    crowded = replace(place, scene=replace(place.scene, solids=(*place.scene.solids, full)))
    assert draw_cameras(rng, crowded, CAMERA, num_frames=3, fps=3.0) is None


def test_captions_are_plain_words(clips: dict[Style, list[Sample]]):
    captions = [sample.caption for sample in (*clips["synthetic"], *clips["photo"])]
    for caption in captions:
        assert caption.isascii()
        assert caption.endswith(".")
        assert 20 < len(caption) < 400
        assert "  " not in caption
        assert ".." not in caption
    assert len(set(captions)) > NUM_CLIPS
    assert any("moves" in caption for caption in captions)


@pytest.mark.parametrize(
    ("color", "word"),
    [((0.9, 0.1, 0.1), "red"), ((0.1, 0.2, 0.9), "blue"), ((0.45, 0.27, 0.12), "brown"), ((0.9, 0.9, 0.9), "white")],
)
def test_colours_have_their_everyday_names(color: tuple[float, float, float], word: str):
    assert color_word(color) == word


def test_a_sensor_adds_a_little_noise_to_every_frame():
    rng = np.random.default_rng(0)
    flat = np.full((2, 64, 64, 3), 120, np.uint8)
    exposed = Sensor.draw(rng).expose(flat, np.zeros(2), rng).astype(float)
    assert 0.2 < exposed[0].std(axis=(0, 1)).mean() < 4
    assert not np.array_equal(exposed[0], exposed[1])
    assert abs(exposed.mean() - 120) < 50  # exposure and white balance


def test_a_users_pictures_are_among_the_textures(tmp_path: Path):
    Image.fromarray(np.full((64, 64, 3), (10, 200, 10), np.uint8)).save(tmp_path / "green.png")
    own = ProceduralClips(replace(CONFIG, style="photo", texture_folder=tmp_path))
    paths = {str(getattr(texture, "path", "")) for texture, _ in own.palette.textures["wall"]}
    assert str(tmp_path / "green.png") in paths
    assert own[0].reference_u8.shape == (9, 48, 80, 3)


def test_one_frame_is_a_clip_too():
    assert ProceduralClips(replace(CONFIG, num_frames=1))[0].target_u8.shape == (1, 48, 80, 3)


def test_indices_end():
    few = ProceduralClips(replace(CONFIG, length=2))
    assert len(few) == 2
    for index in (2, -1):
        with pytest.raises(IndexError):
            few[index]


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_frames", 0), ("length", 0), ("num_threads", 0), ("seed", -1), ("size_px", (8, 80)), ("fps", math.nan)],
)
def test_wrong_settings_are_named(name: str, value: object):
    with pytest.raises(InputError, match=f"{name}="):
        replace(CONFIG, **{name: value})


def test_wrong_styles_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="style='oil'"):
        ProceduralClips(replace(CONFIG, style="oil"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="texture_folder"):
        ProceduralClips(replace(CONFIG, texture_folder=tmp_path))
