"""`inspatio-sim explore`."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from inspatio_sim.cli.clip import (
    check_clip,
    clip_inputs,
    clip_source,
    reconstruction_report,
    refuse,
    since,
    versions,
    write_report,
)
from inspatio_sim.cli.options import Collisions, Explore, NetworkOptions
from inspatio_sim.cli.tables import run_table, two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.files.folders import staged_folder
from inspatio_sim.generators import KINDS, GeneratorKind, kind_by_name
from inspatio_sim.generators.blocks.loading import RANDOM_NOTICE
from inspatio_sim.generators.protocol import Generator
from inspatio_sim.machine.interrupts import interrupts_held, stop_signals
from inspatio_sim.motion.actions import parse_script
from inspatio_sim.motion.camera import Array
from inspatio_sim.motion.trajectory import TrajectoryFormat, load_trajectory, trajectory_format
from inspatio_sim.progress import Progress
from inspatio_sim.reference.reference import Reference
from inspatio_sim.walks.walk import OUTPUTS, Step, explore, steps_of_path, steps_of_script, write_map
from inspatio_sim.world.config import WorldConfig
from inspatio_sim.world.source import ClipSource
from inspatio_sim.world.world import World

PARTIAL_OUTPUTS = ("map.ply", "occupancy.pgm", "occupancy.yaml")


def run(options: Explore, terminal: Terminal) -> int:
    """Walk through the world of a clip and write the results."""
    options = checked_walk(options)
    with staged_folder(options.out, OUTPUTS) as folder, terminal.progress() as progress:
        report = _explore_into(folder, options, progress)
    report["outputs"] = {name: str(options.out / name) for name in OUTPUTS}
    terminal.result(report, run_table(report), two_columns(f"Written to {options.out}", OUTPUTS))
    return 0


def checked_walk(options: Explore, *, needs_clip: bool = True) -> Explore:
    """The options with their size resolved; invalid ones raise before anything slow begins."""
    options = _with_size(options)
    if needs_clip:
        check_clip(options.clip, options.geometry)
    check_seed(options.seed)
    _check_motion(options)
    _check_generator(options)
    return options


def world_and_steps(options: Explore, clip: ClipSource, progress: Progress) -> tuple[World, list[Step]]:
    """The world of checked options, not yet reset, and its motions."""
    generator = _generator(options, progress)
    world = _world(options, clip.reference(progress)[0], generator)
    return world, _steps(options, world)


def _world(options: Explore, reference: Reference, generator: Generator) -> World:
    config = WorldConfig(clock=options.time, collisions=_collisions(options))
    return World(reference, generator=generator, seed=options.seed, config=config, prompt=options.network.prompt)


def _collisions(options: Explore) -> Collisions:
    return options.collisions or ("off" if options.script is None else "slide")


def _check_motion(options: Explore) -> None:
    if (options.trajectory is None) == (options.script is None):
        raise InputError("explore: want one of --trajectory FILE and --script TEXT")
    if options.frames is not None and options.frames < 1:
        raise InputError(f"--frames {options.frames}: want at least 1")
    of_orbits = {"--smoothing": options.smoothing != "through", "--radius-scale": options.radius_scale != 1}
    of_trajectories = {
        "--frames": options.frames is not None,
        "--trajectory-format": options.trajectory_format is not None,
        "--trajectory-convention": options.trajectory_convention is not None,
        "--relative-to": options.relative_to is not None,
    }
    if options.geometry.panorama and options.relative_to == "reference":
        raise InputError("--relative-to reference: the views of a panorama are not a path: want start")
    if options.script is not None:
        refuse({**of_trajectories, **of_orbits}, "only works with --trajectory")
        parse_script(options.script)
    else:
        _load_path(options, num_frames=None)
        if _format_of(options) != "orbit":
            refuse(of_orbits, f"only works with an orbit, which {options.trajectory} is not")


def _check_generator(options: Explore) -> None:
    default, taken = NetworkOptions(), _network_options_of(kind_by_name(options.generator))
    for name, value in vars(options.network).items():
        if name not in taken:
            others = " or ".join(kind.name for kind in KINDS.values() if name in _network_options_of(kind))
            is_given = {f"--{name.replace('_', '-')}": value != getattr(default, name)}
            refuse(is_given, f"only works with --generator {others}, not {options.generator}")


def _network_options_of(kind: GeneratorKind) -> set[str]:
    """The `NetworkOptions` that a generator takes; the prompt belongs to the world, if the generator reads text."""
    return set(kind.defaults) | ({"prompt"} if kind.reads_prompt else set())


def _options_for(kind: GeneratorKind, network: NetworkOptions) -> dict[str, Any]:
    """The chosen options of a generator."""
    return {name: value for name, value in vars(network).items() if value is not None and name in kind.defaults}


def _with_size(options: Explore) -> Explore:
    """The options with the generator's best size unless one was given."""
    kind = kind_by_name(options.generator)
    if options.geometry.size != "auto" or not kind.presets:
        return options
    height_px, width_px = kind.best_size_px(_options_for(kind, options.network))
    return replace(options, geometry=replace(options.geometry, size=f"{height_px}x{width_px}"))


