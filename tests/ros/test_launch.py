"""Launch files: they compile, name only arguments and topics that exist, and run where launch_ros is installed."""

import ast
import importlib.util
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from inspatio_ros import parameters, topics

PACKAGE = Path(parameters.__file__).parents[1]
FILES = sorted((PACKAGE / "launch").glob("*.launch.py"))
NAMES = {row.name for row in parameters.TABLE}
NEEDS_LAUNCH = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None, reason="launch_ros comes with a ROS distribution only"
)


def called(tree: ast.AST, name: str) -> list[ast.Call]:
    """The calls of a function or class in a source file."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]


def first_texts(tree: ast.AST, name: str) -> set[str]:
    """The first argument of these calls, where it is written out."""
    firsts = [call.args[0] for call in called(tree, name) if call.args]
    return {str(first.value) for first in firsts if isinstance(first, ast.Constant)}


def handed_on(tree: ast.AST, file: str) -> set[str]:
    """Names of the launch_arguments that are handed to an included launch file."""
    names = set()
    for call in called(tree, "IncludeLaunchDescription"):
        if file in ast.unparse(call):
            for keyword in call.keywords:
                if keyword.arg == "launch_arguments":
                    keys = [key for node in ast.walk(keyword.value) if isinstance(node, ast.Dict) for key in node.keys]
                    names |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    return names


def test_the_four_files_are_there_and_reached_from_the_root_of_the_repository():
    names = [path.name for path in FILES]
    assert names == ["teleop.launch.py", "world.launch.py", "world_nav2.launch.py", "world_rviz.launch.py"]
    assert (PACKAGE.parents[2] / "launch").samefile(PACKAGE / "launch")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_compiles_and_every_argument_it_uses_is_declared(path: Path):
    tree = ast.parse(path.read_text())
    compile(tree, path, "exec")
    declared = first_texts(tree, "DeclareLaunchArgument") | NAMES | {"namespace"}  # the last two: world.launch.py
    assert first_texts(tree, "LaunchConfiguration") <= declared
    assert handed_on(tree, "world.launch.py") <= NAMES
    assert first_texts(tree, "SetRemap") <= {topic.name for topic in topics.SUBSCRIBED}
    assert "generate_launch_description" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_own_arguments_do_not_hide_parameters_of_the_node(path: Path):
    assert not first_texts(ast.parse(path.read_text()), "DeclareLaunchArgument") & NAMES


def test_defaults_survive_the_way_through_a_command_line():
    """What world.launch.py declares as text becomes the parameter's default again."""
    for row in parameters.TABLE:
        text = parameters.default_text(row).strip("'")
        value = text if isinstance(row.default, str) else yaml.safe_load(text)
        assert row.checked(value) == row.default


def test_rviz_shows_topics_that_the_node_publishes():
    config = yaml.safe_load((PACKAGE / "rviz/world.rviz").read_text())["Visualization Manager"]
    published = {topic.name: topic.delivery for topic in topics.PUBLISHED}
    shown = [one["Topic"] for one in config["Displays"] if "Topic" in one]
    assert len(shown) > 5
    for topic in shown:
        assert (topic["Durability Policy"] == "Transient Local") == (published[topic["Value"]] == "latched")
    (goal,) = [tool["Topic"]["Value"] for tool in config["Tools"] if "Topic" in tool]
    assert goal in {topic.name for topic in topics.SUBSCRIBED}


@NEEDS_LAUNCH
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_describes_a_launch(path: Path):
    description = runpy.run_path(str(path))["generate_launch_description"]()
    assert description.entities


@NEEDS_LAUNCH
@pytest.mark.slow
def test_world_is_launched():
    command = [sys.executable, "-m", "ros2cli.cli", "launch", "inspatio_ros", "world.launch.py", "generator:=warp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as launch:
        time.sleep(20)
        assert launch.poll() is None
        os.killpg(launch.pid, signal.SIGINT)
        output, _ = launch.communicate(timeout=30)
    assert b"Traceback" not in output
