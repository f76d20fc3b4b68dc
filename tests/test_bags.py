"""Bags: a session comes back frame by frame the same, a robot's bag becomes a world, damage is one line."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

pytest.importorskip("rosbags")

from inspatio_sim.bags import messages
from inspatio_sim.bags.export import ExportConfig, find_topics, read_bag_clip
from inspatio_sim.bags.files import Bag, BagWriter, ros1_typestore, typestore
from inspatio_sim.bags.session import Session, SessionLog, record_session, replay_session
from inspatio_sim.bags.transforms import TransformTree
from inspatio_sim.cli.main import main
from inspatio_sim.clips.video import Clip, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.motion.camera import PoseDelta, interpolate_poses, inverse, pose_from
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import demo_clip, write_demo_clip
from inspatio_sim.walks.walk import steps_of_script
from inspatio_sim.world.source import ClipSource
from inspatio_sim.world.world import World

SCRIPT = "forward 0.1; time freeze; yaw 5; time loop; right 0.05"
SIZE_PX = (48, 80)
FRAME_S = 1 / 12


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("clips") / "room", num_frames=4, size_px=SIZE_PX)


def record(clip: Path | str, out: Path, *more: str) -> None:
    arguments = ["--video", str(clip), "--generator", "warp", "--size", "clip", "--script", SCRIPT, "--quiet"]
    assert main(["bag", "record", *arguments, "--out", str(out), *more]) == 0


@pytest.fixture(scope="module")
def session_bag(room, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "walk.mcap"
    record(room, path)
    return path


def report_of(capfd, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    capfd.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    return json.loads(capfd.readouterr().out)


def refused(capfd, *arguments: str | Path) -> str:
    """The one line of a command that must fail as a user's mistake does."""
    capfd.readouterr()
    assert main([*map(str, arguments)]) == 2
    stdout, stderr = capfd.readouterr()
    assert stderr.startswith("inspatio-sim: error: ")
    assert stderr.count("\n") == 1, stderr
    assert stdout == ""
    return stderr


def rewritten(source: Path, target: Path, change) -> Path:
    """The same bag after `change(topic, message)`, which returns the message, another one, or None."""
    with Bag(source) as bag, BagWriter(target) as writer:
        for topic, time_ns, message in bag.messages(*bag.topics):
            changed = change(topic, message)
            if changed is not None:
                data = typestore().serialize_cdr(changed, changed.__msgtype__)
                writer.write(topic, changed.__msgtype__, data, time_ns)
    return target


# Sessions


@pytest.mark.parametrize("name", ["walk.mcap", "walk.db3", "walk"])
def test_a_recorded_session_is_replayed_to_the_bit(room, tmp_path, capfd, name):
    record(room, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    report = report_of(capfd, "bag", "replay", tmp_path / name)
    assert report["is_same"]
    assert report["num_compared"] == 1 + len(steps_of_script(SCRIPT, 12, 1))
    assert report["num_not_recorded"] == 0


def test_a_bag_holds_what_the_world_showed(room, session_bag):
    config = Session.from_json(next(texts(session_bag, "/session"))).source.config
    world = World(reconstruct(read_clip(room)), generator="warp", config=config)
    steps = steps_of_script(SCRIPT, world.reference.fps, 1)
    observations = [world.reset(), *(world.step(step.delta, step.clock) for step in steps)]
    tree = TransformTree()
    with Bag(session_bag) as bag:
        found = {topic: [] for topic in bag.topics}
        for topic, _, message in bag.messages(*bag.topics):
            found[topic].append(message)
    for topic in ("/tf_static", "/tf"):
        for message in found[topic]:
            for item in message.transforms:
                placement, is_static = messages.placement(item.transform), topic == "/tf_static"
                tree.add(
                    item.header.frame_id, item.child_frame_id, placement, messages.stamp_ns(item), is_static=is_static
                )
    assert tree.ancestors("camera_optical_frame") == ["camera_optical_frame", "camera_link", "base_link", "odom", "map"]
    for color, depth, odom, seen in zip(
        found["/camera/image_raw"], found["/camera/depth/image_rect_raw"], found["/odom"], observations, strict=True
    ):
        assert (color.encoding, color.header.frame_id) == ("rgb8", "camera_optical_frame")
        np.testing.assert_array_equal(messages.color_array(color), seen.rgb_u8[0])
        np.testing.assert_array_equal(messages.depth_array(depth), seen.depth_m[0])
        time_ns = messages.stamp_ns(color)
        assert time_ns == messages.stamp_ns(depth) == round(seen.time_s[0] * 1e9)
        (T,), _ = tree.lookup("map", "camera_optical_frame", np.array([time_ns]), 0.0)
        np.testing.assert_allclose(T, messages.T_MAP_WORLD @ seen.T_world_camera[0], atol=1e-12)
        (T_base,), _ = tree.lookup("odom", "base_link", np.array([time_ns]), 0.0)
        np.testing.assert_allclose(T_base[2, :3], [0, 0, 1], atol=1e-12)  # level
        assert odom.pose.pose.position.x == pytest.approx(T_base[0, 3])
    speed = np.array([odom.twist.twist.linear.x for odom in found["/odom"]])
    assert speed[1] == pytest.approx(0.1 / 3 * 12, rel=0.02)  # 0.1 m forward at 0.5 m/s: in three frames
    deltas = [messages.delta_of(message) for message in found["/camera/pose_delta"]]
    assert [tuple(delta.twist) for delta in deltas] == [tuple(step.delta.twist) for step in steps]
    assert [message.data for message in found["/time_mode"]] == [step.clock for step in steps if step.clock]


def texts(path: Path, topic: str):
    with Bag(path) as bag:
        for _, _, message in bag.messages(topic):
            yield message.data


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6), st.integers(0, 2**31 * 10**9 - 1))
def test_motions_survive_to_the_bit(twist, time_ns):
    message = messages.motion(PoseDelta(np.array(twist)), time_ns)
    data = typestore().serialize_cdr(message, messages.TWIST)
    read = typestore().deserialize_cdr(data, messages.TWIST)
    assert messages.delta_of(read).twist.tobytes() == np.array(twist).tobytes()
    assert messages.stamp_ns(read) == time_ns


