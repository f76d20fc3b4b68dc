"""Arrays and poses of `inspatio_sim` as ROS messages and back, without a node.

Frames follow REP-103 and REP-105: map -> odom -> base_link -> camera_link -> camera_optical_frame. The
world's axes (x right, y down, z forward) are those of an optical frame; the map has x forward, y left, z up.
"""

from __future__ import annotations

import math
import sys
from array import array
from typing import Any, Literal

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
from nav_msgs.msg import OccupancyGrid, Odometry
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from inspatio_sim.errors import InputError
from inspatio_sim.kernels import kernel
from inspatio_sim.mapping.grid import PlanningGrid
from inspatio_sim.motion.axes import R_AXES_OPENCV
from inspatio_sim.motion.camera import Array, Intrinsics, inverse, pose_from

DepthEncoding = Literal["32FC1", "16UC1"]

T_MAP_WORLD = pose_from(R_AXES_OPENCV["ros"])
"""World points to map points: x_ros = z, y_ros = -x, z_ros = -y. [4, 4]"""

T_LINK_OPTICAL = pose_from(R_AXES_OPENCV["ros"])
"""Points in camera_optical_frame to camera_link. [4, 4]"""

_CHANNELS = {  # encoding -> (numpy type without byte order, channels)
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "8UC3": ("u1", 3),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
}
_MAX_MILLIMETRES = 65535  # maximum of 16UC1; farther is unknown
_POINT_BYTES = 16  # x, y, z, rgb
_FIELD_TYPES = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}
_MAX_BEAMS_PER_COLUMN = 4  # of a scan; reached only beyond a field of view of about 140 degrees
_EMPTY_M, _UNMEASURED_M = np.float32(1e30), np.float32(2e30)  # values of a beam: no point in the band; no depth
_MAX_OFFSET_M = 1e-6  # maximum offset of the camera from the vertical axis of the base
_MIN_HEADING = 0.02  # horizontal part of the viewing direction: within about 1 degree of straight up or down


def time_msg(time_s: float) -> Time:
    """Seconds since the start as a stamp, to the nanosecond."""
    if not (math.isfinite(time_s) and 0 <= time_s < 2**31 - 1):
        raise InputError(f"time_s={time_s}: want a finite number, not negative, below 2^31 - 1")
    whole_s = math.floor(time_s)
    carry, nanosec = divmod(round((time_s - whole_s) * 1e9), 10**9)
    return Time(sec=whole_s + carry, nanosec=nanosec)


def seconds(stamp: Time) -> float:
    """A stamp in seconds."""
    return stamp.sec + 1e-9 * stamp.nanosec


def image_msg(rgb_u8: NDArray[np.uint8], stamp: Time, frame_id: str) -> Image:
    """An RGB image as rgb8. [H, W, 3]"""
    if rgb_u8.dtype != np.uint8 or rgb_u8.ndim != 3 or rgb_u8.shape[2] != 3:
        raise InputError(f"picture is {rgb_u8.dtype} {rgb_u8.shape}: want uint8 H x W x 3")
    return _image("rgb8", rgb_u8, stamp, frame_id)


def compressed_msg(rgb_u8: NDArray[np.uint8], stamp: Time, frame_id: str, quality: int = 90) -> CompressedImage:
    """An RGB image as JPEG, with image_transport's format string. [H, W, 3]

    Args:
        rgb_u8: RGB. [H, W, 3]
        stamp: time of the image.
        frame_id: the optical frame.
        quality: JPEG quality, 1..100.
    """
    if not 1 <= quality <= 100:
        raise InputError(f"quality={quality}: want 1 to 100")
    is_encoded, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb_u8, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert is_encoded, f"JPEG encoding of {rgb_u8.shape} failed"
    return CompressedImage(
        header=Header(stamp=stamp, frame_id=frame_id), format="rgb8; jpeg compressed bgr8", data=_bytes_of(jpeg)
    )


