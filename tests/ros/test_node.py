"""The node in one process, a client in another, over Fast DDS on the loopback interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from inspatio_ros import conversions
from inspatio_ros.main import main
from inspatio_ros.outlet import Outlet
from inspatio_ros.parameters import TABLE
from inspatio_ros.topics import PUBLISHED
from nav_msgs.msg import OccupancyGrid, Odometry
from nav_msgs.msg import Path as PathMsg
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Float32, String

from inspatio_sim.bags.files import Bag
from inspatio_sim.bags.session import replay_session
from inspatio_sim.mapping.map_server import read_grid
from tests.ros.client import ALONE, Client, WorldProcess

pytestmark = pytest.mark.ros

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STAMPED = "stamped"  # namespace of the second node


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def nodes(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WorldProcess]]:
    """Two at once: one in lock-step, one in real time in a namespace; both are stopped in the end."""
    folder = tmp_path_factory.mktemp("nodes")
    nodes = {
        "": WorldProcess(folder, time_mode="lock_step"),
        STAMPED: WorldProcess(
            folder, STAMPED, enable_stamped_cmd_vel=True, publish_clock=False, frame_prefix="stamped/", fps=20.0
        ),
    }
    try:
        for namespace in nodes:
            client.until(lambda ns=namespace: is_active(client, ns), f"active node in /{namespace}", 60)
    except BaseException:
        for node in nodes.values():
            node.kill()
        raise
    yield nodes
    codes = [node.stop() for node in nodes.values()]
    output = "".join(node.output for node in nodes.values())
    assert codes == [0, 0], output
    assert "Traceback" not in output


def is_active(client: Client, namespace: str = "") -> bool:
    return client.state(f"{namespace}/world" if namespace else "world") == "active"


@pytest.fixture
def world(nodes: dict[str, WorldProcess], client: Client) -> WorldProcess:
    """The lock-step node, at the beginning."""
    assert client.set_parameter("world", "seed", 0).successful
    assert client.set_parameter("world", "time_mode", "lock_step").successful
    client.done("resume")
    client.done("reset")
    return nodes[""]


def twist(x_mps: float = 0.0, turn_radps: float = 0.0) -> Twist:
    message = Twist()
    message.linear.x, message.angular.z = x_mps, turn_radps
    return message


def stamp_s(message: Any) -> float:
    return conversions.seconds(message.header.stamp)


def is_at(facts: dict[str, Any]) -> Any:
    """Whether a message belongs to the last frame of a step."""
    sec, nanosec = facts["stamp"]
    return lambda message: (message.header.stamp.sec, message.header.stamp.nanosec) == (sec, nanosec)


def edges(message: Any) -> list[tuple[str, str]]:
    """Parent and child of every transform."""
    return [(transform.header.frame_id, transform.child_frame_id) for transform in message.transforms]


def drive(client: Client, commands: list[Twist]) -> list[bytes]:
    """The image after each command, in lock-step."""
    images = []
    with client.publisher("cmd_vel", Twist) as publisher, client.inbox("camera/image_raw", Image) as inbox:
        for command in commands:
            publisher.publish(command)
            facts = client.facts("step")
            assert facts["obeyed_a_new_command"]
            images.append(bytes(inbox.wait_for(is_at(facts)).data))
    return images


def test_every_topic_carries_what_it_says(world: WorldProcess, client: Client) -> None:
    types = {
        "camera/image_raw": Image,
        "camera/image_raw/compressed": CompressedImage,
        "camera/camera_info": CameraInfo,
        "camera/depth/image_rect_raw": Image,
        "camera/depth/camera_info": CameraInfo,
        "camera/known": Image,
        "points": PointCloud2,
        "scan": LaserScan,
        "odom": Odometry,
        "pose": PoseStamped,
    }
    with ExitStack() as stack:
        inboxes = {name: stack.enter_context(client.inbox(name, kind)) for name, kind in types.items()}
        clock = stack.enter_context(client.inbox("/clock", Clock, qos_profile_sensor_data))
        path = stack.enter_context(client.inbox("path", PathMsg))
        assert client.set_parameter("world", "path_period_s", 0.0).successful
        time.sleep(0.3)  # until the node knows of all of them
        client.facts("step")
        facts = client.facts("step")
        got = {name: inbox.wait_for(is_at(facts)) for name, inbox in inboxes.items()}
        clock.wait_for(lambda m: conversions.seconds(m.clock) == pytest.approx(facts["time_s"], abs=1e-8))
        assert len(path.wait()[-1].poses) >= 1
    rgb_u8 = conversions.image_array(got["camera/image_raw"])
    assert rgb_u8.shape == (48, 80, 3)
    assert rgb_u8.std() > 10
    assert got["camera/image_raw"].encoding == "rgb8"
    assert bytes(got["camera/image_raw/compressed"].data[:2]) == b"\xff\xd8"
    assert got["camera/camera_info"] == got["camera/depth/camera_info"]
    assert got["camera/depth/image_rect_raw"].encoding == "32FC1"
    depth_m = conversions.depth_array(got["camera/depth/image_rect_raw"])
    intrinsics = conversions.intrinsics_of(got["camera/camera_info"])
    points_m, colors_u8 = conversions.cloud_arrays(got["points"])
    expected_m, expected_u8 = conversions.frame_points(depth_m, rgb_u8, intrinsics)
    np.testing.assert_array_equal(points_m, expected_m)
    np.testing.assert_array_equal(colors_u8, expected_u8)
    assert set(np.unique(conversions.image_array(got["camera/known"]))) <= {0, 1, 2}
    ranges_m = np.array(got["scan"].ranges)
    assert np.isfinite(ranges_m).any()
    assert got["scan"].header.frame_id == got["odom"].child_frame_id == "base_link"
    assert got["odom"].header.frame_id == "odom"
    assert got["pose"].header.frame_id == "map"
    for name in ("camera/image_raw", "camera/depth/image_rect_raw", "points", "camera/known"):
        assert got[name].header.frame_id == "camera_optical_frame"
    assert got["pose"].pose.position.z == pytest.approx(-1.35, abs=0.1)  # the floor under the demo room's camera


def test_transforms_lead_from_map_to_camera(world: WorldProcess, client: Client) -> None:
    tf2_msgs = pytest.importorskip("tf2_msgs.msg")
    with (
        client.inbox(
            "/tf_static", tf2_msgs.TFMessage, QoSProfile(depth=9, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        ) as static,
        client.inbox("/tf", tf2_msgs.TFMessage, 100) as moving,
    ):
        time.sleep(0.3)
        facts = client.facts("step")
        ours = moving.wait_for(lambda m: m.transforms[0].header.frame_id == "map" and is_at(facts)(m.transforms[0]))
        static.wait_for(lambda m: edges(m) == [("camera_link", "camera_optical_frame")])
        static.wait_for(lambda m: edges(m) == [("stamped/camera_link", "stamped/camera_optical_frame")])
    assert edges(ours) == [("map", "odom"), ("odom", "base_link"), ("base_link", "camera_link")]


def test_publishers_have_the_qos_of_the_table(world: WorldProcess, client: Client) -> None:
    for topic in PUBLISHED:
        if topic.msgtype is None or topic.name.startswith("/tf"):
            continue
        infos = [
            info
            for info in client.node.get_publishers_info_by_topic(topic.name)
            if info.node_name == "world" and info.node_namespace == "/"
        ]
        assert len(infos) == 1, topic.name
        qos = infos[0].qos_profile
        is_best_effort, is_latched = topic.delivery == "best effort", topic.delivery == "latched"
        assert (qos.reliability == ReliabilityPolicy.BEST_EFFORT) == is_best_effort, topic.name
        assert (qos.durability == DurabilityPolicy.TRANSIENT_LOCAL) == is_latched, topic.name


def test_lock_step_makes_the_same_bytes_again(world: WorldProcess, client: Client) -> None:
    commands = [twist(0.5), twist(0.5, 0.4), twist(0.3, -0.8), twist(turn_radps=1.0), twist(-0.2), twist(0.5)]
    first = drive(client, commands)
    client.done("reset")
    assert drive(client, commands) == first
    assert len(set(first)) == len(first)


def test_time_stands_still_between_steps_and_never_goes_back(world: WorldProcess, client: Client) -> None:
    with client.inbox("camera/image_raw", Image) as inbox:
        before = client.facts("step")
        time.sleep(0.5)
        assert max(stamp_s(message) for message in inbox.messages) == pytest.approx(before["time_s"], abs=1e-8)
        after = client.facts("reset")
        assert after["time_s"] == pytest.approx(before["time_s"] + 1 / 12, abs=1e-6)


def test_restore_goes_on_as_from_the_snapshot(world: WorldProcess, client: Client) -> None:
    first = drive(client, [twist(0.5), twist(0.5, 0.4)])
    assert client.set_parameter("world", "snapshot_name", "here").successful
    client.done("snapshot")
    onwards = drive(client, [twist(0.5, 1.0), twist(0.5, 1.0)])
    with client.inbox("camera/image_raw", Image) as inbox:
        time.sleep(0.2)
        shown = inbox.wait_for(is_at(client.facts("restore")))
    assert bytes(shown.data) == first[-1]
    assert drive(client, [twist(0.5, 1.0), twist(0.5, 1.0)]) == onwards
    assert client.set_parameter("world", "snapshot_name", "nowhere").successful
    answer = client.trigger("restore")
    assert not answer.success
    assert "no snapshot 'nowhere': there are here" in answer.message


def test_save_map_writes_what_map_server_reads(world: WorldProcess, client: Client, tmp_path: Path) -> None:
    assert client.set_parameter("world", "map_path", str(tmp_path / "room")).successful
    client.done("save_map")
    grid = read_grid(tmp_path / "room.yaml")
    assert (grid.cells == 100).any()
    assert (tmp_path / "room.ply").stat().st_size > 1000
    assert client.set_parameter("world", "map_path", "/proc/nowhere/room").successful
    answer = client.trigger("save_map")
    assert not answer.success
    assert "/proc/nowhere" in answer.message


def test_late_reader_gets_the_map_though_nothing_moves(world: WorldProcess, client: Client) -> None:
    client.done("step")
    with client.inbox("map", OccupancyGrid, LATCHED) as inbox:
        grid = conversions.grid_of(inbox.wait(timeout_s=5)[-1])
    assert (grid.cells == 0).any()
    assert (grid.cells == 100).any()
    with client.inbox("map", OccupancyGrid, LATCHED) as inbox:  # and the next one, what DDS has kept
        inbox.wait(timeout_s=5)
    with client.inbox("map_points", PointCloud2, LATCHED) as inbox:
        points_m, _ = conversions.cloud_arrays(inbox.wait(timeout_s=10)[-1])
    assert len(points_m) > 500
    assert points_m[:, 0].max() > 1.5  # the far wall lies ahead, along x


def test_six_dof_motion_is_made_as_asked(world: WorldProcess, client: Client) -> None:
    with (
        client.publisher("camera/pose_delta", TwistStamped) as publisher,
        client.inbox("pose", PoseStamped) as inbox,
    ):
        time.sleep(0.2)
        before = inbox.wait_for(is_at(client.facts("step")))
        up = TwistStamped()
        up.header.frame_id = "camera_link"
        up.twist.linear.z = 0.07
        publisher.publish(up)
        after = inbox.wait_for(is_at(client.facts("step")))
        assert after.pose.position.z - before.pose.position.z == pytest.approx(0.07, abs=1e-6)
        up.header.frame_id, up.twist.linear.z = "camera_optical_frame", 0.0
        up.twist.linear.y = 0.07  # down, there
        publisher.publish(up)
        again = inbox.wait_for(is_at(client.facts("step")))
    assert again.pose.position.z == pytest.approx(before.pose.position.z, abs=1e-6)


def test_goal_is_reached_and_another_cancelled(world: WorldProcess, client: Client) -> None:
    goal = PoseStamped()
    goal.header.frame_id = "map"
    goal.pose.position.x = 0.8
    goal.pose.orientation.w = 1.0
    with (
        client.publisher("goal_pose", PoseStamped) as publisher,
        client.inbox("goal_distance", Float32) as distance,
        client.inbox("goal_result", String, LATCHED) as result,
        client.inbox("plan", PathMsg, LATCHED) as plan,
        client.inbox("pose", PoseStamped) as pose,
    ):
        time.sleep(0.2)
        result.clear()
        publisher.publish(goal)
        for _ in range(60):
            facts = client.facts("step")
            if result.messages:
                break
        assert result.wait()[-1].data == "reached"
        assert np.all(np.diff([message.data for message in distance.messages]) < 0.02)
        assert distance.messages[-1].data < 0.12
        assert plan.messages[-1].poses[-1].pose.position.x == pytest.approx(0.8)
        assert pose.wait_for(is_at(facts)).pose.position.x == pytest.approx(0.8, abs=0.12)
        goal.pose.position.x = 0.0
        result.clear()
        publisher.publish(goal)
        client.facts("step")
        assert client.done("cancel_goal") == "cancelled"
        client.facts("step")
        assert result.wait()[-1].data == "cancelled"
        assert not client.trigger("cancel_goal").success


def test_wall_follower_drives_by_its_scan(world: WorldProcess, client: Client) -> None:
    with (
        client.publisher("cmd_vel", Twist) as publisher,
        client.inbox("scan", LaserScan) as scans,
        client.inbox("odom", Odometry) as odom,
    ):
        time.sleep(0.2)
        facts, way = client.facts("step"), []
        for _ in range(50):
            scan = scans.wait_for(is_at(facts))
            ranges_m = np.array(scan.ranges)
            bearings_rad = scan.angle_min + scan.angle_increment * np.arange(len(ranges_m))
            is_ahead = np.isfinite(ranges_m) & (np.abs(ranges_m * np.sin(bearings_rad)) < 0.3)
            clear_m = float(np.min(ranges_m[is_ahead], initial=10.0))
            publisher.publish(twist(0.5) if clear_m > 0.7 else twist(0.0, 1.0))
            facts = client.facts("step")
            assert not facts["has_collided"]
            way.append(odom.wait_for(is_at(facts)).pose.pose.position)
    assert np.hypot(way[-1].x - way[0].x, way[-1].y - way[0].y) > 0.5


def test_parameters_are_checked_and_change_live(world: WorldProcess, client: Client) -> None:
    for name, value, complaint in (
        ("jpeg_quality", 101, ""),
        ("max_speed_mps", float("nan"), ""),
        ("depth_encoding", "8UC1", "depth_encoding='8UC1': want one of 32FC1, 16UC1"),
        ("time_mode", "warp", "want one of real_time, as_fast_as_possible, lock_step"),
        ("step_height_m", 0.9, ""),
        ("video", "other.mp4", "can only be set while the node is unconfigured"),
        ("max_speed_mps", "fast", ""),
    ):
        if name == "step_height_m":
            assert client.set_parameter("world", "robot_height_m", 0.8).successful
        before = client.get_parameter("world", name)
        result = client.set_parameter("world", name, value)
        assert not result.successful, name
        assert complaint in result.reason
        assert result.reason
        assert client.get_parameter("world", name) == before
    assert client.set_parameter("world", "robot_height_m", 1.5).successful
    assert client.set_parameter("world", "max_speed_mps", 1).successful  # a whole number does for a double
    assert client.set_parameter("world", "max_speed_mps", 0.5).successful
    with client.inbox("camera/depth/image_rect_raw", Image) as inbox:
        time.sleep(0.2)
        assert client.set_parameter("world", "depth_encoding", "16UC1").successful
        assert inbox.wait_for(is_at(client.facts("step"))).encoding == "16UC1"
        assert client.set_parameter("world", "depth_encoding", "32FC1").successful
        assert inbox.wait_for(is_at(client.facts("step"))).encoding == "32FC1"


def test_step_is_refused_while_time_runs_by_itself(world: WorldProcess, client: Client) -> None:
    assert client.set_parameter("world", "time_mode", "as_fast_as_possible").successful
    with client.inbox("camera/camera_info", CameraInfo) as inbox:
        assert not client.trigger("step").success
        inbox.wait(5)
        client.done("pause")
        facts = client.facts("step")
        inbox.wait_for(is_at(facts))
        assert client.facts("step")["time_s"] == pytest.approx(facts["time_s"] + 1 / 12, abs=1e-6)
        client.done("resume")
        inbox.wait(len(inbox.messages) + 5)


def test_nan_and_inf_are_ignored_with_one_warning(world: WorldProcess, client: Client) -> None:
    with client.publisher("cmd_vel", Twist) as publisher, client.inbox("odom", Odometry) as inbox:
        time.sleep(0.2)
        for value in [float("nan"), float("inf"), -float("inf")] * 10:
            publisher.publish(twist(value))
            publisher.publish(twist(0.5, value))
        facts = client.facts("step")
        assert not facts["obeyed_a_new_command"]
        assert inbox.wait_for(is_at(facts)).twist.twist.linear.x == 0
    assert world.output.count("cmd_vel has NaN or inf: ignored") == 1


def test_other_namespace_runs_in_real_time_apart(nodes: dict[str, WorldProcess], client: Client) -> None:
    client.set_parameter(f"{STAMPED}/world", "time_mode", "real_time")
    with (
        client.inbox(f"{STAMPED}/camera/image_raw", Image, qos_profile_sensor_data) as theirs,
        client.inbox("camera/image_raw", Image) as ours,
    ):
        theirs.wait(5)
        theirs.clear()
        time.sleep(2.0)
        count = len(theirs.messages)
        assert not [m for m in ours.messages if m.header.frame_id.startswith("stamped/")]
        assert {m.header.frame_id for m in theirs.messages} == {"stamped/camera_optical_frame"}
    assert 10 <= count <= 44  # 40 in two seconds; fewer where the machine is busy, never more


def test_old_commands_are_ignored_and_drive_stops(nodes: dict[str, WorldProcess], client: Client) -> None:
    node = f"{STAMPED}/world"
    with (
        client.publisher(f"{STAMPED}/cmd_vel", TwistStamped) as publisher,
        client.inbox(f"{STAMPED}/odom", Odometry) as odom,
    ):
        odom.wait(20)  # more than the timeout in sim time
        message = TwistStamped()
        message.twist.angular.z = 1.0
        message.header.stamp = conversions.time_msg(0.05)
        for _ in range(20):
            publisher.publish(message)
        odom.clear()
        assert all(m.twist.twist.angular.z == 0 for m in odom.wait(6))

        def turns() -> bool:
            message.header.stamp = odom.messages[-1].header.stamp
            publisher.publish(message)
            return any(m.twist.twist.angular.z > 0.5 for m in odom.messages)

        client.until(turns, "turn")
        odom.clear()
        stopped = odom.wait_for(lambda m: m.twist.twist.angular.z == 0, 10)  # nobody repeats the command
        assert stamp_s(stopped) > conversions.seconds(message.header.stamp) + 0.4
    assert nodes[STAMPED].output.count("s old: ignored") == 1
    assert client.state(node) == "active"


def test_flood_of_commands_does_not_stop_the_frames(nodes: dict[str, WorldProcess], client: Client) -> None:
    message = TwistStamped()
    message.twist.angular.z = 0.3
    with (
        client.publisher(f"{STAMPED}/cmd_vel", TwistStamped) as publisher,
        client.inbox(f"{STAMPED}/odom", Odometry) as odom,
    ):
        odom.wait(2)
        odom.clear()
        start_s = time.perf_counter()
        for i in range(2000):  # 1 kHz for two seconds
            publisher.publish(message)
            time.sleep(max(0.0, start_s + (i + 1) * 1e-3 - time.perf_counter()))
        count, duration_s = len(odom.messages), time.perf_counter() - start_s
        assert odom.wait_for(lambda m: m.twist.twist.angular.z == pytest.approx(0.3, abs=1e-6), 5)
    assert count >= 0.7 * 20 * duration_s
    assert is_active(client, STAMPED)


def test_recorded_session_is_replayed_to_the_byte(client: Client, tmp_path: Path) -> None:
    node = WorldProcess(
        tmp_path, "taped", time_mode="lock_step", record="walk.mcap", publish_clock=False, block_frames=3
    )
    client.until(lambda: is_active(client, "taped"), "active node in /taped", 60)
    with (
        client.publisher("taped/cmd_vel", Twist) as publisher,
        client.publisher("taped/goal_pose", PoseStamped) as goal,
    ):
        for command in (twist(0.5), twist(0.5, 0.5)):
            publisher.publish(command)
            assert client.facts("taped/step")["obeyed_a_new_command"]
        client.done("taped/snapshot")
        client.facts("taped/step")
        client.done("taped/restore")
        client.facts("taped/step")
        client.set_parameter("taped/world", "seed", 5)
        client.done("taped/reset")
        goal.publish(PoseStamped())
        client.set_parameter("taped/world", "reference_clock", "reverse")
        client.facts("taped/step")
    assert node.stop() == 0, node.output
    with Bag(tmp_path / "walk.mcap") as bag:
        replay = replay_session(bag)
        assert bag.topics["/taped/cmd_vel"].num_messages == 2
    assert replay.difference is None
    assert replay.num_not_recorded == 0
    assert replay.num_compared == 7 * 3 + 1  # two first blocks and five steps; the frame that was gone back to


def test_diagnostics_say_how_it_goes(nodes: dict[str, WorldProcess], client: Client) -> None:
    diagnostic_msgs = pytest.importorskip("diagnostic_msgs.msg")
    with client.inbox("/diagnostics", diagnostic_msgs.DiagnosticArray) as inbox:
        message = inbox.wait_for(lambda m: m.status[0].name == f"/{STAMPED}/world: world", 10)
    values = {pair.key: pair.value for pair in message.status[0].values}
    assert values["time_mode"] == "real_time"
    assert float(values["frames_per_second"]) > 0
    assert 0 <= float(values["hallucinated_fraction"]) <= 1
    assert float(values["memory_mb"]) > 50
    assert {"late_s", "blocks_dropped", "sim_over_wall_time", "block_ms"} <= set(values)


def test_lifecycle_frees_and_loads_again(nodes: dict[str, WorldProcess], client: Client) -> None:
    name = f"{STAMPED}/world"
    with client.inbox(f"{STAMPED}/camera/camera_info", CameraInfo) as inbox:
        inbox.wait()
        assert client.change_state(name, "deactivate")
        time.sleep(0.3)
        inbox.clear()
        time.sleep(0.4)
        assert not inbox.messages
        assert client.change_state(name, "activate")
        inbox.wait(3)
        assert client.change_state(name, "deactivate")
        assert client.change_state(name, "cleanup")
        assert "not active" in client.trigger(f"{STAMPED}/reset").message
        assert client.set_parameter(name, "video", "/nowhere.mp4").successful
        assert not client.change_state(name, "configure")
        assert client.state(name) == "unconfigured"
        assert client.set_parameter(name, "video", "").successful
        assert client.change_state(name, "configure")
        assert client.change_state(name, "activate")
        inbox.clear()
        inbox.wait(3)
    assert "/nowhere.mp4" in nodes[STAMPED].output


READER = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("reader")
node.create_subscription(Image, "camera/image_raw", lambda message: print("frame", flush=True), 5)
rclpy.spin(node)
"""


