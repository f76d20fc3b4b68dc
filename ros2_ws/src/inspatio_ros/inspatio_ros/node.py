"""The lifecycle node `world`: a simulated world with one camera on a moving base.

Callbacks run in the executor's threads and only pass data on; the world has its own threads (`simulation`).
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import asdict, fields, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage] - Humble has it only there
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import Trigger

from inspatio_ros import conversions, diagnostics
from inspatio_ros.driving import DriveConfig, Driver, Velocity
from inspatio_ros.frames import LINK, MAP, ODOM, OPTICAL
from inspatio_ros.loading import load_world
from inspatio_ros.outlet import Outlet
from inspatio_ros.pacing import PacedGroup
from inspatio_ros.parameters import BY_NAME, TABLE, Parameter, Parameters, unknown_names
from inspatio_ros.publishing import Publishing
from inspatio_ros.simulation import Block, Settings, Simulation, Snapshot
from inspatio_ros.topics import SERVICES, SUBSCRIBED, TF_OFF, TFMessage
from inspatio_sim.errors import GenerationFailed, InputError
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.world.world import World

SURVEY_TICK_S = 0.5  # wall time between checks for late subscribers of the map
CMD_VEL_PERIOD_S = 0.01  # minimum time between two cmd_vel callbacks
MAX_SNAPSHOTS = 16
WARN_PERIOD_S = 5.0
SLOW_WARN_PERIOD_S = 30.0
FOREIGN_PARAMETERS = ("use_sim_time", "start_type_description_service")  # declared by rclpy
LEVELS = {"ok": 0, "warn": 1, "error": 2}  # levels of DiagnosticStatus

Answer = Callable[[], str]


class WorldNode(LifecycleNode):
    """`configure` loads the world, `activate` starts it, `deactivate` pauses, `cleanup` frees it.

    Parameters are those of `parameters.TABLE`, topics and services those of `topics`.

    Raises:
        InputError: a parameter is invalid; one line says why.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("world", **options)
        self._asked = Parameters()  # the values of all parameters
        self._simulation: Simulation | None = None
        self._driver = Driver()
        self._outlet: Outlet | None = None
        self._publishing: Publishing | None = None
        self._made_here: list[Callable[[], object]] = []  # undo what `on_configure` made
        self._is_active = False
        self._declare_parameters()
        self._commands, self._slow, self._quick, self._ticking = (MutuallyExclusiveCallbackGroup() for _ in range(4))
        self._velocities = PacedGroup(CMD_VEL_PERIOD_S)
        self._serve()
        if TFMessage is None and self._asked.publish_tf:
            self.get_logger().warning(f"tf is off: {TF_OFF}")

    def start_by_itself(self) -> bool:
        """Configure and activate, unless `autostart` is false; returns False on failure."""
        if not self._asked.autostart:
            return True
        done = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == done and self.trigger_activate() == done

    # Parameters

    def _declare_parameters(self) -> None:
        given = dict(getattr(self, "_parameter_overrides", {}))
        own = [name for name in given if name not in FOREIGN_PARAMETERS and not name.startswith("qos_overrides.")]
        for line in unknown_names(own):
            self.get_logger().warning(line)
        values = {}
        for row in TABLE:
            if row.name in given:
                values[row.name] = row.checked(given[row.name].value)
        self._asked = Parameters(**values)  # raises if they contradict each other
        for row in TABLE:
            value = getattr(self._asked, row.name)
            self.declare_parameter(row.name, value, _descriptor(row), ignore_override=True)
        self.add_on_set_parameters_callback(self._on_parameters)

    def _on_parameters(self, changes: list[RosParameter]) -> SetParametersResult:
        values = {}
        try:
            for change in changes:
                row = BY_NAME.get(change.name)
                if row is None:
                    continue  # a parameter of rclpy
                value = row.checked(change.value)
                if self._simulation is not None and not row.is_live and value != getattr(self._asked, row.name):
                    raise InputError(f"{row.name}: can only be set while the node is unconfigured: clean up first")
                values[row.name] = value
            asked = replace(self._asked, **values)
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._asked = asked
        self._apply()
        return SetParametersResult(successful=True)

    def _apply(self) -> None:
        """Apply live parameters."""
        values = asdict(self._asked)
        self._driver.config = DriveConfig(**{f.name: values[f.name] for f in fields(DriveConfig)})
        if self._publishing is not None:
            self._publishing.parameters = self._asked
        if self._simulation is not None:
            self._simulation.settings = self._settings()

    def _settings(self) -> Settings:
        values = asdict(self._asked)
        names = [field.name for field in fields(Settings) if field.name != "may_drop"]
        return Settings(**{name: values[name] for name in names}, may_drop=not self._asked.record)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load clip, geometry and generator; create topics and services; make the first block."""
        try:
            self._configure()
        except (InputError, OSError) as error:
            self.get_logger().error(str(error))
            self._free()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it
            self.get_logger().error(f"cannot load the world: {type(error).__name__}: {error}")
            self._free()
            return TransitionCallbackReturn.ERROR
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start publishing and run the world."""
        result = super().on_activate(state)
        if self._simulation is not None:
            self._is_active = True
            assert self._publishing is not None, "made with the simulation"
            self._publishing.begin()
            self._simulation.release()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Pause the world and stop publishing."""
        self._is_active = False
        if self._publishing is not None:
            self._publishing.is_silent = True
        if self._simulation is not None:
            self._simulation.hold()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the world and its memory."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured."""
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the world's threads in any state; pending service calls get an answer."""
        self._free()

    def _configure(self) -> None:
        asked, started_s = self._asked, time.perf_counter()
        world, source = load_world(asked, _Steps(self.get_logger().info))
        outlet = Outlet(self, FilePath(asked.record) if asked.record else None)
        self._made_here.append(outlet.close)
        self._publishing = publishing = Publishing(self, outlet, source, asked)
        self._outlet = outlet
        self._snapshots: dict[str, Snapshot] = {}
        self._fault = ""
        self._driver = driver = Driver()
        self._simulation = simulation = Simulation(
            world,
            driver,
            show=lambda block, frame_idx: publishing.show(block, frame_idx, world, driver),
            survey=publishing.survey,
            on_error=self._on_world_error,
        )
        self._apply()
        simulation.start()
        first = simulation.reset(asked.seed)
        publishing.camera_height_m = asked.camera_height_m or _height_over_floor(world, first)
        self._counters = simulation.counters()
        self._listen()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # this node publishes sim time, so its timers use wall time
        for period_s, callback in (
            (SURVEY_TICK_S, lambda: publishing.look_for_late_readers(simulation)),
            (asked.diagnostics_period_s, self._diagnose),
            (2 * CMD_VEL_PERIOD_S, lambda: None),  # wakes the executor, see PacedGroup
        ):
            timer = self.create_timer(period_s, callback, callback_group=self._ticking, clock=steady)
            self._made_here.append(lambda timer=timer: self.destroy_timer(timer))
        height_px, width_px = first.observation.depth_m.shape[1:]
        self.get_logger().info(
            f"world of {world.reference.source}: {width_px}x{height_px} px at {simulation.fps:g} frames/s, "
            f"{asked.generator} makes {world.generator.frames_per_block} at once, "
            f"ready after {time.perf_counter() - started_s:.1f} s"
        )

    def _free(self) -> None:
        self._is_active = False
        if self._simulation is not None:
            self._simulation.close()  # first, since its threads use the rest
        while self._made_here:
            self._made_here.pop()()
        self._simulation = self._outlet = self._publishing = None
        self._driver = Driver()
        gc.collect()

    # Commands

    def _listen(self) -> None:
        heard = {
            "cmd_vel": self._on_stamped_cmd_vel if self._asked.enable_stamped_cmd_vel else self._on_cmd_vel,
            "goal_pose": self._on_goal,
            "camera/pose_delta": self._on_pose_delta,
        }
        self._listeners = []
        for topic in SUBSCRIBED:
            is_stamped = topic.name == "cmd_vel" and self._asked.enable_stamped_cmd_vel
            msgtype = TwistStamped if is_stamped else topic.msgtype
            group = self._velocities if topic.name == "cmd_vel" else self._commands
            listener = self.create_subscription(msgtype, topic.name, heard[topic.name], topic.qos, callback_group=group)
            self._listeners.append(listener)
            self._made_here.append(lambda listener=listener: self.destroy_subscription(listener))

    def _on_cmd_vel(self, msg: Twist) -> None:
        self._drive(msg, msg)

    def _on_stamped_cmd_vel(self, msg: TwistStamped) -> None:
        simulation = self._simulation
        sent_s = conversions.seconds(msg.header.stamp)
        if simulation is None:
            return
        age_s = simulation.time_s - sent_s
        if sent_s > 0 and age_s > self._asked.cmd_vel_timeout_s:
            self._warn(f"cmd_vel is {age_s:.2f} s old: ignored (timeout {self._asked.cmd_vel_timeout_s:g} s)")
            return
        self._drive(msg.twist, msg)

    def _drive(self, twist: Twist, note: Twist | TwistStamped) -> None:
        simulation = self._simulation
        if simulation is None or not self._is_active:
            return
        if not all(map(math.isfinite, _numbers(twist))):
            self._warn("cmd_vel has NaN or inf: ignored")
            return
        velocity = Velocity(twist.linear.x, twist.linear.y, twist.angular.z)
        self._driver.command(velocity, simulation.time_s, time.perf_counter(), note)

    def _on_goal(self, msg: PoseStamped) -> None:
        if self._simulation is None or not self._is_active:
            return
        frame_id, wanted = msg.header.frame_id, [self._asked.frame_prefix + name for name in (MAP, ODOM)]
        if frame_id not in ("", *wanted):
            self._warn(f"goal_pose is in frame {frame_id!r}: ignored, want {' or '.join(wanted)}")
            return
        try:
            position, q = msg.pose.position, msg.pose.orientation
            has_heading = any((q.x, q.y, q.z, q.w))
            R = conversions.matrix_of(msg.pose)[:3, :3] if has_heading else None
            yaw_rad = None if R is None else math.atan2(R[1, 0], R[0, 0])
            self._driver.go_to(position.x, position.y, yaw_rad, time.perf_counter(), msg)
        except InputError as error:
            self._warn(f"goal_pose: {error}")

    def _on_pose_delta(self, msg: TwistStamped) -> None:
        if self._simulation is None or not self._is_active:
            return
        prefix, frame_id = self._asked.frame_prefix, msg.header.frame_id
        if frame_id not in ("", prefix + OPTICAL, prefix + LINK):
            self._warn(f"camera/pose_delta is in frame {frame_id!r}: ignored, want {prefix + OPTICAL}")
            return
        twist = np.array(_numbers(msg.twist))
        if frame_id == prefix + LINK:
            R_optical_link = conversions.T_LINK_OPTICAL[:3, :3].T
            twist = np.concatenate([R_optical_link @ twist[:3], R_optical_link @ twist[3:]])
        try:
            self._driver.nudge(PoseDelta(twist), time.perf_counter())
        except InputError as error:
            self._warn(f"camera/pose_delta: {error}: ignored")

    def _warn(self, line: str) -> None:
        self.get_logger().warning(line, throttle_duration_sec=WARN_PERIOD_S)

    # Services

    def _serve(self) -> None:
        quick: dict[str, Answer] = {"pause": self._pause, "resume": self._resume, "cancel_goal": self._cancel_goal}
        slow: dict[str, Answer] = {
            "reset": self._reset,
            "step": self._step,
            "save_map": self._save_map,
            "snapshot": self._take_snapshot,
            "restore": self._restore,
        }
        for name in SERVICES:
            answer, group = (quick[name], self._quick) if name in quick else (slow[name], self._slow)
            self.create_service(Trigger, name, self._answering(name, answer), callback_group=group)

    def _answering(self, name: str, answer: Answer) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def on_call(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                if not self._is_active:
                    raise InputError(f"{name}: the node is not active: activate it first")
                response.success, response.message = True, answer()
            except (InputError, GenerationFailed, OSError) as error:
                response.success, response.message = False, str(error)
            except CancelledError:
                response.success, response.message = False, f"{name}: the node is shutting down"
            except Exception as error:  # noqa: BLE001 - the executor would end with it
                response.success, response.message = False, f"{name}: {type(error).__name__}: {error}"
                self.get_logger().error(response.message)
            return response

        return on_call

    @property
    def _running(self) -> Simulation:
        if self._simulation is None:
            raise InputError("the node has no world: configure it first")
        return self._simulation

    def _pause(self) -> str:
        self._running.pause()
        return f"paused at {self._running.time_s:.3f} s"

    def _resume(self) -> str:
        self._running.resume()
        self._fault = ""
        return f"running from {self._running.time_s:.3f} s"

    def _cancel_goal(self) -> str:
        if not self._driver.cancel():
            raise InputError("cancel_goal: no active goal")
        return "cancelled"

    def _reset(self) -> str:
        self._fault = ""
        return self._facts(self._running.reset(self._asked.seed))

    def _step(self) -> str:
        is_driven_from_outside = any(listener.get_publisher_count() for listener in self._listeners)
        if self._asked.step_wait_s and is_driven_from_outside and not self._driver.is_going:
            self._driver.wait_for_command(self._asked.step_wait_s)
        return self._facts(self._running.step())

    def _facts(self, block: Block) -> str:
        """A block as JSON."""
        stamp = conversions.time_msg(block.time_s(block.num_frames - 1))
        return json.dumps(
            {
                "time_s": round(block.time_s(block.num_frames - 1), 9),
                "stamp": [stamp.sec, stamp.nanosec],
                "num_frames": block.num_frames,
                "has_collided": block.observation.has_collided,
                "hallucinated_fraction": round(block.observation.hallucinated_fraction, 6),
                "obeyed_a_new_command": block.motion.received_s is not None,
                "seed": self._running.world.seed,
            }
        )

    def _save_map(self) -> str:
        path = FilePath(self._asked.map_path).expanduser().resolve()
        world, publishing = self._running.world, self._publishing
        assert publishing is not None, "made with the world"

        def write() -> None:
            publishing.grid(world).write(path)
            world.map.write_ply(path)

        self._running.run(write).result()
        return ", ".join(str(path.with_suffix(suffix)) for suffix in (".pgm", ".yaml", ".ply"))

    def _take_snapshot(self) -> str:
        name = self._asked.snapshot_name
        if name not in self._snapshots and len(self._snapshots) >= MAX_SNAPSHOTS:
            raise InputError(f"snapshot: {MAX_SNAPSHOTS} exist already: want one of {', '.join(self._snapshots)}")

        def keep(snapshot: Snapshot) -> None:
            self._snapshots[name] = snapshot
            if self._publishing is not None:
                self._publishing.name_snapshot(snapshot)

        self._running.snapshot(name, keep)
        return f"snapshot {name!r} at {self._running.time_s:.3f} s"

    def _restore(self) -> str:
        name = self._asked.snapshot_name
        if name not in self._snapshots:
            there = ", ".join(self._snapshots) or "none"
            raise InputError(f"restore: no snapshot {name!r}: there are {there}")
        self._fault = ""
        return self._facts(self._running.restore(self._snapshots[name]))

    # Diagnostics

    def _on_world_error(self, error: Exception) -> None:
        self._fault = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.get_logger().error(f"{self._fault}: paused; call resume or reset to continue")

    def _diagnose(self) -> None:
        simulation, outlet, publishing = self._simulation, self._outlet, self._publishing
        if simulation is None or outlet is None or publishing is None:
            return
        before, now = self._counters, simulation.counters()
        self._counters = now
        last = simulation.last_observation
        facts = {
            "generator": self._asked.generator,
            "time_mode": self._asked.time_mode,
            "sim_time_s": f"{now.time_s:.3f}",
            "hallucinated_fraction": f"{last.hallucinated_fraction:.4f}" if last else "",
            "map_mb": f"{simulation.world.map.memory_bytes / 1e6:.1f}",
        }
        report = diagnostics.report(before, now, facts, publishing.gauge.take())
        summary, level = "running", "ok"
        if self._fault:
            summary, level = self._fault, "error"
        elif report.is_slow:
            summary, level = f"slower than real time: {100 * (1 - report.lost_share):.0f} % of it", "warn"
            self.get_logger().warning(summary, throttle_duration_sec=SLOW_WARN_PERIOD_S)
        elif simulation.is_paused:
            summary = "paused"
        name = f"{self.get_fully_qualified_name()}: world"
        stamp = conversions.time_msg(now.time_s)
        outlet.send(
            "/diagnostics",
            lambda: diagnostics.message(name, summary, LEVELS[level], report.values, stamp),
            round(now.time_s * 1e9),
        )


class _Steps:
    """Log progress, one line per task."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._what = ""

    def __call__(self, what: str, share_done: float) -> None:
        if what != self._what:
            self._what = what
            self._say(what)


def _descriptor(row: Parameter) -> ParameterDescriptor:
    """How the node declares a parameter. Doubles also accept integers, so they are not typed strictly."""
    live = "" if row.is_live else " Can only be set while the node is unconfigured."
    descriptor = ParameterDescriptor(
        description=f"{row.about}{f' ({row.unit})' if row.unit else ''}.{live}",
        additional_constraints=f"want {row.wanted}" if row.choices or row.low is not None else "",
        dynamic_typing=isinstance(row.default, float),
    )
    if row.low is not None and row.high is not None:
        if isinstance(row.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(row.low), to_value=float(row.high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(row.low), to_value=int(row.high), step=1)]
    return descriptor


def _numbers(twist: Twist) -> tuple[float, ...]:
    linear, angular = twist.linear, twist.angular
    return linear.x, linear.y, linear.z, angular.x, angular.y, angular.z


def _height_over_floor(world: World, first: Block) -> float:
    """Height of the first camera; 0 if no floor is seen."""
    floor_y_m = world.map.floor_y_m()
    height_m = 0.0 if floor_y_m is None else floor_y_m - float(first.observation.T_world_camera[0, 1, 3])
    return height_m if 0 < height_m < 10 else 0.0
