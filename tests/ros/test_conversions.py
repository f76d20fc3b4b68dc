import math

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Pose
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from inspatio_ros import conversions
from inspatio_ros.conversions import T_LINK_OPTICAL, T_MAP_WORLD
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid
from inspatio_sim.mapping.grid import ros_from_world as floor_plane
from inspatio_sim.motion.axes import convert_pose
from inspatio_sim.motion.camera import Intrinsics, check_pose, inverse, pose_from

STAMP = conversions.time_msg(12.25)
BAND_M, RANGE_M = (0.1, 1.0), (0.1, 10.0)
few = settings(deadline=None, max_examples=40)

sides = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)
angles = st.floats(-math.pi, math.pi)
lengths = st.floats(-50, 50)
poses = st.builds(
    lambda a, b, c, t: pose_from(Rotation.from_euler("zyx", [a, b, c]).as_matrix(), t),
    angles,
    angles,
    angles,
    st.tuples(lengths, lengths, lengths),
)


def check_types(msg):
    """Give every field to a message that checks what it is given, as the wire would."""
    checking = type(msg)(check_fields=True)
    for name in msg.get_fields_and_field_types():
        value = getattr(msg, name)
        setattr(checking, name, value)
        if hasattr(value, "get_fields_and_field_types"):
            check_types(value)


def a_picture(seed, height_px, width_px):
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def some_depth(seed, height_px, width_px):
    """0.3 to 9 m, a fifth of it unknown."""
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(0.3, 9, (height_px, width_px)).astype(np.float32)
    depth_m[rng.random(depth_m.shape) < 0.2] = 0
    return depth_m


def rows_of(pixels, dtype, padding_bytes):
    """The bytes of an image whose rows have something else behind them."""
    rows = [row.astype(dtype).tobytes() + b"\xa5" * padding_bytes for row in pixels]
    return b"".join(rows)


# Time


@few
@given(st.integers(0, 2**31 - 3), st.integers(0, 10**9 - 1))
def test_times_survive_to_the_nanosecond_that_a_float_holds(sec, nanosec):
    time_s = sec + 1e-9 * nanosec
    stamp = conversions.time_msg(time_s)
    assert 0 <= stamp.nanosec < 10**9
    assert abs(conversions.seconds(stamp) - time_s) <= 1e-9 + math.ulp(time_s)


def test_a_time_just_below_a_second_carries_over():
    stamp = conversions.time_msg(2.9999999999)
    assert (stamp.sec, stamp.nanosec) == (3, 0)
    check_types(stamp)


@pytest.mark.parametrize("time_s", [-0.1, math.nan, math.inf, 2.0**31 - 1])
def test_times_that_no_stamp_holds_are_refused(time_s):
    with pytest.raises(InputError, match="time_s"):
        conversions.time_msg(time_s)


# Images


@few
@given(seeds, sides, sides)
def test_pictures_go_there_and_back(seed, height_px, width_px):
    rgb_u8 = a_picture(seed, height_px, width_px)
    msg = conversions.image_msg(rgb_u8, STAMP, "camera_optical_frame")
    check_types(msg)
    assert (msg.encoding, msg.height, msg.width, msg.step) == ("rgb8", height_px, width_px, 3 * width_px)
    assert (msg.header.stamp, msg.header.frame_id) == (STAMP, "camera_optical_frame")
    assert bytes(msg.data) == rgb_u8.tobytes()
    np.testing.assert_array_equal(conversions.image_array(msg), rgb_u8)


@pytest.mark.parametrize("cut", [np.s_[::2, ::3], np.s_[::-1], np.s_[:, 2:7]])
def test_pictures_need_not_lie_in_one_piece(cut):
    rgb_u8 = a_picture(0, 8, 9)[cut]
    np.testing.assert_array_equal(conversions.image_array(conversions.image_msg(rgb_u8, STAMP, "f")), rgb_u8)


@few
@given(seeds, sides, sides, st.integers(0, 7), st.booleans(), st.sampled_from(sorted(conversions._CHANNELS)))
def test_any_row_padding_and_byte_order_is_read(seed, height_px, width_px, padding_bytes, is_bigendian, encoding):
    kind, num_channels = conversions._CHANNELS[encoding]
    dtype = np.dtype(kind).newbyteorder(">" if is_bigendian else "<")
    shape = (height_px, width_px, num_channels) if num_channels > 1 else (height_px, width_px)
    pixels = (np.random.default_rng(seed).uniform(0, 255, shape) * (257 if kind == "u2" else 1)).astype(kind)
    msg = Image(encoding=encoding, height=height_px, width=width_px, is_bigendian=is_bigendian)
    msg.step = width_px * num_channels * dtype.itemsize + padding_bytes
    msg.data = rows_of(pixels, dtype, padding_bytes)
    read = conversions.image_array(msg)
    np.testing.assert_array_equal(read, pixels)
    assert read.shape == shape