def test_the_first_frame_that_differs_is_named_and_shown(session_bag, tmp_path, capfd):
    count = 0

    def change(topic, message):
        nonlocal count
        if topic == "/camera/image_raw":
            count += 1
            if count == 3:
                message.data = message.data.copy()
                message.data[0] ^= 1
        return message

    path = rewritten(session_bag, tmp_path / "changed.mcap", change)
    report = report_of(capfd, "bag", "replay", path, code=1)
    assert not report["is_same"]
    assert report["num_compared"] == 2
    assert report["difference"]["frame"] == 2
    assert report["difference"]["time_s"] == pytest.approx(2 * FRAME_S, abs=1e-5)
    picture = np.asarray(Image.open(report["difference"]["picture"]))
    assert picture.shape[1] > 3 * SIZE_PX[1]
    assert main(["bag", "replay", str(path), "--quiet", "--picture", str(tmp_path / "b.png")]) == 1
    assert "image 2 at" in capfd.readouterr().err
    assert (tmp_path / "b.png").is_file()


def test_another_command_makes_another_walk(session_bag, tmp_path, capfd):
    def change(topic, message):
        if topic == "/camera/pose_delta" and messages.stamp_ns(message) == 0:
            message.twist.linear.z += 0.02
        return message

    path = rewritten(session_bag, tmp_path / "changed.mcap", change)
    assert report_of(capfd, "bag", "replay", path, code=1)["difference"]["frame"] == 1


def test_images_that_were_not_recorded_are_counted(session_bag, tmp_path, capfd):
    path = rewritten(
        session_bag,
        tmp_path / "sparse.mcap",
        lambda topic, message: None if topic == "/camera/image_raw" and message.header.stamp.nanosec % 2 else message,
    )
    report = report_of(capfd, "bag", "replay", path)
    assert report["num_not_recorded"] > 0
    assert report["num_compared"] + report["num_not_recorded"] == 1 + len(steps_of_script(SCRIPT, 12, 1))


def test_a_command_too_few_leaves_images_over(session_bag, tmp_path, capfd):
    left = {topic: len(all_messages(session_bag, topic)) for topic in ("/camera/pose_delta", "/time_mode")}

    def change(topic, message):
        if topic in left:
            left[topic] -= 1
        return None if left.get(topic) == 0 else message

    report = report_of(capfd, "bag", "replay", rewritten(session_bag, tmp_path / "short.mcap", change), code=1)
    assert not report["difference"]["was_made"]


def all_messages(path: Path, topic: str) -> list[Any]:
    with Bag(path) as bag:
        return [message for _, _, message in bag.messages(topic)]


def test_a_changed_clip_is_refused(tmp_path, capfd):
    clip = write_demo_clip(tmp_path / "room", num_frames=3, size_px=SIZE_PX)
    record(clip, tmp_path / "walk.mcap")
    shutil.rmtree(clip)
    assert "No such file" in refused(capfd, "bag", "replay", tmp_path / "walk.mcap")
    write_demo_clip(clip, num_frames=3, size_px=SIZE_PX, seed=1)
    assert "not the one of the recording" in refused(capfd, "bag", "replay", tmp_path / "walk.mcap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "layout", "fov": 1}, "reconstruct option fov=1: no option of method layout"),
        ({"scale": {"length": 1}}, "reconstruct option length=1: no option of scale"),
        ({"progress": 1}, "reconstruct option progress=1: no option of method auto"),
        (["sfm"], r"reconstruct options \['sfm'\]: want a mapping"),
    ],
)
def test_wrong_reconstruct_options_of_a_session_are_named(options, message):
    with pytest.raises(InputError, match=message):
        ClipSource(size_px=SIZE_PX, max_frames=2, reconstruct=options).reference()


def test_resets_snapshots_and_motions_of_single_frames_are_replayed(tmp_path):
    source = ClipSource(size_px=SIZE_PX, max_frames=4)
    world = World(source.reference()[0], generator=WarpGenerator(frames_per_block=2), seed=3)
    fps = world.reference.fps
    with BagWriter(tmp_path / "walk.mcap") as writer:
        log = SessionLog(writer, "/robot1")
        start_s, now_ns = 1 / fps, 0

        def show(observation) -> None:
            nonlocal now_ns
            for rgb_u8, time_s in zip(observation.rgb_u8, observation.time_s, strict=True):
                now_ns = round((start_s + time_s) * 1e9)
                log.write("camera/image_raw", messages.color_image(rgb_u8, now_ns, "camera"), now_ns)

        def step(motion, clock=None):
            log.command(motion, clock, now_ns)
            observation = world.step(motion, clock)
            show(observation)
            return observation

        forward, left = PoseDelta(np.array([0, 0, 0.05, 0, 0, 0])), PoseDelta(np.array([0, 0, 0, 0, -0.05, 0]))
        first = world.reset()
        log.begin(Session.of(world, source, start_s=start_s), now_ns)
        show(first)
        kept_observation = step([forward, left], ["freeze", None])
        snapshot = world.snapshot()
        log.snapshot("a", now_ns)
        step(forward)
        world.restore(snapshot)
        start_s = now_ns * 1e-9 + 1 / fps - kept_observation.time_s[-1]
        log.begin(Session.of(world, source, start_s=start_s, resumes="a"), now_ns)
        now_ns = round((start_s + kept_observation.time_s[-1]) * 1e9)
        log.write("camera/image_raw", messages.color_image(kept_observation.rgb_u8[-1], now_ns, "camera"), now_ns)
        step(left, "reverse")
        T_start = pose_from(t_m=[0.1, 0, 0])
        start_s = now_ns * 1e-9 + 1 / fps
        again = world.reset(seed=5, T_world_camera=T_start)
        log.begin(Session.of(world, source, start_s=start_s, T_world_camera=T_start), now_ns)
        show(again)
        step([left, forward])
    with Bag(tmp_path / "walk.mcap") as bag:
        replay = replay_session(bag)
    assert replay.difference is None
    assert (replay.num_compared, replay.num_not_recorded) == (2 + 2 + 2 + 1 + 2 + 2 + 2, 0)


