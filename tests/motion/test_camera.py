import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.motion.axes import (
    R_AXES_OPENCV,
    convert_points,
    convert_pose,
    pose_from_colmap,
    pose_to_colmap,
)
from inspatio_sim.motion.camera import (
    CameraPath,
    Intrinsics,
    PoseDelta,
    check_pose,
    check_poses,
    interpolate,
    interpolate_poses,
    inverse,
    pose_from,
    se3_exp,
    se3_log,
    skew,
)

relaxed = settings(deadline=None, max_examples=50)

numbers = st.floats(-1, 1)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)


@st.composite
def twists(draw, max_angle_rad=np.pi - 1e-3, max_m=5.0):
    axis = draw(vectors)
    length = np.linalg.norm(axis)
    axis = axis / length if length > 1e-3 else np.array([0.0, 1.0, 0.0])
    return np.concatenate([draw(vectors) * max_m / 2, axis * draw(st.floats(0, max_angle_rad))])


poses = twists(max_m=20.0).map(se3_exp)


def yaw_right(angle_rad):
    return Rotation.from_rotvec([0, angle_rad, 0]).as_matrix()


# Intrinsics


def test_intrinsics_follow_a_resize_and_a_crop():
    camera = Intrinsics(fx_px=100, fy_px=110, cx_px=31.5, cy_px=23.5, width_px=64, height_px=48)
    doubled = camera.resized(128, 96)
    assert (doubled.fx_px, doubled.cx_px, doubled.cy_px) == (200, 63.5, 47.5)
    cropped = camera.cropped(10, 5, 20, 20)
    assert (cropped.cx_px, cropped.cy_px) == (21.5, 18.5)
    assert Intrinsics.from_matrix(camera.K_px, 64, 48) == camera


def test_centred_intrinsics_double_with_the_image():
    camera = Intrinsics(fx_px=100, fy_px=100, cx_px=30, cy_px=20, width_px=64, height_px=48)
    assert np.allclose(camera.centred(120, 40).K_px, [[200, 0, 60], [0, 100, 20], [0, 0, 1]])


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (np.eye(4), "3x3"),
        (np.full((3, 3), np.nan), "NaN"),
        ([[100, 5, 50], [0, 100, 50], [0, 0, 1]], "want"),
        ([[-100, 0, 50], [0, 100, 50], [0, 0, 1]], "positive"),
    ],
)
def test_bad_intrinsics_are_refused(K, message):
    with pytest.raises(InputError, match=message):
        Intrinsics.from_matrix(K, 100, 100)


# Poses


@pytest.mark.parametrize(
    ("T", "message"),
    [
        (np.eye(3), "4x4"),
        (np.full((4, 4), np.nan), "NaN or inf"),
        (np.diag([2.0, 1, 1, 1]), "not a rigid motion"),
        (np.diag([-1.0, 1, 1, 1]), "left-handed"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
    ],
)
def test_what_is_no_pose_is_refused(T, message):
    with pytest.raises(InputError, match=message):
        check_pose(T)
    with pytest.raises(InputError, match=message):
        PoseDelta.from_matrix(T)


def test_check_poses_names_the_wrong_one():
    with pytest.raises(InputError, match=r"poses\[1\]"):
        check_poses(np.stack([np.eye(4), np.diag([-1.0, 1, 1, 1])]))


@relaxed
@given(poses)
def test_inverse_undoes_a_pose(T):
    assert np.allclose(inverse(T) @ T, np.eye(4), atol=1e-12)


# SE(3)


@relaxed
@given(vectors, vectors)
def test_skew_is_the_cross_product(u, v):
    assert np.allclose(skew(u) @ v, np.cross(u, v))


@relaxed
@given(twists(max_angle_rad=2 * np.pi))
def test_exp_is_the_matrix_exponential(twist):
    generator = np.zeros((4, 4))
    generator[:3, :3], generator[:3, 3] = skew(twist[3:]), twist[:3]
    assert np.allclose(se3_exp(twist), expm(generator), atol=1e-12)


@relaxed
@given(twists())
def test_log_undoes_exp(twist):
    assert np.allclose(se3_log(se3_exp(twist)), twist, atol=1e-9)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 0.6, 0.8], [0, 0, -1]])