def test_reading_copies_nothing_and_cannot_write():
    msg = conversions.image_msg(a_picture(0, 4, 5), STAMP, "f")
    read = conversions.image_array(msg)
    assert np.shares_memory(read, np.frombuffer(msg.data, dtype=np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0, 0] = 1


def test_images_that_do_not_fit_their_header_are_refused():
    msg = conversions.image_msg(a_picture(0, 4, 5), STAMP, "f")
    msg.step = 14
    with pytest.raises(InputError, match="rows of 14 bytes: want at least 15"):
        conversions.image_array(msg)
    msg.step = 16
    with pytest.raises(InputError, match="60 bytes: want 4 rows of 16"):
        conversions.image_array(msg)
    msg.encoding = "yuv422"
    with pytest.raises(InputError, match="'yuv422': want one of rgb8"):
        conversions.image_array(msg)
    with pytest.raises(InputError, match="uint8 H x W x 3"):
        conversions.image_msg(np.zeros((4, 5), dtype=np.uint8), STAMP, "f")


def test_compressed_pictures_are_jpeg_in_the_right_colours():
    rgb_u8 = np.zeros((48, 64, 3), dtype=np.uint8)
    rgb_u8[:, :32] = 220, 30, 60
    rgb_u8[:, 32:] = 20, 90, 200
    msg = conversions.compressed_msg(rgb_u8, STAMP, "f", quality=95)
    check_types(msg)
    assert msg.format == "rgb8; jpeg compressed bgr8"
    assert bytes(msg.data[:3]) == b"\xff\xd8\xff"
    bgr_u8 = cv2.imdecode(np.frombuffer(msg.data, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert bgr_u8 is not None
    error = np.abs(bgr_u8[..., ::-1].astype(int) - rgb_u8)
    assert error[:, :24].max() < 6
    assert error[:, 40:].max() < 6
    noise_u8 = a_picture(0, 48, 64)
    num_bytes = [len(conversions.compressed_msg(noise_u8, STAMP, "f", quality=q).data) for q in (10, 50, 90)]
    assert num_bytes == sorted(set(num_bytes))
    with pytest.raises(InputError, match="quality=0"):
        conversions.compressed_msg(rgb_u8, STAMP, "f", quality=0)


@few
@given(seeds, sides, sides)
def test_depth_goes_there_and_back(seed, height_px, width_px):
    depth_m = some_depth(seed, height_px, width_px)
    metres = conversions.depth_msg(depth_m, STAMP, "f")
    check_types(metres)
    assert (metres.encoding, metres.step) == ("32FC1", 4 * width_px)
    np.testing.assert_array_equal(np.isnan(conversions.image_array(metres)), depth_m == 0)
    np.testing.assert_array_equal(conversions.depth_array(metres), depth_m)
    millimetres = conversions.depth_msg(depth_m, STAMP, "f", encoding="16UC1")
    assert (millimetres.encoding, millimetres.step) == ("16UC1", 2 * width_px)
    np.testing.assert_array_equal(conversions.image_array(millimetres) == 0, depth_m == 0)
    np.testing.assert_allclose(conversions.depth_array(millimetres), depth_m, atol=0.000501)


def test_unknown_depth_has_one_form_in_each_encoding():
    odd_m = np.array([[0, -1, math.nan, math.inf, -math.inf, 65.6, 65.535, 0.0004, 1.5]], dtype=np.float32)
    metres = conversions.image_array(conversions.depth_msg(odd_m, STAMP, "f"))
    np.testing.assert_array_equal(metres[0], [np.nan] * 5 + odd_m[0, 5:].tolist())
    millimetres = conversions.image_array(conversions.depth_msg(odd_m, STAMP, "f", encoding="16UC1"))
    np.testing.assert_array_equal(millimetres[0], [0, 0, 0, 0, 0, 0, 65535, 0, 1500])
    with pytest.raises(InputError, match="'64FC1': want 32FC1 or 16UC1"):
        conversions.depth_msg(odd_m, STAMP, "f", encoding="64FC1")  # pyright: ignore[reportArgumentType]


def test_depth_of_others_is_read_as_metres_with_0_unknown():
    raw_m = np.array([[math.nan, math.inf, -1.0, 2.5]], dtype=np.float32)
    msg = Image(encoding="32FC1", height=1, width=4, step=16, is_bigendian=True)
    msg.data = raw_m.astype(">f4").tobytes()
    depth_m = conversions.depth_array(msg)
    assert depth_m.dtype == np.float32
    assert depth_m.dtype.isnative
    assert depth_m.tolist() == [[0, 0, 0, 2.5]]
    with pytest.raises(InputError, match="'rgb8': want 32FC1"):
        conversions.depth_array(conversions.image_msg(a_picture(0, 2, 2), STAMP, "f"))


def test_provenance_is_mono8():
    known = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    msg = conversions.known_msg(known, STAMP, "f")
    check_types(msg)
    assert (msg.encoding, msg.step) == ("mono8", 4)
    np.testing.assert_array_equal(conversions.image_array(msg), known)


# Camera


cameras = st.builds(
    lambda f, width_px, height_px, x, y: Intrinsics(
        fx_px=f,
        fy_px=1.1 * f,
        cx_px=x * (width_px - 1),
        cy_px=y * (height_px - 1),
        width_px=width_px,
        height_px=height_px,
    ),
    st.floats(5, 900),
    st.integers(2, 40),
    st.integers(2, 40),
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
)


@few
@given(cameras)
def test_camera_info_is_a_pinhole_and_comes_back(intrinsics):
    msg = conversions.camera_info_msg(intrinsics, STAMP, "camera_optical_frame")
    check_types(msg)
    np.testing.assert_array_equal(np.reshape(msg.k, (3, 3)), intrinsics.K_px)
    np.testing.assert_array_equal(np.reshape(msg.r, (3, 3)), np.eye(3))
    np.testing.assert_array_equal(np.reshape(msg.p, (3, 4)), np.c_[intrinsics.K_px, np.zeros(3)])
    assert (msg.distortion_model, list(msg.d)) == ("plumb_bob", [0.0] * 5)
    assert (msg.header.stamp, msg.header.frame_id) == (STAMP, "camera_optical_frame")
    assert conversions.intrinsics_of(msg) == intrinsics


def test_cameras_that_are_no_pinhole_of_the_whole_image_are_refused():
    def info():
        return conversions.camera_info_msg(Intrinsics.from_fov(1.0, 64, 48), STAMP, "f")

    bent = info()
    bent.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    fisheye = info()
    fisheye.distortion_model = "equidistant"
    for msg in (bent, fisheye):
        with pytest.raises(InputError, match="rectify the images first"):
            conversions.intrinsics_of(msg)
    binned, cropped = info(), info()
    binned.binning_x = 2
    cropped.roi.x_offset = 8
    for msg in (binned, cropped):
        with pytest.raises(InputError, match="want the whole image"):
            conversions.intrinsics_of(msg)
    with pytest.raises(InputError, match="image size 0x0|K is"):
        conversions.intrinsics_of(CameraInfo())


# Points


@few
@given(cameras, seeds)
def test_depth_and_camera_info_give_the_points_that_are_published(intrinsics, seed):
    """What a subscriber computes from the two messages by the pinhole equation, against the cloud."""
    depth_m = some_depth(seed, intrinsics.height_px, intrinsics.width_px)
    rgb_u8 = a_picture(seed, intrinsics.height_px, intrinsics.width_px)
    cloud = conversions.cloud_msg(*conversions.frame_points(depth_m, rgb_u8, intrinsics), STAMP, "f")
    points_m, colors_u8 = conversions.cloud_arrays(cloud)

    received_m = conversions.image_array(conversions.depth_msg(depth_m, STAMP, "f"))
    P = np.reshape(conversions.camera_info_msg(intrinsics, STAMP, "f").p, (3, 4))
    v, u = np.nonzero(~np.isnan(received_m))
    z_m = received_m[v, u].astype(np.float64)
    expected_m = np.stack([(u - P[0, 2]) / P[0, 0] * z_m, (v - P[1, 2]) / P[1, 1] * z_m, z_m], axis=-1)
    np.testing.assert_allclose(points_m, expected_m, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(colors_u8, rgb_u8[v, u])

    projected = np.c_[points_m, np.ones(len(points_m))] @ P.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], np.stack([u, v], axis=-1), atol=1e-3)


def test_a_frame_must_be_as_big_as_its_camera():
    intrinsics = Intrinsics.from_fov(1.0, 8, 6)
    with pytest.raises(InputError, match="want 6 x 8"):
        conversions.frame_points(np.zeros((8, 6), dtype=np.float32), a_picture(0, 8, 6), intrinsics)


@few
@given(arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)), seeds)
def test_clouds_go_there_and_back(points_m, seed):
    rgb_u8 = np.random.default_rng(seed).integers(0, 256, points_m.shape, dtype=np.uint8)
    msg = conversions.cloud_msg(points_m, rgb_u8, STAMP, "map")
    check_types(msg)
    assert [(field.name, field.offset, field.datatype) for field in msg.fields] == [
        (name, offset, PointField.FLOAT32) for name, offset in (("x", 0), ("y", 4), ("z", 8), ("rgb", 12))
    ]
    assert (msg.height, msg.width, msg.point_step, msg.row_step) == (1, len(points_m), 16, 16 * len(points_m))
    read_m, read_u8 = conversions.cloud_arrays(msg)
    np.testing.assert_array_equal(read_m, points_m)
    np.testing.assert_array_equal(read_u8, rgb_u8)


