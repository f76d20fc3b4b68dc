from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.camera_error import TrueView, camera_errors, path_length_m, recover_camera
from inspatio_sim.motion.camera import pose_from
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig


@pytest.fixture(scope="module")
def sample():
    """A room seen by two cameras at the same moments."""
    return ProceduralClips(ProceduralConfig(seed=900_000, num_frames=8, length=1))[0]


@pytest.fixture(scope="module")
def true_views(sample):
    return [
        [TrueView.of(frame_u8, depth_m, sample.intrinsics, T_world_camera)]
        for frame_u8, depth_m, T_world_camera in zip(
            sample.target_u8, sample.target_depth_m, sample.T_world_target, strict=True
        )
    ]


def test_other_camera_is_found(sample, true_views):
    errors = camera_errors(sample.reference_u8, true_views, sample.intrinsics, sample.T_world_reference)
    assert errors.recovered_share == 1
    assert np.median(np.degrees(errors.rotation_rad)) < 0.3
    assert np.degrees(errors.rotation_rad).max() < 1.5
    assert np.median(errors.translation_m) < 0.02


def test_known_errors_are_measured(sample, true_views):
    T_wanted_claimed = pose_from(R=Rotation.from_rotvec([0, np.radians(2), 0]).as_matrix(), t_m=[0.1, 0, 0])
    claimed = sample.T_world_target @ T_wanted_claimed
    errors = camera_errors(sample.target_u8, true_views, sample.intrinsics, claimed)
    np.testing.assert_allclose(np.degrees(errors.rotation_rad), 2, atol=0.01)
    np.testing.assert_allclose(errors.translation_m, 0.1, atol=1e-3)


def test_view_from_another_place_is_measured_from_its_own_point(sample, true_views):
    """Depth of the matched view, not of the frame, gives the points: a nearer one would move the camera."""
    nearer = replace(true_views[0][0], points_m=0.5 * true_views[0][0].points_m)
    found = recover_camera(sample.target_u8[0], [nearer], sample.intrinsics)
    assert found is not None
    np.testing.assert_allclose(found[:3, 3], 0.5 * sample.T_world_target[0][:3, 3], atol=1e-3)


def test_noise_and_nothing_have_no_camera(sample, true_views):
    noise_u8 = np.random.default_rng(0).integers(0, 256, sample.target_u8[0].shape).astype(np.uint8)
    frames_u8 = np.stack([noise_u8, np.zeros_like(noise_u8)])
    errors = camera_errors(frames_u8, true_views[:2], sample.intrinsics, sample.T_world_target[:2])
    assert errors.recovered_share == 0
    assert np.isnan(errors.translation_m).all()


def test_keypoints_without_depth_are_left_out(sample):
    view = TrueView.of(
        sample.target_u8[0], np.zeros_like(sample.target_depth_m[0]), sample.intrinsics, sample.T_world_target[0]
    )
    assert len(view.points_m) == len(view.descriptors) == 0
    with pytest.raises(InputError, match="depth has shape"):
        TrueView.of(sample.target_u8[0], np.zeros((2, 2), np.float32), sample.intrinsics, np.eye(4))


def test_path_length():
    path = np.stack([pose_from(t_m=t_m) for t_m in ([0, 0, 0], [3, 4, 0], [3, 4, 1])])
    assert path_length_m(path) == pytest.approx(6)
