"""What the commands of the command line do; `cli` says what they can be asked."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inspatio_sim.cli.main import ClipOptions, Collisions, Demo, Explore, NetworkOptions, Reconstruct
from inspatio_sim.cli.tables import reconstruction_table, run_table, two_columns
from inspatio_sim.cli.terminal import ProgressCallback, Terminal, interrupts_between_steps
from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.files.folders import staged_folder
from inspatio_sim.generators import GENERATORS, Generator, generator_by_name, options_of
from inspatio_sim.generators.blocks.loading import RANDOM_NOTICE
from inspatio_sim.generators.presets.registry import frame_preset, star_preset
from inspatio_sim.generators.star.generator import StarGenerator
from inspatio_sim.generators.star.warm_up import warm_up
from inspatio_sim.motion.actions import parse_script
from inspatio_sim.motion.camera import Array
from inspatio_sim.motion.trajectory import TrajectoryFormat, load_trajectory, trajectory_format
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reconstruction.auto import NEED_MODEL_FOLDER
from inspatio_sim.reconstruction.panorama.method import read_panorama, reconstruct_panorama
from inspatio_sim.reconstruction.scale import ScaleRequest
from inspatio_sim.reference.cache import cached_reference
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.walks.walk import OUTPUTS, Step, explore, steps_of_path, steps_of_script, write_map
from inspatio_sim.world.world import World, WorldConfig

REPORT = "report.json"
REFERENCE = "reference"
DEMO_CLIP, DEMO_RUN = "clip", "run"
PARTIAL_OUTPUTS = ("map.ply", "occupancy.pgm", "occupancy.yaml")
DEMO_SIZE_PX = (96, 160)
DEMO_SCRIPT = "forward 0.8; yaw 25; right 0.5; yaw -50; left 0.8; yaw 25; back 0.6"
RGBD_NAMES = ("color", "depth", "camera.json", "poses.json")
VERSIONS_OF = ("inspatio-sim", "torch", "numpy", "av", "opencv-python-headless", "open3d", "pycolmap")


def explore_clip(options: Explore, terminal: Terminal) -> None:
    """`inspatio-sim explore`."""
    options = checked_walk(options)
    with staged_folder(options.out, OUTPUTS) as folder, terminal.progress() as progress:
        report = _explore_into(folder, options, progress)
    report["outputs"] = {name: str(options.out / name) for name in OUTPUTS}
    terminal.result(report, run_table(report), two_columns(f"Written to {options.out}", OUTPUTS))


def reconstruct_clip(options: Reconstruct, terminal: Terminal) -> None:
    """`inspatio-sim reconstruct`."""
    _check_clip(options.clip, options.geometry)
    with staged_folder(options.out, (REFERENCE, REPORT)) as folder, terminal.progress() as progress:
        started_s = time.perf_counter()
        reference, was_cached = _find_reference(options.clip, options.geometry, progress)
        reference.save(folder / REFERENCE)
        report = {
            "command": "reconstruct",
            "inputs": {"clip": [str(path) for path in options.clip], **_clip_inputs(options.geometry)},
            "reconstruction": _reconstruction_report(reference, was_cached),
            "timings_s": {"all": _since(started_s)},
            "versions": _versions(),
        }
        _write_report(folder, report)
    report["outputs"] = {name: str(options.out / name) for name in (REFERENCE, REPORT)}
    rows = {REFERENCE: "frames, depth, cameras: `Reference.load` reads it", REPORT: "what is above, and more"}
    terminal.result(report, reconstruction_table(report), two_columns(f"Written to {options.out}", rows))


def run_demo(options: Demo, terminal: Terminal) -> None:
    """`inspatio-sim demo`."""
    _check_seed(options.seed)
    clip_folder = options.out / DEMO_CLIP
    with staged_folder(clip_folder, RGBD_NAMES) as folder, terminal.progress() as progress:
        progress("filming the demo room", 0.0)
        write_demo_clip(folder, size_px=DEMO_SIZE_PX, seed=options.seed)
        progress("filming the demo room", 1.0)
    exploring = Explore(
        clip=(clip_folder,),
        out=options.out / DEMO_RUN,
        script=DEMO_SCRIPT,
        seed=options.seed,
        geometry=ClipOptions(size="clip"),
        output=options.output,
    )
    explore_clip(exploring, terminal)


def checked_walk(options: Explore, *, needs_clip: bool = True) -> Explore:
    """The same with its size settled; what cannot be is refused before anything slow begins."""
    options = _with_size(options)
    if needs_clip:
        _check_clip(options.clip, options.geometry)
    _check_seed(options.seed)
    _check_motion(options)
    _check_generator(options)
    return options


def world_and_steps(
    options: Explore, make_reference: Callable[[ProgressCallback], Reference], progress: ProgressCallback
) -> tuple[World, list[Step]]:
    """The world of a checked walk, not reset, and its motions."""
    generator = _generator(options, progress)
    world = _world(options, make_reference(progress), generator)
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
        raise InputError("--relative-to reference: the views of a panorama are no path: want start")
    if options.script is not None:
        _refuse({**of_trajectories, **of_orbits}, "a script has none: it is for --trajectory")
        parse_script(options.script)
    else:
        _load_path(options, num_frames=None)
        if _format_of(options) != "orbit":
            _refuse(of_orbits, f"{options.trajectory} is no orbit: it is for those")


def _check_generator(options: Explore) -> None:
    default, taken = NetworkOptions(), _network_options_of(options.generator)
    for name, value in vars(options.network).items():
        if name not in taken:
            others = " or ".join(other for other in GENERATORS if name in _network_options_of(other))
            is_given = {f"--{name.replace('_', '-')}": value != getattr(default, name)}
            _refuse(is_given, f"generator {options.generator} has none: it is for --generator {others}")


def _network_options_of(generator: str) -> set[str]:
    """Those of `NetworkOptions` that a generator takes; the prompt is the world's, for a generator that reads."""
    return set(options_of(generator)) | ({"prompt"} if generator == "star" else set())