def depth_msg(depth_m: NDArray[np.float32], stamp: Time, frame_id: str, encoding: DepthEncoding = "32FC1") -> Image:
    """A depth image by REP-118: 32FC1 in metres, NaN unknown, or 16UC1 in millimetres, 0 unknown.

    Args:
        depth_m: z-depth, 0 (or not finite) = unknown. [H, W]
        stamp: time of the image it belongs to.
        frame_id: the optical frame.
        encoding: target encoding; depths beyond 65.535 m are unknown in 16UC1.
    """
    if depth_m.ndim != 2:
        raise InputError(f"depth has shape {depth_m.shape}: want H x W")
    if encoding == "32FC1":
        values = np.empty(depth_m.shape, dtype=np.float32)
        _mark_unknown(np.ascontiguousarray(depth_m, dtype=np.float32).ravel(), values.ravel())
    elif encoding == "16UC1":
        values = np.empty(depth_m.shape, dtype=np.uint16)
        _to_millimetres(np.ascontiguousarray(depth_m, dtype=np.float32).ravel(), values.ravel())
    else:
        raise InputError(f"depth encoding {encoding!r}: want 32FC1 or 16UC1")
    return _image(encoding, values, stamp, frame_id)


def known_msg(known: NDArray[np.uint8], stamp: Time, frame_id: str) -> Image:
    """Provenance of each pixel (0 generated, 1 map, 2 reference) as mono8. [H, W]"""
    if known.dtype != np.uint8 or known.ndim != 2:
        raise InputError(f"known is {known.dtype} {known.shape}: want uint8 H x W")
    return _image("mono8", known, stamp, frame_id)


def image_array(msg: Image) -> NDArray[Any]:
    """The pixels of an image, not copied and not writable: any row padding, either byte order.

    Returns:
        [H, W, 3] for colours, [H, W] for one channel; channels in the message's order.
    """
    if msg.encoding not in _CHANNELS:
        raise InputError(f"image encoding {msg.encoding!r}: want one of {', '.join(_CHANNELS)}")
    kind, num_channels = _CHANNELS[msg.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if msg.is_bigendian else "<")
    pixel_bytes = dtype.itemsize * num_channels
    if msg.step < msg.width * pixel_bytes:
        raise InputError(f"image rows of {msg.step} bytes: want at least {msg.width * pixel_bytes} for {msg.encoding}")
    if len(msg.data) < msg.height * msg.step:
        raise InputError(f"image of {len(msg.data)} bytes: want {msg.height} rows of {msg.step} bytes")
    pixels = np.ndarray(
        (msg.height, msg.width, num_channels),
        dtype=dtype,
        buffer=memoryview(msg.data),
        strides=(msg.step, pixel_bytes, dtype.itemsize),
    )
    pixels.flags.writeable = False
    return pixels if num_channels > 1 else pixels[..., 0]


def depth_array(msg: Image) -> NDArray[np.float32]:
    """A depth image in metres, 0 = unknown; reads 32FC1 and 16UC1. [H, W]"""
    if msg.encoding not in ("32FC1", "16UC1", "mono16"):
        raise InputError(f"depth encoding {msg.encoding!r}: want 32FC1 or 16UC1")
    pixels = image_array(msg)
    if msg.encoding != "32FC1":
        return pixels * np.float32(0.001)
    return np.where((pixels > 0) & (pixels < np.inf), pixels, np.float32(0)).astype(np.float32, copy=False)


def camera_info_msg(intrinsics: Intrinsics, stamp: Time, frame_id: str) -> CameraInfo:
    """A pinhole without distortion: R the identity, P = [K | 0]."""
    fx, fy, cx, cy = intrinsics.fx_px, intrinsics.fy_px, intrinsics.cx_px, intrinsics.cy_px
    return CameraInfo(
        header=Header(stamp=stamp, frame_id=frame_id),
        height=intrinsics.height_px,
        width=intrinsics.width_px,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def intrinsics_of(msg: CameraInfo) -> Intrinsics:
    """The pinhole camera of a camera info; raises InputError on distortion, binning and regions of interest."""
    if msg.distortion_model not in ("", "plumb_bob", "rational_polynomial") or np.any(msg.d):
        raise InputError(
            f"camera info has distortion {msg.distortion_model} {list(msg.d)}: want a pinhole; rectify the images first"
        )
    if max(msg.binning_x, msg.binning_y) > 1 or any((msg.roi.x_offset, msg.roi.y_offset)):
        raise InputError("camera info has binning or a region of interest: want the whole image")
    return Intrinsics.from_matrix(np.reshape(msg.k, (3, 3)), int(msg.width), int(msg.height))


def cloud_msg(points_m: NDArray[np.float32], rgb_u8: NDArray[np.uint8], stamp: Time, frame_id: str) -> PointCloud2:
    """A coloured cloud with fields x, y, z and rgb, 16 bytes a point.

    Args:
        points_m: in the frame. [N, 3]
        rgb_u8: their colours. [N, 3]
        stamp: time of the cloud.
        frame_id: frame of the points.
    """
    if points_m.ndim != 2 or points_m.shape[1] != 3 or rgb_u8.shape != points_m.shape or rgb_u8.dtype != np.uint8:
        raise InputError(f"points {points_m.shape}, colours {rgb_u8.dtype} {rgb_u8.shape}: want N x 3 and uint8 N x 3")
    data = array("B", [0]) * (_POINT_BYTES * len(points_m))
    records = np.frombuffer(data, dtype=np.float32).reshape(-1, 4)
    _pack(np.ascontiguousarray(points_m, dtype=np.float32), np.ascontiguousarray(rgb_u8), records, records.view("u4"))
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(("x", "y", "z", "rgb"))
    ]
    msg = PointCloud2(
        header=Header(stamp=stamp, frame_id=frame_id),
        height=1,
        width=len(points_m),
        fields=fields,
        is_bigendian=sys.byteorder == "big",
        point_step=_POINT_BYTES,
        row_step=len(data),
        is_dense=True,
    )
    msg.data = data
    return msg


