from dataclasses import replace

import numpy as np
import pytest

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.reconstruction.protocol import Reconstruction
from inspatio_sim.reconstruction.scale import ScaleRequest, camera_height_units, to_reference

H, W = 90, 160
CAMERA = Intrinsics.from_fov(1.2, W, H)


def look_down(pitch_rad: float) -> np.ndarray:
    """Camera-to-world rotation of a camera tilted towards the ground."""
    c, s = np.cos(pitch_rad), np.sin(pitch_rad)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def ray_cast(planes, T_world_camera, camera=CAMERA) -> np.ndarray:
    """Exact z-depth of the nearest of some planes n . p = d, 0 beyond 60 units. [H, W]"""
    y_px, x_px = np.mgrid[: camera.height_px, : camera.width_px]
    rays = np.stack(
        [(x_px - camera.cx_px) / camera.fx_px, (y_px - camera.cy_px) / camera.fy_px, np.ones_like(x_px)], -1
    )
    rays = rays @ T_world_camera[:3, :3].T
    nearest = np.full(x_px.shape, np.inf)
    for normal, distance, holds in planes:
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (distance - T_world_camera[:3, 3] @ normal) / (rays @ normal)
        points = T_world_camera[:3, 3] + rays * depth[..., None]
        hit = (depth > 0) & np.isfinite(depth) & holds(points)
        nearest = np.where(hit, np.minimum(nearest, np.where(hit, depth, np.inf)), nearest)
    return np.where(nearest < 60, nearest, 0).astype(np.float32)


def everywhere(points):
    return np.ones(points.shape[:-1], bool)


DOWN, AHEAD = np.array([0.0, 1, 0]), np.array([0.0, 0, 1])


def room(height=1.5, table_height=None, pitch_rad=0.4, num_frames=2, is_metric=False) -> tuple[Clip, Reconstruction]:
    """A camera in front of a wall, above a floor, perhaps above a table; the camera climbs a little."""
    planes = [(DOWN, height, everywhere), (AHEAD, 6.0, everywhere)]
    if table_height is not None:
        on_table = lambda p: (np.abs(p[..., 0]) < 1.2) & (p[..., 2] > 0.8) & (p[..., 2] < 2.2)  # noqa: E731
        planes.append((DOWN, height - table_height, on_table))
    poses = np.stack([pose_from(look_down(pitch_rad), [0, -0.1 * i, 0]) for i in range(num_frames)])
    depth = np.stack([ray_cast(planes, T) for T in poses])
    clip = Clip(frames_u8=np.zeros((num_frames, H, W, 3), np.uint8), fps=10.0, source="room")
    return clip, Reconstruction(depth_units=depth, intrinsics=CAMERA, T_world_camera=poses, is_metric=is_metric)


@pytest.mark.parametrize("height", [0.02, 1.5, 40.0])
@pytest.mark.parametrize("pitch_rad", [0.1, 0.4, 0.9])
def test_ground_is_found_whatever_the_unit(height, pitch_rad):
    _, result = room(pitch_rad=pitch_rad)
    unit = height / 1.5
    poses = result.T_world_camera.copy()
    poses[:, :3, 3] *= unit
    scaled = Reconstruction(
        depth_units=result.depth_units * np.float32(unit), intrinsics=CAMERA, T_world_camera=poses, is_metric=False
    )
    assert camera_height_units(scaled) == pytest.approx(height, rel=1e-3)


def test_floor_is_the_ground_and_not_the_table():
    _, result = room(table_height=0.7)
    assert camera_height_units(result) == pytest.approx(1.5, rel=1e-3)


def test_ground_survives_noise_and_holes():
    _, result = room(table_height=0.7)
    rng = np.random.default_rng(0)
    depth = result.depth_units * rng.normal(1, 0.003, result.depth_units.shape).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    noisy = Reconstruction(depth_units=depth, intrinsics=CAMERA, T_world_camera=result.T_world_camera, is_metric=False)
    assert camera_height_units(noisy) == pytest.approx(1.5, rel=0.03)


def test_camera_height_scales_depth_and_translations_alike():
    clip, result = room()
    reference = to_reference(clip, result, method="sfm", reason="", scale=ScaleRequest(camera_height_m=0.75))
    assert reference.scale.source == "camera-height"
    assert reference.scale.metres_per_unit == pytest.approx(0.5, rel=1e-3)
    factor = reference.scale.metres_per_unit
    np.testing.assert_allclose(reference.depth_m, result.depth_units * factor, rtol=1e-6)
    np.testing.assert_allclose(reference.T_world_camera[:, :3, 3], result.T_world_camera[:, :3, 3] * factor)
    np.testing.assert_array_equal(reference.T_world_camera[:, :3, :3], result.T_world_camera[:, :3, :3])