def test_log_of_a_half_turn_still_performs_it(axis):
    T = se3_exp(np.array([0.3, -1.0, 2.0, *(np.pi * np.array(axis))]))
    assert np.allclose(se3_exp(se3_log(T)), T, atol=1e-9)


def test_exp_and_log_take_batches():
    twist = np.random.default_rng(0).normal(size=(5, 2, 6)) * 0.5
    assert np.allclose(se3_log(se3_exp(twist)), twist)
    assert np.allclose(se3_exp(twist)[3, 1], se3_exp(twist[3, 1]))


# PoseDelta


def test_identity_moves_nothing():
    assert np.array_equal(PoseDelta.identity().T_old_new, np.eye(4))


@relaxed
@given(twists())
def test_from_matrix_keeps_the_matrix(twist):
    T = se3_exp(twist)
    assert np.allclose(PoseDelta.from_matrix(T).T_old_new, T, atol=1e-12)


def test_a_quarter_circle_ends_where_geometry_says():
    # 1 m/s forward, turning right at 90 deg/s for 1 s: radius 2/pi.
    delta = PoseDelta.from_twist([0, 0, 1], [0, np.pi / 2, 0], 1.0)
    radius_m = 2 / np.pi
    assert np.allclose(delta.T_old_new, pose_from(yaw_right(np.pi / 2), [radius_m, 0, radius_m]))
    assert delta.distance_m == pytest.approx(1.0)
    assert delta.angle_rad == pytest.approx(np.pi / 2)


@relaxed
@given(twists())
def test_inverse_goes_back(twist):
    delta = PoseDelta(twist)
    assert np.allclose(delta.then(delta.inverse()).T_old_new, np.eye(4), atol=1e-9)


@relaxed
@given(twists(max_angle_rad=1.5, max_m=2.0), twists(max_angle_rad=1.5, max_m=2.0))
def test_two_motions_compose_in_order(first, second):
    together = PoseDelta(first) @ PoseDelta(second)
    assert np.allclose(together.T_old_new, se3_exp(first) @ se3_exp(second), atol=1e-9)


@relaxed
@given(twists(max_angle_rad=2 * np.pi), st.integers(1, 9))
def test_parts_add_up(twist, num_parts):
    delta = PoseDelta(twist)
    T = np.linalg.matrix_power(delta.part(1 / num_parts).T_old_new, num_parts)
    assert np.allclose(T, delta.T_old_new, atol=1e-9)


def test_a_long_turn_stays_long():
    frames = interpolate(np.eye(4), PoseDelta.from_twist([0, 0, 0], [0, np.radians(270), 0], 1.0), 3)
    assert np.allclose(frames[0], pose_from(yaw_right(np.pi / 2)))  # and not 30 degrees the other way


@pytest.mark.parametrize(
    ("linear", "angular", "duration_s", "message"),
    [
        ([0, 0, np.nan], [0, 0, 0], 1.0, "NaN"),
        ([0, 0, 1], [0, np.inf, 0], 1.0, "NaN or inf"),
        ([0, 0, 1], [0, 0, 0], np.nan, "duration"),
        ([0, 0, 1], [0, 0, 0], -1.0, "duration"),
        ([0, 0, 1], [0, 0], 1.0, "shapes"),
        ([0, 0, 10.01], [0, 0, 0], 1.0, "at most 10 m"),
        ([0, 0, 1e308], [0, 0, 0], 1e308, "at most 10 m"),
        ([0, 0, 100], [0, 2 * np.pi, 0], 1.0, "at most 10 m"),  # ends where it began
        ([0, 0, 0], [0, 6.3, 0], 1.0, "at most 2 pi"),
    ],
)
def test_absurd_motions_are_refused(linear, angular, duration_s, message):
    with pytest.raises(InputError, match=message):
        PoseDelta.from_twist(linear, angular, duration_s)


