"""The command line `inspatio-sim`: one dataclass a command. Results go to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg, subcommand

from inspatio_sim.choices import ClockMode, Method, PoseConvention, Smoothing, TrajectoryFormat
from inspatio_sim.cli.terminal import Terminal, stop_signals
from inspatio_sim.errors import InputError

# Commands live in modules that take seconds to import (torch, numba, av); they are imported by the command
# that needs them, so that --help answers at once, and doctor where one of those does not import.

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
OWN_PACKAGES = ("inspatio_sim", "inspatio_envs", "inspatio_ros")
DEFAULT_SIZE_PX = (480, 832)

ClipPaths = Annotated[Positional[tuple[Path, ...]], arg(metavar="CLIP [CLIP ...]", help_behavior_hint="(required)")]
Collisions = Literal["off", "stop", "slide"]
GeneratorName = Literal["star", "frame", "warp"]


def optional(metavar: str) -> Any:
    """How --help shows an option that is nothing by default."""
    return arg(metavar=metavar, help_behavior_hint="(optional)")


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How a clip is read and how its geometry is found; the same for every command that takes one."""

    size: str = "auto"
    """Height x width in pixels that the clip is cropped and resized to; `clip` keeps its own; `auto` is what the
    model makes best (tiny, frame-tiny: 96x160; star's larger ones, and without one: 480x832)."""
    start_frame: int = 0
    """Leave out so many frames first, counted as they would be read."""
    max_frames: Annotated[int | None, optional("N")] = None
    """Read at most so many frames."""
    every: int = 1
    """Take every N-th frame."""
    method: Method = "auto"
    """How depth and cameras are found. rgbd: they came along. sfm: from the camera's motion. da3, hf: by a
    depth network in --model-folder. layout: a prior for one static view. tiny: the same, by a small
    network that comes along. auto: picks one and says why."""
    model_folder: Annotated[Path | None, optional("FOLDER")] = None
    """Weights of da3 (Depth Anything 3) or hf (a transformers depth-estimation model)."""
    camera_height_m: Annotated[float | None, optional("METRES")] = None
    """Fix the scale: how high the first camera stood above the ground."""
    length_m: Annotated[float | None, optional("METRES")] = None
    """Fix the scale: the true distance between two points, seen at --length-pixels in --length-frame."""
    length_pixels: Annotated[tuple[float, float, float, float] | None, optional("X1 Y1 X2 Y2")] = None
    """x1 y1 x2 y2, after the clip was resized to --size."""
    length_frame: int = 0
    """Frame in which both ends are seen."""
    panorama: bool = False
    """The clip is one equirectangular panorama (360 x 180 degrees, level): views of --size all around its point."""
    panorama_depth: Annotated[Path | None, optional("FILE")] = None
    """Distance along the ray in every direction of the panorama: 16-bit png in mm; npy or exr in metres."""
    panorama_fov_deg: float = 90.0
    """Horizontal field of view of a panorama's views, and so of the camera in its world, 60 to 120 degrees."""
    no_cache: bool = False
    """Reconstruct again although this clip was reconstructed before (and do not keep the result)."""

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width), None for the clip's own."""
        if self.size == "clip":
            return None
        if self.size == "auto":
            return DEFAULT_SIZE_PX
        height, _, width = self.size.lower().partition("x")
        if not (self.size.isascii() and height.isdecimal() and width.isdecimal() and len(self.size) < 20):
            raise InputError(f"--size {self.size[:40]}: want HEIGHTxWIDTH such as 480x832, clip or auto")
        return int(height), int(width)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The networks, for --generator star and frame; (star) and (frame) are for one of them only."""

    preset: Annotated[str | None, optional("NAME")] = None
    """Which model (see inspatio-sim weights list); by default star's is tiny, frame's is frame-tiny."""
    prompt: str = ""
    """(star) What the world should look like; needs the model's text encoder, unless empty."""
    weights: Annotated[Path | None, optional("FOLDER")] = None
    """Folder with the model's files; by default the environment variable INSPATIO_WEIGHTS, then the package's own."""
    random_weights: bool = False
    """Random numbers in place of trained weights: what is generated is noise, only time and memory are real."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision; auto is bfloat16 where the device multiplies it natively."""
    steps: Annotated[tuple[int, ...] | None, optional("N [N ...]")] = None
    """Denoising steps, fewer are faster and rougher; by default the model's. star: falling from 1000, such as
    1000 500. frame: falling from 999, such as 999 200."""
    compile: bool = False
    """Let torch.compile make it faster: minutes before the first block, the first time."""
    paste_renders: bool | None = None
    """Lay rendered pixels over generated ones, so that what was filmed stays sharp; by default as the model does."""
    codec: Literal["auto", "tiny", "wan"] = "auto"
    """(star) Frames to latents and back. tiny: fast (TAEHV). wan: slower, sharper. auto: the model's."""
    noise_scale: Annotated[float | None, optional("X")] = None
    """(star) Of the noise that frames are made from, 0 to 2: less is calmer and less varied; by default the
    model's."""
    block_latents: Literal[1, 2, 3] = 3
    """(star) Length of a block. 3: 9 frames first, 12 after, as published. 1: 1, then 4: an action shows sooner."""
    cuda_graphs: bool = False
    """(star) Record every pass once and replay it, on a GPU."""
    fp8: bool = False
    """(star) 8-bit products, on GPUs from compute capability 8.9."""
    low_memory: bool = False
    """(star) Encode and decode one latent at a time."""
    max_views: int = 32
    """(frame) Views that the world remembers, of the clip and of what was generated; when full, the most redundant
    one goes."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What the command says."""

    json: bool = False
    """Print the report as one JSON object on stdout."""
    quiet: bool = False
    """No progress bars, no notes: errors only."""


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Walk through the world of a clip along a path or a script, and write what was seen.

    Writes observation.mp4, side_by_side.mp4, contact_sheet.png, map.ply, occupancy.pgm and .yaml,
    trajectory.tum and report.json. An earlier run in the same folder is replaced.

    inspatio-sim explore walk.mp4 --script "forward 1.0; yaw 90; forward 0.5" --out outputs/walk

    inspatio-sim explore walk.mp4 --trajectory zoom_out_in.txt --out outputs/zoom

    inspatio-sim explore room.jpg --panorama --script "yaw 360; forward 0.5" --out outputs/room

    inspatio-sim explore walk.mp4 --script "forward 1.0" --generator star --preset inspatio-1.3b-v1.5 --weights ~/weights --out outputs/star

    inspatio-sim explore walk.mp4 --script "forward 0.3; yaw 360; back 0.3" --generator frame --out outputs/frame
    """  # noqa: E501

    clip: ClipPaths
    """A video, an image, several images, a folder of images, or an RGB-D folder."""
    out: Path
    """Folder for the results."""
    trajectory: Annotated[Path | None, optional("FILE")] = None
    """Camera path: three lines of an orbit (up angles, left angles, radii), TUM, or 4x4 matrices."""
    script: Annotated[str | None, optional("TEXT")] = None
    """Words separated by `;`: forward back left right up down (metres), yaw pitch roll (degrees; positive
    turns left, looks up, leans right), wait (seconds), time (a clock mode, see --time)."""

    frames: Annotated[int | None, optional("N")] = None
    """Frames that a trajectory is sampled at; by default as many as the clip has."""
    smoothing: Smoothing = "through"
    """Of an orbit. through: passes every keyframe. fitpack: as the original implementation, which does not."""
    trajectory_format: TrajectoryFormat | None = None
    """What the file of --trajectory is; by default its content says."""
    trajectory_convention: PoseConvention | None = None
    """Which way the matrices of a trajectory point; needed for them."""
    relative_to: Literal["start", "reference"] | None = None
    """What a trajectory's poses are relative to: the first camera, or the clip's camera at each moment;
    by default reference for an orbit (the clip, filmed anew), start for other paths."""
    radius_scale: float = 1.0
    """Metres per unit of an orbit's radii."""
    time: ClockMode = "once"
    """How the clip plays meanwhile."""
    collisions: Collisions | None = None
    """What obstacles do to the camera; by default off for a trajectory, slide for a script."""
    generator: GeneratorName = "star"
    """What makes the frames. star: the video student, block by block. frame: the image student, one at a time.
    warp: geometry only, holes inpainted."""
    seed: int = 0
    """Of everything random."""

    geometry: ClipOptions = ClipOptions()
    network: NetworkOptions = NetworkOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Find the geometry of a clip: depth, camera and motion, in metres, with a card saying where those come from.

    Writes a folder `reference` (frames, depth, cameras; `Reference.load` reads it) and report.json.

    inspatio-sim reconstruct walk.mp4 --out outputs/walk-geometry
    """

    clip: ClipPaths
    """A video, an image, several images, a folder of images, or an RGB-D folder."""
    out: Path
    """Folder for the results."""
    geometry: ClipOptions = ClipOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Make a clip of a room (exact depth and cameras, one moving thing), and explore it with a script.

    Needs no file and no download. Writes the clip as an RGB-D folder, and what `explore` writes.
    """

    out: Path = Path("outputs/demo")
    """Folder for the results."""
    seed: int = 0
    """Of everything random."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what is installed, what is missing, and which methods and generators would run here.

    Exit code 1 if the main job would not run.
    """

    weights: Annotated[Path | None, optional("FOLDER")] = None
    """Folder to look for checkpoints in; by default the environment variable INSPATIO_WEIGHTS."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class WeightsList:
    """List the models: their sizes, which of their files are here, where the others are published, and licences.

    inspatio-sim weights list --weights ~/weights
    """

    weights: Annotated[Path | None, optional("FOLDER")] = None
    """Folder to look through, two levels deep; by default the environment variable INSPATIO_WEIGHTS, and always
    the package's own."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class WeightsCheck:
    """Say what a folder of weights holds: format, tensors, which model by their shapes, whose publication, licence.

    Nothing in the files is run. Exit code 1 if a file is damaged, or a file of --preset is missing.

    inspatio-sim weights check ~/weights --preset inspatio-1.3b-v1.5
    """

    folder: Annotated[Positional[Path], arg(metavar="FOLDER", help_behavior_hint="(required)")]
    """A folder, looked through two levels deep, or one file: .safetensors, its .index.json, .pth, .pt."""
    preset: Annotated[str | None, optional("NAME")] = None
    """Also say which files of this model are missing (see weights list)."""
    deep: bool = False
    """Read every number: find NaN and infinities, and print each file's SHA-256. Slow for large models."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class WeightsConvert:
    """Write a checkpoint as this package keeps them: safetensors, names without prefixes, with notes on its origin.

    A text-to-video base of Wan2.1 gets the channels for render and mask, all zero: it computes what it did before.
    Needs memory for one tensor at a time. A file that is there already is replaced, at the end.

    inspatio-sim weights convert InSpatio-World-1.5-1.3B.safetensors --to inspatio-1.3b-v1.5 --dtype bf16 --out v1.5.safetensors

    inspatio-sim weights convert taew2_1.pth --to as-is --out taew2_1.safetensors
    """  # noqa: E501

    source: Annotated[Positional[Path], arg(metavar="SOURCE", help_behavior_hint="(required)")]
    """The checkpoint: .safetensors, .safetensors.index.json, .pth, .pt, or a folder with one of them."""
    to: Annotated[str, arg(metavar="NAME", help_behavior_hint="(required)")]
    """The model whose transformer it is (see weights list), or as-is: the same tensors in another format."""
    out: Path
    """The new file, NAME.safetensors."""
    dtype: Literal["bf16", "fp16", "fp32"] | None = None
    """What the numbers are cast to; by default they stay as they are."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Weights:
    """List the models and their files, check a folder of weights, or convert a checkpoint."""

    action: (
        Annotated[WeightsList, subcommand("list", prefix_name=False)]
        | Annotated[WeightsCheck, subcommand("check", prefix_name=False)]
        | Annotated[WeightsConvert, subcommand("convert", prefix_name=False)]
    )

    @property
    def output(self) -> OutputOptions:
        return self.action.output


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one stage of a model, from what earlier stages left; under torchrun on many processes.

    codec: frames to latents and back. depth: completes depth from the picture. teacher: makes a clip along another
    path, in many steps. t2v-teacher: the same from text alone, on the photo style. init: the student learns to
    stream. distill: in four steps. prepare: encodes the clips that the transformers need, which they also do
    themselves. ship: copies the results to where the package looks for its own weights.

    frame: the frame generator, its stages by --stage. pretrain: images by themselves. control: from what geometry
    knows of a view, and a reference view. distill: in two steps. distill-one: in one.

    Writes RUN/STAGE: the averaged weights, metrics.csv, tensorboard, samples and checkpoints. Ctrl-C keeps a
    checkpoint.

    inspatio-sim train teacher --config tiny --dry-run

    inspatio-sim train distill --config tiny --set trainer.max_steps=4 --out runs/try

    inspatio-sim train frame --stage control --config frame-tiny

    inspatio-sim train ship --config tiny --to weights/tiny

    torchrun --nproc_per_node=2 -m inspatio_sim.training distill --config test --set trainer.max_steps=2
    """

    stage: Annotated[Positional[str], arg(metavar="STAGE", help_behavior_hint="(required)")]
    """codec, depth, teacher, t2v-teacher, init, distill, or frame, prepare, ship."""
    config: Annotated[str, arg(metavar="NAME")]
    """What is trained on what. tiny: the model that ships with this package. test: tries the machinery in seconds.
    wan_1_3b: for a cluster. Of frame: frame-tiny, frame-test, worldfm-xl."""
    frame_stage: Annotated[str | None, arg(name="stage", metavar="STAGE", help_behavior_hint="(optional)")] = None
    """Of frame: pretrain, control, distill, distill-one."""
    set: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="NAME=VALUE", help_behavior_hint="(optional)")
    ] = ()
    """Change fields of the config, such as trainer.max_steps=4 data.num_clips=100."""
    out: Annotated[Path | None, optional("FOLDER")] = None
    """Folder of the run, for all its stages; by default runs/NAME."""
    start: Annotated[Path | None, arg(name="from", metavar="FILE", help_behavior_hint="(optional)")] = None
    """Weights that the trained network begins with, in place of the usual ones."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder of the stage; a stage that is finished is left as it is."""
    to: Annotated[Path | None, optional("FOLDER")] = None
    """Of ship: where the weights are copied to; by default into the package."""
    dry_run: bool = False
    """Say what it would take: parameters, memory, operations, samples, earlier results. Nothing is run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it is trained; auto takes a GPU where there is one."""
    threads: Annotated[int | None, optional("N")] = None
    """Of the processor, for a process that trains."""
    output: OutputOptions = OutputOptions()


