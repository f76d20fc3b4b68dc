"""The world, and Nav2 driving in it: Nav2 gets map, scan, odom, tf and the goals, the world gets cmd_vel.

The world's own planner listens on `world/goal_pose` instead. No map server and no AMCL: the world publishes
the map and map -> odom. Takes the arguments of world.launch.py.

ros2 launch inspatio_ros world_nav2.launch.py video:=clip.mp4
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

HERE = Path(__file__).resolve().parent
BRINGUP = FindPackageShare("nav2_bringup")
NAV2_SENDS_TWIST = ("humble", "iron", "jazzy")  # TwistStamped since Kilted


def generate_launch_description() -> LaunchDescription:
    is_stamped = os.environ.get("ROS_DISTRO", "") not in NAV2_SENDS_TWIST
    world = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / "world.launch.py")),
        launch_arguments={"enable_stamped_cmd_vel": str(is_stamped).lower()}.items(),
    )
    nav2 = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([BRINGUP, "launch", "navigation_launch.py"])),
        launch_arguments={"use_sim_time": "true", "params_file": LaunchConfiguration("params_file")}.items(),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([BRINGUP, "params", "nav2_params.yaml"]),
                description="parameters of Nav2",
            ),
            GroupAction([SetRemap("goal_pose", "world/goal_pose"), world]),
            nav2,
        ]
    )