def test_a_clip_is_read_from_its_start_frame_again(tmp_path):
    write_demo_clip(tmp_path / "clip", num_frames=4, size_px=SIZE_PX)
    source = ClipSource(paths=(str(tmp_path / "clip"),), start_frame=1, max_frames=2)
    whole = ClipSource(paths=source.paths).reference()[0]
    np.testing.assert_array_equal(source.reference()[0].frames_u8, whole.frames_u8[1:3])
    with pytest.raises(InputError, match="start_frame=1: want 0 without a clip"):
        ClipSource(start_frame=1).reference()


def test_a_snapshot_that_is_missing_is_named(tmp_path):
    source = ClipSource(size_px=SIZE_PX, max_frames=2)
    world = World(source.reference()[0], generator="warp")
    with BagWriter(tmp_path / "walk.mcap") as writer:
        log = SessionLog(writer)
        log.begin(Session.of(world, source, resumes="b"), 0)
        log.write("camera/image_raw", messages.color_image(world.reset().rgb_u8[0], 0, "camera"), 0)
    with Bag(tmp_path / "walk.mcap") as bag, pytest.raises(InputError, match="snapshot 'b'"):
        replay_session(bag)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"format": "inspatio-sim session 1"}', '{"format": "inspatio-sim session 1", "clip": 3}'],
)
def test_a_damaged_session_is_one_line(tmp_path, capfd, session_bag, text):
    def change(topic, message):
        return messages.text(text) if topic == "/session" else message

    path = rewritten(session_bag, tmp_path / "bad.mcap", change)
    assert "topic session: damaged" in refused(capfd, "bag", "replay", path)


# Files


def write_numbers(writer: BagWriter, num: int, size: int = 1000) -> None:
    rng = np.random.default_rng(0)
    for number in range(num):
        message = messages.text(f"{number} {rng.bytes(size).hex()}")
        data = typestore().serialize_cdr(message, messages.STRING)
        writer.write("/numbers", messages.STRING, data, number * 10**7)