def test_colours_are_packed_as_pcl_packs_them():
    msg = conversions.cloud_msg(np.zeros((1, 3), dtype=np.float32), np.array([[1, 2, 3]], dtype=np.uint8), STAMP, "f")
    assert np.frombuffer(msg.data, dtype=np.uint32)[3] == 0x010203


def test_clouds_of_others_are_read():
    """Organised, padded rows, doubles, big-endian, fields in another order."""
    record = np.dtype(
        {
            "names": ["rgba", "z", "x", "y"],
            "formats": [">u4", ">f8", ">f8", ">f8"],
            "offsets": [0, 4, 12, 20],
            "itemsize": 32,
        }
    )
    points = np.zeros((2, 3), dtype=record)
    for i, name in enumerate("xyz"):
        points[name] = 10 * i + np.arange(6).reshape(2, 3)
    points["rgba"] = 0xFF102030
    offsets = {"rgba": 0, "z": 4, "x": 12, "y": 20}
    msg = PointCloud2(height=2, width=3, point_step=32, row_step=3 * 32 + 5, is_bigendian=True)
    msg.fields = [
        PointField(name=name, offset=offsets[name], count=1, datatype=kind)
        for name, kind in (("rgba", PointField.UINT32), *((axis, PointField.FLOAT64) for axis in "zxy"))
    ]
    msg.data = b"".join(row.tobytes() + b"\x01" * 5 for row in points)
    points_m, rgb_u8 = conversions.cloud_arrays(msg)
    np.testing.assert_array_equal(points_m, np.arange(6)[:, None] + [0, 10, 20])
    assert points_m.dtype == np.float32
    assert (rgb_u8 == [0x10, 0x20, 0x30]).all()
    msg.fields = msg.fields[1:]
    with pytest.raises(InputError, match="fields z, x, y: want x, y, z and rgb"):
        conversions.cloud_arrays(msg)


