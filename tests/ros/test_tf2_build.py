"""tf2_msgs built from the wheels: the package, what two processes exchange through it, the cache, the refusals."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inspatio_ros import tf2_build
from inspatio_ros.domain import free_domain

if not any(importlib.metadata.distributions(name="ros-rosidl-generator-py")):
    pytest.skip("a distribution brings tf2_msgs; nothing is built there", allow_module_level=True)

TYPE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"  # the distributions' own
DOMAIN_ID = free_domain()
MODULES = Path(tf2_build.__file__).parents[1]

PUBLISH = """
import time, rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

rclpy.init()
node = rclpy.create_node("publisher")
static = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
node.create_publisher(TFMessage, "/tf_static", static).publish(
    TFMessage(transforms=[TransformStamped(child_frame_id="camera_optical_frame")])
)
moving = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
deadline = time.monotonic() + 20
sent = 0
while time.monotonic() < deadline:
    pair = [TransformStamped(child_frame_id=name) for name in ("odom", "base_link")]
    pair[1].transform.translation.x = 0.1 * sent
    moving.publish(TFMessage(transforms=pair))
    sent += 1
    time.sleep(0.02)
"""

READ = """
import json, time, rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

rclpy.init()
node = rclpy.create_node("reader")
moving, still = [], []
node.create_subscription(TFMessage, "/tf", moving.append, QoSProfile(depth=100))
static = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(TFMessage, "/tf_static", still.append, static)
deadline = time.monotonic() + 15
while time.monotonic() < deadline and (len(moving) < 10 or not still):
    rclpy.spin_once(node, timeout_sec=0.1)
(publisher,) = node.get_publishers_info_by_topic("/tf")
print(json.dumps({
    "names": [one.child_frame_id for one in moving[-1].transforms],
    "x": [message.transforms[1].transform.translation.x for message in moving[-2:]],
    "static": [one.child_frame_id for one in still[0].transforms],
    "hash": str(publisher.topic_type_hash),
}))
node.destroy_node()
rclpy.try_shutdown()
"""


def environment(*paths: Path, **more: str) -> dict[str, str]:
    """Of a child process: these folders first among its modules, and a ROS domain of its own."""
    isolated = {"ROS_DOMAIN_ID": str(DOMAIN_ID), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return {**os.environ, **isolated, "PYTHONPATH": os.pathsep.join(map(str, [*paths, MODULES])), **more}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it."""
    try:
        return tf2_build.build(tmp_path_factory.mktemp("tf2")).parent
    except tf2_build.BuildError as error:
        pytest.skip(f"no compiler: {error}")


def test_two_processes_exchange_transforms(built: Path):
    with subprocess.Popen([sys.executable, "-c", PUBLISH], env=environment(built)) as publisher:
        try:
            reader = subprocess.run(
                [sys.executable, "-c", READ], env=environment(built), capture_output=True, text=True, timeout=30
            )
        finally:
            publisher.kill()
    assert reader.returncode == 0, reader.stderr
    got = json.loads(reader.stdout)
    assert got["names"] == ["odom", "base_link"]
    assert got["x"][1] - got["x"][0] == pytest.approx(0.1)
    assert got["static"] == ["camera_optical_frame"]
    assert TYPE_HASH in got["hash"]


def test_a_package_for_other_versions_is_passed_over_and_the_cache_is_built_once(built: Path, tmp_path: Path):
    stale = tmp_path / "stale/tf2_msgs"
    stale.mkdir(parents=True)
    (stale / "__init__.py").write_text("raise ImportError('compiled for another Python')\n")
    (stale / tf2_build.MARKER).write_text('{"key": "another"}\n')
    ask = "import sys; from inspatio_ros.tf2_build import tf_message as t; print(sys.modules[t().__module__].__file__)"

    def path_of_the_message() -> Path:
        env = environment(stale.parent, INSPATIO_CACHE=str(tmp_path / "cache"))
        done = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    first = path_of_the_message()
    assert first.is_relative_to(tmp_path / "cache")
    made = first.stat().st_mtime_ns
    assert path_of_the_message().stat().st_mtime_ns == made
    assert [path.name for path in (tmp_path / "cache/tf2_msgs").iterdir()] == [first.parents[2].name]


def test_without_a_compiler_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "cc")
    assert tf2_build.main(["--into", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no C compiler (cc): install gcc and g++")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    compiler = tmp_path / "broken-cc"
    compiler.write_text("#!/bin/sh\necho 'x.c:1: fatal error: no room' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert tf2_build.main(["--into", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: broken-cc could not compile tf2_msgs: x.c:1: fatal error: no room\n"
    assert not (tmp_path / "out").exists()