def test_a_jump_of_eleven_metres_is_refused():
    with pytest.raises(InputError, match="at most 10 m"):
        PoseDelta.from_matrix(pose_from(t_m=[11, 0, 0]))


def test_a_delta_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        PoseDelta.identity().T_old_new[0, 3] = 1.0


# Interpolation


@relaxed
@given(poses, twists(max_angle_rad=2 * np.pi), st.integers(1, 13))
def test_a_block_ends_with_the_whole_motion_in_even_steps(T_start, twist, num_frames):
    delta = PoseDelta(twist)
    frames = interpolate(T_start, delta, num_frames)
    assert frames.shape == (num_frames, 4, 4)
    assert np.allclose(frames[-1], T_start @ delta.T_old_new, atol=1e-12)
    steps = inverse(np.concatenate([T_start[None], frames[:-1]])) @ frames
    assert np.allclose(steps, steps[0], atol=1e-9)


def test_no_frames_are_refused():
    with pytest.raises(InputError, match="num_frames=0"):
        interpolate(np.eye(4), PoseDelta.identity(), 0)


def test_poses_between_poses():
    known = np.stack([np.eye(4), pose_from(yaw_right(1.0), [2, 0, 0])])
    between = interpolate_poses(known, [0.0, 4.0], [-1.0, 0.0, 1.0, 4.0, 9.0])
    assert np.allclose(between[[0, 1]], np.eye(4))
    assert np.allclose(between[2], pose_from(yaw_right(0.25), [0.5, 0, 0]))
    assert np.allclose(between[[3, 4]], known[1])


def test_one_pose_is_held_and_bad_times_are_refused():
    assert np.allclose(interpolate_poses(np.eye(4)[None], [0.0], [0.0, 5.0]), np.eye(4))
    for times in ([1.0, 1.0], [1.0, 0.0], [0.0, np.nan], [0.0]):
        with pytest.raises(InputError):
            interpolate_poses(np.stack([np.eye(4)] * 2), times, [0.5])


# CameraPath


def test_a_path_adds_motions_up():
    path = CameraPath()
    path.advance(PoseDelta.from_twist([0, 0, 1], [0, 0, 0], 1.0), 4)
    path.advance(PoseDelta.from_twist([0, 0, 0], [0, np.pi / 2, 0], 1.0), 4)
    frames = path.advance(PoseDelta.from_twist([0, 0, 1], [0, 0, 0], 1.0), 4)
    assert np.allclose(frames[:, :3, 3], [[0.25, 0, 1], [0.5, 0, 1], [0.75, 0, 1], [1, 0, 1]])
    assert np.array_equal(path.T_world_camera, frames[-1])


@pytest.mark.slow
def test_a_million_steps_keep_the_rotation_a_rotation():
    # The motion's own matrix is off by 1e-8, as float32 input is: uncorrected, that grows to 1e-2 and more.
    delta = PoseDelta(np.array([0.01, 0.002, 0.03, 0.013, -0.021, 0.007]))
    crooked = delta.T_old_new.copy()
    crooked[0, 0] += 1e-8
    object.__setattr__(delta, "T_old_new", crooked)
    path = CameraPath()
    for _ in range(1_000_000):
        path.advance(delta)
    R = path.T_world_camera[:3, :3]
    assert np.abs(R.T @ R - np.eye(3)).max() < 1e-6
    uncorrected = np.linalg.matrix_power(crooked, 1_000_000)[:3, :3]
    assert np.abs(uncorrected.T @ uncorrected - np.eye(3)).max() > 1e-4