def _generator(options: Explore, progress: Progress) -> Generator:
    """Load the generator before the clip is read, so that missing weights fail early."""
    kind = kind_by_name(options.generator)
    return kind.load(_options_for(kind, options.network), size_px=options.geometry.size_px, progress=progress)


def _memory_plan_gb(generator: Generator) -> dict[str, float] | None:
    """The planned memory of the generator, by part; None if it was not planned."""
    return {name: round(size / 1e9, 3) for name, size in generator.memory_plan.items()} or None


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: want 0 to 2^63 - 1")


def _load_path(options: Explore, num_frames: int | None) -> Array:
    assert options.trajectory is not None
    try:
        return load_trajectory(
            options.trajectory,
            num_frames,
            format=options.trajectory_format,
            convention=options.trajectory_convention,
            smoothing=options.smoothing,
            radius_scale=options.radius_scale,
        )
    except InputError as error:  # it names arguments; the user typed options
        message = str(error).replace("format=", "--trajectory-format ")
        raise InputError(message.replace("convention=", "--trajectory-convention ")) from error


def _relative_to(options: Explore) -> str | None:
    """The value of --relative-to for a trajectory; None for a script."""
    if options.trajectory is None or options.relative_to:
        return options.relative_to
    if options.geometry.panorama:  # its views are not a path
        return "start"
    return "reference" if _format_of(options) == "orbit" else "start"


def _format_of(options: Explore) -> TrajectoryFormat:
    assert options.trajectory is not None
    return options.trajectory_format or trajectory_format(options.trajectory)


def _steps(options: Explore, world: World) -> list[Step]:
    reference, frames_per_block = world.reference, world.generator.frames_per_block
    if options.script is not None:
        return steps_of_script(options.script, reference.fps, frames_per_block)
    path = _load_path(options, options.frames or reference.num_frames)
    T_world_reference = reference.T_world_camera if _relative_to(options) == "reference" else None
    try:
        return steps_of_path(path, frames_per_block, T_world_reference)
    except InputError as error:
        raise InputError(f"trajectory {options.trajectory}: {error}") from error


def _explore_into(folder: Path, options: Explore, progress: Progress) -> dict[str, Any]:
    """Reconstruct, explore, and write all of `OUTPUTS` into a folder that exists; returns the report."""
    started_s = time.perf_counter()
    generator = _generator(options, progress)
    loaded_s = since(started_s)
    reference, was_cached = clip_source(options.clip, options.geometry).reference(
        progress, is_cached=not options.geometry.no_cache
    )
    reconstructed_s = round(since(started_s) - loaded_s, 3)
    warm_up, warm_up_report = kind_by_name(options.generator).warm_up, None
    if warm_up is not None and options.network.compile:
        warm_up_report = asdict(warm_up(generator, reference.size_px, progress=progress))
    world = _world(options, reference, generator)
    steps = _steps(options, world)
    with interrupts_held(stop_signals(), is_patient=False) as check_interrupt:

        def report_progress(what: str, share_done: float) -> None:
            progress(what, share_done)
            check_interrupt()

        try:
            run = explore(world, steps, folder, report_progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_keep_partial_map(world, options.out)) from None
    report = {
        "command": "explore",
        "inputs": {
            "clip": [str(path) for path in options.clip],
            **clip_inputs(options.geometry),
            "script": options.script,
            "trajectory": str(options.trajectory) if options.trajectory else None,
            "smoothing": options.smoothing,
            "relative_to": _relative_to(options),
            "radius_scale": options.radius_scale,
            "time": options.time,
            "collisions": world.config.collisions,
            "generator": options.generator,
            "generator_options": generator.options,
            "prompt": options.network.prompt,
            "seed": options.seed,
        },
        "notices": [RANDOM_NOTICE] if options.network.random_weights else [],
        "memory_plan_gb": _memory_plan_gb(generator),
        "warm_up": warm_up_report,
        "reconstruction": reconstruction_report(reference, was_cached),
        "run": run,
        "timings_s": {
            "load": loaded_s,
            "reconstruct": reconstructed_s,
            "explore": run["seconds"],
            "all": since(started_s),
        },
        "versions": versions(),
    }
    write_report(folder, report)
    return report


def _keep_partial_map(world: World, out: Path) -> str:
    """Save the map of an interrupted run beside its output folder; returns a note about it."""
    partial = out.with_name(f"{out.name}.partial")
    with staged_folder(partial, PARTIAL_OUTPUTS) as folder:
        write_map(world, folder)
    return f"the map so far is in {partial}"
