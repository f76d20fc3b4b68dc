"""YAML goes in, the dataclasses of `model` come out; errors name file, line and key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast, get_args

import numpy as np

from inspatio_sim.errors import InputError
from inspatio_sim.generators import GENERATORS
from inspatio_sim.motion.actions import ActionSizes, DiscreteAction, ScriptConfig, discrete, parse_script
from inspatio_sim.motion.camera import MAX_STEP_M, PoseDelta
from inspatio_sim.reconstruction import Method
from inspatio_sim.reference.clock import MAX_SLOW_FACTOR
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.scenario import SUFFIX
from inspatio_sim.scenario.model import (
    DEFAULT_CLOCK,
    DEMO,
    MOVES,
    Action,
    CellState,
    CollisionIs,
    CoverageIs,
    Discrete,
    Expectation,
    FloorFrom,
    Frame,
    ImageIs,
    KnownFrom,
    KnownIs,
    LatencyIs,
    OccupancyIs,
    PoseIs,
    Reset,
    Restore,
    RevisitIs,
    Scenario,
    Script,
    Snapshot,
    Step,
    Time,
    Twist,
    Vec3,
    Wait,
    Waypoints,
    WorldSpec,
)
from inspatio_sim.scenario.yaml_fields import Value, read_yaml
from inspatio_sim.scenes.demo import CameraPath
from inspatio_sim.world.obstacles import Collisions

MAX_SIDE_PX = 4096
MAX_TIMES = 1000
MAX_DURATION_S = 600.0
MAX_SEED = 2**63 - 1


def load_scenario(file: str | Path, *, needs_images: bool = True) -> Scenario:
    """Read and check a scenario file; nothing is run.

    Args:
        file: YAML.
        needs_images: the images it compares with must exist.

    Raises:
        InputError: names file, line and key, what came and what was wanted.
    """
    root = read_yaml(Path(file))
    fields = root.fields(("name", "description", "world", "pace", "steps"), needed=("steps",))
    world = _world(fields["world"]) if "world" in fields else WorldSpec()
    items = fields["steps"].items()
    if not items:
        raise fields["steps"].wrong("is empty: want at least one step")
    seen = _Names()
    return Scenario(
        file=root.file,
        name=fields["name"].text() if "name" in fields else root.file.name.removesuffix(SUFFIX),
        description=fields["description"].text() if "description" in fields else "",
        world=world,
        world_line=fields["world"].line if "world" in fields else 1,
        pace=_pace(fields["pace"]) if "pace" in fields else ScriptConfig(),
        steps=tuple(_step(item, seen, needs_images) for item in items),
    )


class _Names:
    """Marks and snapshots of earlier steps."""

    def __init__(self) -> None:
        self.marks: list[str] = []
        self.snapshots: list[str] = []


def _world(value: Value) -> WorldSpec:
    readers = {
        "video": _video,
        "size_px": _size,
        "start_frame": lambda v: v.whole(0, 1_000_000),
        "frames": lambda v: v.whole(1, 100_000),
        "camera": lambda v: v.text(get_args(CameraPath)),
        "method": lambda v: v.text(get_args(Method)),
        "generator": lambda v: v.text(GENERATORS),
        "generator_options": lambda v: tuple((name, option.plain()) for name, option in v.fields(None).items()),
        "prompt": lambda v: v.text(),
        "seed": lambda v: v.whole(0, MAX_SEED),
        "clock": lambda v: v.text(get_args(ClockMode)),
        "slow_factor": lambda v: v.whole(1, MAX_SLOW_FACTOR),
        "collisions": _collisions,
        "body_radius_m": lambda v: v.number(0, 2, is_above=True),
    }
    fields = value.fields(tuple(readers))
    spec = WorldSpec(**{name: readers[name](field) for name, field in fields.items()})
    if spec.video != DEMO and "camera" in fields:
        raise fields["camera"].wrong(f"a clip brings its own camera: want this key only with video: {DEMO}")
    if spec.video == DEMO and "start_frame" in fields:
        raise fields["start_frame"].wrong("the demo clip is made as long as asked: want it with other clips only")
    if spec.video == DEMO and "method" in fields:
        raise fields["method"].wrong("the demo clip comes with depth and cameras: want this key only with other clips")
    return spec


def _video(value: Value) -> str | Path:
    name = value.text()
    if name == DEMO:
        return DEMO
    path = value.file.parent / Path(name).expanduser()
    if not path.exists():
        raise value.wrong(f"{path}: no such file or folder: want a clip, relative to the scenario or by full path")
    return path


def _size(value: Value) -> tuple[int, int]:
    sides = value.items()
    if len(sides) != 2:
        raise value.wrong(f"is a list of {len(sides)}: want height and width, such as [96, 160]")
    return sides[0].whole(16, MAX_SIDE_PX), sides[1].whole(16, MAX_SIDE_PX)


def _collisions(value: Value) -> Collisions:
    is_off = value.node.tag.endswith(":bool") and str(value.node.value).lower() == "off"  # YAML 1.1 reads it as a bool
    return "off" if is_off else cast(Collisions, value.text(get_args(Collisions)))


def _pace(value: Value) -> ScriptConfig:
    fields = value.fields(("speed_mps", "turn_rate_degps"))
    default = ScriptConfig()
    speed, turn = fields.get("speed_mps"), fields.get("turn_rate_degps")
    return ScriptConfig(
        speed_mps=speed.number(0.001, 1000) if speed else default.speed_mps,
        turn_rate_radps=math.radians(turn.number(0.1, 50_000)) if turn else default.turn_rate_radps,
    )


def _step(value: Value, seen: _Names, needs_images: bool) -> Step:
    fields = value.fields(("name", *_ACTIONS, "mark", "expect"))
    verbs = [name for name in fields if name in _ACTIONS]
    if len(verbs) > 1:
        raise fields[verbs[1]].wrong(f"the step already has {verbs[0]}: want one action per step")
    if not verbs and not {"expect", "mark"} & set(fields):
        raise value.wrong(f"nothing to do: want an action ({', '.join(_ACTIONS)}), expect or mark")
    action = _ACTIONS[verbs[0]](fields[verbs[0]]) if verbs else None
    mark = fields["mark"].text() if "mark" in fields else None
    if isinstance(action, Restore) and action.name not in seen.snapshots:
        raise fields[verbs[0]].wrong(f"no earlier snapshot {action.name!r}: {_made(seen.snapshots)}")
    if isinstance(action, Snapshot):
        _new_name(fields[verbs[0]], action.name, seen.snapshots)
    expectations = []
    for item in fields["expect"].items() if "expect" in fields else []:
        expectations.append(_expectation(item, action, seen, needs_images))
    if mark is not None:
        _new_name(fields["mark"], mark, seen.marks)
    title = fields["name"].text() if "name" in fields else _title(verbs[0] if verbs else "look", action)
    return Step(title=title, line=value.line, action=action, mark=mark, expectations=tuple(expectations))


def _new_name(value: Value, name: str, seen: list[str]) -> None:
    if not name.strip() or name in seen:
        raise value.wrong(f"{name!r} is {'taken' if name in seen else 'empty'}: want a new name")
    seen.append(name)


def _made(names: list[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there is none"


def _title(verb: str, action: Action | None) -> str:
    match action:
        case Script():
            return " ".join(action.text.split())
        case Discrete():
            return action.name if action.times == 1 else f"{action.times} x {action.name}"
        case Wait():
            return f"wait {action.duration_s:g} s"
        case Time():
            return f"time {action.clock or DEFAULT_CLOCK}"
        case Waypoints():
            return "go to " + ", ".join(f"({x:g}, {z:g})" for x, z in action.through_xz_m)
        case Snapshot() | Restore():
            return f"{verb} {action.name}"
    return verb


def _script(value: Value) -> Script:
    text = value.text()
    try:
        parse_script(text)
    except InputError as error:
        raise value.wrong(str(error)) from error
    return Script(text=text)


def _discrete(value: Value) -> Discrete:
    names = get_args(DiscreteAction)
    if value.node.tag.endswith(":str"):
        return Discrete(name=cast(DiscreteAction, value.text(names)))
    fields = value.fields(("action", "times", "move_m", "turn_deg"), needed=("action",))
    times, move, turn = (fields.get(name) for name in ("times", "move_m", "turn_deg"))
    default = ActionSizes()
    action = Discrete(
        name=cast(DiscreteAction, fields["action"].text(names)),
        times=times.whole(1, MAX_TIMES) if times else 1,
        sizes=ActionSizes(
            move_m=move.number(0, MAX_STEP_M, is_above=True) if move else default.move_m,
            turn_rad=math.radians(turn.number(0, 180, is_above=True)) if turn else default.turn_rad,
        ),
    )
    discrete(action.name, action.sizes)
    return action


def _twist(value: Value) -> Twist:
    fields = value.fields(("linear_mps", "angular_radps", "duration_s"), needed=("duration_s",))
    linear, angular = fields.get("linear_mps"), fields.get("angular_radps")
    twist = Twist(
        linear_mps=_vec3(linear) if linear else (0.0, 0.0, 0.0),
        angular_radps=_vec3(angular) if angular else (0.0, 0.0, 0.0),
        duration_s=fields["duration_s"].number(0, MAX_DURATION_S, is_above=True),
    )
    try:
        PoseDelta.from_twist(twist.linear_mps, twist.angular_radps, twist.duration_s)
    except InputError as error:
        raise value.wrong(str(error)) from error
    return twist


def _time(value: Value) -> Time:
    mode = value.text((*get_args(ClockMode), DEFAULT_CLOCK))
    return Time(clock=None if mode == DEFAULT_CLOCK else cast(ClockMode, mode))


def _waypoints(value: Value) -> Waypoints:
    fields = value.fields(("through_xz_m", "radius_m", "unknown"), needed=("through_xz_m",))
    places = fields["through_xz_m"].items()
    if not places:
        raise fields["through_xz_m"].wrong("is empty: want at least one place [x, z]")
    radius, unknown = fields.get("radius_m"), fields.get("unknown")
    return Waypoints(
        through_xz_m=tuple(cast(tuple[float, float], place.numbers(2)) for place in places),
        radius_m=radius.number(0, 5) if radius else None,
        is_unknown_free=unknown.text(("blocked", "free")) == "free" if unknown else False,
    )


def _reset(value: Value) -> Reset:
    fields = value.fields(("seed", "position_m", "rotation_deg"))
    seed, position, rotation = (fields.get(name) for name in ("seed", "position_m", "rotation_deg"))
    return Reset(
        seed=seed.whole(0, MAX_SEED) if seed else None,
        position_m=_vec3(position) if position else None,
        rotation_deg=_vec3(rotation) if rotation else None,
    )


_ACTIONS = {
    "script": _script,
    "discrete": _discrete,
    "twist": _twist,
    "wait": lambda value: Wait(duration_s=value.number(0, MAX_DURATION_S, is_above=True)),
    "time": _time,
    "waypoints": _waypoints,
    "reset": _reset,
    "snapshot": lambda value: Snapshot(name=value.text()),
    "restore": lambda value: Restore(name=value.text()),
}


def _expectation(value: Value, action: Action | None, seen: _Names, needs_images: bool) -> Expectation:
    fields = value.fields(tuple(_EXPECTATIONS))
    if len(fields) != 1:
        came = ", ".join(fields) or "nothing"
        raise value.wrong(f"has {came}: want one of {', '.join(_EXPECTATIONS)}, each with its own dash")
    ((kind, field),) = fields.items()
    expected = _EXPECTATIONS[kind](field)
    match expected:
        case RevisitIs() if expected.mark not in seen.marks:
            raise field.wrong(f"no earlier step is marked {expected.mark!r}: {_made(seen.marks)}")
        case ImageIs() if needs_images and not expected.file.is_file():
            raise field.wrong(f"{expected.file}: no such file: want an image (--update-images writes it)")
        case CollisionIs() if not isinstance(action, MOVES):
            raise field.wrong("nothing moves in this step: want a step with an action that moves")
        case LatencyIs() if not isinstance(action, (*MOVES, Reset)):
            raise field.wrong("this step makes no frames: want a step that makes some")
    return Expectation(kind=kind, line=field.line, expected=expected)


def _pose_is(value: Value) -> PoseIs:
    fields = value.fields(("position_m", "rotation_deg", "within_m", "within_deg", "relative_to"))
    position, rotation = fields.get("position_m"), fields.get("rotation_deg")
    if not position and not rotation:
        raise value.wrong("nothing to compare: want position_m, rotation_deg or both")
    within_m, within_deg, relative_to = (fields.get(name) for name in ("within_m", "within_deg", "relative_to"))
    return PoseIs(
        position_m=_vec3(position) if position else None,
        rotation_deg=_vec3(rotation) if rotation else None,
        within_m=within_m.number(0) if within_m else 0.02,
        within_deg=within_deg.number(0, 180) if within_deg else 1.0,
        relative_to=cast(Frame, relative_to.text(get_args(Frame))) if relative_to else "world",
    )


def _coverage_is(value: Value) -> CoverageIs:
    low, high, fields = _bounds(value, "min_m2", "max_m2", math.inf, "source")
    source = fields["source"].text(get_args(FloorFrom)) if "source" in fields else "filmed"
    return CoverageIs(min_m2=low, max_m2=high, source=cast(FloorFrom, source))


def _known_is(value: Value) -> KnownIs:
    low, high, fields = _bounds(value, "min", "max", 1.0, "source")
    source = fields["source"].text(get_args(KnownFrom)) if "source" in fields else "filmed"
    return KnownIs(min=low, max=high, source=cast(KnownFrom, source))


def _bounds(value: Value, low: str, high: str, most: float, *more: str) -> tuple[float, float, dict[str, Value]]:
    fields = value.fields((low, high, *more))
    if not {low, high} & set(fields):
        raise value.wrong(f"no bound: want {low}, {high} or both")
    low_value = fields[low].number(0, most) if low in fields else 0.0
    high_value = fields[high].number(0, most) if high in fields else most
    if low_value > high_value:
        raise fields[low].wrong(f"is {low_value:g}, above {high} of {high_value:g}: no value can be in that range")
    return low_value, high_value, fields


def _image_is(value: Value) -> ImageIs:
    psnr, ssim, fields = _likeness(value, "file")
    file = value.file.parent / Path(fields["file"].text()).expanduser()
    if file.suffix.lower() != ".png":
        raise fields["file"].wrong(f"is {file.name!r}: want a .png")
    return ImageIs(file=file, min_psnr_db=psnr, min_ssim=ssim)


def _revisit_is(value: Value) -> RevisitIs:
    psnr, ssim, fields = _likeness(value, "mark")
    return RevisitIs(mark=fields["mark"].text(), min_psnr_db=psnr, min_ssim=ssim)


def _likeness(value: Value, what: str) -> tuple[float | None, float | None, dict[str, Value]]:
    fields = value.fields((what, "min_psnr_db", "min_ssim"), needed=(what,))
    psnr, ssim = fields.get("min_psnr_db"), fields.get("min_ssim")
    if not psnr and not ssim:
        raise value.wrong("no bound: want min_psnr_db, min_ssim or both")
    return psnr.number(0, 100) if psnr else None, ssim.number(-1, 1) if ssim else None, fields


def _occupancy_is(value: Value) -> OccupancyIs:
    fields = value.fields(("point_m", "state"), needed=("point_m", "state"))
    state = fields["state"].text(get_args(CellState))
    return OccupancyIs(point_m=_vec3(fields["point_m"]), state=cast(CellState, state))


def _latency_is(value: Value) -> LatencyIs:
    return LatencyIs(max_s=value.fields(("max_s",), needed=("max_s",))["max_s"].number(0, is_above=True))


_EXPECTATIONS = {
    "pose": _pose_is,
    "collision": lambda value: CollisionIs(has_collided=value.flag()),
    "coverage": _coverage_is,
    "known": _known_is,
    "image": _image_is,
    "revisit": _revisit_is,
    "occupancy": _occupancy_is,
    "latency": _latency_is,
}


def _vec3(value: Value) -> Vec3:
    numbers = value.numbers(3)
    if np.abs(numbers).max() > 1e6:
        raise value.wrong(f"is {list(numbers)}: want numbers up to a million")
    return cast(Vec3, numbers)
