"""The table of all node parameters; declarations, checks, --help and the README are generated from it."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args

import yaml

from inspatio_sim.errors import InputError
from inspatio_sim.generators import DEFAULT_GENERATOR, GENERATORS
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.world.obstacles import Collisions

TimeMode = Literal["real_time", "as_fast_as_possible", "lock_step"]
Drive = Literal["unicycle", "holonomic"]

Value = bool | int | float | str
TYPE_NAMES = {bool: "bool", int: "integer", float: "double", str: "string"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One row of the table."""

    name: str
    default: Value
    about: str  # one line
    section: str
    unit: str = ""
    low: float | None = None  # inclusive, like high
    high: float | None = None
    choices: tuple[str, ...] = ()
    is_live: bool = False  # can be set while the node runs; otherwise only while it is unconfigured

    @property
    def type_name(self) -> str:
        return TYPE_NAMES[type(self.default)]

    @property
    def wanted(self) -> str:
        """Describes a valid value."""
        if self.choices:
            return f"one of {', '.join(choice or repr('') for choice in self.choices)}"
        if self.low is None:
            return {bool: "true or false", str: "a string"}.get(type(self.default), "a number")
        whole = "a whole number " if isinstance(self.default, int) else ""
        return f"{whole}{self.range_text}{f' {self.unit}' if self.unit else ''}"

    @property
    def range_text(self) -> str:
        """The range, such as "0 to 10"; empty if there is none."""
        return " to ".join(f"{end:g}" if isinstance(end, float) else str(end) for end in (self.low, self.high)
                           if end is not None)  # fmt: skip

    def checked(self, value: object) -> Value:
        """Returns the value as this parameter's type (whole numbers pass as doubles) or raises InputError."""
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise InputError(f"{self.name}={value!r}: want {self.wanted}")
        assert isinstance(value, (bool, int, float, str))
        is_in = True
        if self.choices:
            is_in = value in self.choices
        elif self.low is not None and self.high is not None:
            assert not isinstance(value, str)
            is_in = math.isfinite(value) and self.low <= value <= self.high
        if not is_in:
            raise InputError(f"{self.name}={value!r}: want {self.wanted}")
        return value


