"""The options of the command line, one dataclass per command. Imports little, so that --help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg, subcommand

from inspatio_sim.choices import ClockMode, Method, PoseConvention, Smoothing, TrajectoryFormat
from inspatio_sim.errors import InputError

EXIT_USER_ERROR = 2
DEFAULT_SIZE_PX = (480, 832)

ClipPaths = Annotated[Positional[tuple[Path, ...]], arg(metavar="CLIP [CLIP ...]", help_behavior_hint="(required)")]
Collisions = Literal["off", "stop", "slide"]
GeneratorName = Literal["star", "frame", "warp"]


def optional(metavar: str) -> Any:
    """How --help shows an option whose default is None."""
    return arg(metavar=metavar, help_behavior_hint="(optional)")


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How a clip is read and reconstructed; shared by every command that takes one."""

    size: str = "auto"
    """Frame size, HEIGHTxWIDTH in pixels; the clip is cropped and resized to it. clip: keep the clip's own. auto: what
    the model does best (tiny and frame-tiny 96x160, published frame models 512x512, otherwise 480x832)."""
    start_frame: int = 0
    """Number of frames to skip at the start of the clip."""
    max_frames: Annotated[int | None, optional("N")] = None
    """Maximum number of frames to read."""
    every: int = 1
    """Use every N-th frame."""
    method: Method = "auto"
    """How to find depth and cameras. rgbd: measured, part of the clip. sfm: from the camera's motion. da3, hf: a
    depth network in --model-folder. layout: a prior for one static view. tiny: the same, from a small
    network that comes with the package. auto: picks one and says why."""
    model_folder: Annotated[Path | None, optional("FOLDER")] = None
    """Weights of da3 (Depth Anything 3) or hf (a transformers depth-estimation model)."""
    camera_height_m: Annotated[float | None, optional("METRES")] = None
    """Sets the scale: height of the first camera above the ground."""
    length_m: Annotated[float | None, optional("METRES")] = None
    """Sets the scale: the true distance between the two points --length-pixels in --length-frame."""
    length_pixels: Annotated[tuple[float, float, float, float] | None, optional("X1 Y1 X2 Y2")] = None
    """The two points, in pixels of the resized clip."""
    length_frame: int = 0
    """Index of the frame that shows both points."""
    panorama: bool = False
    """The clip is one level equirectangular panorama (360 x 180 degrees); it is cut into views of --size."""
    panorama_depth: Annotated[Path | None, optional("FILE")] = None
    """The panorama's distances along the ray: a 16-bit png in mm, or npy or exr in metres."""
    panorama_fov_deg: float = 90.0
    """Horizontal field of view of a panorama's views and of the camera in its world, 60 to 120 degrees."""
    no_cache: bool = False
    """Ignore an earlier reconstruction of this clip, and do not keep the new one."""

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width); None keeps the clip's own."""
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
    """Options of the networks, for --generator star and frame; (star) and (frame) mark those for only one of them."""

    preset: Annotated[str | None, optional("NAME")] = None
    """The model (see inspatio-sim weights list); default: tiny for star, frame-tiny for frame."""
    prompt: str = ""
    """(star) What the world should look like; needs the model's text encoder unless empty."""
    weights: Annotated[Path | None, optional("FOLDER")] = None
    """Folder with the model's files; default: the environment variable INSPATIO_WEIGHTS, then the package's own."""
    random_weights: bool = False
    """Use random weights: the frames are noise, but time and memory are realistic."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto uses a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision; auto is bfloat16 if the device supports it natively."""
    steps: Annotated[tuple[int, ...] | None, optional("N [N ...]")] = None
    """Denoising timesteps; fewer are faster and rougher; default: the model's. star: falling from 1000, such as
    1000 500. frame: falling from 999, such as 999 200."""
    compile: bool = False
    """Speed it up with torch.compile; the first time, compiling takes minutes before the first block."""
    paste_renders: bool | None = None
    """Paste rendered pixels over generated ones, so that filmed pixels stay sharp; default: the model's."""
    codec: Literal["auto", "tiny", "wan"] = "auto"
    """(star) Codec between frames and latents. tiny: fast (TAEHV). wan: slower, sharper. auto: the model's."""
    noise_scale: Annotated[float | None, optional("X")] = None
    """(star) Scale of the initial noise, 0 to 2: lower is calmer and less varied; default: the model's."""
    block_latents: Literal[1, 2, 3] = 3
    """(star) Latents per block. 3: 9 frames first, then 12, as published. 1: 1 frame, then 4, for quick reactions."""
    cuda_graphs: bool = False
    """(star) Record each pass as a CUDA graph and replay it."""
    fp8: bool = False
    """(star) 8-bit matrix products, on GPUs with compute capability 8.9 or more."""
    low_memory: bool = False
    """(star) Encode and decode one latent at a time; slower."""
    max_views: int = 32
    """(frame) Maximum number of remembered views, from the clip and generated; beyond it the most redundant one is
    dropped."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What the command prints."""

    json: bool = False
    """Print the report as one JSON object on stdout."""
    quiet: bool = False
    """Print errors only, no progress bars and notes."""


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Move a camera through the world of a clip along a path or a script, and write what it sees.

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
    """Camera path: an orbit in three lines (up angles, left angles, radii), TUM, or 4x4 matrices."""
    script: Annotated[str | None, optional("TEXT")] = None
    """Commands separated by `;`: forward back left right up down (metres), yaw pitch roll (degrees; positive
    turns left, looks up, leans right), wait (seconds), time (a clock mode, see --time)."""

    frames: Annotated[int | None, optional("N")] = None
    """Number of frames sampled along a trajectory; default: as many as the clip has."""
    smoothing: Smoothing = "through"
    """Smoothing of an orbit. through: passes every keyframe. fitpack: like the original implementation, does not."""
    trajectory_format: TrajectoryFormat | None = None
    """Format of --trajectory; default: detected from its content."""
    trajectory_convention: PoseConvention | None = None
    """Direction of the matrices of a trajectory; required if it holds matrices."""
    relative_to: Literal["start", "reference"] | None = None
    """What a trajectory's poses are relative to: start (the first camera) or reference (the clip's camera at each
    moment); default: reference for an orbit, start for other paths."""
    radius_scale: float = 1.0
    """Metres per unit of an orbit's radii."""
    time: ClockMode = "once"
    """How the clip plays during the walk."""
    collisions: Collisions | None = None
    """What obstacles do to the camera; default: off for a trajectory, slide for a script."""
    generator: GeneratorName = "star"
    """What makes the frames. star: the video student, block by block. frame: the image student, one at a time.
    warp: geometry only, holes inpainted."""
    seed: int = 0
    """Random seed."""

    geometry: ClipOptions = ClipOptions()
    network: NetworkOptions = NetworkOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Find the geometry of a clip: depth, camera and motion in metres, with a card that names their source.

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
    """Render a clip of a room (exact depth and cameras, one moving object) and explore it with a script.

    Needs no input and no download. Writes the clip as an RGB-D folder, and the outputs of `explore`.
    """

    out: Path = Path("outputs/demo")
    """Folder for the results."""
    seed: int = 0
    """Random seed."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show what is installed, what is missing, and which methods and generators run here.

    Exit code 1 if `explore` would not run.
    """

    weights: Annotated[Path | None, optional("FOLDER")] = None
    """Folder with checkpoints; default: the environment variable INSPATIO_WEIGHTS."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class WeightsList:
    """List the models: size, licence, which files you have and where the others are published.

    inspatio-sim weights list --weights ~/weights
    """

    weights: Annotated[Path | None, optional("FOLDER")] = None
    """Folder to search, two levels deep; default: the environment variable INSPATIO_WEIGHTS. The package's own folder
    is always searched."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class WeightsCheck:
    """Show what a folder of weights holds: format, tensors, the model (by shapes), publication and licence.

    No code in the files is run. Exit code 1 if a file is damaged, or a file of --preset is missing.

    inspatio-sim weights check ~/weights --preset inspatio-1.3b-v1.5
    """

    folder: Annotated[Positional[Path], arg(metavar="FOLDER", help_behavior_hint="(required)")]
    """A folder, searched two levels deep, or one file: .safetensors, its .index.json, .pth, .pt."""
    preset: Annotated[str | None, optional("NAME")] = None
    """Also show which files of this model are missing (see weights list)."""
    deep: bool = False
    """Read every value: find NaN and infinity, and print each file's SHA-256. Slow for large models."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class WeightsConvert:
    """Convert a checkpoint to this package's format: safetensors, names without prefixes, notes on its origin.

    A Wan2.1 text-to-video base also gets the channels for render and mask, all zero, so its output does not change.
    Needs memory for one tensor at a time. An existing file is replaced at the end.

    inspatio-sim weights convert InSpatio-World-1.5-1.3B.safetensors --to inspatio-1.3b-v1.5 --dtype bf16 --out v1.5.safetensors

    inspatio-sim weights convert taew2_1.pth --to as-is --out taew2_1.safetensors
    """  # noqa: E501

    source: Annotated[Positional[Path], arg(metavar="SOURCE", help_behavior_hint="(required)")]
    """The checkpoint: .safetensors, .safetensors.index.json, .pth, .pt, or a folder with one of them."""
    to: Annotated[str, arg(metavar="NAME", help_behavior_hint="(required)")]
    """The model it belongs to (see weights list), or as-is: the same tensors in another format."""
    out: Path
    """The output file, NAME.safetensors."""
    dtype: Literal["bf16", "fp16", "fp32"] | None = None
    """Cast to this type; default: keep the type."""
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
    """Train one stage of a model from the results of earlier stages; with torchrun on several processes.

    codec/train: the codec between frames and latents. depth/train: the network that completes depth.

    star/teacher: generates a clip along another path, in many steps. star/t2v-teacher: the same from text alone, for
    the photo style. star/init: teaches the student to stream. star/distill: distills it to four steps. star/prepare:
    encodes the clips that these stages need; they also do so themselves.

    frame/pretrain: single images. frame/control: images from a geometric render and a reference view.
    frame/distill: distills it to two steps. frame/distill-one: to one.

    star/ship, frame/ship: copy the results to the package's own weights.

    Writes RUN/STAGE: the averaged weights, metrics.csv, tensorboard, samples and checkpoints. Ctrl-C keeps a
    checkpoint.

    inspatio-sim train star/teacher --config tiny --dry-run

    inspatio-sim train star/distill --config tiny --set trainer.max_steps=4 --out runs/try

    inspatio-sim train frame/control --config tiny

    inspatio-sim train star/ship --config tiny --to weights/tiny

    torchrun --nproc_per_node=2 -m inspatio_sim.training star/distill --config test --set trainer.max_steps=2
    """

    stage: Annotated[Positional[str], arg(metavar="STAGE", help_behavior_hint="(required)")]
    """One of the names above."""
    config: Annotated[str, arg(metavar="NAME")]
    """Model and data. tiny: the model that ships with this package. test: a run of seconds to test the setup.
    For a cluster: wan_1_3b (codec, depth and star), worldfm-xl (frame)."""
    set: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="NAME=VALUE", help_behavior_hint="(optional)")
    ] = ()
    """Change fields of the config, such as trainer.max_steps=4 data.num_clips=100."""
    out: Annotated[Path | None, optional("FOLDER")] = None
    """Folder of the run, shared by its stages; default: runs/NAME, or runs/frame-NAME."""
    start: Annotated[Path | None, arg(name="from", metavar="FILE", help_behavior_hint="(optional)")] = None
    """Initial weights of the trained network, instead of the usual ones."""
    resume: bool = False
    """Continue from the newest checkpoint of the stage; a finished stage does nothing."""
    to: Annotated[Path | None, optional("FOLDER")] = None
    """(star/ship, frame/ship) Target folder of the weights; default: the package's own."""
    dry_run: bool = False
    """Print what the run needs: parameters, memory, operations, samples, earlier results. Nothing is run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto uses a GPU if there is one."""
    threads: Annotated[int | None, optional("N")] = None
    """Number of CPU threads per training process."""
    output: OutputOptions = OutputOptions()


