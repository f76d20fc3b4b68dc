"""A scenario as dataclasses: world, steps and expectations; docs/scenarios.md explains them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inspatio_sim.motion.actions import ActionSizes, DiscreteAction, ScriptConfig
from inspatio_sim.reconstruction import Method
from inspatio_sim.reference.reference import ClockMode
from inspatio_sim.scenes.demo import CameraPath
from inspatio_sim.world.obstacles import Collisions

DEMO = "demo"

Vec3 = tuple[float, float, float]
Frame = Literal["world", "start"]
KnownFrom = Literal["filmed", "reference"]
FloorFrom = Literal["filmed", "any"]
CellState = Literal["occupied", "free", "unknown"]
DEFAULT_CLOCK = "default"


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """The world a scenario runs in."""

    video: str | Path = DEMO  # demo: the procedural room; otherwise a clip
    size_px: tuple[int, int] = (96, 160)
    start_frame: int = 0  # number of frames to skip at the start of a clip
    frames: int | None = None  # maximum number of frames of the clip; default for the demo: 48
    camera: CameraPath = "moving"  # the demo's camera
    method: Method = "auto"
    generator: str = "warp"
    generator_options: tuple[tuple[str, Any], ...] = ()
    prompt: str = ""
    seed: int = 0
    clock: ClockMode = "ping-pong"
    slow_factor: int = 4
    collisions: Collisions = "slide"
    body_radius_m: float = 0.15


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script for `inspatio_sim.motion.actions.parse_script`."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """One named action of fixed size, one block per repetition."""

    name: DiscreteAction
    times: int = 1
    sizes: ActionSizes = ActionSizes()


@dataclass(frozen=True, kw_only=True)
class Twist:
    """Constant velocity in the camera frame."""

    linear_mps: Vec3
    angular_radps: Vec3
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Wait:
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Time:
    """How the reference plays from here on; None: as the world is configured."""

    clock: ClockMode | None


@dataclass(frozen=True, kw_only=True)
class Waypoints:
    """Places on the floor that the planner drives the camera through."""

    through_xz_m: tuple[tuple[float, float], ...]  # world x (right) and z (forward)
    radius_m: float | None = None  # clearance; None: the body's radius plus one cell of the map
    is_unknown_free: bool = False


@dataclass(frozen=True, kw_only=True)
class Reset:
    seed: int | None = None
    position_m: Vec3 | None = None  # world frame; None: the first reference camera's
    rotation_deg: Vec3 | None = None  # yaw, pitch, roll from the world's axes


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    name: str


@dataclass(frozen=True, kw_only=True)
class Restore:
    name: str


Action = Script | Discrete | Twist | Wait | Time | Waypoints | Reset | Snapshot | Restore
MOVES = (Script, Discrete, Twist, Wait, Waypoints)


@dataclass(frozen=True, kw_only=True)
class PoseIs:
    position_m: Vec3 | None
    rotation_deg: Vec3 | None  # yaw, pitch, roll
    within_m: float
    within_deg: float
    relative_to: Frame


@dataclass(frozen=True, kw_only=True)
class CollisionIs:
    has_collided: bool


@dataclass(frozen=True, kw_only=True)
class CoverageIs:
    """Free floor in the map, at the planner's heights."""

    min_m2: float
    max_m2: float
    source: FloorFrom  # filmed: shown by the reference; any: includes made-up space


@dataclass(frozen=True, kw_only=True)
class KnownIs:
    """Share of the last frame's pixels that show what was filmed."""

    min: float
    max: float
    source: KnownFrom  # filmed: at any time; reference: in the current reference frame


@dataclass(frozen=True, kw_only=True)
class ImageIs:
    """The last frame against an image file."""

    file: Path
    min_psnr_db: float | None
    min_ssim: float | None


@dataclass(frozen=True, kw_only=True)
class RevisitIs:
    """The last frame against the last frame of an earlier, marked step."""

    mark: str
    min_psnr_db: float | None
    min_ssim: float | None


@dataclass(frozen=True, kw_only=True)
class OccupancyIs:
    """The map's cell that holds a point."""

    point_m: Vec3  # world frame
    state: CellState


@dataclass(frozen=True, kw_only=True)
class LatencyIs:
    """Wall time of the step's slowest block."""

    max_s: float


Expected = PoseIs | CollisionIs | CoverageIs | KnownIs | ImageIs | RevisitIs | OccupancyIs | LatencyIs


@dataclass(frozen=True, kw_only=True)
class Expectation:
    kind: str  # its name in the file
    line: int
    expected: Expected


@dataclass(frozen=True, kw_only=True)
class Step:
    title: str
    line: int
    action: Action | None  # None: only expectations about the current state
    mark: str | None = None  # a name for its last frame
    expectations: tuple[Expectation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    file: Path
    name: str
    description: str
    world: WorldSpec
    world_line: int
    pace: ScriptConfig  # its fps is the reference's, known only later
    steps: tuple[Step, ...]