@pytest.mark.parametrize("share", [0.0001, 0.2, 0.5, 0.9, 0.99999])
def test_a_cut_mcap_file_gives_what_is_whole(tmp_path, share):
    with BagWriter(tmp_path / "whole.mcap", is_compressed=True) as writer:
        write_numbers(writer, 2000)
    whole = (tmp_path / "whole.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: max(60, int(share * len(whole)))])
    with Bag(cut) as bag:
        assert bag.is_cut
        numbers = [int(message.data.split()[0]) for _, _, message in bag.messages(*bag.topics)]
        assert sum(topic.num_messages for topic in bag.topics.values()) == len(numbers)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 2000 * share - 600  # a chunk holds some 500
    with Bag(tmp_path / "whole.mcap") as bag:
        assert not bag.is_cut
        assert bag.topics["/numbers"].num_messages == 2000


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ""])
def test_a_killed_recorder_leaves_what_it_flushed(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from inspatio_sim.bags import messages
from inspatio_sim.bags.files import BagWriter, typestore
writer = BagWriter({str(path)!r})
for number in range(700):
    data = typestore().serialize_cdr(messages.text(f"{{number}} {{'x' * 100}}"), messages.STRING)
    writer.write("/numbers", messages.STRING, data, number)
    if number == 50:
        writer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == -signal.SIGKILL
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.incomplete"]
    with Bag(tmp_path / "run.incomplete") as bag:
        assert bag.is_cut
        assert bag.topics["/numbers"].num_messages >= 50
        numbers = [int(message.data.split()[0]) for _, _, message in bag.messages("/numbers")]
    assert numbers[:50] == list(range(50))
    with BagWriter(path) as writer:  # what was kept stays
        write_numbers(writer, 3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([f"run{suffix}", "run.incomplete"])


def test_an_uncommitted_sqlite_bag_goes_back_to_its_last_commit(tmp_path):
    path = tmp_path / "run.db3"
    with BagWriter(path) as writer:
        write_numbers(writer, 20)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("INSERT INTO messages SELECT NULL, topic_id, timestamp + 1000000000, data FROM messages")
    copy = tmp_path / "copy" / "run.db3"
    copy.parent.mkdir()
    for end in ("", "-wal"):  # as a killed recorder leaves them
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    connection.close()
    with Bag(copy) as bag:
        assert bag.topics["/numbers"].num_messages == 40


def test_the_order_of_writing_is_kept(tmp_path):
    times_ns = [5, 5, 5, 3, 0, 10**9, 7]
    with BagWriter(tmp_path / "a.db3") as writer:
        for number, time_ns in enumerate(times_ns):
            data = typestore().serialize_cdr(messages.text(str(number)), messages.STRING)
            writer.write(f"/{number % 2}", messages.STRING, data, time_ns)
    with Bag(tmp_path / "a.db3") as bag:
        found = [(time_ns, message.data) for _, time_ns, message in bag.messages("/0", "/1")]
    assert [text for _, text in found] == [str(number) for number in range(len(times_ns))]
    assert [time_ns for time_ns, _ in found] == [5, 6, 7, 8, 9, 10**9, 10**9 + 1]


def test_a_failed_recording_leaves_nothing(tmp_path):
    (tmp_path / "run.mcap").write_bytes(b"earlier")

    def fail() -> None:
        with BagWriter(tmp_path / "run.mcap") as writer:
            write_numbers(writer, 3)
            writer.write("/numbers", messages.CLOCK, bytes(8), 0)

    with pytest.raises(InputError, match="one type per topic"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["run.mcap"]
    assert (tmp_path / "run.mcap").read_bytes() == b"earlier"


def test_places_that_cannot_be_written(tmp_path, room, capfd):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.mcap").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    arguments = ("bag", "record", "--video", room, "--script", "wait 1", "--generator", "warp", "--out")
    assert "is a file" in refused(capfd, *arguments, tmp_path / "file")
    assert "is a folder" in refused(capfd, *arguments, tmp_path / "folder.mcap")
    assert "is a folder" in refused(capfd, *arguments, tmp_path / "full")
    assert "cannot write" in refused(capfd, *arguments, "/proc/none/a.mcap")
    assert "cannot write" in refused(capfd, *arguments, tmp_path / "file" / "a.mcap")
    with pytest.raises(InputError, match="storage is mcap"):
        BagWriter(tmp_path / "a.db3", "mcap")
    with BagWriter(tmp_path / "b.mcap") as writer, pytest.raises(InputError, match="no known type"):
        writer.write("/x", "my_msgs/msg/Own", b"", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.mcap", "file", "folder.mcap", "full"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "want one of --trajectory FILE and --script TEXT"),
        (("--script", "fly 3"), "unknown script word"),
        (("--script", "wait 1", "--video", "nowhere.mp4"), "nowhere.mp4"),
        (("--script", "wait 1", "--seed", "-1"), "--seed -1"),
        (("--script", "wait 1", "--base-height-m", "nan"), "--base-height-m nan"),
        (("--script", "wait 1", "--prompt", "x"), "--prompt"),
    ],
)
def test_recordings_that_cannot_be(capfd, tmp_path, arguments, part):
    video = () if "--video" in arguments else ("--video", "demo")
    out = tmp_path / "a.mcap"
    assert part in refused(capfd, "bag", "record", *video, "--generator", "warp", "--out", out, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["info", "replay", "export"])
def test_what_is_no_bag(tmp_path, capfd, verb):
    more = ("--out", tmp_path / "out") if verb == "export" else ()
    (tmp_path / "text.txt").write_text("no bag")
    (tmp_path / "text.mcap").write_text("no bag either, but long enough to hold a footer of mcap")
    (tmp_path / "text.db3").write_text("no bag either")
    (tmp_path / "text.bag").write_text("no bag either")
    (tmp_path / "empty.mcap").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad_folder").mkdir()
    (tmp_path / "bad_folder" / "metadata.yaml").write_text("rosbag2_bagfile_information: 3")
    assert "want a file .mcap, .db3 or .bag" in refused(capfd, "bag", verb, tmp_path / "text.txt", *more)
    for name in ("text.mcap", "text.db3", "text.bag", "bad_folder"):
        assert f"{name}: damaged, cut off, or not a bag" in refused(capfd, "bag", verb, tmp_path / name, *more)
    assert "0 bytes" in refused(capfd, "bag", verb, tmp_path / "empty.mcap", *more)
    assert "folder: not a bag" in refused(capfd, "bag", verb, tmp_path / "folder", *more)
    assert "No such file" in refused(capfd, "bag", verb, tmp_path / "none.mcap", *more)
    assert not (tmp_path / "out").exists()


def read_all(path: Path) -> str:
    """What reading every message ends in."""
    try:
        with Bag(path) as bag:
            return str(sum(1 for _ in bag.messages(*bag.topics)))
    except InputError as error:
        return str(error)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_damage_is_one_line_or_harmless(session_bag, data):
    whole = session_bag.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = session_bag.parent / "damaged.mcap"
    damaged.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
    assert "\n" not in read_all(damaged)


def test_info_says_what_is_there_and_what_for(session_bag, tmp_path, capfd):
    report = report_of(capfd, "bag", "info", session_bag)
    topics = {topic["name"]: topic for topic in report["topics"]}
    num_frames = 1 + len(steps_of_script(SCRIPT, 12, 1))
    assert topics["/camera/image_raw"] == {
        "name": "/camera/image_raw",
        "type": "sensor_msgs/msg/Image",
        "num_messages": num_frames,
    }
    assert report["duration_s"] == pytest.approx((num_frames - 1) * FRAME_S, abs=1e-5)
    assert report["uses"]["replay"]["can"]
    assert report["uses"]["export"]["can"]
    with BagWriter(tmp_path / "a.mcap") as writer:
        write_numbers(writer, 3)
    uses = report_of(capfd, "bag", "info", tmp_path / "a.mcap")["uses"]
    assert not uses["replay"]["can"]
    assert uses["export"]["why"] == "no: no colour image topic"
    assert main(["bag", "info", str(session_bag)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert sum(line.startswith("/") for line in lines) == 1 + len(topics)  # a title, and one line a topic


def test_missing_topics_are_named_with_those_there_are(tmp_path, capfd):
    with BagWriter(tmp_path / "a.mcap") as writer:
        write_numbers(writer, 3)
    said = refused(capfd, "bag", "export", tmp_path / "a.mcap", "--out", tmp_path / "out")
    assert "no colour image topic: there are /numbers" in said
    assert "there are /numbers" in refused(capfd, "bag", "replay", tmp_path / "a.mcap")
    said = refused(capfd, "bag", "export", tmp_path / "a.mcap", "--out", tmp_path / "out", "--image", "/rgb")
    assert "no topic /rgb (--image): there are /numbers" in said
    said = refused(capfd, "bag", "export", tmp_path / "a.mcap", "--out", tmp_path / "out", "--image", "/numbers")
    assert "/numbers is a std_msgs/msg/String" in said


# Bags of robots


@functools.cache
def walk_clip() -> Clip:
    return demo_clip(num_frames=5, size_px=SIZE_PX)


class Robot:
    """Drives through a clip and records it in ways of its own."""

    def __init__(self, path: Path, clip: Clip | None = None) -> None:
        self.clip = clip or walk_clip()
        self.writer = BagWriter(path)
        self.start_ns = 1_700_000_000_123_456_789

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *error: Any) -> None:
        self.writer.__exit__(*error)

    def time_ns(self, frame: float) -> int:
        return self.start_ns + round(frame / self.clip.fps * 1e9)

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        data = typestore().serialize_cdr(message, message.__msgtype__)
        self.writer.write(topic, message.__msgtype__, data, time_ns)

    def T_map_optical(self, frame: float) -> np.ndarray:
        poses = self.clip.T_world_camera
        return messages.T_MAP_WORLD @ interpolate_poses(poses, np.arange(len(poses)), [frame])[0]

    def frames(self, *, image="/cam/color/image_raw", depth="/cam/aligned_depth_to_color/image_raw", late_s=0.0,
               encode=None, encode_depth=None, depth_frame="cam_optical", edit_info=None) -> None:  # fmt: skip
        for n in range(len(self.clip.frames_u8)):
            time_ns = self.time_ns(n)
            info = messages.camera_info(self.clip.intrinsics, time_ns, "cam_optical")
            if edit_info:
                edit_info(info)
            folder = image.removesuffix("/compressed").rsplit("/", 1)[0]
            self.write(f"{folder}/camera_info", info, time_ns)
            color = messages.color_image(self.clip.frames_u8[n], time_ns, "cam_optical")
            self.write(image, encode(color) if encode else color, time_ns)
            late_ns = time_ns + round(late_s * 1e9)
            range_image = messages.depth_image(self.clip.depth_m[n], late_ns, depth_frame)
            self.write(depth, encode_depth(range_image) if encode_depth else range_image, late_ns)

    def tf(self, per_frame: int = 3) -> None:
        """odom -> base -> (static) mount -> (static) cam_optical, at another rate and phase than the images."""
        T_base_mount = pose_from(Rotation.from_euler("y", 0.2).as_matrix(), [0.1, 0, 1.2])
        T_mount_optical = pose_from(messages.T_LINK_OPTICAL[:3, :3], [0, 0.02, 0])
        static = {("base", "mount"): T_base_mount, ("mount", "cam_optical"): T_mount_optical}
        self.write("/tf_static", messages.transforms(static, self.start_ns), self.start_ns)
        for n in range(-1, per_frame * len(self.clip.frames_u8) + 1):
            T_odom_base = self.T_map_optical(n / per_frame) @ inverse(T_base_mount @ T_mount_optical)
            time_ns = self.time_ns(n / per_frame)
            self.write("/tf", messages.transforms({("odom", "base"): T_odom_base}, time_ns), time_ns)


def exported(path: Path, **config: Any):
    with Bag(path) as bag:
        return read_bag_clip(bag, ExportConfig(**config))


def assert_same_clip(found: Clip, want: Clip, *, atol_m: float = 0.0, pose_atol: float = 1e-6) -> None:
    np.testing.assert_array_equal(found.frames_u8, want.frames_u8)
    np.testing.assert_allclose(found.depth_m, want.depth_m, atol=atol_m, rtol=0)
    np.testing.assert_allclose(found.T_world_camera, want.T_world_camera, atol=pose_atol)
    assert found.intrinsics == want.intrinsics
    assert found.fps == pytest.approx(want.fps, rel=1e-6)


def test_a_session_becomes_a_clip_and_a_world_again(session_bag, tmp_path, capfd):
    report = report_of(capfd, "bag", "export", session_bag, "--out", tmp_path / "clip")
    assert report["num_lost"] == {}
    assert report["depth_format"] == "npy"
    clip = read_clip(tmp_path / "clip")
    colors = [messages.color_array(message) for message in all_messages(session_bag, "/camera/image_raw")]
    depths = [messages.depth_array(message) for message in all_messages(session_bag, "/camera/depth/image_rect_raw")]
    np.testing.assert_array_equal(clip.frames_u8, colors)
    np.testing.assert_array_equal(clip.depth_m, depths)
    world = World(reconstruct(clip), generator="warp")
    assert world.reference.provenance.method == "rgbd"
    shown = world.reset()
    np.testing.assert_allclose(shown.T_world_camera[0], np.eye(4), atol=1e-9)
    np.testing.assert_allclose(shown.depth_m[0], depths[0], rtol=1e-4)
    again = tmp_path / "again.mcap"
    record(tmp_path / "clip", again)
    assert report_of(capfd, "bag", "replay", again)["is_same"]
    assert "exists already" in refused(capfd, "bag", "export", session_bag, "--out", tmp_path / "clip")


def test_a_robot_with_tf_of_its_own_rate(tmp_path):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(late_s=0.01)
    export = exported(tmp_path / "robot.mcap")
    assert export.topics == {
        "image": "/cam/color/image_raw",
        "depth": "/cam/aligned_depth_to_color/image_raw",
        "camera_info": "/cam/color/camera_info",
        "pose": "tf",
    }
    assert (export.fixed_frame, export.camera_frame, export.num_lost) == ("odom", "cam_optical", {})
    assert_same_clip(export.clip, robot.clip)


def to_millimetres(message):
    units = np.round(messages.depth_array(message) * 1000).astype("<u2")
    message.encoding, message.step = "16UC1", 2 * message.width
    message.data = units.reshape(-1).view(np.uint8)
    return message


def compressed(message, format: str, data: bytes):
    make = typestore().types[messages.COMPRESSED]
    return make(header=message.header, format=format, data=np.frombuffer(data, np.uint8))


def to_png_depth(message):
    units = np.round(messages.depth_array(message) * 1000).astype(np.uint16)
    data = bytes(12) + cv2.imencode(".png", units)[1].tobytes()
    return compressed(message, "16UC1; compressedDepth png", data)


def to_inverse_depth(message):
    """As compressed_depth_image_transport quantises floating-point depth, with its defaults."""
    depth_m = messages.depth_array(message)
    scale = 100.0 * (100.0 + 1.0)
    offset = 1.0 - scale / 10.0
    with np.errstate(divide="ignore"):
        units = np.where((depth_m > 0) & (depth_m < 10), scale / depth_m + offset, 0).astype(np.uint16)
    header = np.array([0], "<i4").tobytes() + np.array([scale, offset], "<f4").tobytes()
    return compressed(message, "32FC1; compressedDepth", header + cv2.imencode(".png", units)[1].tobytes())


@pytest.mark.parametrize(
    ("names", "encode_depth", "atol_m", "depth_format"),
    [
        ({"depth": "/cam/depth/image_rect"}, None, 0.0, "npy"),
        ({"depth": "/cam/depth_registered/image_raw"}, to_millimetres, 0.00051, "png16"),
        ({"depth": "/cam/depth/image_raw/compressedDepth"}, to_png_depth, 0.00051, "png16"),
        ({"depth": "/cam/depth/image_raw/compressedDepth"}, to_inverse_depth, 0.02, "npy"),
    ],
)
def test_encodings_of_depth(tmp_path, names, encode_depth, atol_m, depth_format):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(**names, encode_depth=encode_depth)
    export = exported(tmp_path / "robot.mcap")
    assert export.depth_format == depth_format
    assert_same_clip(export.clip, robot.clip, atol_m=atol_m)


def as_jpeg(message):
    file = io.BytesIO()
    Image.fromarray(messages.color_array(message)).save(file, "JPEG", quality=95)
    return compressed(message, "rgb8; jpeg compressed bgr8", file.getvalue())


def test_compressed_images(tmp_path):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(image="/cam/rgb/image_raw/compressed", encode=as_jpeg)
    export = exported(tmp_path / "robot.mcap")
    assert export.topics["image"] == "/cam/rgb/image_raw/compressed"
    assert np.abs(export.clip.frames_u8.astype(int) - robot.clip.frames_u8).mean() < 4


@pytest.mark.parametrize(
    ("encoding", "channels"),
    [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0]), ("8UC3", [2, 1, 0])],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_encodings_of_colour(encoding, channels, padding):
    rgb_u8 = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    message = messages.color_image(rgb_u8, 0, "camera")
    rows = rgb_u8[..., channels].reshape(4, -1)
    rows = np.concatenate([rows, np.full((4, padding), 7, np.uint8)], axis=1)
    message.encoding, message.step, message.data = encoding, rows.shape[1], rows.reshape(-1)
    np.testing.assert_array_equal(messages.color_array(message), rgb_u8)


def test_gray_images_and_bytes_in_the_other_order():
    gray_u8 = np.arange(12, dtype=np.uint8).reshape(3, 4)
    message = messages.color_image(gray_u8, 0, "camera")
    message.encoding = "mono8"
    np.testing.assert_array_equal(messages.color_array(message), np.repeat(gray_u8[..., None], 3, axis=2))
    depth_m = np.array([[0.5, np.nan, np.inf], [-1.0, 0.0, 65.0]], np.float32)
    message = messages.depth_image(depth_m, 0, "camera")
    want = [[0.5, 0, 0], [0, 0, 65.0]]
    np.testing.assert_array_equal(messages.depth_array(message), want)
    message.data = message.data.reshape(-1, 4)[:, ::-1].reshape(-1)
    message.is_bigendian = 1
    np.testing.assert_array_equal(messages.depth_array(message), want)


def test_saturated_millimetres_are_unknown():
    message = messages._image(np.array([[0, 1500, 0xFFFE, 0xFFFF]], np.uint16), "16UC1", 0, "camera")
    np.testing.assert_allclose(messages.depth_array(message), [[0, 1.5, 65.534, 0]])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda message: setattr(message, "encoding", "bayer_rggb8"), "encoding 'bayer_rggb8': want one of rgb8"),
        (lambda message: setattr(message, "step", 3), "does not fit"),
        (lambda message: setattr(message, "data", message.data[:-1]), "does not fit"),
        (lambda message: (setattr(message, "height", 24), setattr(message, "width", 80)), "80x24 px: want 80x48"),
    ],
)
def test_images_that_cannot_be_read(tmp_path, capfd, change, part):
    def encode(message):
        change(message)
        return message

    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(encode=encode)
    said = refused(capfd, "bag", "export", tmp_path / "robot.mcap", "--out", tmp_path / "out")
    assert part in said
    assert "topic /cam/color/image_raw, message 1" in said
    assert not (tmp_path / "out").exists()