def cloud_arrays(msg: PointCloud2) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points [N, 3] and colours [N, 3] of a cloud with fields x, y, z and rgb or rgba, at any offsets."""
    offsets = {field.name: field for field in msg.fields}
    color = "rgb" if "rgb" in offsets else "rgba"
    missing = [name for name in ("x", "y", "z", color) if name not in offsets]
    if missing:
        raise InputError(f"cloud has fields {', '.join(offsets) or 'none'}: want x, y, z and rgb")
    if len(msg.data) < msg.height * msg.row_step or msg.row_step < msg.width * msg.point_step:
        raise InputError(f"cloud of {len(msg.data)} bytes: want {msg.height} rows of {msg.width} x {msg.point_step}")
    order = ">" if msg.is_bigendian else "<"
    record = np.dtype(
        {
            "names": ["x", "y", "z", "color"],
            "formats": [order + _FIELD_TYPES[offsets[name].datatype] for name in "xyz"] + [order + "u4"],
            "offsets": [offsets[name].offset for name in ("x", "y", "z", color)],
            "itemsize": msg.point_step,
        }
    )
    points = np.ndarray(
        (msg.height, msg.width), dtype=record, buffer=memoryview(msg.data), strides=(msg.row_step, msg.point_step)
    ).ravel()
    points_m = np.stack([points[name] for name in "xyz"], axis=-1, dtype=np.float32, casting="same_kind")
    rgb_u8 = np.stack([points["color"] >> shift & 0xFF for shift in (16, 8, 0)], axis=-1).astype(np.uint8)
    return points_m, rgb_u8


def frame_points(
    depth_m: NDArray[np.float32], rgb_u8: NDArray[np.uint8], intrinsics: Intrinsics
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The pixels with a depth as points in the optical frame, row by row.

    Args:
        depth_m: z-depth, 0 = unknown. [H, W]
        rgb_u8: colours. [H, W, 3]
        intrinsics: the image's camera.

    Returns:
        Points in metres [N, 3] and their colours [N, 3].
    """
    if (intrinsics.height_px, intrinsics.width_px) != depth_m.shape or rgb_u8.shape != (*depth_m.shape, 3):
        raise InputError(
            f"depth {depth_m.shape}, picture {rgb_u8.shape}: want "
            f"{intrinsics.height_px} x {intrinsics.width_px}, as the camera has"
        )
    points_m = np.empty((depth_m.size, 3), dtype=np.float32)
    colors_u8 = np.empty((depth_m.size, 3), dtype=np.uint8)
    num_points = _unproject(
        np.ascontiguousarray(depth_m, dtype=np.float32),
        np.ascontiguousarray(rgb_u8),
        intrinsics.fx_px,
        intrinsics.fy_px,
        intrinsics.cx_px,
        intrinsics.cy_px,
        points_m,
        colors_u8,
    )
    return points_m[:num_points], colors_u8[:num_points]


def grid_msg(grid: PlanningGrid, stamp: Time, frame_id: str) -> OccupancyGrid:
    """A floor plan, row by row from the lower left: -1 unknown, 0 free, 100 occupied."""
    msg = OccupancyGrid(header=Header(stamp=stamp, frame_id=frame_id))
    msg.info.map_load_time = stamp
    msg.info.resolution = float(grid.resolution_m)
    msg.info.height, msg.info.width = grid.cells.shape
    msg.info.origin.position.x, msg.info.origin.position.y = (float(value) for value in grid.origin_m)
    data = array("b")
    data.frombytes(np.ascontiguousarray(grid.cells).data.cast("B"))
    msg.data = data
    return msg


