"""A robot's bag becomes a clip with depth and poses: image + depth + camera_info + tf (or a pose topic)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.bags import messages
from inspatio_sim.bags.files import Bag
from inspatio_sim.bags.messages import CAMERA_INFO, COMPRESSED, IMAGE, ODOMETRY, OLD_TF, POSE, POSE_COVARIANCE, TF
from inspatio_sim.bags.transforms import Times, TransformTree
from inspatio_sim.clips.framing import MAX_FPS, MIN_FPS, ClipRequest
from inspatio_sim.clips.rgbd_folder import MAX_POSITION_M, DepthFormat
from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, inverse
from inspatio_sim.progress import Progress

PoseAxes = Literal["body", "optical"]
PixelMap = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Columns and rows. [H, W] each"""

DEFAULT_FPS = 30.0  # for a single frame
MAX_TOLERANCE_S = 10.0
SAME_PLACE_M, SAME_PLACE_RAD = 0.002, 0.005  # cameras nearer than this see the same
_NO_COLOR = ("depth", "disparity", "infra", "/ir", "known", "mask", "confidence", "label", "segment")
_DISTORTIONS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}  # maximum number of coefficients


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which topics to use and how to match them; names that are None are guessed."""

    image: str | None = None  # Image or CompressedImage
    depth: str | None = None  # Image or CompressedImage (compressedDepth), registered to the image
    camera_info: str | None = None  # CameraInfo of the image
    pose: str | None = None  # Odometry, PoseStamped, PoseWithCovarianceStamped; None: tf, else the first Odometry
    pose_axes: PoseAxes = "body"  # axes of a pose topic without tf: x forward, or a camera's
    fixed_frame: str | None = None  # frame of the poses; None: odom, map, world or the root
    tolerance_s: float = 0.02  # maximum time between an image and its depth
    max_frames: int | None = None
    every: int = 1  # use every N-th frame

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_s <= MAX_TOLERANCE_S:  # NaN fails too
            raise InputError(f"tolerance_s={self.tolerance_s}: want 0 to {MAX_TOLERANCE_S:g} s")
        if self.pose_axes not in get_args(PoseAxes):
            raise InputError(f"pose_axes={self.pose_axes!r}: want one of {', '.join(get_args(PoseAxes))}")
        ClipRequest(max_frames=self.max_frames, every=self.every)  # checks both


@dataclass(frozen=True, kw_only=True)
class Export:
    """A clip and its origin."""

    clip: Clip
    topics: dict[str, str]  # topics used: image, depth, camera_info, pose
    fixed_frame: str
    camera_frame: str
    num_images: int  # in the bag
    num_lost: dict[str, int]  # why images were left out
    depth_format: DepthFormat  # format that keeps the recorded depth exactly
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Topics:
    """The topics of a clip."""

    image: str
    depth: str
    camera_info: str
    pose: str | None  # None: tf


def find_topics(bag: Bag, config: ExportConfig) -> Topics:
    """The requested topics, or the likeliest ones.

    Raises:
        InputError: a topic is missing; the message lists those in the bag.
    """
    image = _chosen(bag, "image", config.image, (IMAGE, COMPRESSED)) or _best(bag, "colour image", _color_rank)
    depth = _chosen(bag, "depth", config.depth, (IMAGE, COMPRESSED)) or _best(bag, "depth image", _depth_rank)
    info = _chosen(bag, "camera-info", config.camera_info, (CAMERA_INFO,)) or _info_of(bag, image)
    pose = _chosen(bag, "pose", config.pose, (ODOMETRY, POSE, POSE_COVARIANCE))
    if pose is None and not _tf_topics(bag):
        pose = next((name for name, topic in bag.topics.items() if topic.msgtype == ODOMETRY), None)
        pose = pose or next(
            (name for name, topic in bag.topics.items() if topic.msgtype in (POSE, POSE_COVARIANCE)), None
        )
        if pose is None:
            raise InputError(f"{bag.path}: no poses: want tf, Odometry or PoseStamped: {_there(bag)}")
    return Topics(image=image, depth=depth, camera_info=info, pose=pose)


def read_bag_clip(bag: Bag, config: ExportConfig | None = None, *, progress: Progress | None = None) -> Export:
    """Read a bag as a clip with depth and poses, which `reconstruct` turns into a Reference.

    Images and depth are paired by the time in their headers, the nearest within `tolerance_s`; poses come from the
    tf tree, interpolated. Distorted images are undistorted, and so is depth unless its topic is called rectified.

    Raises:
        InputError: a topic is missing, an encoding is unknown, depth is not registered, or nothing matches.
    """
    config = config or ExportConfig()
    topics = find_topics(bag, config)
    with_stamps = _Stamps.read(bag, topics, progress)
    info = _camera_info(bag, topics)
    tree, notes = _tree(bag, topics, config, with_stamps.image_frame)
    camera_frame = with_stamps.image_frame.lstrip("/")
    _check_registered(bag, tree, with_stamps, topics, config)

    image_idx, depth_idx = _paired(with_stamps.image_ns, with_stamps.depth_ns, config.tolerance_s)
    num_lost = {"no depth of that time": len(with_stamps.image_ns) - len(image_idx)}
    if not len(image_idx):
        gap_s = float(np.abs(with_stamps.image_ns[:, None] - with_stamps.depth_ns[None]).min()) * 1e-9
        raise InputError(
            f"{bag.path}: no image of {topics.image} has depth within {config.tolerance_s:g} s "
            f"(nearest: {gap_s:.3g} s): want a larger --tolerance-s"
        )
    times_ns = with_stamps.image_ns[image_idx]
    fixed = (config.fixed_frame or tree.fixed_frame(camera_frame)).lstrip("/")
    T_fixed_camera, is_known = tree.lookup(fixed, camera_frame, times_ns, config.tolerance_s)
    num_lost["no pose of that time"] = int((~is_known).sum())
    if not is_known.any():
        raise InputError(f"{bag.path}: no image has a pose: {camera_frame} in {fixed} is known at other times only")
    image_idx, depth_idx, times_ns = image_idx[is_known], depth_idx[is_known], times_ns[is_known]
    T_world_camera = inverse(messages.T_MAP_WORLD) @ T_fixed_camera[is_known]

    chosen = np.arange(0, len(image_idx), config.every)[: config.max_frames]
    lens = _Lens.of(info, topics)
    frames_u8, depth_m, is_millimetres = _pixels(
        bag, topics, lens, image_idx[chosen].tolist(), depth_idx[chosen].tolist(), progress
    )
    has_depth = depth_m.any(axis=(1, 2))
    num_lost["no known depth"] = int((~has_depth).sum())
    if not has_depth.any():
        raise InputError(f"{bag.path}: topic {topics.depth}: all depth is unknown")
    T_world_camera, times_ns = T_world_camera[chosen][has_depth], times_ns[chosen][has_depth]
    if np.abs(T_world_camera[:, :3, 3]).max() > MAX_POSITION_M:
        T_world_camera[:, :3, 3] -= T_world_camera[0, :3, 3].copy()
        notes.append("positions are relative to the first camera, since they were too far from the origin")
    clip = Clip(
        frames_u8=frames_u8 if has_depth.all() else frames_u8[has_depth],
        depth_m=depth_m if has_depth.all() else depth_m[has_depth],
        fps=_rate_hz(times_ns),
        source=str(bag.path),
        intrinsics=lens.intrinsics,
        T_world_camera=T_world_camera,
    )
    used = {"image": topics.image, "depth": topics.depth, "camera_info": topics.camera_info}
    return Export(
        clip=clip,
        topics={**used, "pose": topics.pose or "tf"},
        fixed_frame=fixed,
        camera_frame=camera_frame,
        num_images=len(with_stamps.image_ns),
        num_lost={why: number for why, number in num_lost.items() if number},
        depth_format="png16" if is_millimetres else "npy",
        notes=notes,
    )


# Topics


def _there(bag: Bag) -> str:
    return f"there are {', '.join(bag.topics)}" if bag.topics else "it is empty"


def _chosen(bag: Bag, option: str, name: str | None, msgtypes: tuple[str, ...]) -> str | None:
    if name is None:
        return None
    topic = bag.topics.get(name) or bag.topics.get(f"/{name}")
    if topic is None:
        raise InputError(f"{bag.path}: no topic {name} (--{option}): {_there(bag)}")
    if topic.msgtype not in msgtypes:
        raise InputError(f"{bag.path}: topic {name} is a {topic.msgtype}: want {' or '.join(msgtypes)}")
    return topic.name


def _best(bag: Bag, what: str, rank: Any) -> str:
    """The topic of the lowest rank that has messages."""
    ranked = [(rank(name, topic.msgtype), name) for name, topic in bag.topics.items() if topic.num_messages]
    ranked = sorted((place, name) for place, name in ranked if place is not None)
    if not ranked:
        raise InputError(f"{bag.path}: no {what} topic: {_there(bag)}")
    return ranked[0][1]


def _color_rank(name: str, msgtype: str) -> tuple[int, ...] | None:
    if msgtype not in (IMAGE, COMPRESSED) or any(word in name for word in _NO_COLOR):
        return None
    is_color = any(word in name for word in ("color", "rgb", "camera/image"))
    return (not is_color, not _is_rectified(name), msgtype == COMPRESSED)


def _depth_rank(name: str, msgtype: str) -> tuple[int, ...] | None:
    if "depth" not in name or "color" in name.rsplit("/", 1)[-1]:
        return None
    if msgtype != IMAGE and not (msgtype == COMPRESSED and name.endswith("compressedDepth")):
        return None
    is_registered = any(word in name for word in ("aligned", "registered"))
    return (not is_registered, not _is_rectified(name), msgtype == COMPRESSED)


def _is_rectified(name: str) -> bool:
    base = name.removesuffix("/compressed").removesuffix("/compressedDepth")
    return "rect" in base.rsplit("/", 1)[-1]


def _info_of(bag: Bag, image: str) -> str:
    """camera_info beside an image topic."""
    folder = image.removesuffix("/compressed").rsplit("/", 1)[0]
    name = f"{folder}/camera_info"
    if name in bag.topics and bag.topics[name].num_messages:
        return name
    raise InputError(f"{bag.path}: no topic {name} beside {image} (--camera-info): {_there(bag)}")


def _tf_topics(bag: Bag) -> list[str]:
    return [name for name, topic in bag.topics.items() if topic.msgtype in (TF, OLD_TF) and topic.num_messages]


# Times


@dataclass(frozen=True, kw_only=True)
class _Stamps:
    """Times, frames and sizes of images and depth."""

    image_ns: Times  # in recording order, as in `Bag.messages`
    depth_ns: Times
    image_frame: str
    depth_frame: str

    @classmethod
    def read(cls, bag: Bag, topics: Topics, progress: Progress | None) -> _Stamps:
        stamps: dict[str, list[int]] = {topics.image: [], topics.depth: []}
        frames: dict[str, str] = {}
        expected = sum(bag.topics[name].num_messages for name in stamps)
        for number, (name, _, message) in enumerate(bag.messages(*stamps)):
            stamps[name].append(messages.stamp_ns(message))
            frames.setdefault(name, message.header.frame_id)
            if progress:
                progress("reading times", (number + 1) / max(expected, 1))
        for name, found in stamps.items():
            if not found:
                raise InputError(f"{bag.path}: topic {name} has no messages")
        return cls(
            image_ns=np.array(stamps[topics.image]),
            depth_ns=np.array(stamps[topics.depth]),
            image_frame=frames[topics.image],
            depth_frame=frames[topics.depth],
        )


def _paired(image_ns: Times, depth_ns: Times, tolerance_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of images and of their depth, in order of time; each depth belongs to the image nearest to it."""
    order = np.argsort(depth_ns, kind="stable")
    sorted_ns = depth_ns[order]
    after = np.minimum(np.searchsorted(sorted_ns, image_ns), len(sorted_ns) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(image_ns - sorted_ns[before]) <= np.abs(sorted_ns[after] - image_ns)
    nearest = np.where(is_before, before, after)
    distance_ns = np.abs(sorted_ns[nearest] - image_ns)
    best: dict[int, int] = {}  # depth -> image
    for image_idx in np.flatnonzero(distance_ns <= tolerance_s * 1e9).tolist():
        depth_idx = int(nearest[image_idx])
        if depth_idx not in best or distance_ns[image_idx] < distance_ns[best[depth_idx]]:
            best[depth_idx] = image_idx
    images = np.array(sorted(best.values(), key=lambda idx: image_ns[idx]), dtype=np.int64)
    return images, order[nearest[images]] if len(images) else images


def _rate_hz(times_ns: Times) -> float:
    if len(times_ns) < 2:
        return DEFAULT_FPS
    return float(np.clip(1e9 / max(float(np.median(np.diff(times_ns))), 1.0), MIN_FPS, MAX_FPS))


# Poses


def _tree(bag: Bag, topics: Topics, config: ExportConfig, camera_frame: str) -> tuple[TransformTree, list[str]]:
    """All transforms of the bag, and those of a pose topic."""
    tree, notes = TransformTree(), []
    for name, _, message in bag.messages(*_tf_topics(bag)):
        is_static = name.rsplit("/", 1)[-1] == "tf_static"
        for item in message.transforms:
            tree.add(
                item.header.frame_id,
                item.child_frame_id,
                messages.placement(item.transform),
                messages.stamp_ns(item),
                is_static=is_static,
            )
    if topics.pose is None:
        return tree, notes
    child = None
    for _, _, message in bag.messages(topics.pose):
        if child is None:
            child = _posed_frame(tree, message, camera_frame, config.pose_axes, notes)
            if tree.has(child):
                raise InputError(f"{bag.path}: tf has {child} already: want tf or --pose {topics.pose}, not both")
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        tree.add(message.header.frame_id or "odom", child, messages.placement(pose), messages.stamp_ns(message))
    return tree, notes


def _posed_frame(tree: TransformTree, message: Any, camera_frame: str, axes: PoseAxes, notes: list[str]) -> str:
    """The frame of a pose topic: its own if tf leads from there to the camera, otherwise the camera itself."""
    child = getattr(message, "child_frame_id", "").lstrip("/")
    if child and child in tree.ancestors(camera_frame):
        return child
    notes.append(f"the pose topic is taken as the camera's own, in {axes} axes")
    if axes == "optical":
        return camera_frame
    link = f"{camera_frame} (body)"
    T = messages.T_LINK_OPTICAL
    quaternion = Rotation.from_matrix(T[:3, :3]).as_quat().tolist()
    tree.add(link, camera_frame, (0.0, 0.0, 0.0, *quaternion), 0, is_static=True)
    return link


def _check_registered(bag: Bag, tree: TransformTree, stamps: _Stamps, topics: Topics, config: ExportConfig) -> None:
    """Check that depth is registered to the colour image."""
    image_frame, depth_frame = stamps.image_frame.lstrip("/"), stamps.depth_frame.lstrip("/")
    if image_frame == depth_frame:
        return
    T = tree.between(image_frame, depth_frame, int(stamps.image_ns[0]), config.tolerance_s)
    if T is not None:
        turn_rad = np.linalg.norm(Rotation.from_matrix(T[:3, :3]).as_rotvec())
        if np.linalg.norm(T[:3, 3]) <= SAME_PLACE_M and turn_rad <= SAME_PLACE_RAD:
            return
    raise InputError(
        f"{bag.path}: depth {topics.depth} is in frame {depth_frame}, the image in {image_frame}: want depth "
        "registered to the image (a topic such as aligned_depth_to_color or depth_registered; --depth)"
    )


# Pixels


def _camera_info(bag: Bag, topics: Topics) -> Any:
    info = next((message for _, _, message in bag.messages(topics.camera_info)), None)
    if info is None:
        raise InputError(f"{bag.path}: topic {topics.camera_info} has no messages")
    return info


@dataclass(frozen=True, kw_only=True)
class _Lens:
    """The maps that undistort images, and K of the result."""

    intrinsics: Intrinsics
    size_px: tuple[int, int]  # (height, width)
    color_xy: PixelMap | None = None  # source of each pixel in the recorded image
    depth_xy: PixelMap | None = None

    @classmethod
    def of(cls, info: Any, topics: Topics) -> _Lens:
        name = f"topic {topics.camera_info}"
        D, K, R, P = (np.asarray(_either(info, key), np.float64) for key in "dkrp")  # capitals in ROS 1
        K, R, P = K.reshape(3, 3), R.reshape(3, 3), P.reshape(3, 4)
        if info.binning_x > 1 or info.binning_y > 1 or info.roi.width not in (0, info.width):
            raise InputError(f"{name}: binning or a region of interest: want K of the images as they are")
        K_straight = P[:, :3] if P[0, 0] > 0 else K
        is_color_straight, is_depth_straight = (_is_rectified(topic) for topic in (topics.image, topics.depth))
        is_distorted = bool(np.any(np.abs(D) > 1e-9))
        K_seen = K_straight if is_color_straight or is_distorted else K
        if not is_color_straight and not is_distorted and is_depth_straight and not np.allclose(K_straight, K):
            is_distorted = True  # rectification that changes K alone
            K_seen = K_straight
        try:
            intrinsics = Intrinsics.from_matrix(K_seen, info.width, info.height)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        size_px = (info.height, info.width)
        if is_color_straight or not is_distorted:
            return cls(intrinsics=intrinsics, size_px=size_px)
        model = info.distortion_model or "plumb_bob"
        if model not in _DISTORTIONS or len(D) > _DISTORTIONS[model] or len(D) < 4:
            known = ", ".join(_DISTORTIONS)
            raise InputError(
                f"{name}: distortion {model!r} with {len(D)} coefficients: want {known}, or rectified images"
            )
        rectify = cv2.fisheye.initUndistortRectifyMap if model == "equidistant" else cv2.initUndistortRectifyMap
        R_straight = R if is_depth_straight and abs(np.linalg.det(R) - 1) < 1e-3 else np.eye(3)
        x_px, y_px = rectify(K, D, R_straight, K_seen, (info.width, info.height), cv2.CV_32FC1)
        color_xy = x_px.astype(np.float32), y_px.astype(np.float32)
        return cls(
            intrinsics=intrinsics,
            size_px=size_px,
            color_xy=color_xy,
            depth_xy=None if is_depth_straight else color_xy,
        )

    def color(self, rgb_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.color_xy is None:
            return rgb_u8
        return cv2.remap(rgb_u8, *self.color_xy, cv2.INTER_LINEAR).astype(np.uint8, copy=False)

    def depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Nearest sample, so that near and far do not mix."""
        if self.depth_xy is None:
            return depth_m
        return cv2.remap(depth_m, *self.depth_xy, cv2.INTER_NEAREST).astype(np.float32, copy=False)


def _either(info: Any, key: str) -> Any:
    return getattr(info, key) if hasattr(info, key) else getattr(info, key.upper())


def _pixels(
    bag: Bag, topics: Topics, lens: _Lens, image_idx: list[int], depth_idx: list[int], progress: Progress | None
) -> tuple[NDArray[np.uint8], NDArray[np.float32], bool]:
    """Colour [T, H, W, 3], depth [T, H, W] of the chosen messages, and whether depth was in millimetres."""
    shape = (len(image_idx), *lens.size_px)
    ClipRequest().check_memory(np.prod(shape) * 7.0, str(bag.path))  # 3 bytes of colour and 4 of depth
    frames_u8, depths_m = np.empty((*shape, 3), np.uint8), np.empty(shape, np.float32)
    place = {topics.image: _places(image_idx), topics.depth: _places(depth_idx)}
    is_millimetres = False
    num_done = 0
    for name, number, message in _numbered(bag, topics.image, topics.depth):
        slot = place[name].get(number)
        if slot is None:
            continue
        try:
            if name == topics.image:
                _check_size(picture := messages.color_array(message), lens)
                frames_u8[slot] = lens.color(picture)
            else:
                _check_size(depth_m := messages.depth_array(message), lens)
                depths_m[slot] = lens.depth(depth_m)
                is_millimetres = messages.is_millimetres(message)
        except InputError as error:
            raise InputError(f"{bag.path}: topic {name}, message {number + 1}: {error}") from error
        num_done += 1
        if progress:
            progress("reading frames", num_done / (2 * len(image_idx)))
    return frames_u8, depths_m, is_millimetres


def _places(idxs: list[int]) -> dict[int, int]:
    return {idx: slot for slot, idx in enumerate(idxs)}


def _numbered(bag: Bag, *names: str) -> Iterator[tuple[str, int, Any]]:
    """Messages with their number in their topic."""
    counts = dict.fromkeys(names, 0)
    for name, _, message in bag.messages(*names):
        yield name, counts[name], message
        counts[name] += 1


def _check_size(picture: NDArray[Any], lens: _Lens) -> None:
    if picture.shape[:2] != lens.size_px:
        came, want = picture.shape[1::-1], lens.size_px[::-1]
        raise InputError(f"{came[0]}x{came[1]} px: want {want[0]}x{want[1]} as camera_info says")