BagPath = Annotated[Positional[Path], arg(metavar="FILE", help_behavior_hint="(required)")]
ScenarioPaths = Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE [FILE ...]", help_behavior_hint="(required)")]


@dataclass(frozen=True, kw_only=True)
class ScenarioRun:
    """Play scenarios and check their expectations (docs/scenarios.md documents the format).

    All files are validated before the first is played. Exit code 0: all expectations held. 1: one failed, or a step
    could not be carried out. 2: a file, a clip or a model is unusable. 130: interrupted.

    inspatio-sim scenario run tests/*.scenario.yaml --junit out.xml --report out.html
    """

    files: ScenarioPaths
    """YAML files, usually NAME.scenario.yaml."""
    junit: Annotated[Path | None, optional("FILE")] = None
    """Write JUnit XML: one test suite per scenario, one test case per step."""
    report: Annotated[Path | None, optional("FILE")] = None
    """Write one HTML page with the measurements, and images where an expectation failed."""
    update_images: bool = False
    """Write the images that `image` expectations compare with, from this run."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class ScenarioCheck:
    """Validate scenarios without playing them; errors name file, line and key.

    Exit code 0: valid. 2: errors.

    inspatio-sim scenario check tests/*.scenario.yaml
    """

    files: ScenarioPaths
    """YAML files, usually NAME.scenario.yaml."""
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
    """Record a bag of a walk through the world of a clip, as a robot with that camera would; needs no ROS.

    Topics: camera/image_raw, camera/camera_info, camera/depth/image_rect_raw, odom, tf, tf_static, clock, the motions
    in camera/pose_delta, and the world's settings in session. The bag appears whole or not at all; an earlier one is
    replaced.

    inspatio-sim bag record --video walk.mp4 --script "forward 1.0; yaw 90" --out walk.mcap
    """

    video: Annotated[str, arg(metavar="CLIP", help_behavior_hint="(required)")]
    """A video, an image, a folder of images or an RGB-D folder; demo: the demo room."""
    out: Path
    """NAME.mcap or NAME.db3 for one file; any other name for a rosbag2 folder (MCAP)."""
    script: Annotated[str | None, optional("TEXT")] = None
    """Commands separated by `;`, as for explore."""
    trajectory: Annotated[Path | None, optional("FILE")] = None
    """Camera path relative to its first pose, as for explore: an orbit, TUM, or 4x4 matrices."""
    frames: Annotated[int | None, optional("N")] = None
    """Number of frames sampled along a trajectory; default: as many as the clip has."""
    trajectory_convention: PoseConvention | None = None
    """Direction of the matrices of a trajectory; required if it holds matrices."""
    time: ClockMode = "once"
    """How the clip plays during the walk."""
    collisions: Collisions | None = None
    """What obstacles do to the camera; default: off for a trajectory, slide for a script."""
    generator: GeneratorName = "star"
    """What makes the frames. star: the video student, block by block. frame: the image student, one at a time.
    warp: geometry only, holes inpainted."""
    seed: int = 0
    """Random seed."""
    base_height_m: Annotated[float | None, optional("METRES")] = None
    """Height of the camera above base_link; default: above the floor seen in the first frames."""
    compress: bool = False
    """Compress MCAP chunks with zstd: smaller, slower."""
    geometry: ClipOptions = ClipOptions()
    network: NetworkOptions = NetworkOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class BagReplay:
    """Rebuild the world of a recorded session, send the same commands, and compare every frame.

    Exit code 0: every frame is bit-exact. 1: a frame differs; an image shows both versions.

    inspatio-sim bag replay walk.mcap
    """

    file: BagPath
    """A bag from `bag record` or the ROS node."""
    picture: Annotated[Path | None, optional("FILE")] = None
    """Where to write the image of the first difference; default: NAME-difference.png beside the bag."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class BagInfo:
    """Show what is in a bag (topics, types, counts, duration) and what you can use it for.

    inspatio-sim bag info walk.mcap
    """

    file: BagPath
    """.mcap, .db3, a rosbag2 folder, or a ROS 1 .bag."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class BagExport:
    """Convert a bag with image, depth, camera_info and tf to an RGB-D folder, which every command takes as a clip.

    Images and depth are paired by the time in their headers; poses are interpolated. Depth must be registered to
    the image; distorted images are undistorted.

    inspatio-sim bag export robot.mcap --out outputs/robot
    """

    file: BagPath
    """.mcap, .db3, a rosbag2 folder, or a ROS 1 .bag."""
    out: Path
    """A new or empty folder."""
    image: Annotated[str | None, optional("TOPIC")] = None
    """Image or CompressedImage; default: the likeliest one."""
    depth: Annotated[str | None, optional("TOPIC")] = None
    """Image (16UC1, 32FC1) or CompressedImage (compressedDepth); default: the likeliest one."""
    camera_info: Annotated[str | None, optional("TOPIC")] = None
    """CameraInfo of the image; default: camera_info beside it."""
    pose: Annotated[str | None, optional("TOPIC")] = None
    """Odometry, PoseStamped or PoseWithCovarianceStamped; default: tf, or Odometry if there is no tf."""
    pose_axes: Literal["body", "optical"] = "body"
    """Axes of a pose topic that gives the camera's own pose. body: x forward, z up. optical: z forward, y down."""
    fixed_frame: Annotated[str | None, optional("FRAME")] = None
    """Frame of the poses; default: odom, map, world, or the root of tf."""
    tolerance_s: float = 0.02
    """Maximum time between an image and its depth."""
    max_frames: Annotated[int | None, optional("N")] = None
    """Maximum number of frames to export."""
    every: int = 1
    """Use every N-th frame."""
    depth_format: Literal["png16", "npy", "exr"] | None = None
    """Format of depth; png16 holds whole millimetres. Default: as in the bag, npy for metres."""
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, kw_only=True)
class Bags:
    """Record, replay, inspect or export rosbags (MCAP, sqlite3); needs the package rosbags, but no ROS."""

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
