"""The tables of all topics and services; publishers, subscriptions and the README are generated from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Float32, String

from inspatio_ros.tf2_build import tf_message
from inspatio_sim.errors import InputError

try:
    from diagnostic_msgs.msg import DiagnosticArray
except ImportError:  # an optional package outside distributions
    DiagnosticArray = None
try:
    TFMessage, TF_OFF = tf_message(), ""
except InputError as error:
    TFMessage, TF_OFF = None, str(error)  # one line, logged by the node

Delivery = Literal["reliable", "latched", "best effort"]


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One row of a table."""

    name: str  # relative to the node's namespace unless it starts with /
    msgtype: Any  # None: its package is not installed
    about: str
    delivery: Delivery = "reliable"
    depth: int = 5
    is_recorded: bool = False

    @property
    def qos(self) -> QoSProfile:
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self.depth,
            reliability=ReliabilityPolicy.BEST_EFFORT if self.delivery == "best effort" else ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if self.delivery == "latched" else DurabilityPolicy.VOLATILE,
        )

    @property
    def type_name(self) -> str:
        """As in `sensor_msgs/msg/Image`."""
        package, kind, *_ = self.msgtype.__module__.split(".")
        return f"{package}/{kind}/{self.msgtype.__name__}"


PUBLISHED = (
    Topic(name="camera/image_raw", msgtype=Image, about="rgb8", is_recorded=True),
    Topic(name="camera/image_raw/compressed", msgtype=CompressedImage, about="JPEG"),
    Topic(name="camera/camera_info", msgtype=CameraInfo, about="pinhole without distortion", is_recorded=True),
    Topic(name="camera/depth/image_rect_raw", msgtype=Image, about="32FC1 metres, NaN unknown; or 16UC1 millimetres, "
          "0 unknown; registered to the colour image", is_recorded=True),
    Topic(name="camera/depth/camera_info", msgtype=CameraInfo, about="the same as camera/camera_info"),
    Topic(name="camera/known", msgtype=Image, about="mono8 provenance of each pixel: 0 made up, 1 map, 2 clip"),
    Topic(name="points", msgtype=PointCloud2, about="the frame as a point cloud in camera_optical_frame"),
    Topic(name="map_points", msgtype=PointCloud2, about="all points of the map, in map", delivery="latched", depth=1),
    Topic(name="map", msgtype=OccupancyGrid, about="floor plan: -1 unknown, 0 free, 100 occupied", delivery="latched",
          depth=1),
    Topic(name="scan", msgtype=LaserScan, about="nearest obstacle per bearing, from depth, in base_link"),
    Topic(name="odom", msgtype=Odometry, about="pose in odom, velocity in base_link; exact", is_recorded=True),
    Topic(name="pose", msgtype=PoseStamped, about="pose of base_link in map"),
    Topic(name="path", msgtype=Path, about="path of base_link since the last reset"),
    Topic(name="plan", msgtype=Path, about="the path to the goal", delivery="latched", depth=1),
    Topic(name="goal_distance", msgtype=Float32, about="remaining distance in metres while driving to a goal"),
    Topic(name="goal_result", msgtype=String, about="how the last goal ended: reached, cancelled, unreachable or stuck",
          delivery="latched", depth=1),
    Topic(name="/clock", msgtype=Clock, about="sim time; never goes backwards", delivery="best effort", depth=1,
          is_recorded=True),
    Topic(name="/tf", msgtype=TFMessage, about="map -> odom -> base_link -> camera_link", depth=100, is_recorded=True),
    Topic(name="/tf_static", msgtype=TFMessage, about="camera_link -> camera_optical_frame", delivery="latched",
          depth=1, is_recorded=True),
    Topic(name="/diagnostics", msgtype=DiagnosticArray, about="frames per second, latency, made-up share, memory"),
)  # fmt: skip

SUBSCRIBED = (
    Topic(name="cmd_vel", msgtype=Twist, about="velocity of base_link; TwistStamped with enable_stamped_cmd_vel",
          depth=1),
    Topic(name="goal_pose", msgtype=PoseStamped, about="goal in map; an all-zero quaternion means any heading",
          depth=1),
    Topic(name="camera/pose_delta", msgtype=TwistStamped, about="one 6-DoF motion for one block, in metres and radians "
          "(exponential coordinates) in the frame of its header: camera_optical_frame (or none) or camera_link",
          depth=10),
)  # fmt: skip

SERVICES = {  # all are std_srvs/srv/Trigger
    "reset": "start over with the parameter `seed`: first frame, empty map",
    "pause": "stop the world; sim time stands still",
    "resume": "continue",
    "step": "in lock_step or when paused: make one block and answer (JSON) once it is published",
    "save_map": "write the map to the parameter `map_path` plus .pgm, .yaml and .ply",
    "snapshot": "save the world in memory under the parameter `snapshot_name`",
    "restore": "restore that snapshot",
    "cancel_goal": "stop driving to the goal",
}


def markdown_tables() -> str:
    """Topics and services as Markdown tables, for the README."""
    lines: list[str] = []
    for title, topics in (("published", PUBLISHED), ("subscribed", SUBSCRIBED)):
        lines += [f"| {title} | type | QoS | what it is |", "|---|---|---|---|"]
        for topic in topics:
            type_name = "" if topic.msgtype is None else topic.type_name.replace("/msg/", "/")
            durability = "reliable, transient local" if topic.delivery == "latched" else topic.delivery
            lines.append(f"| `{topic.name}` | {type_name} | {durability}, depth {topic.depth} | {topic.about} |")
        lines.append("")
    lines += ["| service (std_srvs/Trigger) | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in SERVICES.items()]
    return "\n".join(lines)