def test_known_length_fixes_the_scale():
    clip, result = room(pitch_rad=0.0)  # the wall ahead is parallel to the image
    ends = ((20.0, 10.0), (100.0, 10.0))
    true_units = 80 / CAMERA.fx_px * 6.0
    reference = to_reference(
        clip, result, method="sfm", reason="", scale=ScaleRequest(length_m=2.5, length_pixels=ends)
    )
    assert reference.scale.source == "length"
    assert reference.scale.metres_per_unit == pytest.approx(2.5 / true_units, rel=1e-6)
    assert "2.5 m" in reference.scale.note


def test_assumed_sets_the_first_median_to_three_metres_and_says_so():
    clip, result = room()
    reference = to_reference(clip, result, method="sfm", reason="it moves", warnings=("first",))
    first = reference.depth_m[0]
    assert np.median(first[first > 0]) == pytest.approx(3.0, rel=1e-6)
    assert reference.scale.source == "assumed"
    assert "median depth of the first frame was set to 3 m" in reference.scale.note
    assert reference.provenance.reason == "it moves"
    assert reference.provenance.warnings == ("first",)


@pytest.mark.parametrize(("method", "source"), [("rgbd", "sensor"), ("hf", "metric-model"), ("da3", "metric-model")])
def test_metric_backends_keep_their_metres(method, source):
    clip, result = room(is_metric=True)
    reference = to_reference(clip, result, method=method, reason="")
    assert (reference.scale.source, reference.scale.metres_per_unit) == (source, 1.0)
    np.testing.assert_array_equal(reference.depth_m, result.depth_units)


def test_a_measurement_replaces_a_models_metres():
    clip, result = room(is_metric=True)
    reference = to_reference(clip, result, method="hf", reason="", scale=ScaleRequest(camera_height_m=3.0))
    assert reference.scale.source == "camera-height"
    assert "replaces" in reference.scale.note
    assert reference.scale.metres_per_unit == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 100.5])
def test_absurd_heights_and_lengths_are_refused(value):
    with pytest.raises(InputError, match="camera_height_m="):
        ScaleRequest(camera_height_m=value)
    with pytest.raises(InputError, match="length_m="):
        ScaleRequest(length_m=value * 10, length_pixels=((0, 0), (1, 1)))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ScaleRequest(length_m=1, length_pixels=((0, 0), (W, 0))), "inside the 160x90 image"),
        (ScaleRequest(length_m=1, length_pixels=((0, 0), (float("nan"), 0))), "inside the 160x90 image"),
        (ScaleRequest(length_m=1, length_pixels=((5, 5), (5, 5))), "same point"),
        (ScaleRequest(length_m=1, length_pixels=((5, 5), (9, 5)), length_frame=2), "length_frame=2: want 0 to 1"),
    ],
)
def test_unusable_lengths_are_refused(request_, message):
    clip, result = room()
    with pytest.raises(InputError, match=message):
        to_reference(clip, result, method="sfm", reason="", scale=request_)


def test_contradicting_or_half_requests_are_refused():
    with pytest.raises(InputError, match="both given"):
        ScaleRequest(camera_height_m=1, length_m=1, length_pixels=((0, 0), (1, 1)))
    with pytest.raises(InputError, match="length_pixels is missing"):
        ScaleRequest(length_m=1)
    with pytest.raises(InputError, match="length_m is missing"):
        ScaleRequest(length_pixels=((0, 0), (1, 1)))


def test_no_ground_in_view_is_said():
    depth = np.full((1, H, W), 2.0, np.float32)  # nothing but a wall
    result = Reconstruction(depth_units=depth, intrinsics=CAMERA, T_world_camera=np.eye(4)[None], is_metric=False)
    with pytest.raises(InputError, match="no level ground"):
        camera_height_units(result)


def test_unknown_depth_at_an_end_is_said():
    clip, result = room()
    depth = result.depth_units.copy()
    depth[:, :20, :20] = 0
    holes = Reconstruction(depth_units=depth, intrinsics=CAMERA, T_world_camera=result.T_world_camera, is_metric=False)
    with pytest.raises(InputError, match="unknown: pick another"):
        to_reference(
            clip, holes, method="sfm", reason="", scale=ScaleRequest(length_m=1, length_pixels=((5, 5), (50, 50)))
        )


def test_the_clips_notes_are_the_first_warnings():
    clip, result = room()
    noted = replace(clip, notes=("HLG: tone-mapped",))
    reference = to_reference(
        noted, replace(result, warnings=("no gravity",)), method="layout", reason="test", warnings=("no sfm",)
    )
    assert reference.provenance.warnings == ("HLG: tone-mapped", "no sfm", "no gravity")
