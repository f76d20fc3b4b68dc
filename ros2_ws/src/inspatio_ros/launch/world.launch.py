"""The world as one node. Every parameter of the node is an argument, and so is `namespace`.

ros2 launch inspatio_ros world.launch.py video:=clip.mp4 generator:=warp
"""

from inspatio_ros.parameters import TABLE, default_text
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all topics and services")
    ]
    for row in TABLE:
        default = default_text(row).strip("'")  # launch expects the bare string
        arguments.append(DeclareLaunchArgument(row.name, default_value=default, description=row.about))
    values = {row.name: ParameterValue(LaunchConfiguration(row.name), value_type=type(row.default)) for row in TABLE}
    world = Node(
        package="inspatio_ros",
        executable="world",
        name="world",
        namespace=LaunchConfiguration("namespace"),
        parameters=[values],
        output="screen",
        emulate_tty=True,
    )
    return LaunchDescription([*arguments, world])