def test_images_without_partner_are_left_out(tmp_path, capfd):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(late_s=0.03)
        color, depth = "/cam/color/image_raw", "/cam/aligned_depth_to_color/image_raw"
        for time_ns in (robot.time_ns(2.8), robot.time_ns(500)):  # no depth, no tf
            robot.write(color, messages.color_image(robot.clip.frames_u8[0], time_ns, "cam_optical"), time_ns)
        robot.write(depth, messages.depth_image(robot.clip.depth_m[0], time_ns, "cam_optical"), time_ns)
    arguments = ("--tolerance-s", "0.00001", "--out", tmp_path / "out")
    said = refused(capfd, "bag", "export", tmp_path / "robot.mcap", *arguments)
    assert "no image has a pose" in said
    export = exported(tmp_path / "robot.mcap", tolerance_s=0.035)
    assert export.num_images == 7
    assert export.num_lost == {"no depth of that time": 1, "no pose of that time": 1}
    assert_same_clip(export.clip, robot.clip)
    assert len(exported(tmp_path / "robot.mcap", tolerance_s=0.035, every=2).clip.frames_u8) == 3
    assert len(exported(tmp_path / "robot.mcap", tolerance_s=0.035, max_frames=2).clip.frames_u8) == 2


@pytest.mark.parametrize("axes", ["body", "optical"])
def test_a_pose_topic_in_place_of_tf(tmp_path, axes):
    make = typestore().types
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.frames()
        for n in range(len(robot.clip.frames_u8)):
            T = robot.T_map_optical(n)
            T = T if axes == "optical" else T @ inverse(messages.T_LINK_OPTICAL)
            pose = messages.odometry(T, np.zeros(6), robot.time_ns(n)).pose.pose
            header = messages.motion(PoseDelta.identity(), robot.time_ns(n)).header
            robot.write("/vicon/pose", make[messages.POSE](header=header, pose=pose), robot.time_ns(n))
    export = exported(tmp_path / "robot.mcap", pose_axes=axes)
    assert export.topics["pose"] == "/vicon/pose"
    assert export.notes == [f"the pose topic is taken as the camera's own, in {axes} axes"]
    assert_same_clip(export.clip, robot.clip)