def grid_of(msg: OccupancyGrid) -> PlanningGrid:
    """A floor plan of -1, 0 and 100; raises InputError if it is rotated against its frame."""
    if not np.allclose(matrix_of(msg.info.origin)[:3, :3], np.eye(3), atol=1e-6):
        raise InputError("the grid's origin is rotated: want rows along y and columns along x of its frame")
    height, width = int(msg.info.height), int(msg.info.width)
    if len(msg.data) != height * width:
        raise InputError(f"grid of {len(msg.data)} cells: want {height} x {width}")
    return PlanningGrid(
        cells=np.frombuffer(memoryview(msg.data), dtype=np.int8).reshape(height, width).copy(),
        resolution_m=float(msg.info.resolution),
        origin_m=(float(msg.info.origin.position.x), float(msg.info.origin.position.y)),
    )


def scan_msg(
    depth_m: NDArray[np.float32],
    intrinsics: Intrinsics,
    T_base_camera: Array,
    stamp: Time,
    frame_id: str,
    height_band_m: tuple[float, float] = (0.1, 1.0),
    range_m: tuple[float, float] = (0.1, 10.0),
) -> LaserScan:
    """What a level laser would see in a depth image: the nearest point in a band of heights, for each bearing.

    The beams depend only on the intrinsics, not on the tilt of the camera: they span the field of view of
    the level camera and are dense enough to cover all its columns. As in REP-117, +inf means nothing
    in the band up to the maximum range, -inf something nearer than the minimum range, and NaN no measurement
    (the bearing is outside the image, or its depth is unknown).

    Args:
        depth_m: z-depth, 0 = unknown. [H, W]
        intrinsics: camera of the depth image.
        T_base_camera: the optical frame in the level base, right above or below its origin, looking along x. [4, 4]
        stamp: time of the depth image.
        frame_id: the level base (x forward, y left, z up).
        height_band_m: lowest and highest point that counts, above the base's origin.
        range_m: minimum and maximum horizontal distance from the base's vertical axis.
    """
    if depth_m.shape != (intrinsics.height_px, intrinsics.width_px):
        raise InputError(f"depth {depth_m.shape}: want {intrinsics.height_px} x {intrinsics.width_px}, as the camera")
    if not height_band_m[0] < height_band_m[1]:
        raise InputError(f"height_band_m={height_band_m}: want the lower height first")
    if not 0 <= range_m[0] < range_m[1]:
        raise InputError(f"range_m={range_m}: want 0 <= least < greatest")
    if np.abs(T_base_camera[:2, 3]).max() > _MAX_OFFSET_M:
        raise InputError(f"the camera stands {T_base_camera[:2, 3].tolist()} m beside the base: want it right above")
    angle_min_rad = -math.atan((intrinsics.width_px - 1 - intrinsics.cx_px) / intrinsics.fx_px)
    angle_max_rad = math.atan(intrinsics.cx_px / intrinsics.fx_px)
    # Columns lie closest, seen as angles, at the edge of the image.
    increment_rad = math.cos(max(-angle_min_rad, angle_max_rad)) ** 2 / intrinsics.fx_px
    num_beams = 1 + min(
        math.ceil((angle_max_rad - angle_min_rad) / increment_rad), _MAX_BEAMS_PER_COLUMN * intrinsics.width_px
    )
    bearings_rad, increment_rad = np.linspace(angle_min_rad, angle_max_rad, num_beams, retstep=True)
    M = T_base_camera[:3, :3] @ np.linalg.inv(intrinsics.K_px)
    if abs(M[1, 1]) > abs(M[1, 0]):  # rolled by more than 45 degrees: rows do what columns did
        depth_m, M = depth_m.T, M[:, [1, 0, 2]]
    slopes = np.tan(bearings_rad)
    nearest_m = np.empty(num_beams, dtype=np.float32)
    _scan(
        np.ascontiguousarray(depth_m, dtype=np.float32),
        np.ascontiguousarray(M, dtype=np.float32),
        np.float32(T_base_camera[2, 3]),
        slopes.astype(np.float32),
        np.float32(height_band_m[0]),
        np.float32(height_band_m[1]),
        nearest_m,
    )
    ranges_m = nearest_m * np.hypot(1, slopes).astype(np.float32)
    ranges_m[ranges_m > range_m[1]] = np.inf
    ranges_m[ranges_m < range_m[0]] = -np.inf
    ranges_m[nearest_m == _UNMEASURED_M] = np.nan
    ranges = array("f")
    ranges.frombytes(ranges_m.data.cast("B"))
    return LaserScan(
        header=Header(stamp=stamp, frame_id=frame_id),
        angle_min=angle_min_rad,
        angle_max=angle_max_rad,
        angle_increment=float(increment_rad),
        range_min=float(range_m[0]),
        range_max=float(range_m[1]),
        ranges=ranges,
    )


