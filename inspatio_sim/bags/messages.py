"""ROS messages of rosbags to and from arrays: images, cameras, poses.

ROS axes are those of REP-103 (x forward, y left, z up) and tf is the tree of REP-105: map -> odom -> base_link
-> camera_link -> camera_optical_frame. A world's frame is `map` in other axes (`axes.R_AXES_OPENCV`).
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from inspatio_sim.bags.files import typestore
from inspatio_sim.errors import InputError
from inspatio_sim.motion.axes import R_AXES_OPENCV
from inspatio_sim.motion.camera import Array, Intrinsics, PoseDelta, inverse, pose_from

MAP, ODOM, BASE, LINK, OPTICAL = "map", "odom", "base_link", "camera_link", "camera_optical_frame"
T_LINK_OPTICAL = pose_from(R_AXES_OPENCV["ros"])
T_MAP_WORLD = T_LINK_OPTICAL  # the same change of axes

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF, TRANSFORM = "tf2_msgs/msg/TFMessage", "geometry_msgs/msg/TransformStamped"
OLD_TF = "tf/msg/tfMessage"  # ROS 1
ODOMETRY = "nav_msgs/msg/Odometry"
POSE, POSE_COVARIANCE = "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped"
TWIST = "geometry_msgs/msg/TwistStamped"
STRING, CLOCK = "std_msgs/msg/String", "rosgraph_msgs/msg/Clock"

_COLOR_CHANNELS = {  # indices of red, green and blue
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "8uc3": (3, (2, 1, 0)),  # OpenCV's order
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8uc1": (1, (0, 0, 0)),
}
_DEPTH_TYPES = {"16uc1": "u2", "mono16": "u2", "32fc1": "f4"}  # millimetres, millimetres, metres


# Out of arrays


def stamp(time_ns: int) -> Any:
    """builtin_interfaces/Time."""
    return _make("builtin_interfaces/msg/Time", sec=time_ns // 10**9, nanosec=time_ns % 10**9)


def stamp_ns(message: Any) -> int:
    """The time in a message's header."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def color_image(rgb_u8: NDArray[np.uint8], time_ns: int, frame_id: str) -> Any:
    """Image rgb8. [H, W, 3]"""
    return _image(rgb_u8, "rgb8", time_ns, frame_id)


def depth_image(depth_m: NDArray[np.float32], time_ns: int, frame_id: str) -> Any:
    """Image 32FC1: metres, NaN where unknown (REP-118). [H, W], 0 where unknown"""
    return _image(np.where(depth_m > 0, depth_m, np.float32(np.nan)), "32FC1", time_ns, frame_id)


def camera_info(intrinsics: Intrinsics, time_ns: int, frame_id: str) -> Any:
    """CameraInfo of a pinhole: no distortion, P = [K | 0]."""
    K = intrinsics.K_px
    roi = _make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return _make(
        CAMERA_INFO,
        header=_header(time_ns, frame_id),
        height=intrinsics.height_px,
        width=intrinsics.width_px,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([K, np.zeros(3)]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def transforms(T: dict[tuple[str, str], Array], time_ns: int) -> Any:
    """TFMessage of motions: (parent, child) -> T_parent_child."""
    return _make(
        TF,
        transforms=[
            _make(
                TRANSFORM,
                header=_header(time_ns, parent),
                child_frame_id=child,
                transform=_make("geometry_msgs/msg/Transform", translation=_vector(t[:3, 3]), rotation=_quaternion(t)),
            )
            for (parent, child), t in T.items()
        ],
    )


def odometry(T_odom_base: Array, twist: Array, time_ns: int) -> Any:
    """Odometry: pose in odom; twist [vx vy vz wx wy wz] (m/s, rad/s) in base_link."""
    pose = _make("geometry_msgs/msg/Pose", position=_point(T_odom_base[:3, 3]), orientation=_quaternion(T_odom_base))
    no_covariance = np.zeros(36)
    return _make(
        ODOMETRY,
        header=_header(time_ns, ODOM),
        child_frame_id=BASE,
        pose=_make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=no_covariance),
        twist=_make("geometry_msgs/msg/TwistWithCovariance", twist=_twist(twist), covariance=no_covariance),
    )


def motion(delta: PoseDelta, time_ns: int) -> Any:
    """TwistStamped of a whole motion, bit-exact: metres and radians in camera axes, as `PoseDelta.twist`."""
    return _make(TWIST, header=_header(time_ns, OPTICAL), twist=_twist(delta.twist))


def text(value: str) -> Any:
    """std_msgs/String."""
    return _make(STRING, data=value)


def clock(time_ns: int) -> Any:
    """rosgraph_msgs/Clock."""
    return _make(CLOCK, clock=stamp(time_ns))


def level_base(T_map_link: Array, height_m: float) -> tuple[Array, Array]:
    """The level frame under a camera with its heading: T_map_base and T_base_link. [4, 4] each"""
    x, y = T_map_link[:2, 0]
    if math.hypot(x, y) < 0.02:  # straight up or down: heading from its left side
        x, y = T_map_link[1, 1], -T_map_link[0, 1]
    R_map_base = Rotation.from_euler("z", math.atan2(y, x)).as_matrix()
    T_map_base = pose_from(R_map_base, T_map_link[:3, 3] - [0, 0, height_m])
    return T_map_base, inverse(T_map_base) @ T_map_link


# Into arrays


def color_array(message: Any) -> NDArray[np.uint8]:
    """RGB of an Image or a CompressedImage. [H, W, 3]"""
    if message.__msgtype__ == COMPRESSED:
        return np.asarray(_decoded(message.data, message.format).convert("RGB"))
    encoding = message.encoding.lower()
    if encoding not in _COLOR_CHANNELS:
        raise InputError(f"encoding {message.encoding!r}: want one of {', '.join(_COLOR_CHANNELS)}, jpeg or png")
    num_channels, order = _COLOR_CHANNELS[encoding]
    return np.ascontiguousarray(_rows(message, np.dtype("u1"), num_channels)[..., order])


def depth_array(message: Any) -> NDArray[np.float32]:
    """Metres of a depth Image or CompressedImage (compressedDepth), 0 where unknown. [H, W]"""
    if message.__msgtype__ == COMPRESSED:
        depth_m = _compressed_depth(message)
    else:
        encoding = message.encoding.lower()
        if encoding not in _DEPTH_TYPES:
            raise InputError(f"encoding {message.encoding!r}: want 16UC1 (millimetres) or 32FC1 (metres)")
        kind = _DEPTH_TYPES[encoding]
        order = ">" if message.is_bigendian else "<"
        units = _rows(message, np.dtype(order + kind), 1)[..., 0]
        depth_m = _metres(units) if kind == "u2" else units.astype(np.float32)
    return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0))