def _with_size(options: Explore) -> Explore:
    """The same, at the size that the generator makes best if none was asked for."""
    find_preset = {"star": star_preset, "frame": frame_preset}.get(options.generator)
    if options.geometry.size != "auto" or find_preset is None:
        return options
    preset = find_preset(options.network.preset or options_of(options.generator)["preset"])
    height_px, width_px = preset.size_px
    return replace(options, geometry=replace(options.geometry, size=f"{height_px}x{width_px}"))


def _generator(options: Explore, progress: ProgressCallback) -> Generator:
    """Made before the clip is read: missing weights should not wait for that."""
    taken = options_of(options.generator)
    given = {name: value for name, value in vars(options.network).items() if value is not None}
    chosen = {name: value for name, value in given.items() if name in taken}
    if "size_px" in taken:
        chosen |= {"size_px": options.geometry.size_px, "progress": progress}
    return generator_by_name(options.generator, **chosen)


def _memory_plan_gb(generator: Generator) -> dict[str, float] | None:
    """What the generator was expected to need, part by part; None where that was not planned."""
    plan = generator.memory_plan if isinstance(generator, StarGenerator) else None
    if plan is None:
        return None
    return {name: round(size / 1e9, 3) for name, size in {**plan.parts(), "total": plan.total}.items()}


def _refuse(is_given: dict[str, bool], reason: str) -> None:
    for name, was_given in is_given.items():
        if was_given:
            raise InputError(f"{name}: {reason}")


def _check_clip(paths: tuple[Path, ...], options: ClipOptions) -> None:
    if not paths:
        raise InputError("no clip: want a video, images, or a folder")
    files = clip_files(paths[0] if len(paths) == 1 else paths)
    _check_panorama(files, options)
    if options.model_folder is not None and not options.model_folder.is_dir():
        raise InputError(f"--model-folder {options.model_folder}: no such folder")
    if options.model_folder is not None and options.method not in ("auto", *NEED_MODEL_FOLDER):
        raise InputError(f"--model-folder: method {options.method} has no model: want da3, hf or auto")


def _check_panorama(files: list[Path], options: ClipOptions) -> None:
    default = ClipOptions()
    if not options.panorama:
        of_panoramas = {
            "--panorama-depth": options.panorama_depth is not None,
            "--panorama-fov-deg": options.panorama_fov_deg != default.panorama_fov_deg,
        }
        _refuse(of_panoramas, "it is for --panorama")
        return
    if len(files) != 1:
        raise InputError(f"--panorama: {len(files)} files: want one image, twice as wide as high")
    of_videos = {
        "--start-frame": options.start_frame != default.start_frame,
        "--max-frames": options.max_frames is not None,
        "--every": options.every != default.every,
    }
    _refuse(of_videos, "a panorama has one moment only")
    read_panorama(files[0], options.panorama_depth)