def test_odometry_with_tf_of_the_robot_alone(tmp_path):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.frames()
        T_base_optical = pose_from(messages.T_LINK_OPTICAL[:3, :3], [0.2, 0, 0.5])
        static = messages.transforms({("base_link", "cam_optical"): T_base_optical}, robot.start_ns)
        robot.write("/tf_static", static, robot.start_ns)
        for n in range(len(robot.clip.frames_u8)):
            odometry = messages.odometry(
                robot.T_map_optical(n) @ inverse(T_base_optical), np.zeros(6), robot.time_ns(n)
            )
            robot.write("/odometry", odometry, robot.time_ns(n))
    export = exported(tmp_path / "robot.mcap", pose="/odometry")
    assert (export.fixed_frame, export.notes) == ("odom", [])
    assert_same_clip(export.clip, robot.clip)


def test_depth_that_is_not_registered_is_refused(tmp_path, capfd):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        T_color_depth = pose_from(t_m=[0.05, 0, 0])
        robot.write("/tf_static", messages.transforms({("cam_optical", "depth_optical"): T_color_depth}, 0), 0)
        robot.frames(depth_frame="depth_optical")
    said = refused(capfd, "bag", "export", tmp_path / "robot.mcap", "--out", tmp_path / "out")
    assert "in frame depth_optical, the image in cam_optical: want depth registered" in said


