"""One run: films by every method along the same paths, then measures of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from benchmarks.quality_cases.features import WEIGHTS, load_features
from benchmarks.quality_cases.held_out import (
    STYLES,
    HeldOut,
    Turn,
    held_out,
    out_and_back,
    straight_on,
    to_and_fro,
)
from benchmarks.quality_cases.latency import Latency, measure_latency
from benchmarks.quality_cases.measures import (
    Frames,
    FrechetJudge,
    MethodMeasures,
    Stage,
    mean_of,
    measure_method,
)
from benchmarks.quality_cases.play import RepeatGenerator, play
from benchmarks.quality_cases.teacher import film, load_teacher, through_codec
from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.drift import Rounds
from inspatio_sim.evaluation.fidelity import psnr_db
from inspatio_sim.generators.frame.generator import FrameGenerator
from inspatio_sim.generators.frame.load import load_frame
from inspatio_sim.generators.options import FrameOptions, StarOptions
from inspatio_sim.generators.presets.registry import star_preset
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.generators.star.generator import StarGenerator, check_size
from inspatio_sim.generators.star.load import load_star
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.generators.warp import WarpGenerator
from inspatio_sim.progress import Progress

MethodName = Literal["tiny", "frame-tiny", "teacher", "warp", "last-frame"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
ALONE = "tiny, nothing pasted"  # the network's own frames, without renders laid over them
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny, 2 steps": {"steps": (1000, 500)},
    "tiny, 1 step": {"steps": (1000,)},
    ALONE: {"paste_renders": False},
}
FRAME, FRAME_ONE_STEP = "frame-tiny", "frame-tiny, 1 step"
FRAME_VARIANTS: dict[str, dict[str, Any]] = {FRAME: {}, FRAME_ONE_STEP: {"steps": (999,)}}
NO_MAP, CODEC = "tiny, no map", "codec alone"
NUM_FRAMES = 45  # of a training clip: 12 latents
BLOCK_FRAMES = 12  # of generators that can make any number
REVISIT_SEEDS = 4  # walks out and back, and turns, in the first so many seeds' places
DRIFT_SEEDS = 1


@dataclass(frozen=True, kw_only=True)
class QualityRun:
    """What to compare, and where."""

    seeds: Sequence[int]
    methods: Sequence[str] = METHODS
    weights: Path | None = None  # folder of the students' and their codec's; None: those of the package
    teacher: Path | None = None  # file; None: beside the student's
    teacher_steps: int = 24  # Euler steps
    random_weights: bool = False  # of students, codec and teacher
    revisit_blocks: int = 12  # out, and as many back; 0: none
    turn_frames: int = 72  # once around, and as many back; 0: none
    latency_steps: int = 40  # timed; 0: none
    drift_blocks: int = 200  # 0: none
    size_px: tuple[int, int] = (96, 160)
    num_frames: int = NUM_FRAMES
    device: str = "auto"

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise InputError(f"--generators {','.join(self.methods)}: want some of {','.join(METHODS)}")
        if self.teacher_steps < 1:
            raise InputError(f"--teacher-steps {self.teacher_steps}: want 1 or more")
        check_size(*self.size_px)
        if self.num_frames < 5 or (self.num_frames - 1) % 4:
            raise InputError(f"--frames {self.num_frames}: want 4n + 1, such as {NUM_FRAMES}")
        if self.turn_frames == 1:
            raise InputError("--turn-frames 1: want 2 or more for a turn, or 0 for none")
        least = -(-2 * self.frames_per_round // BLOCK_FRAMES) + 1
        if self.drift_blocks and self.drift_blocks < least:
            raise InputError(f"--drift-blocks {self.drift_blocks}: want at least {least}, two rounds; or 0 for none")

    @property
    def frames_per_round(self) -> int:
        """Along the path and back, until the next frame would be the first again."""
        return 2 * self.num_frames - 2


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A long walk to and fro, round by round, beside the truth of one round."""

    place: str
    film: Rounds
    truth: Rounds


@dataclass(frozen=True, kw_only=True)
class Revisit:
    """A way out and back: each frame of the way back has the pose and the moment of one of the way out."""

    place: str
    to_way_out_db: float  # of the frames of the way back, all together, to those of the way out
    to_truth_db: float