def _check_seed(seed: int) -> None:
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
    except InputError as error:  # which names arguments: say them as options
        message = str(error).replace("format=", "--trajectory-format ")
        raise InputError(message.replace("convention=", "--trajectory-convention ")) from error


def _relative_to(options: Explore) -> str | None:
    """What the poses of the trajectory are relative to; None for a script."""
    if options.trajectory is None or options.relative_to:
        return options.relative_to
    if options.geometry.panorama:  # its views are no path
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


def _explore_into(folder: Path, options: Explore, progress: ProgressCallback) -> dict[str, Any]:
    """Reconstruct, explore, and write all of `OUTPUTS` into a folder that exists; returns the report."""
    started_s = time.perf_counter()
    generator = _generator(options, progress)
    loaded_s = _since(started_s)
    reference, was_cached = _find_reference(options.clip, options.geometry, progress)
    reconstructed_s = round(_since(started_s) - loaded_s, 3)
    warm_up_report = None
    if isinstance(generator, StarGenerator) and options.network.compile:
        warm_up_report = asdict(warm_up(generator, reference.size_px, progress=progress))
    world = _world(options, reference, generator)
    steps = _steps(options, world)
    with interrupts_between_steps() as check_interrupt:

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
            **_clip_inputs(options.geometry),
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
        "reconstruction": _reconstruction_report(reference, was_cached),
        "run": run,
        "timings_s": {
            "load": loaded_s,
            "reconstruct": reconstructed_s,
            "explore": run["seconds"],
            "all": _since(started_s),
        },
        "versions": _versions(),
    }
    _write_report(folder, report)
    return report


def _keep_partial_map(world: World, out: Path) -> str:
    """Save what an interrupted run has seen, beside where its results would be; says what was kept."""
    partial = out.with_name(f"{out.name}.partial")
    with staged_folder(partial, PARTIAL_OUTPUTS) as folder:
        write_map(world, folder)
    return f"the map so far is in {partial}"


def _find_reference(
    clip_paths: tuple[Path, ...], options: ClipOptions, progress: ProgressCallback
) -> tuple[Reference, bool]:
    """The clip's geometry, and whether an earlier run had found it."""
    source = clip_paths[0] if len(clip_paths) == 1 else clip_paths
    pixels = options.length_pixels
    scale = ScaleRequest(
        camera_height_m=options.camera_height_m,
        length_m=options.length_m,
        length_pixels=(pixels[:2], pixels[2:]) if pixels else None,
        length_frame=options.length_frame,
    )

    def make() -> Reference:
        chosen: dict[str, Any] = {"method": options.method, "model_folder": options.model_folder, "scale": scale}
        if options.panorama:
            panorama = read_panorama(clip_paths[0], options.panorama_depth)
            view = {"size_px": options.size_px, "fov_deg": options.panorama_fov_deg}
            return reconstruct_panorama(panorama, **view, **chosen, progress=progress)
        clip = read_clip(
            source,
            size_px=options.size_px,
            start_frame=options.start_frame,
            max_frames=options.max_frames,
            every=options.every,
            progress=lambda done, expected: progress("reading the clip", done / expected if expected else 0.0),
        )
        return reconstruct(clip, **chosen, progress=progress)

    if options.no_cache:
        return make(), False
    sources = clip_files(source)
    if options.panorama_depth:
        sources.append(options.panorama_depth)
    if options.model_folder:
        sources += sorted(path for path in options.model_folder.glob("*") if path.is_file())
    reference, was_cached = cached_reference(sources, _clip_inputs(options), make)
    return replace(reference, source=str(clip_paths[0])), was_cached


def _clip_inputs(options: ClipOptions) -> dict[str, Any]:
    """The options that a reconstruction depends on, JSON-ready."""
    inputs = asdict(options)
    del inputs["no_cache"]
    files = {"model_folder": options.model_folder, "panorama_depth": options.panorama_depth}
    return {**inputs, **{name: str(path) if path else None for name, path in files.items()}}


def _reconstruction_report(reference: Reference, was_cached: bool) -> dict[str, Any]:
    height_px, width_px = reference.size_px
    return {
        **asdict(reference.provenance),
        "scale": asdict(reference.scale),
        "num_frames": reference.num_frames,
        "size_px": [height_px, width_px],
        "fps": reference.fps,
        "intrinsics": asdict(reference.intrinsics),
        "was_cached": was_cached,
    }


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    with replacing(folder / REPORT) as temporary, writing_to(folder / REPORT):
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in VERSIONS_OF}}


def _since(started_s: float) -> float:
    return round(time.perf_counter() - started_s, 3)
