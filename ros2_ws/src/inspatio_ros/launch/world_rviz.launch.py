"""The world, and RViz showing it. Takes the arguments of world.launch.py; topics have no namespace.

ros2 launch inspatio_ros world_rviz.launch.py video:=clip.mp4
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

HERE = Path(__file__).resolve().parent


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "rviz_config", default_value=str(HERE.parent / "rviz/world.rviz"), description="RViz configuration"
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / "world.launch.py"))),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", LaunchConfiguration("rviz_config")],
                parameters=[{"use_sim_time": True}],
            ),
        ]
    )