def is_millimetres(message: Any) -> bool:
    """Whether depth was recorded in whole millimetres."""
    return (
        (message.format if message.__msgtype__ == COMPRESSED else message.encoding).lower().startswith(("16", "mono16"))
    )


def placement(pose: Any) -> tuple[float, ...]:
    """X y z qx qy qz qw of a Pose or Transform."""
    where, turn = (pose.translation, pose.rotation) if hasattr(pose, "rotation") else (pose.position, pose.orientation)
    return where.x, where.y, where.z, turn.x, turn.y, turn.z, turn.w


def delta_of(message: Any) -> PoseDelta:
    """The argument of `motion`, bit-exact."""
    linear, angular = message.twist.linear, message.twist.angular
    return PoseDelta(np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]))


def _rows(message: Any, dtype: np.dtype[Any], num_channels: int) -> NDArray[Any]:
    """The pixels without row padding. [H, W, C]"""
    height, width, step = message.height, message.width, message.step
    data = np.asarray(message.data, np.uint8)
    row_bytes = width * num_channels * dtype.itemsize
    if step < row_bytes or len(data) < height * step or not row_bytes or not height:
        raise InputError(f"image of {width}x{height} px, {step} bytes a row, has {len(data)} bytes: does not fit")
    rows = data[: height * step].reshape(height, step)[:, :row_bytes]
    return np.ascontiguousarray(rows).view(dtype).reshape(height, width, num_channels)


def _metres(millimetres: NDArray[Any]) -> NDArray[np.float32]:
    """Metres of 16-bit depth; the largest value means "too far, or not seen"."""
    return np.where(millimetres == 0xFFFF, 0, millimetres).astype(np.float32) * np.float32(0.001)


def _compressed_depth(message: Any) -> NDArray[np.float32]:
    """Depth of compressed_depth_image_transport: 12 bytes of header, then a 16-bit png."""
    encoding, _, how = message.format.lower().partition(";")
    if "compresseddepth" not in how or encoding not in ("16uc1", "32fc1"):
        raise InputError(f"format {message.format!r}: want 16UC1 or 32FC1 with compressedDepth")
    data = bytes(message.data)
    units = np.asarray(_decoded(data[12:], message.format))
    if units.ndim != 2:
        raise InputError(f"depth png has shape {units.shape}: want one 16-bit channel")
    if encoding == "16uc1":
        return _metres(units)
    _, scale, offset = struct.unpack("<iff", data[:12])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(units > 0, scale / (units - np.float32(offset)), 0).astype(np.float32)


def _decoded(data: Any, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(bytes(data)), formats=("JPEG", "PNG"))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"format {name!r}: not a jpeg or png that can be read") from error
    return image


def _image(pixels: NDArray[Any], encoding: str, time_ns: int, frame_id: str) -> Any:
    pixels = np.ascontiguousarray(pixels)
    return _make(
        IMAGE,
        header=_header(time_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=pixels.reshape(-1).view(np.uint8),
    )


def _header(time_ns: int, frame_id: str) -> Any:
    return _make("std_msgs/msg/Header", stamp=stamp(time_ns), frame_id=frame_id)


def _twist(twist: Array) -> Any:
    return _make("geometry_msgs/msg/Twist", linear=_vector(twist[:3]), angular=_vector(twist[3:]))


def _vector(v: Array) -> Any:
    return _make("geometry_msgs/msg/Vector3", x=float(v[0]), y=float(v[1]), z=float(v[2]))


def _point(v: Array) -> Any:
    return _make("geometry_msgs/msg/Point", x=float(v[0]), y=float(v[1]), z=float(v[2]))


def _quaternion(T: Array) -> Any:
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True).tolist()
    return _make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def _make(msgtype: str, **fields: Any) -> Any:
    return typestore().types[msgtype](**fields)
