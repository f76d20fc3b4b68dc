import re
from dataclasses import replace

import numpy as np
import pytest

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.reconstruction.rgbd import RgbdReconstructor

T, H, W = 3, 8, 10


def make_clip(**changes) -> Clip:
    clip = Clip(
        frames_u8=np.zeros((T, H, W, 3), np.uint8),
        fps=10.0,
        source="desk",
        depth_m=np.linspace(0, 5, T * H * W, dtype=np.float32).reshape(T, H, W),
        intrinsics=Intrinsics.from_fov(1.0, W, H),
        T_world_camera=np.stack([pose_from(t_m=[i, 2, 3]) for i in range(T)]),
    )
    return replace(clip, **changes)


def test_geometry_is_used_as_it_came():
    clip = make_clip()
    result = RgbdReconstructor().reconstruct(clip)
    assert result.is_metric
    assert np.array_equal(result.depth_units, clip.depth_m)
    assert np.array_equal(result.T_world_camera, clip.T_world_camera)  # the user's world stays the user's world
    assert result.quality["known_share"] == pytest.approx(1 - 1 / (T * H * W))


def test_a_single_image_needs_no_pose():
    clip = make_clip(
        frames_u8=np.zeros((1, H, W, 3), np.uint8), depth_m=np.ones((1, H, W), np.float32), T_world_camera=None
    )
    assert np.array_equal(RgbdReconstructor().reconstruct(clip).T_world_camera, np.eye(4)[None])


def depth_with(value):
    depth_m = np.ones((T, H, W), np.float32)
    depth_m[1, 2, 3] = value
    return depth_m


def poses_with(row, column, value):
    poses = np.stack([np.eye(4)] * T)
    poses[1, row, column] = value
    return poses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth_m": None}, "desk: depth missing"),
        ({"intrinsics": None}, "desk: intrinsics (K) missing"),
        ({"T_world_camera": None}, "desk: poses missing: 3 frames want a pose each"),
        ({"depth_m": depth_with(np.nan)}, "depth of frame 1 at x=3, y=2 is nan"),
        ({"depth_m": depth_with(np.inf)}, "depth of frame 1 at x=3, y=2 is inf"),
        ({"depth_m": depth_with(-1)}, "depth of frame 1 at x=3, y=2 is -1.0"),
        ({"depth_m": np.zeros((T, H, W), np.float32)}, "first frame's depth is all zero"),
        ({"T_world_camera": poses_with(0, 3, np.nan)}, "desk: pose[1] has NaN"),
        ({"T_world_camera": poses_with(0, 0, -1)}, "desk: pose[1] is left-handed"),
        ({"T_world_camera": poses_with(0, 0, 2)}, "desk: pose[1] is no rigid motion"),
    ],
)
def test_bad_geometry_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        RgbdReconstructor().reconstruct(make_clip(**changes))


def test_depth_of_another_size_is_refused():
    with pytest.raises(InputError, match="depth"):
        RgbdReconstructor().reconstruct(make_clip(depth_m=np.ones((T, H, W + 1), np.float32)))