def test_reader_may_die_and_come_back(world: WorldProcess, client: Client) -> None:
    assert client.set_parameter("world", "time_mode", "real_time").successful
    for _ in range(2):
        reader = subprocess.Popen(
            [sys.executable, "-c", READER], stdout=subprocess.PIPE, text=True, env=os.environ | ALONE
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == "frame\n"
        reader.kill()
        reader.wait()
        reader.stdout.close()
    with client.inbox("camera/image_raw", Image) as inbox:
        inbox.wait(5)


def test_killed_node_comes_back(client: Client, nodes: dict[str, WorldProcess], tmp_path: Path) -> None:
    first = WorldProcess(tmp_path, "again", publish_clock=False)
    with client.inbox("again/camera/image_raw", Image) as inbox:
        inbox.wait(3)
        first.kill()
        second = WorldProcess(tmp_path, "again", publish_clock=False)
        client.until(lambda: "ready after" in second.output, "second node")
        inbox.clear()
        inbox.wait(3)
    assert second.stop() == 0, second.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--ros-args", "-p", "video:=/nowhere.mp4", "-p", "generator:=warp"], "/nowhere.mp4"),
        (["--ros-args", "-p", "jpeg_quality:=1000"], "jpeg_quality=1000: want a whole number 1 to 100"),
        (["--ros-args", "-p", "generator_options:=['a']"], "generator_options"),
        (["clip.mp4"], "unknown argument 'clip.mp4': parameters come after --ros-args"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.setenv(name, "")  # set back afterwards
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main(arguments) == 2
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    said = capfd.readouterr().err
    assert complaint in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2


def test_help_lists_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for row in TABLE:
        assert f"  {row.name}" in said
    assert max(map(len, said.splitlines())) <= 120


def test_nothing_is_made_for_nobody(client: Client) -> None:
    node = LifecycleNode("quiet", context=client.context, namespace="quiet")
    try:
        outlet = Outlet(node, None)
        assert not outlet.send("points", lambda: pytest.fail("made for nobody"), 0)
        assert outlet.send("map", OccupancyGrid, 0, always=True)
        outlet.close()
    finally:
        node.destroy_node()
