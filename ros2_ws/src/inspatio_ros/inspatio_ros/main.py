"""The command `inspatio-ros`, and the executable `world` of the package: the node in its own process."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from inspatio_ros import fastdds
from inspatio_sim.errors import InputError
from inspatio_sim.files.caches import is_writable, temporary_folder

SIGNAL_POLL_S = 0.2
NUM_THREADS = 6  # one for each callback group; services and loading may block for long

USAGE = """inspatio-ros: the ROS 2 node `world`, a robot's camera in a world made from a clip.

usage: inspatio-ros [--ros-args -p PARAMETER:=VALUE ... -r NAME:=NEW_NAME ... --params-file FILE]

examples:
  inspatio-ros --ros-args -p video:=clip.mp4
  inspatio-ros --ros-args -p generator:=warp -p time_mode:=lock_step -r __ns:=/robot1

Drive it with cmd_vel; it publishes camera/image_raw, camera/depth/image_rect_raw, scan, odom, map, /tf, /clock and
more. Parameters (those with a * cannot change while the world is loaded):
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is stopped; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        from inspatio_ros.parameters import help_text

        width = min(shutil.get_terminal_size((100, 24)).columns, 120)
        try:
            print(f"{USAGE}\n{help_text(width)}", flush=True)
        except BrokenPipeError:  # the reader has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    fastdds.use_profile()
    use_log_folder()
    try:
        import rclpy
    except ImportError as error:
        return _fail(f"ROS 2 is missing ({error}): install inspatio-sim[ros], or source a distribution's setup file")
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args, try_shutdown

    if extra := remove_ros_args(["", *arguments])[1:]:
        return _fail(f"unknown argument {extra[0]!r}: parameters come after --ros-args, see --help")
    try:
        # Signals are handled here, since rclpy's handlers would close the context while threads publish.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # noqa: BLE001 - rclpy has several for arguments it cannot read
        return _fail(str(error).splitlines()[0])
    try:
        return _run()
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:  # before the node existed
        return 130
    finally:
        try_shutdown()


def use_log_folder() -> None:
    """Without a log file ROS does not start: where its usual folder cannot be written, name one that can."""
    if os.environ.get("ROS_LOG_DIR"):
        return
    with suppress(RuntimeError):  # this user has no home
        if is_writable(Path(os.environ.get("ROS_HOME") or Path.home() / ".ros").expanduser() / "log"):
            return
    if folder := temporary_folder():
        os.environ["ROS_LOG_DIR"] = str(folder / "ros-log")


def _run() -> int:
    from rclpy.executors import MultiThreadedExecutor

    from inspatio_ros.node import WorldNode

    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        stop.set()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_DFL)  # a second one takes effect at once

    node = WorldNode()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, on_signal)
    executor = MultiThreadedExecutor(num_threads=NUM_THREADS)
    executor.add_node(node)
    problems: list[str] = []

    def spin() -> None:
        try:
            executor.spin()
        except Exception as error:  # noqa: BLE001 - said below
            if not stop.is_set():
                problems.append(f"{type(error).__name__}: {error}")
                stop.set()

    def start() -> None:
        try:
            if not node.start_by_itself():
                problems.append("the world could not be loaded")
                stop.set()
        except Exception as error:  # noqa: BLE001 - such as a transition that came from outside meanwhile
            if not stop.is_set():
                node.get_logger().warning(f"autostart failed: {error}")

    threads = [threading.Thread(target=target, name=f"inspatio-{target.__name__}") for target in (spin, start)]
    for thread in threads:
        thread.start()
    while not stop.wait(SIGNAL_POLL_S):  # a signal caught in another thread does not wake this one
        pass
    node.close()
    executor.shutdown()
    for thread in threads:
        thread.join()
    node.close()  # again, if loading finished after the first call
    node.destroy_node()
    return _fail(problems[0]) if problems else 0


def _fail(message: str) -> int:
    print(f"inspatio-ros: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
