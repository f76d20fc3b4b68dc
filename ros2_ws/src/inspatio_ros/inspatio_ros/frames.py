"""One frame of a block and its messages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import LaserScan, PointCloud2
from std_msgs.msg import Header

from inspatio_ros import conversions
from inspatio_ros.parameters import Parameters
from inspatio_ros.simulation import Block
from inspatio_sim.motion.camera import Array, Intrinsics, inverse, se3_log

MAP, ODOM, BASE, LINK, OPTICAL = "map", "odom", "base_link", "camera_link", "camera_optical_frame"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Poses at one frame."""

    block: Block
    frame_idx: int
    intrinsics: Intrinsics
    camera_height_m: float
    parameters: Parameters
    T_map_base_before: Array | None  # at the previous frame; None: the camera jumped here

    @cached_property
    def stamp(self) -> Time:
        return conversions.time_msg(self.block.time_s(self.frame_idx))

    @property
    def stamp_ns(self) -> int:
        return self.stamp.sec * 1_000_000_000 + self.stamp.nanosec

    def frame(self, name: str) -> str:
        """A frame's name with the prefix."""
        return self.parameters.frame_prefix + name

    @property
    def rgb_u8(self) -> Any:
        return self.block.observation.rgb_u8[self.frame_idx]

    @property
    def depth_m(self) -> Any:
        return self.block.observation.depth_m[self.frame_idx]

    @cached_property
    def poses(self) -> tuple[Array, Array]:
        """`T_map_base`, `T_base_link`."""
        T_map_optical = conversions.ros_from_world(self.block.observation.T_world_camera[self.frame_idx])
        return conversions.level_base(T_map_optical @ inverse(conversions.T_LINK_OPTICAL), self.camera_height_m)

    @property
    def T_map_base(self) -> Array:
        return self.poses[0]

    def color(self) -> Any:
        return conversions.image_msg(self.rgb_u8, self.stamp, self.frame(OPTICAL))

    def compressed(self) -> Any:
        return conversions.compressed_msg(
            self.rgb_u8, self.stamp, self.frame(OPTICAL), quality=self.parameters.jpeg_quality
        )

    def info(self) -> Any:
        return conversions.camera_info_msg(self.intrinsics, self.stamp, self.frame(OPTICAL))

    def depth(self) -> Any:
        encoding: Any = self.parameters.depth_encoding
        return conversions.depth_msg(self.depth_m, self.stamp, self.frame(OPTICAL), encoding=encoding)

    def known(self) -> Any:
        return conversions.known_msg(self.block.observation.known[self.frame_idx], self.stamp, self.frame(OPTICAL))

    def points(self) -> PointCloud2:
        points_m, rgb_u8 = conversions.frame_points(self.depth_m, self.rgb_u8, self.intrinsics)
        return conversions.cloud_msg(points_m, rgb_u8, self.stamp, self.frame(OPTICAL))

    def scan(self) -> LaserScan:
        asked = self.parameters
        return conversions.scan_msg(
            self.depth_m,
            self.intrinsics,
            self.poses[1] @ conversions.T_LINK_OPTICAL,
            self.stamp,
            self.frame(BASE),
            height_band_m=(asked.scan_min_height_m, asked.scan_max_height_m),
            range_m=(0.1, asked.scan_max_range_m),
        )

    def odom(self) -> Odometry:
        twist = np.zeros(6)
        if self.T_map_base_before is not None:
            twist = se3_log(inverse(self.T_map_base_before) @ self.T_map_base) * self.block.fps
        return conversions.odometry_msg(
            self.T_map_base, twist, self.stamp, frame_id=self.frame(ODOM), child_frame_id=self.frame(BASE)
        )

    def pose(self) -> PoseStamped:
        header = Header(stamp=self.stamp, frame_id=self.frame(MAP))
        return PoseStamped(header=header, pose=conversions.pose_msg(self.T_map_base))

    def clock(self) -> Clock:
        return Clock(clock=self.stamp)

    def transforms(self) -> list[Any]:
        """Transforms from map to odom (odometry is exact), base_link and camera_link."""
        T_map_base, T_base_link = self.poses
        tree = ((MAP, ODOM, np.eye(4)), (ODOM, BASE, T_map_base), (BASE, LINK, T_base_link))
        return [self._transform(*edge) for edge in tree]

    def static_transforms(self) -> list[Any]:
        return [self._transform(LINK, OPTICAL, conversions.T_LINK_OPTICAL)]

    def _transform(self, parent: str, child: str, T_parent_child: Array) -> Any:
        return conversions.transform_msg(T_parent_child, self.stamp, self.frame(parent), self.frame(child))


MESSAGES = {  # for every frame: topic -> function that makes the message
    "/clock": Moment.clock,
    "camera/image_raw": Moment.color,
    "camera/image_raw/compressed": Moment.compressed,
    "camera/camera_info": Moment.info,
    "camera/depth/image_rect_raw": Moment.depth,
    "camera/depth/camera_info": Moment.info,
    "camera/known": Moment.known,
    "points": Moment.points,
    "scan": Moment.scan,
    "odom": Moment.odom,
    "pose": Moment.pose,
}