def test_a_path_goes_on_with_the_same_bits():
    rng = np.random.default_rng(3)
    deltas = [PoseDelta(twist) for twist in rng.normal(size=(40, 6)) * 0.1]
    path = CameraPath()
    for delta in deltas[:20]:
        path.advance(delta, 3)
    restored = CameraPath()
    restored.load_state(path.state())
    for delta in deltas[20:]:
        assert np.array_equal(path.advance(delta, 3), restored.advance(delta, 3))


# Axis conventions

CONVENTIONS = list(R_AXES_OPENCV)


@relaxed
@given(poses, st.sampled_from(CONVENTIONS), st.sampled_from(CONVENTIONS))
def test_conversions_round_trip(T, source, target):
    assert np.allclose(convert_pose(convert_pose(T, source, target), target, source), T, atol=1e-9)


@relaxed
@given(poses, vectors, st.sampled_from([name for name in CONVENTIONS if name != "colmap"]))
def test_a_point_seen_stays_the_same_point(T_world_camera, point, target):
    elsewhere = convert_pose(T_world_camera, "opencv", target) @ [*convert_points(point, "opencv", target), 1]
    here = (T_world_camera @ [*point, 1])[:3]
    assert np.allclose(elsewhere[:3], convert_points(here, "opencv", target), atol=1e-9)


@pytest.mark.parametrize(
    ("target", "forward", "up", "left"),
    [
        ("opencv", [0, 0, 1], [0, -1, 0], [-1, 0, 0]),
        ("opengl", [0, 0, -1], [0, 1, 0], [-1, 0, 0]),
        ("habitat", [0, 0, -1], [0, 1, 0], [-1, 0, 0]),
        ("ros", [1, 0, 0], [0, 0, 1], [0, 1, 0]),
        ("colmap", [0, 0, -1], [0, 1, 0], [1, 0, 0]),  # world to camera: the world moves the other way
    ],
)
def test_forward_up_and_left_in_every_convention(target, forward, up, left):
    for motion_m, expected in (([0, 0, 1], forward), ([0, -1, 0], up), ([-1, 0, 0], left)):
        assert np.allclose(convert_pose(pose_from(t_m=motion_m), "opencv", target)[:3, 3], expected)


def test_a_turn_to_the_left_is_positive_about_z_in_ros():
    T_ros = convert_pose(pose_from(yaw_right(-0.3)), "opencv", "ros")
    assert np.allclose(Rotation.from_matrix(T_ros[:3, :3]).as_rotvec(), [0, 0, 0.3])


@relaxed
@given(poses)
def test_colmap_quaternions_round_trip(T_world_camera):
    qvec, tvec = pose_to_colmap(T_world_camera)
    assert qvec[0] >= 0
    assert np.allclose(pose_from_colmap(qvec, tvec), T_world_camera, atol=1e-9)
    assert np.allclose(tvec, inverse(T_world_camera)[:3, 3])


def test_a_known_colmap_image():
    # A camera at x = 1 that looks to the right (+x): q is the world-to-camera turn by -90 degrees about y.
    T = pose_from_colmap([np.sqrt(0.5), 0, -np.sqrt(0.5), 0], [0, 0, -1])
    assert np.allclose(T[:3, 3], [1, 0, 0])
    assert np.allclose(T[:3, 2], [1, 0, 0])


def test_bad_conventions_are_refused():
    with pytest.raises(InputError, match="blender"):
        convert_pose(np.eye(4), "blender", "ros")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="quaternion"):
        pose_from_colmap([0, 0, 0, 0], [0, 0, 0])


def test_state_survives_json():
    path = CameraPath(se3_exp(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])))
    saved = json.loads(json.dumps({name: value.tolist() for name, value in path.state().items()}))
    restored = CameraPath()
    restored.load_state(saved)
    assert np.array_equal(restored.T_world_camera, path.T_world_camera)