def ros_from_world(T_world_camera: Array) -> Array:
    """`T_map_optical`: the same camera, its pose in the map's axes. [4, 4]"""
    return T_MAP_WORLD @ T_world_camera


def level_base(T_map_link: Array, camera_height_m: float) -> tuple[Array, Array]:
    """The level base under a camera: below it by `camera_height_m`, heading where it looks.

    A camera that looks straight up or down heads where its left side says.

    Args:
        T_map_link: camera_link in the map. [4, 4]
        camera_height_m: of the camera above the base.

    Returns:
        (T_map_base, T_base_link), both [4, 4].
    """
    x, y = T_map_link[:2, 0]
    if math.hypot(x, y) < _MIN_HEADING:
        x, y = T_map_link[1, 1], -T_map_link[0, 1]
    yaw_rad = math.atan2(y, x)
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    T_map_base = pose_from([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], T_map_link[:3, 3] - [0, 0, camera_height_m])
    T_base_link = inverse(T_map_base) @ T_map_link
    T_base_link[:3, 3] = 0, 0, camera_height_m
    return T_map_base, T_base_link


def pose_msg(T: Array) -> Pose:
    """A rigid motion as a pose. [4, 4]"""
    x, y, z = T[:3, 3].tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(T))


def transform_msg(T_parent_child: Array, stamp: Time, parent: str, child: str) -> TransformStamped:
    """The transform that takes points of the child frame to the parent frame. [4, 4]"""
    x, y, z = T_parent_child[:3, 3].tolist()
    return TransformStamped(
        header=Header(stamp=stamp, frame_id=parent),
        child_frame_id=child,
        transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(T_parent_child)),
    )


def odometry_msg(
    T_odom_base: Array,
    twist6: ArrayLike,
    stamp: Time,
    frame_id: str = "odom",
    child_frame_id: str = "base_link",
) -> Odometry:
    """Pose in `frame_id`, velocity in `child_frame_id`.

    Args:
        T_odom_base: [4, 4]
        twist6: [vx vy vz wx wy wz] in m/s and rad/s, in the axes of the base. [6]
        stamp: of the pose.
        frame_id: of the pose.
        child_frame_id: of the velocity.
    """
    msg = Odometry(header=Header(stamp=stamp, frame_id=frame_id), child_frame_id=child_frame_id)
    msg.pose.pose = pose_msg(T_odom_base)
    vx, vy, vz, wx, wy, wz = np.asarray(twist6, dtype=np.float64).tolist()
    msg.twist.twist.linear = Vector3(x=vx, y=vy, z=vz)
    msg.twist.twist.angular = Vector3(x=wx, y=wy, z=wz)
    return msg


def matrix_of(msg: Pose | Transform) -> Array:
    """A pose or transform as a rigid motion; the quaternion is normalised. [4, 4]"""
    if isinstance(msg, Transform):
        position, quaternion = msg.translation, msg.rotation
    else:
        position, quaternion = msg.position, msg.orientation
    t_m = np.array([position.x, position.y, position.z])
    xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    if not (np.isfinite(t_m).all() and np.isfinite(xyzw).all()):
        raise InputError(f"pose {t_m.tolist()}, {xyzw.tolist()}: want finite numbers")
    if np.linalg.norm(xyzw) < 1e-6:
        raise InputError(f"quaternion {xyzw.tolist()}: want one that is not zero")
    return pose_from(Rotation.from_quat(xyzw).as_matrix(), t_m)


