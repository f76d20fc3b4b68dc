"""Whether anything grows or slows down over very many steps of one world."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.frame_cases.cpu import PRESET
from benchmarks.frame_cases.walk import motion_at, walkers
from benchmarks.report import Result, reported
from benchmarks.star_cases.machine import resident_bytes, say
from benchmarks.star_cases.steps import MAX_FILMED, film
from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.load import load_frame
from inspatio_sim.generators.options import MAX_VIEWS, FrameOptions
from inspatio_sim.world.world import World

NUM_STEPS = 10_000
LEAST_STEPS = 20
NUM_TELLING = 20  # how often who waits hears of it
MAX_SLOWER = 1.1
MAX_GROWTH_PERCENT = 5


@dataclass(frozen=True, kw_only=True)
class SoakRun:
    """A world that walks for long."""

    num_steps: int = NUM_STEPS
    size_px: tuple[int, int] = (96, 160)
    max_views: int = MAX_VIEWS
    options: dict[str, Any] = field(default_factory=dict)  # further ones of `FrameOptions`

    def __post_init__(self) -> None:
        if self.num_steps < LEAST_STEPS:
            raise InputError(f"--soak {self.num_steps}: want at least {LEAST_STEPS} steps")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a world takes at one time."""

    resident_bytes: int
    map_bytes: int
    num_points: int
    memory_bytes: int  # of the views, as they would be saved
    num_views: int

    @classmethod
    def of(cls, world: World) -> Size:
        packed = world.snapshot().generator
        return cls(
            resident_bytes=resident_bytes(),
            map_bytes=world.map.memory_bytes,
            num_points=world.map.num_points,
            memory_bytes=sum(array.nbytes for name, array in packed.items() if name.startswith("memory.")),
            num_views=len(packed["memory.frame_idx"]),
        )


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """The second tenth of the steps beside the last; in the first the map and the memory fill."""

    num_steps: int
    max_views: int
    early_s: float  # median step
    late_s: float
    early: Size  # after the second tenth
    late: Size

    def rows(self) -> list[Result]:
        """The floors first."""
        num, early, late = f"{self.num_steps} steps", self.early, self.late
        growth = 100 * (late.resident_bytes / early.resident_bytes - 1)
        return [
            Result(
                name=f"{num}: last tenth over second, time of a step",
                value=self.late_s / self.early_s,
                unit="",
                floor=MAX_SLOWER,
                better="lower",
            ),
            Result(
                name=f"{num}: memory of the process, second tenth to last",
                value=growth,
                unit="% more",
                floor=MAX_GROWTH_PERCENT,
                better="lower",
            ),
            Result(
                name=f"{num}: views remembered", value=late.num_views, unit="", floor=self.max_views, better="lower"
            ),
            reported(f"{num}: views remembered after the second tenth", early.num_views, ""),
            reported(f"{num}: time of a step, second tenth", 1e3 * self.early_s, "ms"),
            reported(f"{num}: time of a step, last tenth", 1e3 * self.late_s, "ms"),
            *(
                reported(f"{num}: {what}, {when}", getattr(size, name) / 1e6, "MB")
                for name, what in (
                    ("memory_bytes", "view memory"),
                    ("map_bytes", "map"),
                    ("resident_bytes", "memory of the process"),
                )
                for when, size in (("second tenth", early), ("in the end", late))
            ),
            reported(f"{num}: points of the map, second tenth", early.num_points, ""),
            reported(f"{num}: points of the map, in the end", late.num_points, ""),
        ]


def soak(run: SoakRun) -> Soaked:
    """Walk; in a process that did nothing else."""
    generator = load_frame(
        FrameOptions(preset=PRESET, device="cpu", max_views=run.max_views, **run.options), size_px=run.size_px
    )
    (world,) = walkers(generator, film(run.size_px, MAX_FILMED), 1)
    tenth, seconds, early = run.num_steps // 10, [], None
    for i in range(run.num_steps):
        timing = world.step(motion_at(i)).timing
        assert timing is not None, "a world always times its steps"
        seconds.append(timing.total_s)
        if i + 1 == 2 * tenth:
            early = Size.of(world)
        if (i + 1) % max(1, run.num_steps // NUM_TELLING) == 0:
            say(f"frame: soak, {i + 1} of {run.num_steps} steps")
    assert early is not None, f"fewer than {LEAST_STEPS} steps"
    return Soaked(
        num_steps=run.num_steps,
        max_views=run.max_views,
        early_s=median(seconds[tenth : 2 * tenth]),
        late_s=median(seconds[-tenth:]),
        early=early,
        late=Size.of(world),
    )
