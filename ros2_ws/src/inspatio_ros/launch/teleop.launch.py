"""The world, and a terminal to drive it from the keyboard (hold a key). Takes the arguments of world.launch.py.

ros2 launch inspatio_ros teleop.launch.py video:=clip.mp4
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

HERE = Path(__file__).resolve().parent


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("terminal", default_value="xterm -e", description="terminal that reads the keys"),
            DeclareLaunchArgument("speed", default_value="0.3", description="initial speed, m/s"),
            DeclareLaunchArgument("turn", default_value="0.6", description="initial turn rate, rad/s"),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / "world.launch.py"))),
            Node(
                package="teleop_twist_keyboard",
                executable="teleop_twist_keyboard",
                namespace=LaunchConfiguration("namespace"),
                prefix=LaunchConfiguration("terminal"),
                parameters=[
                    {
                        "stamped": ParameterValue(LaunchConfiguration("enable_stamped_cmd_vel"), value_type=bool),
                        "speed": ParameterValue(LaunchConfiguration("speed"), value_type=float),
                        "turn": ParameterValue(LaunchConfiguration("turn"), value_type=float),
                    }
                ],
            ),
        ]
    )
