"""The demo room and clip, and the random rooms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics, inverse
from inspatio_sim.scenes.demo import (
    HORIZONTAL_FOV_RAD,
    camera_path,
    demo_clip,
    truth,
    write_demo_clip,
    write_demo_video,
)
from inspatio_sim.scenes.demo_room import demo_room
from inspatio_sim.scenes.primitives import Plane
from inspatio_sim.scenes.raycast import Views, render
from inspatio_sim.scenes.rooms import CLEARANCE_M, random_room

SMALL_PX = (24, 40)


@pytest.mark.parametrize("camera", ["static", "moving", "turn"])
def test_clip_starts_at_the_world_origin_in_free_space(camera):
    clip = demo_clip(num_frames=6, size_px=SMALL_PX, camera=camera)
    assert clip.T_world_camera is not None
    assert clip.depth_m is not None
    np.testing.assert_allclose(clip.T_world_camera[0], np.eye(4), atol=1e-12)
    assert clip.frames_u8.shape == (6, *SMALL_PX, 3)
    assert clip.frames_u8.dtype == np.uint8
    assert clip.depth_m.dtype == np.float32
    assert clip.depth_m.min() > 0.3  # a closed room: something everywhere, nothing in the face
    positions = torch.tensor(clip.T_world_camera[:, :3, 3], dtype=torch.float32)
    assert demo_room().distance(positions).min() > 0.3


def test_moving_camera_walks_and_turns():
    poses = camera_path("moving", 48)
    steps_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert steps_m.sum() > 0.8
    assert steps_m.max() < 0.06
    assert poses[-1, 0, 2] < -0.2  # looks to the left in the end


def test_turn_looks_everywhere():
    poses = camera_path("turn", 8)
    np.testing.assert_allclose(poses[:, :3, 2].sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(poses[2, :3, 2], [1, 0, 0], atol=1e-12)  # to the right first


def test_the_ball_moves_and_touches_nothing():
    room = demo_room()
    (place,) = (i for i, solid in enumerate(room.solids) if getattr(solid, "motion", None) is not None)
    ball = room.solids[place]
    assert not isinstance(ball, Plane)
    assert ball.motion is not None
    times = torch.linspace(0, 4, 40)
    centers = torch.tensor(ball.center_m) + ball.motion.offset_m(times)
    assert room.distance(centers, include_moving=False).min() >= 0.25 - 1e-5
    clip_views = truth(camera_path("static", 2), [0.0, 2.0], Intrinsics.from_fov(HORIZONTAL_FOV_RAD, 80, 48))
    seen = [clip_views.object_id[i] == place for i in range(2)]
    assert seen[0].sum() > 20
    assert seen[1].sum() > 20
    assert not torch.equal(seen[0], seen[1])


def test_truth_is_what_the_clip_shows():
    clip = demo_clip(num_frames=4, size_px=SMALL_PX)
    assert clip.intrinsics is not None
    assert clip.T_world_camera is not None
    views = truth(clip.T_world_camera[2:3], [2 / clip.fps], clip.intrinsics)
    np.testing.assert_array_equal(views.depth_m[0].numpy(), clip.depth_m[2])  # type: ignore[index]
    assert np.abs(views.rgb_u8[0].numpy().astype(int) - clip.frames_u8[2]).max() <= 1


def test_points_before_a_surface_are_free_and_behind_it_solid():
    poses = camera_path("turn", 4)
    intrinsics = Intrinsics.from_fov(HORIZONTAL_FOV_RAD, 40, 24)
    room = demo_room()
    views = render(room, intrinsics, poses, [1.0] * 4)
    for T, depth_m in zip(poses, views.depth_m, strict=True):
        before, behind = (_lift(depth_m + step_m, intrinsics, T) for step_m in (-0.003, 0.003))
        assert not room.is_solid(before, 1.0).any()
        assert room.is_solid(behind, 1.0).float().mean() > 0.99  # but for rays that graze an edge


def test_moving_solids_can_be_left_out():
    room = demo_room()
    (ball,) = (solid for solid in room.solids if getattr(solid, "motion", None) is not None)
    assert not isinstance(ball, Plane)
    center = torch.tensor([ball.center_m])
    assert room.is_solid(center).item()
    assert not room.is_solid(center, include_moving=False).item()
    assert not room.is_solid(center, time_s=2.0).item()


@pytest.mark.parametrize("last", [24, 47])
def test_exact_views_agree_when_warped(last: int):
    intrinsics = Intrinsics.from_fov(HORIZONTAL_FOV_RAD, 160, 96)
    poses = camera_path("moving", 48)[[0, last]]
    views = truth(poses, [0.0, 0.0], intrinsics, supersample=1)
    warped, is_comparable = _first_seen_from_second(views, intrinsics, poses)
    error = (warped - views.rgb_u8[1].float())[is_comparable]
    assert is_comparable.float().mean() > 0.4
    assert 10 * torch.log10(255**2 / error.square().mean()) > 38


def test_clip_goes_through_a_folder_and_a_video(tmp_path):
    clip = demo_clip(num_frames=3, size_px=SMALL_PX)
    folder = write_demo_clip(tmp_path / "clip", num_frames=3, size_px=SMALL_PX)
    back = read_clip(folder)
    assert back.depth_m is not None
    assert clip.depth_m is not None
    assert back.T_world_camera is not None
    assert clip.T_world_camera is not None
    np.testing.assert_array_equal(back.frames_u8, clip.frames_u8)
    np.testing.assert_allclose(back.depth_m, clip.depth_m, atol=6e-4)  # 16-bit millimetres
    np.testing.assert_allclose(back.T_world_camera, clip.T_world_camera, atol=1e-9)
    video = read_clip(write_demo_video(tmp_path / "clip.mp4", num_frames=3, size_px=SMALL_PX))
    assert video.frames_u8.shape == clip.frames_u8.shape
    assert np.abs(video.frames_u8.astype(int) - clip.frames_u8).mean() < 12


@pytest.mark.parametrize("layout", ["room", "corridor", "open"])
def test_random_rooms_leave_the_start_free(layout):
    for index in range(8):
        scene = random_room(1, index, layout=layout)
        for time_s in (0.0, 0.7, 1.9):
            assert scene.distance(torch.zeros(1, 3), time_s).item() > 0.3
        static = scene.distance(torch.tensor([[CLEARANCE_M * 0.9, 0.2, 0.0]]), include_moving=False)
        assert static.item() > 0 or layout != "open"
        assert any(getattr(solid, "motion", None) is not None for solid in scene.solids) or layout == "corridor"


def test_random_rooms_follow_seed_and_index():
    assert random_room(2, 7) == random_room(2, 7)
    assert random_room(2, 7) != random_room(2, 8)
    assert random_room(2, 7) != random_room(3, 7)
    with pytest.raises(InputError, match="seed=-1"):
        random_room(-1)
    with pytest.raises(InputError, match="cave"):
        random_room(0, layout="cave")  # type: ignore[arg-type]


def test_bad_clip_arguments_are_named():
    with pytest.raises(InputError, match="num_frames=0"):
        demo_clip(num_frames=0)
    with pytest.raises(InputError, match="fps"):
        demo_clip(fps=0)
    with pytest.raises(InputError, match="camera='orbit'"):
        demo_clip(camera="orbit")  # type: ignore[arg-type]


def _lift(depth_m: Tensor, intrinsics: Intrinsics, T_world_camera: Array) -> Tensor:
    """World points of a depth image. [H, W] -> [H * W, 3]"""
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in depth_m.shape), indexing="ij")
    ray = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.tensor(np.linalg.inv(intrinsics.K_px)).T
    points = ray * depth_m[..., None]
    T = torch.tensor(T_world_camera)
    return (points @ T[:3, :3].T + T[:3, 3]).reshape(-1, 3).float()


def _first_seen_from_second(views: Views, intrinsics: Intrinsics, poses: Array) -> tuple[Tensor, Tensor]:
    """The first image looked up at the second's pixels, and where both see one surface away from silhouettes."""
    height, width = views.depth_m.shape[1:]
    points = _lift(views.depth_m[1], intrinsics, inverse(poses[0]) @ poses[1]).view(height, width, 3)
    K = torch.tensor(intrinsics.K_px, dtype=torch.float32)
    pixels = points @ K.T
    u, v = pixels[..., 0] / pixels[..., 2], pixels[..., 1] / pixels[..., 2]
    grid = torch.stack([u / (width - 1) * 2 - 1, v / (height - 1) * 2 - 1], dim=-1)[None]

    def looked_up(image: Tensor, mode: str = "bilinear") -> Tensor:
        return F.grid_sample(image[None], grid, mode=mode, align_corners=True)[0]

    def near_silhouette(i: int) -> Tensor:
        """Pixels with another solid or face in their 3 x 3 neighbourhood. [1, H, W]"""
        marks = torch.cat([views.object_id[i].float()[..., None], views.normal[i]], dim=-1).permute(2, 0, 1)
        spread = F.max_pool2d(marks, 3, 1, 1) + F.max_pool2d(-marks, 3, 1, 1)
        return (spread.amax(dim=0, keepdim=True) > 0.5).float()

    inside = (u > 1) & (u < width - 2) & (v > 1) & (v < height - 2)
    seen_depth = looked_up(views.depth_m[0][None], "nearest")[0]
    is_visible = inside & ((seen_depth - points[..., 2]).abs() < 0.03 * seen_depth)
    is_clear = (looked_up(near_silhouette(0))[0] == 0) & (near_silhouette(1)[0] == 0)
    warped = looked_up(views.rgb_u8[0].permute(2, 0, 1).float()).permute(1, 2, 0)
    return warped, is_visible & is_clear
