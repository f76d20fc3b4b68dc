"""What `inspatio-sim bag` does; `cli` says what it can be asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from inspatio_sim.bags.export import ExportConfig, find_topics, read_bag_clip
from inspatio_sim.bags.files import Bag, BagWriter
from inspatio_sim.bags.session import ClipSource, Difference, record_session, replay_session, session_prefix
from inspatio_sim.cli import commands
from inspatio_sim.cli.main import BagExport, BagInfo, BagRecord, BagReplay, Explore
from inspatio_sim.cli.tables import two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.clips.rgbd_folder import write_rgbd_folder
from inspatio_sim.errors import InputError
from inspatio_sim.pictures import save_png, side_by_side

EXIT_DIFFERENT = 1
DEMO = "demo"
MAX_HEIGHT_M = 10.0


def run(options: BagRecord | BagReplay | BagInfo | BagExport, terminal: Terminal) -> int:
    """One action; returns the exit code."""
    if isinstance(options, BagReplay):
        return replay_bag(options, terminal)
    if isinstance(options, BagRecord):
        record_bag(options, terminal)
    elif isinstance(options, BagInfo):
        show_bag(options, terminal)
    else:
        export_bag(options, terminal)
    return 0


def record_bag(options: BagRecord, terminal: Terminal) -> None:
    """`inspatio-sim bag record`."""
    height_m = options.base_height_m
    if height_m is not None and not 0 <= height_m <= MAX_HEIGHT_M:  # NaN fails too
        raise InputError(f"--base-height-m {height_m}: want 0 to {MAX_HEIGHT_M:g} m")
    if options.geometry.panorama:
        raise InputError(
            "--panorama: sessions in panoramas are not recorded: want a video, an image or an RGB-D folder"
        )
    walk = Explore(
        clip=() if options.video == DEMO else (Path(options.video),),
        out=options.out,
        script=options.script,
        trajectory=options.trajectory,
        frames=options.frames,
        trajectory_convention=options.trajectory_convention,
        relative_to=None if options.trajectory is None else "start",
        time=options.time,
        collisions=options.collisions,
        generator=options.generator,
        seed=options.seed,
        geometry=options.geometry,
        network=options.network,
        output=options.output,
    )
    walk = commands.checked_walk(walk, needs_clip=options.video != DEMO)
    clip = _clip_source(walk)
    started_s = time.perf_counter()
    with BagWriter(options.out, is_compressed=options.compress) as writer, terminal.progress() as progress:
        world, steps = commands.world_and_steps(walk, clip.reference, progress)
        facts = record_session(world, steps, writer, clip, camera_height_m=height_m, progress=progress)
    report = {
        "command": "bag record",
        "file": str(options.out),
        "clip": options.video,
        "script": options.script,
        "trajectory": str(options.trajectory) if options.trajectory else None,
        "generator": options.generator,
        "seed": options.seed,
        **facts,
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    rows = {
        "file": str(options.out),
        "frames": f"{facts['num_frames']}, {facts['duration_s']:.2f} s of sim time, in {report['seconds']:.1f} s",
        "messages": str(facts["num_messages"]),
        "collisions": str(facts["num_collisions"]),
        "replay": f"inspatio-sim bag replay {options.out}",
    }
    terminal.result(report, two_columns("Recorded", rows))


def _clip_source(options: Explore) -> ClipSource:
    geometry = options.geometry
    if geometry.model_folder is not None:
        model_folder = str(geometry.model_folder.resolve())
    else:
        model_folder = None
    pixels = geometry.length_pixels
    scale = {
        "camera_height_m": geometry.camera_height_m,
        "length_m": geometry.length_m,
        "length_pixels": [pixels[:2], pixels[2:]] if pixels else None,
        "length_frame": geometry.length_frame,
    }
    return ClipSource(
        video=tuple(str(path) for path in options.clip),
        size_px=geometry.size_px if options.clip or geometry.size != "auto" else None,
        start_frame=geometry.start_frame,
        max_frames=geometry.max_frames,
        every=geometry.every,
        reconstruct={"method": geometry.method, "model_folder": model_folder, "scale": scale},
    )


def replay_bag(options: BagReplay, terminal: Terminal) -> int:
    """`inspatio-sim bag replay`: 0 if all frames are the same, 1 if one is not."""
    picture = options.picture or options.file.with_name(f"{options.file.stem}-difference.png")
    if picture.suffix.lower() != ".png":
        raise InputError(f"--picture {picture}: want a file name that ends in .png")
    started_s = time.perf_counter()
    with Bag(options.file) as bag, terminal.progress() as progress:
        replay = replay_session(bag, progress)
        is_cut = bag.is_cut
    difference = replay.difference
    if difference is not None:
        save_png(picture, _side_by_side(difference))
    report: dict[str, Any] = {
        "command": "bag replay",
        "file": str(options.file),
        "is_same": difference is None,
        "num_compared": replay.num_compared,
        "num_not_recorded": replay.num_not_recorded,
        "sha256": replay.sha256,
        "is_cut": is_cut,
        "difference": None,
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    rows = {
        "the same": f"{replay.num_compared} frames, to the bit (SHA-256 of all: {replay.sha256[:16]}...)",
        **({"not recorded": f"{replay.num_not_recorded} frames"} if replay.num_not_recorded else {}),
        **({"cut off": "the recording was; what is whole in it was compared"} if is_cut else {}),
    }
    if difference is not None:
        facts = {"frame": difference.frame_idx, "time_s": round(difference.time_s, 6), "picture": str(picture)}
        report["difference"] = {**facts, "was_made": difference.replayed_u8 is not None}
        how = "differs" if difference.replayed_u8 is not None else "is not made again"
        rows["different"] = f"image {difference.frame_idx} at {difference.time_s:.3f} s {how}: see {picture}"
        if terminal.is_quiet and not terminal.wants_json:
            terminal.err.print(rows["different"], highlight=False, soft_wrap=True)
    terminal.result(report, two_columns(f"Replay of {options.file}", rows))
    return 0 if difference is None else EXIT_DIFFERENT


def _side_by_side(difference: Difference) -> Any:
    """Recorded, replayed, and eight times what lies between them."""
    recorded, replayed = difference.recorded_u8, difference.replayed_u8
    panels = {f"recorded, {difference.time_s:.3f} s": recorded}
    if replayed is not None:
        panels["replayed"] = replayed
        if replayed.shape == recorded.shape:
            gap = abs(recorded.astype(int) - replayed.astype(int))
            panels["difference, 8 times"] = (8 * gap).clip(0, 255).astype("uint8")
    return side_by_side(panels)


def show_bag(options: BagInfo, terminal: Terminal) -> None:
    """`inspatio-sim bag info`."""
    with Bag(options.file) as bag:
        uses = {"replay": _replay_use(bag), "export": _export_use(bag)}
        report = {
            "command": "bag info",
            "file": str(bag.path),
            "duration_s": round(bag.duration_s, 6),
            "is_cut": bag.is_cut,
            "topics": [
                {"name": topic.name, "type": topic.msgtype, "num_messages": topic.num_messages}
                for topic in bag.topics.values()
            ],
            "uses": uses,
        }
        rows = {name: f"{topic.num_messages} x {topic.msgtype}" for name, topic in bag.topics.items()}
    state = ", cut off while it was recorded" if bag.is_cut else ""
    terminal.result(
        report,
        two_columns(f"{options.file}: {bag.duration_s:.2f} s{state}", rows),
        two_columns("Can be used for", {name: use["why"] for name, use in uses.items()}),
    )


def _replay_use(bag: Bag) -> dict[str, Any]:
    prefix = session_prefix(bag)
    if prefix is None:
        return {"can": False, "why": "no: it has no topic session"}
    return {"can": True, "why": f"yes: a session in {prefix}"}


def _export_use(bag: Bag) -> dict[str, Any]:
    try:
        topics = find_topics(bag, ExportConfig())
    except InputError as error:
        return {"can": False, "why": "no: " + str(error).removeprefix(f"{bag.path}: ").partition(": there are")[0]}
    return {"can": True, "why": f"yes: {topics.image} and {topics.depth}, poses from {topics.pose or 'tf'}"}


def export_bag(options: BagExport, terminal: Terminal) -> None:
    """`inspatio-sim bag export`."""
    if options.out.is_file() or (options.out.is_dir() and any(options.out.iterdir())):
        raise InputError(f"{options.out}: exists already: want a new or empty folder")
    config = ExportConfig(
        image=options.image,
        depth=options.depth,
        camera_info=options.camera_info,
        pose=options.pose,
        pose_axes=options.pose_axes,
        fixed_frame=options.fixed_frame,
        tolerance_s=options.tolerance_s,
        max_frames=options.max_frames,
        every=options.every,
    )
    with Bag(options.file) as bag, terminal.progress() as progress:
        export = read_bag_clip(bag, config, progress=progress)
        depth_format = options.depth_format or export.depth_format
        progress("writing", 0.0)
        write_rgbd_folder(options.out, export.clip, depth_format)
        progress("writing", 1.0)
    clip = export.clip
    height_px, width_px = clip.frames_u8.shape[1:3]
    report = {
        "command": "bag export",
        "file": str(options.file),
        "folder": str(options.out),
        "num_frames": len(clip.frames_u8),
        "size_px": [height_px, width_px],
        "fps": clip.fps,
        "topics": export.topics,
        "fixed_frame": export.fixed_frame,
        "camera_frame": export.camera_frame,
        "num_images": export.num_images,
        "num_lost": export.num_lost,
        "depth_format": depth_format,
        "notes": export.notes,
    }
    lost = ", ".join(f"{number} with {why}" for why, number in export.num_lost.items())
    rows = {
        "folder": str(options.out),
        "frames": f"{len(clip.frames_u8)} of {height_px}x{width_px} at {clip.fps:.3g} fps, "
        f"of {export.num_images} images",
        **({"left out": lost} if lost else {}),
        **export.topics,
        "poses": f"{export.camera_frame} in {export.fixed_frame}",
        **({"notes": "; ".join(export.notes)} if export.notes else {}),
        "next": f'inspatio-sim explore {options.out} --script "forward 0.5" --out outputs/run',
    }
    terminal.result(report, two_columns("Exported", rows))