@pytest.mark.parametrize("is_straight", [False, True])
def test_distorted_images_are_straightened(tmp_path, is_straight):
    """A lens that bends; what comes out is what a pinhole sees, save for the rounding of pixels."""
    clip = demo_clip(num_frames=2, size_px=(96, 160))
    K, D = clip.intrinsics.K_px, np.array([-0.15, 0.03, 0.001, -0.002, 0.0])
    height, width = clip.frames_u8.shape[1:3]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    straight = cv2.undistortPoints(pixels, K, D, P=K).reshape(height, width, 2).astype(np.float32)

    def bend(image, how=cv2.INTER_CUBIC):
        return cv2.remap(image, straight[..., 0], straight[..., 1], how)

    def encode(message):
        rgb_u8 = bend(messages.color_array(message))
        return messages.color_image(rgb_u8, messages.stamp_ns(message), "cam_optical")

    def encode_depth(message):
        if is_straight:
            return message
        depth_m = bend(messages.depth_array(message), cv2.INTER_NEAREST)
        return messages.depth_image(depth_m, messages.stamp_ns(message), "cam_optical")

    with Robot(tmp_path / "robot.mcap", clip) as robot:
        robot.tf()
        name = "/cam/depth/image_rect" if is_straight else "/cam/depth/image_raw"
        robot.frames(depth=name, encode=encode, encode_depth=encode_depth, edit_info=lambda info: setattr(info, "d", D))
    found = exported(tmp_path / "robot.mcap").clip
    assert found.intrinsics == clip.intrinsics
    inner = (slice(None), slice(12, -12), slice(20, -20))
    gap = np.abs(found.frames_u8[inner].astype(int) - clip.frames_u8[inner])
    bent_u8 = np.stack([bend(frame) for frame in clip.frames_u8])
    crooked = np.abs(bent_u8[inner].astype(int) - clip.frames_u8[inner])
    assert gap.mean() < 0.4 * crooked.mean()
    if is_straight:
        np.testing.assert_array_equal(found.depth_m, clip.depth_m)
    else:
        assert np.median(np.abs(found.depth_m[inner] - clip.depth_m[inner])) < 0.02


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        ({"distortion_model": "kannala", "d": np.ones(4)}, "distortion 'kannala'"),
        ({"k": np.zeros(9), "p": np.zeros(12)}, "K is [[0.0"),
        ({"binning_x": 2}, "binning"),
    ],
)
def test_cameras_that_cannot_be_used(tmp_path, capfd, edit, part):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(edit_info=lambda info: [setattr(info, name, value) for name, value in edit.items()])
    said = refused(capfd, "bag", "export", tmp_path / "robot.mcap", "--out", tmp_path / "out")
    assert "topic /cam/color/camera_info: " in said
    assert part in said


def test_poses_that_cannot_be_used(tmp_path, capfd):
    with Robot(tmp_path / "none.mcap") as robot:
        robot.frames()
    assert "no poses: want tf" in refused(capfd, "bag", "export", tmp_path / "none.mcap", "--out", tmp_path / "out")
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames()
    said = refused(capfd, "bag", "export", tmp_path / "robot.mcap", "--out", tmp_path / "out", "--fixed-frame", "mars")
    assert "frame cam_optical is not in mars: it is in cam_optical in mount in base in odom" in said
    with Robot(tmp_path / "nan.mcap") as robot:
        robot.tf()
        bad = messages.transforms({("odom", "base"): pose_from(t_m=[np.nan, 0, 0])}, robot.time_ns(1.1))
        robot.write("/tf", bad, robot.time_ns(1.1))
        robot.frames()
    said = refused(capfd, "bag", "export", tmp_path / "nan.mcap", "--out", tmp_path / "out")
    assert "frame base has a transform with NaN" in said