BagPath = Annotated[Positional[Path], arg(metavar="FILE", help_behavior_hint="(required)")]
ScenarioPaths = Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE [FILE ...]", help_behavior_hint="(required)")]


@dataclass(frozen=True, kw_only=True)
class ScenarioRun:
    """Play scenarios and judge what they expect (docs/scenarios.md says how they are written).

    All files are checked before the first is played. Exit code 0: every expectation came true. 1: one did not, or a
    step could not be done. 2: a file, a clip or a model cannot be used. 130: interrupted.

    inspatio-sim scenario run tests/*.scenario.yaml --junit out.xml --report out.html
    """

    files: ScenarioPaths
    """YAML, usually NAME.scenario.yaml."""
    junit: Annotated[Path | None, optional("FILE")] = None
    """Write JUnit XML: a scenario is a test suite, a step a test case."""
    report: Annotated[Path | None, optional("FILE")] = None
    """Write a page (HTML, one file) with what was measured, and pictures where an expectation failed."""
    update_images: bool = False
    """Write the pictures that `image` expectations compare with, from what is seen now."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class ScenarioCheck:
    """Read scenarios and say what is wrong with them: file, line and key. Nothing is played.

    Exit code 0: nothing. 2: something.

    inspatio-sim scenario check tests/*.scenario.yaml
    """

    files: ScenarioPaths
    """YAML, usually NAME.scenario.yaml."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Play or check scripted tests of a world: steps and expectations in YAML."""

    action: (
        Annotated[ScenarioRun, subcommand("run", prefix_name=False)]
        | Annotated[ScenarioCheck, subcommand("check", prefix_name=False)]
    )

    @property
    def output(self) -> OutputOptions:
        return self.action.output


@dataclass(frozen=True, kw_only=True)
class BagRecord:
    """Walk through the world of a clip and write what a robot with that camera publishes: a bag, without ROS.

    Topics: camera/image_raw, camera/camera_info, camera/depth/image_rect_raw, odom, tf, tf_static, clock, the motions
    in camera/pose_delta, and what the world was in session. It appears whole or not at all; an earlier one is replaced.

    inspatio-sim bag record --video walk.mp4 --script "forward 1.0; yaw 90" --out walk.mcap
    """

    video: Annotated[str, arg(metavar="CLIP", help_behavior_hint="(required)")]
    """A video, an image, a folder of images, an RGB-D folder; demo: the demo room."""
    out: Path
    """NAME.mcap or NAME.db3 for one file; any other name for a folder as rosbag2 makes it (MCAP)."""
    script: Annotated[str | None, optional("TEXT")] = None
    """Words separated by `;`, as for explore."""
    trajectory: Annotated[Path | None, optional("FILE")] = None
    """Camera path relative to its first pose, as for explore: an orbit, TUM, or 4x4 matrices."""
    frames: Annotated[int | None, optional("N")] = None
    """Frames that a trajectory is sampled at; by default as many as the clip has."""
    trajectory_convention: PoseConvention | None = None
    """Which way the matrices of a trajectory point; needed for them."""
    time: ClockMode = "once"
    """How the clip plays meanwhile."""
    collisions: Collisions | None = None
    """What obstacles do to the camera; by default off for a trajectory, slide for a script."""
    generator: GeneratorName = "star"
    """What makes the frames. star: the video student, block by block. frame: the image student, one at a time.
    warp: geometry only, holes inpainted."""
    seed: int = 0
    """Of everything random."""
    base_height_m: Annotated[float | None, optional("METRES")] = None
    """How high the camera is over base_link; by default over the floor that the first frames show."""
    compress: bool = False
    """Write MCAP chunks with zstd: smaller, slower."""
    geometry: ClipOptions = ClipOptions()
    network: NetworkOptions = NetworkOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class BagReplay:
    """Make the world of a recorded session again, give it the same commands, and compare every frame.

    Exit code 0: every recorded frame came out the same, to the bit. 1: one did not; a picture shows both.

    inspatio-sim bag replay walk.mcap
    """

    file: BagPath
    """A bag of `bag record`, or of the ROS node."""
    picture: Annotated[Path | None, optional("FILE")] = None
    """Where the picture of the first difference goes; by default NAME-difference.png beside the bag."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class BagInfo:
    """Say what is in a bag (topics, types, counts, duration) and what it can be used for.

    inspatio-sim bag info walk.mcap
    """

    file: BagPath
    """.mcap, .db3, rosbag2's folder, or .bag of ROS 1."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class BagExport:
    """Make an RGB-D folder, which every command takes as a clip, of a bag with image, depth, camera_info and tf.

    Images and depth are paired by the time in their headers; poses are interpolated. Depth has to be registered to
    the image; distorted images are straightened.

    inspatio-sim bag export robot.mcap --out outputs/robot
    """

    file: BagPath
    """.mcap, .db3, rosbag2's folder, or .bag of ROS 1."""
    out: Path
    """A new or empty folder."""
    image: Annotated[str | None, optional("TOPIC")] = None
    """Image or CompressedImage; by default the likeliest one."""
    depth: Annotated[str | None, optional("TOPIC")] = None
    """Image (16UC1, 32FC1) or CompressedImage (compressedDepth); by default the likeliest one."""
    camera_info: Annotated[str | None, optional("TOPIC")] = None
    """K of the image; by default camera_info beside it."""
    pose: Annotated[str | None, optional("TOPIC")] = None
    """Odometry, PoseStamped or PoseWithCovarianceStamped; by default tf, or Odometry where there is no tf."""
    pose_axes: Literal["body", "optical"] = "body"
    """Of a pose that is the camera's own. body: x forward, z up. optical: z forward, y down."""
    fixed_frame: Annotated[str | None, optional("FRAME")] = None
    """What poses are told in; by default odom, map, world, or the root of tf."""
    tolerance_s: float = 0.02
    """Image and depth this far apart, in seconds, still belong together."""
    max_frames: Annotated[int | None, optional("N")] = None
    """Take at most so many frames."""
    every: int = 1
    """Take every N-th frame."""
    depth_format: Literal["png16", "npy", "exr"] | None = None
    """png16 has whole millimetres; by default what the bag has: npy for metres."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Bags:
    """Record, replay, examine or export rosbags (MCAP, sqlite3); needs the package rosbags, but no ROS."""

    action: (
        Annotated[BagRecord, subcommand("record", prefix_name=False)]
        | Annotated[BagReplay, subcommand("replay", prefix_name=False)]
        | Annotated[BagInfo, subcommand("info", prefix_name=False)]
        | Annotated[BagExport, subcommand("export", prefix_name=False)]
    )

    @property
    def output(self) -> OutputOptions:
        return self.action.output


AnyCommand = Explore | Reconstruct | Demo | Doctor | Weights | Train | Scenario | Bags
Command = (
    Annotated[Explore, subcommand("explore", prefix_name=False)]
    | Annotated[Reconstruct, subcommand("reconstruct", prefix_name=False)]
    | Annotated[Demo, subcommand("demo", prefix_name=False)]
    | Annotated[Doctor, subcommand("doctor", prefix_name=False)]
    | Annotated[Weights, subcommand("weights", prefix_name=False)]
    | Annotated[Train, subcommand("train", prefix_name=False)]
    | Annotated[Scenario, subcommand("scenario", prefix_name=False)]
    | Annotated[Bags, subcommand("bag", prefix_name=False)]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    for number in stop_signals():
        signal.signal(number, signal.default_int_handler)  # what was begun is cleaned up, as for Ctrl-C
    try:
        return _run(_parse(arguments))
    except KeyboardInterrupt as interrupt:
        print(f"inspatio-sim: interrupted: {str(interrupt) or 'nothing half-written is left'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        return _say(str(error))
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OWN_PACKAGES:  # our mistake, not that of an installation
            raise
        return _say(f"{error} (inspatio-sim doctor says what is missing here)")
    except MemoryError:
        return _say("out of memory: take fewer frames (--max-frames, --every) or smaller ones (--size)")


def _say(error: str) -> int:
    print(f"inspatio-sim: error: {' '.join(error.split())}", file=sys.stderr)
    return EXIT_USER_ERROR


def _parse(arguments: Sequence[str] | None) -> AnyCommand:
    """Options that cannot be are an InputError: one line in place of the box that tyro draws."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,  # pyright: ignore[reportArgumentType]  # tyro takes unions
                prog="inspatio-sim",
                description="A video goes in; a world comes out that an agent can move in.",
                args=arguments,
                config=(OmitArgPrefixes, FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code != EXIT_USER_ERROR:  # --help
            raise
        boxed = [line.strip("│ ") for line in said.getvalue().splitlines() if line.startswith("│")]
        message = itertools.takewhile(lambda line: not line.startswith("──"), boxed)
        line, _, _ = " ".join(message).partition(" Got errors:")
        raise InputError(f"{line} (see inspatio-sim --help)") from stop


def _run(command: AnyCommand) -> int:
    terminal = Terminal(json=command.output.json, quiet=command.output.quiet)
    if isinstance(command, Doctor):
        from inspatio_sim.cli import doctor

        return doctor.show(command.weights, terminal)
    if isinstance(command, Weights):
        from inspatio_sim.cli import weights as weights_command

        return weights_command.run(command.action, terminal)
    if isinstance(command, Train):
        from inspatio_sim.cli import train as train_command

        return train_command.run(command, terminal)
    if isinstance(command, Scenario):
        from inspatio_sim.cli import scenario as scenario_command

        return scenario_command.run(command.action, terminal)
    if isinstance(command, Bags):
        from inspatio_sim.cli import bag as bag_command

        return bag_command.run(command.action, terminal)

    from inspatio_sim.cli import commands

    if isinstance(command, Explore):
        commands.explore_clip(command, terminal)
    elif isinstance(command, Reconstruct):
        commands.reconstruct_clip(command, terminal)
    else:
        commands.run_demo(command, terminal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