# Grid


@few
@given(
    arrays(np.int8, st.tuples(sides, sides), elements=st.sampled_from([-1, 0, 100])),
    st.sampled_from([0.05, 0.1, 0.5]),
    st.tuples(lengths, lengths),
)
def test_floor_plans_go_there_and_back(cells, resolution_m, origin_m):
    grid = PlanningGrid(cells=cells, resolution_m=resolution_m, origin_m=origin_m)
    msg = conversions.grid_msg(grid, STAMP, "map")
    check_types(msg)
    read = conversions.grid_of(msg)
    np.testing.assert_array_equal(read.cells, cells)
    assert (read.resolution_m, read.origin_m) == (resolution_m, origin_m)


def test_cells_run_from_the_lower_left_along_x():
    """As map_server has it: the cell of index i lies at origin + resolution * (i % width, i // width)."""
    cells = np.array([[0, 100, -1], [-1, 0, 0]], dtype=np.int8)
    grid = PlanningGrid(cells=cells, resolution_m=0.5, origin_m=(-1.0, 2.0))
    msg = conversions.grid_msg(grid, STAMP, "map")
    assert list(msg.data) == [0, 100, -1, -1, 0, 0]
    assert (msg.info.width, msg.info.height) == (3, 2)
    index = np.arange(6)
    centres_m = np.stack([-1 + 0.5 * (index % 3 + 0.5), 2 + 0.5 * (index // 3 + 0.5)], axis=-1)
    at = grid.cell_of(centres_m)
    assert cells[at[:, 0], at[:, 1]].tolist() == list(msg.data)
    np.testing.assert_array_equal(conversions.matrix_of(msg.info.origin), pose_from(t_m=[-1, 2, 0]))


def test_grids_that_are_turned_or_short_are_refused():
    msg = conversions.grid_msg(
        PlanningGrid(cells=np.zeros((2, 3), dtype=np.int8), resolution_m=0.1, origin_m=(0.0, 0.0)), STAMP, "map"
    )
    msg.info.width = 4
    with pytest.raises(InputError, match="6 cells: want 2 x 4"):
        conversions.grid_of(msg)
    msg.info.origin.orientation.z = 0.5
    with pytest.raises(InputError, match="origin is rotated"):
        conversions.grid_of(msg)


# Poses


@few
@given(poses, st.sampled_from(["pose", "transform"]))
def test_poses_go_there_and_back(T, kind):
    if kind == "pose":
        msg = conversions.pose_msg(T)
        quaternion = msg.orientation
    else:
        stamped = conversions.transform_msg(T, STAMP, "odom", "base_link")
        check_types(stamped)
        assert (stamped.header.frame_id, stamped.child_frame_id) == ("odom", "base_link")
        assert stamped.header.stamp == STAMP
        msg = stamped.transform
        quaternion = msg.rotation
    check_types(msg)
    assert math.hypot(quaternion.x, quaternion.y, quaternion.z, quaternion.w) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(conversions.matrix_of(msg), T, atol=1e-12)


def test_a_turn_to_the_left_has_the_quaternion_of_the_textbook():
    """90 degrees about z."""
    msg = conversions.pose_msg(pose_from([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3]))
    q = msg.orientation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, math.sqrt(0.5), math.sqrt(0.5)], atol=1e-12)
    assert (msg.position.x, msg.position.y, msg.position.z) == (1, 2, 3)


def test_quaternions_of_others_are_normalised_or_refused():
    msg = Pose()
    msg.orientation.w, msg.orientation.z = 2.0, 2.0
    np.testing.assert_allclose(conversions.matrix_of(msg)[:3, 0], [0, 1, 0], atol=1e-12)
    msg.orientation.w = msg.orientation.z = 0.0
    with pytest.raises(InputError, match="want one that is not zero"):
        conversions.matrix_of(msg)
    msg.orientation.w = math.nan
    with pytest.raises(InputError, match="want finite numbers"):
        conversions.matrix_of(msg)


def test_odometry_names_its_two_frames():
    T = pose_from(Rotation.from_euler("z", 0.4).as_matrix(), [1, 2, 0])
    msg = conversions.odometry_msg(T, np.arange(6), STAMP)
    check_types(msg)
    assert (msg.header.frame_id, msg.child_frame_id) == ("odom", "base_link")
    np.testing.assert_allclose(conversions.matrix_of(msg.pose.pose), T, atol=1e-12)
    linear, angular = msg.twist.twist.linear, msg.twist.twist.angular
    assert [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("T", [T_MAP_WORLD, T_LINK_OPTICAL])
def test_right_down_forward_become_forward_left_up(T):
    check_pose(T)
    right, down, forward = T[:3, :3].T
    assert (right.tolist(), down.tolist(), forward.tolist()) == ([0, -1, 0], [0, 0, -1], [1, 0, 0])


@few
@given(poses, st.tuples(lengths, lengths, lengths))
def test_the_map_sees_the_camera_where_the_world_does(T_world_camera, point_m):
    T_map_optical = conversions.ros_from_world(T_world_camera)
    check_pose(T_map_optical)
    in_world_m = T_world_camera[:3, :3] @ point_m + T_world_camera[:3, 3]
    in_map_m = T_map_optical[:3, :3] @ point_m + T_map_optical[:3, 3]
    np.testing.assert_allclose(in_map_m, [in_world_m[2], -in_world_m[0], -in_world_m[1]], atol=1e-9)
    np.testing.assert_allclose(in_map_m[:2], floor_plane(in_world_m), atol=1e-9)
    T_map_link = T_map_optical @ inverse(T_LINK_OPTICAL)
    np.testing.assert_allclose(T_map_link, convert_pose(T_world_camera, "opencv", "ros"), atol=1e-9)


@few
@given(poses, st.floats(0, 2))
def test_the_base_is_level_below_the_camera_and_heads_where_it_looks(T_map_link, camera_height_m):
    T_map_base, T_base_link = conversions.level_base(T_map_link, camera_height_m)
    check_pose(T_map_base)
    np.testing.assert_allclose(T_map_base @ T_base_link, T_map_link, atol=1e-9)
    np.testing.assert_allclose(T_map_base[:3, 2], [0, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(T_base_link[:3, 3], [0, 0, camera_height_m])
    ahead = T_map_link[:2, 0]
    if np.linalg.norm(ahead) > 0.03:
        np.testing.assert_allclose(T_map_base[:2, 0], ahead / np.linalg.norm(ahead), atol=1e-9)


@pytest.mark.parametrize("yaw_rad", [-2.5, 0.0, 1.0])
def test_a_camera_keeps_its_heading_while_it_looks_down(yaw_rad):
    for pitch_rad in np.linspace(-math.pi / 2, math.pi / 2, 31):
        T_map_link = pose_from(Rotation.from_euler("ZY", [yaw_rad, pitch_rad]).as_matrix())
        T_map_base, _ = conversions.level_base(T_map_link, 1.0)
        np.testing.assert_allclose(T_map_base[:2, 0], [math.cos(yaw_rad), math.sin(yaw_rad)], atol=1e-9)


# Scan


def look(height_m, pitch_rad=0.0, roll_rad=0.0):
    """`T_base_camera` of a camera that looks ahead, `pitch_rad` down."""
    R_base_link = Rotation.from_euler("YX", [pitch_rad, roll_rad]).as_matrix()
    return pose_from(R_base_link, [0, 0, height_m]) @ T_LINK_OPTICAL


def rays(intrinsics, T_base_camera):
    """Rays of all pixels in the axes of the base, with z-depth 1. [H, W, 3]"""
    v, u = np.mgrid[: intrinsics.height_px, : intrinsics.width_px]
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    return pixels @ np.linalg.inv(intrinsics.K_px).T @ T_base_camera[:3, :3].T


def room_depth(intrinsics, T_base_camera, front_m, left_m, right_m, floor_m=0.0, ceiling_m=2.6):
    """Depth of a camera in a box of a room (no back wall); distances are from the base."""
    ray = rays(intrinsics, T_base_camera)
    height_m = T_base_camera[2, 3]
    with np.errstate(divide="ignore"):
        hits_m = [front_m / ray[..., 0], left_m / ray[..., 1], -right_m / ray[..., 1]]
        hits_m += [(floor_m - height_m) / ray[..., 2], (ceiling_m - height_m) / ray[..., 2]]
    hits_m = np.stack(hits_m)
    nearest_m = np.where(hits_m > 0, hits_m, np.inf).min(axis=0)
    return np.where(np.isfinite(nearest_m), nearest_m, 0).astype(np.float32)


def bearings(scan):
    return scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges))


def to_walls(bearings_rad, front_m, left_m, right_m):
    """Distance to the walls along the floor."""
    with np.errstate(divide="ignore"):
        ahead_m = front_m / np.cos(bearings_rad)
        beside_m = np.where(bearings_rad > 0, left_m, right_m) / np.abs(np.sin(bearings_rad))
    return np.minimum(ahead_m, beside_m)


def scan_of(depth_m, intrinsics, T_base_camera, **options):
    scan = conversions.scan_msg(depth_m, intrinsics, T_base_camera, STAMP, "base_link", **options)
    check_types(scan)
    return scan, np.array(scan.ranges)


CAMERA = Intrinsics.from_fov(1.4, 160, 120)
walls = st.floats(0.6, 5)


@few
@given(walls, walls, walls, st.floats(0.3, 1.4), st.floats(-0.2, 0.5), st.floats(-0.3, 0.3))
def test_scan_of_a_room_however_the_camera_is_tilted(front_m, left_m, right_m, height_m, pitch_rad, roll_rad):
    T_base_camera = look(height_m, pitch_rad, roll_rad)
    depth_m = room_depth(CAMERA, T_base_camera, front_m, left_m, right_m)
    scan, ranges_m = scan_of(depth_m, CAMERA, T_base_camera)
    # Where a pixel shows the wall within the band, its bearing has the distance of the wall.
    ray = rays(CAMERA, T_base_camera)
    points_m = T_base_camera[:3, 3] + depth_m[..., None] * ray
    is_in_band = (points_m[..., 2] > BAND_M[0] + 0.02) & (points_m[..., 2] < BAND_M[1] - 0.02)
    seen_rad = np.arctan2(points_m[..., 1], points_m[..., 0])[is_in_band]
    beams = np.round((seen_rad - scan.angle_min) / scan.angle_increment).astype(int)
    beams = np.unique(beams[(beams >= 0) & (beams < len(ranges_m))])
    assert np.isfinite(ranges_m[beams]).all()
    # A pixel stands for all that it covers, on walls seen at an angle and round their corners.
    pixel_rad = 1 / CAMERA.fx_px
    around_m = [to_walls(bearings(scan) + turn, front_m, left_m, right_m) for turn in (-pixel_rad, 0, pixel_rad)]
    is_seen = np.isfinite(ranges_m)
    assert (ranges_m >= 0.99 * np.min(around_m, axis=0))[is_seen].all()
    assert (ranges_m <= 1.01 * np.max(around_m, axis=0))[is_seen].all()


def test_a_tilted_camera_scans_what_a_level_one_does():
    level, level_m = scan_of(room_depth(CAMERA, look(0.5), 3.0, 2.0, 1.5), CAMERA, look(0.5))
    np.testing.assert_allclose(level_m, to_walls(bearings(level), 3.0, 2.0, 1.5), rtol=0.02)
    for pitch_rad, roll_rad in ((0.3, 0.0), (-0.2, 0.1), (0.2, -0.3)):
        T_base_camera = look(0.5, pitch_rad, roll_rad)
        tilted, tilted_m = scan_of(room_depth(CAMERA, T_base_camera, 3.0, 2.0, 1.5), CAMERA, T_base_camera)
        assert (tilted.angle_min, tilted.angle_increment) == (level.angle_min, level.angle_increment)
        assert len(tilted_m) == len(level_m)
        is_seen = np.isfinite(tilted_m)
        assert is_seen.mean() > 0.9
        np.testing.assert_allclose(tilted_m[is_seen], level_m[is_seen], rtol=0.03)


@pytest.mark.parametrize("roll_rad", [math.pi / 2, -math.pi / 2, math.pi])
def test_a_camera_on_its_side_scans_along_its_columns(roll_rad):
    T_base_camera = look(0.5, 0.1, roll_rad)
    scan, ranges_m = scan_of(room_depth(CAMERA, T_base_camera, 3.0, 2.0, 1.5), CAMERA, T_base_camera)
    is_seen = np.isfinite(ranges_m)
    assert is_seen.mean() > 0.6
    np.testing.assert_allclose(ranges_m[is_seen], to_walls(bearings(scan), 3.0, 2.0, 1.5)[is_seen], rtol=0.03)


def test_beams_span_the_image_from_right_to_left():
    scan, ranges_m = scan_of(room_depth(CAMERA, look(0.5), 3.0, 9.0, 1.0), CAMERA, look(0.5))
    assert scan.angle_max == pytest.approx(-scan.angle_min)
    assert bearings(scan)[-1] == pytest.approx(scan.angle_max)
    assert scan.angle_max == pytest.approx(math.atan(79.5 / CAMERA.fx_px))
    assert (scan.header.frame_id, scan.range_min, scan.range_max) == ("base_link", *RANGE_M)
    assert ranges_m[0] < ranges_m[-1]  # the near wall is to the right, where the angles begin
    assert np.isfinite(ranges_m).all()


@few
@given(st.integers(1, CAMERA.width_px - 2), st.integers(10, CAMERA.height_px - 10), st.floats(0.5, 9))
def test_not_one_pixel_of_a_level_camera_is_missed(u, v, z_m):
    depth_m = np.full((CAMERA.height_px, CAMERA.width_px), 50, dtype=np.float32)
    depth_m[v, u] = z_m
    left, up = -(u - CAMERA.cx_px) / CAMERA.fx_px, -(v - CAMERA.cy_px) / CAMERA.fy_px
    band_m = (0.5 + z_m * up - 0.01, 0.5 + z_m * up + 0.01)
    _, ranges_m = scan_of(depth_m, CAMERA, look(0.5), height_band_m=band_m, range_m=(0.1, 20.0))
    assert ranges_m[np.isfinite(ranges_m)] == pytest.approx(z_m * math.hypot(1, left), rel=0.01)
    assert np.isfinite(ranges_m).any()


@few
@given(seeds)
def test_a_beam_reads_the_pixel_that_it_goes_through(seed):
    column_m = np.random.default_rng(seed).uniform(0.5, 5, CAMERA.width_px).astype(np.float32)
    depth_m = np.repeat(column_m[None], CAMERA.height_px, axis=0)
    scan, ranges_m = scan_of(depth_m, CAMERA, look(0.5))
    u = CAMERA.cx_px - CAMERA.fx_px * np.tan(bearings(scan))
    is_clear = np.abs(u - np.floor(u) - 0.5) > 0.01  # of the border between two pixels
    expected_m = column_m[np.floor(u + 0.5).astype(int)] / np.cos(bearings(scan))
    np.testing.assert_allclose(ranges_m[is_clear], expected_m[is_clear], rtol=1e-5)


def test_what_lies_behind_is_not_ahead():
    """A camera that looks straight down sees a crate behind the base: the lower half of its image."""
    T_base_camera = look(1.2, math.pi / 2)
    depth_m = np.full((CAMERA.height_px, CAMERA.width_px), 1.2, dtype=np.float32)
    depth_m[80:, 70:90] = 0.7
    behind_m = scan_of(depth_m, CAMERA, T_base_camera)[1]
    assert (behind_m[~np.isnan(behind_m)] == math.inf).all()
    ahead_m = scan_of(depth_m[::-1], CAMERA, T_base_camera)[1]
    nearest_m = 0.7 * (CAMERA.cy_px - 39) / CAMERA.fy_px
    assert np.nanmin(ahead_m) == pytest.approx(nearest_m, rel=1e-3)


def test_what_is_not_in_the_band_is_no_obstacle():
    """A table top 0.7 m high over 2 m of floor, seen from 1.2 m, before a wall."""
    T_base_camera = look(1.2, 0.4)
    room_m = room_depth(CAMERA, T_base_camera, 4.0, 9.0, 9.0)
    table_m = room_depth(CAMERA, T_base_camera, 4.0, 9.0, 9.0, floor_m=0.7)
    points_m = T_base_camera[:3, 3] + table_m[..., None] * rays(CAMERA, T_base_camera)
    is_table = (np.abs(points_m[..., 2] - 0.7) < 1e-3) & (points_m[..., 0] > 1.5) & (points_m[..., 0] < 2)
    depth_m = np.where(is_table, table_m, room_m)
    middle = slice(60, 100)
    for band_m, nearest_m in (((0.1, 1.0), 1.5), ((0.1, 0.65), 4.0), ((0.75, 1.0), 4.0)):
        scan, ranges_m = scan_of(depth_m, CAMERA, T_base_camera, height_band_m=band_m)
        ahead_m = ranges_m * np.cos(bearings(scan))
        np.testing.assert_allclose(ahead_m[middle], nearest_m, atol=0.04)


def test_far_near_and_unknown_are_told_apart_as_rep_117_says():
    T_base_camera = look(0.5)
    far_m = np.full((CAMERA.height_px, CAMERA.width_px), 30, dtype=np.float32)
    assert (scan_of(far_m, CAMERA, T_base_camera)[1] == math.inf).all()
    assert (scan_of(far_m / 1000, CAMERA, T_base_camera)[1] == -math.inf).all()
    assert np.isnan(scan_of(0 * far_m, CAMERA, T_base_camera)[1]).all()
    assert np.isnan(scan_of(np.full_like(far_m, math.nan), CAMERA, T_base_camera)[1]).all()
    floor_only_m = room_depth(CAMERA, look(1.2, 0.9), 50.0, 50.0, 50.0)
    assert (scan_of(floor_only_m, CAMERA, look(1.2, 0.9))[1] == math.inf).all()
    half_m = np.full_like(far_m, 2)
    half_m[:, : CAMERA.width_px // 2] = 0  # to the left, where the angles end
    _, ranges_m = scan_of(half_m, CAMERA, T_base_camera)
    num_beams = len(ranges_m)
    assert np.isfinite(ranges_m[: num_beams // 2 - 1]).all()
    assert np.isnan(ranges_m[num_beams // 2 + 1 :]).all()


def test_the_range_limits_are_horizontal():
    depth_m = room_depth(CAMERA, look(0.5), 3.0, 9.0, 9.0)
    scan, ranges_m = scan_of(depth_m, CAMERA, look(0.5), range_m=(0.1, 3.3))
    is_near = np.abs(bearings(scan)) < math.acos(3.0 / 3.3) - 0.01
    assert np.isfinite(ranges_m[is_near]).all()
    assert (ranges_m[np.abs(bearings(scan)) > math.acos(3.0 / 3.3) + 0.01] == math.inf).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height_band_m": (1.0, 0.1)}, "lower height first"),
        ({"range_m": (2.0, 1.0)}, "least < greatest"),
        ({"range_m": (-1.0, 1.0)}, "least < greatest"),
    ],
)
def test_bands_upside_down_are_refused(options, message):
    depth_m = np.ones((CAMERA.height_px, CAMERA.width_px), dtype=np.float32)
    with pytest.raises(InputError, match=message):
        scan_of(depth_m, CAMERA, look(0.5), **options)


def test_a_camera_beside_the_base_is_refused():
    depth_m = np.ones((CAMERA.height_px, CAMERA.width_px), dtype=np.float32)
    with pytest.raises(InputError, match="beside the base"):
        scan_of(depth_m, CAMERA, pose_from(t_m=[0.2, 0, 0]) @ look(0.5))
    with pytest.raises(InputError, match="as the camera"):
        scan_of(depth_m[1:], CAMERA, look(0.5))