def test_transforms_between_their_times():
    tree = TransformTree()
    for time_ns, x_m, yaw_rad in ((0, 0.0, 0.0), (10**8, 1.0, 0.4), (5 * 10**9, 9.0, 0.4)):
        quaternion = Rotation.from_euler("z", yaw_rad).as_quat().tolist()
        tree.add("/odom", "base", (x_m, 0, 0, *quaternion), time_ns)
    times_ns = np.array([-(10**7), 0, 25 * 10**6, 10**8, 10**9, 5 * 10**9 + 10**7, 6 * 10**9])
    T, is_known = tree.lookup("odom", "/base", times_ns, 0.02)
    assert is_known.tolist() == [True, True, True, True, False, True, False]  # 4.9 s are too long to guess
    np.testing.assert_allclose(T[:4, 0, 3], [0, 0, 0.25, 1.0])
    np.testing.assert_allclose(Rotation.from_matrix(T[2, :3, :3]).as_rotvec(), [0, 0, 0.1], atol=1e-9)
    with pytest.raises(InputError, match="base is in odom and in map"):
        tree.add("map", "base", (0, 0, 0, 0, 0, 0, 1), 0)
    tree.add("robot1/map", "robot1/odom", (0, 0, 0, 0, 0, 0, 1), 0)
    tree.add("robot1/odom", "robot1/camera", (0, 0, 0, 0, 0, 0, 1), 0)
    assert tree.fixed_frame("robot1/camera") == "robot1/odom"
    assert tree.fixed_frame("robot1/odom") == "robot1/map"


def test_the_likeliest_topics_are_taken(tmp_path):
    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames(depth="/cam/depth/image_rect_raw")
        robot.frames(image="/cam/infra1/image_rect_raw", depth="/cam/aligned_depth_to_color/image_raw")
    with Bag(tmp_path / "robot.mcap") as bag:
        topics = find_topics(bag, ExportConfig())
        chosen = find_topics(bag, ExportConfig(image="cam/infra1/image_rect_raw"))
    assert topics.image == "/cam/color/image_raw"
    assert topics.depth == "/cam/aligned_depth_to_color/image_raw"
    assert chosen.camera_info == "/cam/infra1/camera_info"


def test_bags_of_ros_1(tmp_path):
    """The same messages, in the old format with its old type names."""
    from rosbags.rosbag1 import Writer as Ros1Writer

    with Robot(tmp_path / "robot.mcap") as robot:
        robot.tf()
        robot.frames()
    old = ros1_typestore()
    with Bag(tmp_path / "robot.mcap") as bag, Ros1Writer(tmp_path / "robot.bag") as writer:
        connections = {
            name: writer.add_connection(name, topic.msgtype, typestore=old) for name, topic in bag.topics.items()
        }
        second = writer.add_connection("/tf", messages.TF, typestore=old, callerid="/another_publisher")
        for number, (name, time_ns, message) in enumerate(bag.messages(*bag.topics)):
            connection = second if name == "/tf" and number % 2 else connections[name]
            writer.write(connection, time_ns, old.serialize_ros1(as_old(message, old), connection.msgtype))
    with Bag(tmp_path / "robot.mcap") as new, Bag(tmp_path / "robot.bag") as bag:
        assert bag.topics == new.topics
    assert_same_clip(exported(tmp_path / "robot.bag").clip, robot.clip)


def as_old(message: Any, old: Any) -> Any:
    """The ROS 1 message of a ROS 2 message: headers count, calibrations are in capitals."""
    if not hasattr(message, "__msgtype__"):
        return [as_old(item, old) for item in message] if isinstance(message, list) else message
    fields = {
        name: as_old(getattr(message, name), old) for name in message.__dataclass_fields__ if name != "__msgtype__"
    }
    if message.__msgtype__ == "builtin_interfaces/msg/Time":
        return message
    if message.__msgtype__ == "std_msgs/msg/Header":
        fields["seq"] = 0
    if message.__msgtype__ == messages.CAMERA_INFO:
        fields = {name.upper() if len(name) == 1 else name: value for name, value in fields.items()}
    return old.types[message.__msgtype__](**fields)


def test_the_demo_room_is_recorded_through_the_library(tmp_path):
    source = ClipSource(size_px=SIZE_PX, max_frames=3)
    world = World(source.reference()[0], generator="warp")
    with BagWriter(tmp_path / "walk") as writer:
        facts = record_session(world, steps_of_script("forward 0.1", 12, 1), writer, source, camera_height_m=0.5)
    assert facts["num_frames"] == 4
    assert (tmp_path / "walk" / "metadata.yaml").is_file()
    tf = all_messages(tmp_path / "walk", "/tf")[0]
    heights = {item.child_frame_id: item.transform.translation.z for item in tf.transforms}
    assert heights["base_link"] == pytest.approx(-0.5)
    assert heights["camera_link"] == pytest.approx(0.5)
    with Bag(tmp_path / "walk") as bag:
        assert replay_session(bag).num_compared == 4


def test_the_recorder_of_the_node(tmp_path):
    recording = pytest.importorskip("inspatio_ros.recording")
    recorder = recording.SessionRecorder(tmp_path / "run.mcap")
    source = ClipSource(size_px=SIZE_PX, max_frames=2)
    world = World(source.reference()[0], generator="warp")

    def write(topic: str, message: Any, time_ns: int) -> None:
        data = bytes(typestore().serialize_cdr(message, message.__msgtype__))
        recorder.write(f"/robot1/{topic}", message.__msgtype__, data, time_ns)

    delta = PoseDelta(np.array([0, 0, 0.1, 0, 0.1, 0]))
    write("session", messages.text(Session.of(world, source).to_json()), 0)
    write("camera/image_raw", messages.color_image(world.reset().rgb_u8[0], 0, "camera"), 0)
    write("camera/pose_delta", messages.motion(delta, 0), 0)
    seen = world.step(delta)
    time_ns = round(seen.time_s[0] * 1e9)
    write("camera/image_raw", messages.color_image(seen.rgb_u8[0], time_ns, "camera"), time_ns)
    assert not (tmp_path / "run.mcap").exists()
    recorder.close()
    recorder.close()
    assert os.listdir(tmp_path) == ["run.mcap"]
    with Bag(tmp_path / "run.mcap") as bag:
        replay = replay_session(bag)
    assert (replay.num_compared, replay.difference) == (2, None)
    with pytest.raises(InputError, match="closed"):
        recorder.write("/x", messages.STRING, b"", 0)