def _row(default: Any, about: str, **rest: Any) -> Any:
    return field(default=default, metadata={"about": about, **rest})


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The values of all parameters."""

    # The world
    video: str = _row("", "video, image, folder of images, RGB-D folder or saved reconstruction; empty: demo room")
    generator: str = _row(DEFAULT_GENERATOR, "what makes the frames: star (video network), frame (image network) or "
                          "warp (geometry only)", choices=GENERATORS)  # fmt: skip
    generator_options: str = _row("", "more options of the generator, a YAML mapping such as '{preset: tiny}'")
    reconstruct_options: str = _row("", "options of the reconstruction, a YAML mapping such as '{method: sfm}'")
    prompt: str = _row("", "what the world should look like; star only")
    seed: int = _row(0, "random seed; takes effect at the next reset", low=0, high=2**62, is_live=True)
    height_px: int = _row(0, "image height; 0: the generator's best size", unit="px", low=0, high=4320)
    width_px: int = _row(0, "image width; 0: the generator's best size", unit="px", low=0, high=7680)
    fps: float = _row(0.0, "frame rate to resample the clip to; 0: keep its own", unit="Hz", low=0, high=240)
    start_frame: int = _row(0, "number of frames to skip at the start of the clip", low=0, high=1_000_000)
    max_frames: int = _row(0, "maximum number of frames read from the clip; 0: all", low=0, high=1_000_000)
    block_frames: int = _row(0, "frames per block; 0: the generator's default (warp, frame: 1)", low=0, high=1000)
    reference_clock: str = _row("ping-pong", "how the clip plays", choices=get_args(ClockMode), is_live=True)
    collisions: str = _row("slide", "what obstacles do to a motion", choices=get_args(Collisions))
    body_radius_m: float = _row(0.15, "radius of the collision sphere around the camera", unit="m",
                                low=0.01, high=2)  # fmt: skip

    # Time
    time_mode: str = _row("real_time", "paced to the wall clock, as fast as possible, or one block per call of `step`",
                          choices=get_args(TimeMode), is_live=True)  # fmt: skip
    autostart: bool = _row(True, "configure and activate at startup; false: wait for lifecycle transitions")
    step_wait_s: float = _row(0.2, "lock_step: how long a step waits for a command newer than the last step, "
                              "if anything publishes commands", unit="s", low=0, high=60, is_live=True)  # fmt: skip
    queue_blocks: int = _row(2, "most blocks that wait to be published; beyond that the oldest is dropped",
                             low=1, high=64)  # fmt: skip

    # Driving
    drive: str = _row("unicycle", "unicycle ignores linear.y of cmd_vel, holonomic obeys it",
                      choices=get_args(Drive), is_live=True)  # fmt: skip
    enable_stamped_cmd_vel: bool = _row(False, "cmd_vel takes TwistStamped (Nav2 since Kilted) instead of Twist")
    max_speed_mps: float = _row(0.5, "maximum speed", unit="m/s", low=0.01, high=5, is_live=True)
    max_turn_rate_radps: float = _row(1.0, "maximum turn rate", unit="rad/s", low=0.01, high=6, is_live=True)
    max_acceleration_mps2: float = _row(1.0, "maximum acceleration", unit="m/s^2", low=0.01, high=100, is_live=True)
    max_turn_acceleration_radps2: float = _row(3.0, "maximum angular acceleration", unit="rad/s^2",
                                               low=0.01, high=100, is_live=True)  # fmt: skip
    cmd_vel_timeout_s: float = _row(0.5, "sim time after which a command expires unless repeated", unit="s",
                                    low=0.01, high=60, is_live=True)  # fmt: skip
    goal_tolerance_m: float = _row(0.1, "position tolerance of a goal", unit="m", low=0.01, high=5, is_live=True)
    goal_tolerance_rad: float = _row(0.1, "heading tolerance of a goal", unit="rad", low=0.01, high=3.2, is_live=True)
    goal_through_unknown: bool = _row(True, "paths to a goal may cross unseen cells", is_live=True)

    # The robot
    camera_height_m: float = _row(0.0, "height of the camera above base_link; 0: above the floor seen in the first "
                                  "frames", unit="m", low=0, high=10)  # fmt: skip
    robot_height_m: float = _row(1.5, "things higher than this above the floor are not obstacles in `map`", unit="m",
                                 low=0.1, high=10, is_live=True)  # fmt: skip
    step_height_m: float = _row(0.15, "things lower than this are not obstacles in `map`", unit="m",
                                 low=0, high=1, is_live=True)  # fmt: skip
    scan_min_height_m: float = _row(0.1, "lower edge of the band that `scan` sees, above base_link", unit="m",
                                    low=-10, high=10, is_live=True)  # fmt: skip
    scan_max_height_m: float = _row(1.0, "upper edge of the band that `scan` sees, above base_link", unit="m",
                                    low=-10, high=10, is_live=True)  # fmt: skip
    scan_max_range_m: float = _row(10.0, "maximum range of `scan`", unit="m", low=0.5, high=100, is_live=True)
    frame_prefix: str = _row("", "prefix of all frame names, such as 'robot1/'")

    # Topics
    depth_encoding: str = _row("32FC1", "32FC1 is metres, 16UC1 millimetres", choices=("32FC1", "16UC1"), is_live=True)
    jpeg_quality: int = _row(90, "JPEG quality of camera/image_raw/compressed", low=1, high=100, is_live=True)
    map_period_s: float = _row(1.0, "sim time between `map` messages", unit="s", low=0, high=3600, is_live=True)
    map_points_period_s: float = _row(5.0, "sim time between `map_points` messages", unit="s", low=0, high=3600,
                                      is_live=True)  # fmt: skip
    path_period_s: float = _row(1.0, "sim time between `path` messages", unit="s", low=0, high=3600, is_live=True)
    diagnostics_period_s: float = _row(1.0, "wall time between `diagnostics` messages", unit="s", low=0.1, high=3600)
    publish_clock: bool = _row(True, "publish sim time on /clock (only one node of a system should)")
    publish_tf: bool = _row(True, "publish /tf and /tf_static")

    # Files
    record: str = _row("", "record the session as a bag with this name; empty: do not record")
    map_path: str = _row("map", "where save_map writes: this path plus .pgm, .yaml and .ply", is_live=True)
    snapshot_name: str = _row("default", "name that the services snapshot and restore use", is_live=True)

    def __post_init__(self) -> None:
        for row in TABLE:
            object.__setattr__(self, row.name, row.checked(getattr(self, row.name)))
        for name in ("generator_options", "reconstruct_options"):
            mapping(name, getattr(self, name))
        if not self.step_height_m < self.robot_height_m:
            raise InputError(f"step_height_m={self.step_height_m}: want it below robot_height_m={self.robot_height_m}")
        if not self.scan_min_height_m < self.scan_max_height_m:
            raise InputError(
                f"scan_min_height_m={self.scan_min_height_m}: want it below scan_max_height_m={self.scan_max_height_m}"
            )


SECTION_STARTS = {
    "video": "World",
    "time_mode": "Time",
    "drive": "Driving",
    "camera_height_m": "Robot",
    "depth_encoding": "Topics",
    "record": "Files",
}


def _table() -> tuple[Parameter, ...]:
    rows, section = [], ""
    for entry in fields(Parameters):
        section = SECTION_STARTS.get(entry.name, section)
        rows.append(Parameter(name=entry.name, default=cast(Value, entry.default), section=section, **entry.metadata))
    return tuple(rows)


TABLE = _table()
BY_NAME = {row.name: row for row in TABLE}


def mapping(name: str, text: str) -> dict[str, Any]:
    """Read a YAML mapping; an empty string gives an empty one."""
    try:
        value = yaml.safe_load(text) if text.strip() else {}
    except yaml.YAMLError as error:
        raise InputError(f"{name}={text!r}: not YAML ({str(error).splitlines()[0]}): want {{name: value}}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{name}={text!r}: want a YAML mapping such as '{{name: value}}'")
    return value


def unknown_names(names: Mapping[str, Any] | list[str]) -> list[str]:
    """One line for each unknown name, with the closest parameter."""
    lines = []
    for name in names:
        if name not in BY_NAME:
            close = difflib.get_close_matches(name, BY_NAME, n=1)
            lines.append(f"unknown parameter {name!r}: {f'did you mean {close[0]!r}?' if close else 'see --help'}")
    return lines


def default_text(row: Parameter) -> str:
    """The default as written on a command line."""
    if isinstance(row.default, bool):
        return str(row.default).lower()
    return "''" if row.default == "" else f"{row.default}"


def help_text(width: int = 100) -> str:
    """All parameters as a table for the terminal."""
    lines: list[str] = []
    section = ""
    for row in TABLE:
        if row.section != section:
            section = row.section
            lines += ["", f"{section}:"]
        facts = f"{row.type_name}, default {default_text(row)}"
        wanted = "" if row.type_name in ("bool", "string") and not row.choices else f" Want {row.wanted}."
        live = "" if row.is_live else " *"
        lines.append(f"  {row.name}{live}  ({facts})")
        lines += textwrap.wrap(f"{row.about}.{wanted}", width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines[1:])


def markdown_table() -> str:
    """All parameters as a Markdown table, for the README."""
    lines = ["| parameter | type | default | unit | values | live | what it is |", "|---|---|---|---|---|---|---|"]
    for row in TABLE:
        if row.choices:
            values = ", ".join(f"`{choice}`" for choice in row.choices)
        else:
            values = row.range_text
        live = "yes" if row.is_live else ""
        default = f"`{default_text(row)}`"
        lines.append(f"| `{row.name}` | {row.type_name} | {default} | {row.unit} | {values} | {live} | {row.about} |")
    return "\n".join(lines)