def _quaternion(T: Array) -> Quaternion:
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def _image(encoding: str, pixels: NDArray[Any], stamp: Time, frame_id: str) -> Image:
    """[H, W] or [H, W, 3]"""
    msg = Image(
        header=Header(stamp=stamp, frame_id=frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=pixels[0].nbytes,
    )
    msg.data = _bytes_of(pixels)  # the constructor would copy them once more
    return msg


def _bytes_of(values: NDArray[Any]) -> array[int]:
    """The kind of buffer that messages take without looking at every byte."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


@kernel
def _mark_unknown(depth_m, values_m):
    for i in range(len(depth_m)):
        is_known = (depth_m[i] > 0) & (depth_m[i] < np.inf)
        values_m[i] = depth_m[i] if is_known else np.float32(np.nan)


@kernel
def _to_millimetres(depth_m, values_mm):
    for i in range(len(depth_m)):
        depth_mm = depth_m[i] * np.float32(1000)
        is_known = (depth_mm > 0) & (depth_mm < _MAX_MILLIMETRES + 0.5)
        values_mm[i] = np.uint16(np.int32(depth_mm + np.float32(0.5))) if is_known else 0


@kernel
def _unproject(depth_m, rgb_u8, fx_px, fy_px, cx_px, cy_px, points_m, colors_u8):
    num_points = 0
    for v in range(depth_m.shape[0]):
        slope_y = (v - cy_px) / fy_px
        for u in range(depth_m.shape[1]):
            z_m = depth_m[v, u]
            if z_m > 0 and z_m < np.inf:
                points_m[num_points, 0] = (u - cx_px) / fx_px * z_m
                points_m[num_points, 1] = slope_y * z_m
                points_m[num_points, 2] = z_m
                for channel in range(3):
                    colors_u8[num_points, channel] = rgb_u8[v, u, channel]
                num_points += 1
    return num_points


@kernel
def _pack(points_m, rgb_u8, records, words):
    for i in range(len(points_m)):
        for axis in range(3):
            records[i, axis] = points_m[i, axis]
        words[i, 3] = (np.uint32(rgb_u8[i, 0]) << 16) | (np.uint32(rgb_u8[i, 1]) << 8) | np.uint32(rgb_u8[i, 2])


@kernel
def _scan(depth_m, M, height_m, slopes, low_m, high_m, nearest_m):
    """Walk, for each bearing, down the line that its vertical plane cuts out of the image, one pixel a row.

    Args:
        depth_m: float32. [H, W]
        M: pixels (u, v, 1) to rays with z-depth 1 in the axes of the base, float32. [3, 3]
        height_m: of the camera above the base, float32.
        slopes: tangents of the bearings, float32. [B]
        low_m: lower end of the band of heights, float32.
        high_m: its upper end, float32.
        nearest_m: how far ahead the nearest point is, `_EMPTY_M` for none, `_UNMEASURED_M` for no depth. [B]
    """
    height_px, width_px = depth_m.shape
    half, zero, width = np.float32(0.5), np.float32(0), np.float32(width_px)
    # A pixel lies on the line where left - slope * ahead = 0, which is linear in u.
    columns_per_side = np.float32(1) / (slopes * M[0, 0] - M[1, 0])
    u = np.empty_like(slopes)
    column = np.empty(len(slopes), dtype=np.uint32)
    z_m = np.empty_like(slopes)
    line_m = np.zeros(width_px + 1, dtype=np.float32)  # the last one stands for all outside the image
    nearest_m[:] = _UNMEASURED_M
    for row in range(height_px):
        v = np.float32(row)
        ahead_0 = M[0, 1] * v + M[0, 2]
        left_0 = M[1, 1] * v + M[1, 2]
        up_0 = M[2, 1] * v + M[2, 2]
        line_m[:width_px] = depth_m[row]
        # Three loops, as the compiler vectorises only the arithmetic.
        for i in range(len(slopes)):
            u[i] = (left_0 - slopes[i] * ahead_0) * columns_per_side[i]
            is_inside = (u[i] >= -half) & (u[i] < width - half)
            column[i] = np.int32(u[i] + half) if is_inside else width_px
        for i in range(len(slopes)):
            z_m[i] = line_m[column[i]]
        for i in range(len(slopes)):
            ahead = M[0, 0] * u[i] + ahead_0
            point_height_m = height_m + z_m[i] * (M[2, 0] * u[i] + up_0)
            is_measured = (z_m[i] > zero) & (z_m[i] < _EMPTY_M) & (ahead > zero)
            is_in_band = (point_height_m >= low_m) & (point_height_m <= high_m)
            found_m = z_m[i] * ahead if is_in_band else _EMPTY_M
            found_m = found_m if is_measured else _UNMEASURED_M
            nearest_m[i] = found_m if found_m < nearest_m[i] else nearest_m[i]