@dataclass(frozen=True, kw_only=True)
class Turned:
    """Once around on the spot, and back; the same pose must show the same again."""

    place: str
    around_db: float  # of the frame after 360 degrees to the first one
    back_db: float  # of the frames of the way back, all together, to those of the way round
    variance_over_clip: float  # of the frames of the way round; what is flat is easily shown again


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Films of one place, beside each other."""

    place: str
    films: dict[str, Frames]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything one run found."""

    places: list[HeldOut]
    methods: dict[str, MethodMeasures]
    unknown_percent: float  # of all pixels: what the reference never shows
    camera_floor: dict[str, float]  # errors of the recovery itself
    revisits: dict[str, list[Revisit]]
    turns: dict[str, list[Turned]]
    drifts: dict[str, list[Drift]]
    latencies: dict[str, Latency]
    sheets: list[Sheet]


@dataclass(frozen=True, kw_only=True)
class Players:
    """Generators that are ready."""

    students: dict[str, StarGenerator]  # by method, the four-step one first
    frame_students: dict[str, FrameGenerator]  # likewise, the two-step one first
    teacher: StarTransformer | None
    simple: dict[str, Generator]


def load_players(run: QualityRun, progress: Progress | None = None) -> Players:
    """Load all that the run needs, before anything takes time.

    Raises:
        InputError: weights are missing.
    """
    students: dict[str, StarGenerator] = {}
    wants_tiny, wants_teacher = "tiny" in run.methods, "teacher" in run.methods
    if wants_tiny or wants_teacher:
        variants = VARIANTS if wants_tiny else {ALONE: VARIANTS[ALONE]}
        for name, options in {"tiny": {}, **variants}.items():
            students[name] = load_star(
                StarOptions(weights=run.weights, random_weights=run.random_weights, device=run.device, **options),
                size_px=run.size_px,
                progress=progress,
            )
    frame_students = {
        name: load_frame(
            FrameOptions(weights=run.weights, random_weights=run.random_weights, device=run.device, **options),
            size_px=run.size_px,
            progress=progress,
        )
        for name, options in FRAME_VARIANTS.items()
        if FRAME in run.methods
    }
    teacher = None
    if wants_teacher:
        preset = star_preset("tiny")
        teacher = load_teacher(preset, run.teacher, run.weights, random_weights=run.random_weights)
    simple: dict[str, Generator] = {"warp": WarpGenerator(frames_per_block=BLOCK_FRAMES)}
    if "last-frame" in run.methods:
        simple["last-frame"] = RepeatGenerator(frames_per_block=BLOCK_FRAMES)
    return Players(students=students, frame_students=frame_students, teacher=teacher, simple=simple)


def measure(run: QualityRun, progress: Progress | None = None) -> Measured:
    """Film and measure everything.

    Raises:
        InputError: weights are missing, here or in `load_players`.
    """
    if not WEIGHTS.exists():
        raise InputError(f"{WEIGHTS}: missing: run python -m benchmarks.quality_cases.features")
    players = load_players(run, progress)
    network = load_features()
    places = held_out(run.seeds, run.size_px, run.num_frames, progress)
    walks = [straight_on(place) for place in places]
    films: dict[str, list[Frames]] = {}
    renders: list[Frames] = []
    is_known = []
    for name, generator in _along_paths(run, players).items():
        played = play(walks, generator, name, progress=progress)
        films[name] = [each.frames_u8 for each in played]
        if name == "warp":
            # What a generator invents is in its map, but `known` does not count it: all methods have these pixels.
            is_known = [each.known > 0 for each in played]
            renders = [each.render_u8 for each in played]
    if "warp" not in run.methods:
        del films["warp"]
    student = players.students.get("tiny")
    if student is not None:
        films[CODEC] = through_codec(student, places)
        played = play(walks, players.students[ALONE], NO_MAP, has_map=False, progress=progress)
        films[NO_MAP] = [each.frames_u8 for each in played]
    if student is not None and players.teacher is not None:
        films["teacher"] = film(players.teacher, student, places, run.teacher_steps, progress)
    stages = [Stage.of(place, known) for place, known in zip(places, is_known, strict=True)]
    judge = FrechetJudge(network, places)
    return Measured(
        places=places,
        methods={name: measure_method(some, stages, judge, name, progress) for name, some in films.items()},
        unknown_percent=100 * float(np.mean([1 - known.mean() for known in is_known])),
        camera_floor=mean_of([stage.camera_floor() for stage in stages]),
        revisits=_revisits(run, players, progress) if run.revisit_blocks else {},
        turns=_turns(run, players, places, progress) if run.turn_frames else {},
        drifts=_drifts(run, players, places, progress) if run.drift_blocks else {},
        latencies=_latencies(run, players, places[0], progress) if run.latency_steps else {},
        sheets=[
            Sheet(
                place=place.name,
                films={
                    "truth": place.sample.target_u8,
                    "reference": place.sample.reference_u8,
                    "condition": renders[i],
                    **{name: some[i] for name, some in films.items()},
                },
            )
            for i, place in enumerate(places)
        ],
    )


def _along_paths(run: QualityRun, players: Players) -> Mapping[str, Generator]:
    """Warp always walks: it says which pixels are known."""
    return {
        **players.simple,
        **(players.students if "tiny" in run.methods else {}),
        **players.frame_students,
    }


def _long_walkers(run: QualityRun, players: Players) -> dict[str, Generator]:
    """Each student as it comes, and warp."""
    walkers: dict[str, Generator] = {}
    if "tiny" in run.methods:
        walkers["tiny"] = players.students["tiny"]
    if FRAME in run.methods:
        walkers[FRAME] = players.frame_students[FRAME]
    if "warp" in run.methods:
        walkers["warp"] = players.simple["warp"]
    return walkers


def _revisitors(run: QualityRun, players: Players) -> dict[str, Generator]:
    """Those that walk far, and the frame generator with one step, since it has no frame before to hold on to."""
    return {**_long_walkers(run, players), **players.frame_students}


def _revisits(run: QualityRun, players: Players, progress: Progress | None) -> dict[str, list[Revisit]]:
    walkers = _revisitors(run, players)
    if not walkers:
        return {}
    num_frames = 1 + run.revisit_blocks * BLOCK_FRAMES
    places = held_out(run.seeds[:REVISIT_SEEDS], run.size_px, num_frames, progress)
    walks = [out_and_back(place) for place in places]
    found = {}
    for name, generator in walkers.items():
        played = play(walks, generator, f"{name}, out and back", progress=progress)
        found[name] = [
            Revisit(
                place=walk.place.name,
                to_way_out_db=psnr_db(each.frames_u8[num_frames:], each.frames_u8[: num_frames - 1][::-1]),
                to_truth_db=psnr_db(each.frames_u8[num_frames:], walk.truth_u8[num_frames:]),
            )
            for walk, each in zip(walks, played, strict=True)
        ]
    return found


def _turns(
    run: QualityRun, players: Players, places: Sequence[HeldOut], progress: Progress | None
) -> dict[str, list[Turned]]:
    num = run.turn_frames
    turns = [Turn(place=place, num_frames=num) for place in places[: REVISIT_SEEDS * len(STYLES)]]
    found = {}
    for name, generator in _revisitors(run, players).items():
        played = play(turns, generator, f"{name}, once around", progress=progress)
        found[name] = [
            Turned(
                place=turn.place.name,
                around_db=psnr_db(each.frames_u8[num : num + 1], each.frames_u8[:1]),
                back_db=psnr_db(each.frames_u8[num + 1 :], each.frames_u8[:num][::-1]),
                variance_over_clip=float(each.frames_u8[:num].var() / turn.place.reference.frames_u8.var()),
            )
            for turn, each in zip(turns, played, strict=True)
        ]
    return found


def _latencies(run: QualityRun, players: Players, place: HeldOut, progress: Progress | None) -> dict[str, Latency]:
    """Of every student's number of steps, and of warp as worlds have it, a frame a step."""
    left_out = {*players.simple, ALONE}
    timed = {name: each for name, each in _along_paths(run, players).items() if name not in left_out}
    if "warp" in run.methods:
        timed["warp"] = WarpGenerator()
    return {name: measure_latency(place, each, run.latency_steps, name, progress) for name, each in timed.items()}


def _drifts(
    run: QualityRun, players: Players, places: Sequence[HeldOut], progress: Progress | None
) -> dict[str, list[Drift]]:
    num_frames = run.drift_blocks * BLOCK_FRAMES
    walks = [to_and_fro(place, num_frames) for place in places[: DRIFT_SEEDS * len(STYLES)]]
    found = {}
    for name, generator in _long_walkers(run, players).items():
        played = play(walks, generator, f"{name}, {run.drift_blocks} blocks", progress=progress)
        found[name] = [
            Drift(
                place=walk.place.name,
                film=Rounds.of(each.frames_u8, run.frames_per_round),
                truth=Rounds.of(walk.truth_u8[: run.frames_per_round], run.frames_per_round),
            )
            for walk, each in zip(walks, played, strict=True)
        ]
    return found
