"""The ray caster against closed-form answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, inverse, pose_from
from inspatio_sim.scenes.flow import forward_flow
from inspatio_sim.scenes.motion import BackAndForth, Circular, Linear
from inspatio_sim.scenes.primitives import Box, Cylinder, Material, Plane, Solid, Sphere
from inspatio_sim.scenes.raycast import Views, render
from inspatio_sim.scenes.rooms import random_room
from inspatio_sim.scenes.scene import Light, Scene
from inspatio_sim.scenes.textures import Texture

MATERIAL = Material(texture=Texture(pattern="checker"))
CAMERA = Intrinsics(fx_px=50, fy_px=40, cx_px=20, cy_px=15, width_px=41, height_px=31)  # middle pixel on the axis
LEVEL = np.eye(4)[None]


def scene_of(*solids: Solid) -> Scene:
    return Scene(solids=solids, lights=(), low_m=(-5, -5, -5), high_m=(5, 5, 5), ambient=(1, 1, 1))


def rays() -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of each pixel's ray at z = 1. [H, W], [H, W]"""
    y, x = torch.meshgrid(torch.arange(31.0), torch.arange(41.0), indexing="ij")
    return (x - 20) / 50, (y - 15) / 40


def look(scene: Scene, T: np.ndarray = LEVEL, time_s: float = 0.0, supersample: int = 1) -> Views:
    return render(scene, CAMERA, T, np.full(len(T), time_s), supersample=supersample)


def test_slanted_wall_has_the_depth_of_the_plane_equation():
    angle = 0.4
    views = look(scene_of(Plane(point_m=(0, 0, 3), normal=(math.sin(angle), 0, -math.cos(angle)), material=MATERIAL)))
    x, _ = rays()
    # n . (t d) = n . p with d = (x, y, 1)
    expected = 3 * math.cos(angle) / (math.cos(angle) - math.sin(angle) * x)
    torch.testing.assert_close(views.depth_m[0], expected, rtol=1e-5, atol=0)
    assert (views.object_id == 0).all()


def test_a_plane_is_seen_from_its_free_side_only():
    views = look(scene_of(Plane(point_m=(0, 0, 3), normal=(0, 0, 1), material=MATERIAL)))
    assert (views.object_id == -1).all()
    assert (views.depth_m == 0).all()


def test_sphere_has_its_silhouette_and_depth():
    radius, distance = 0.8, 3.0
    views = look(scene_of(Sphere(center_m=(0, 0, distance), radius_m=radius, material=MATERIAL)))
    x, y = rays()
    tangent_2 = radius**2 / (distance**2 - radius**2)  # squared tangent of the silhouette's angle to the axis
    inside = x**2 + y**2 < tangent_2
    assert torch.equal(views.object_id[0] == 0, inside)
    a = 1 + x**2 + y**2
    depth = (distance - torch.sqrt(distance**2 - a * (distance**2 - radius**2))) / a
    torch.testing.assert_close(views.depth_m[0][inside], depth[inside], rtol=1e-4, atol=0)
    assert views.depth_m[0, 15, 20] == pytest.approx(distance - radius, rel=1e-5)


def test_box_shows_its_near_face_and_the_normal_points_at_the_camera():
    views = look(scene_of(Box(center_m=(0, 0, 3), size_m=(1, 0.6, 2), material=MATERIAL)))
    x, y = rays()
    face = (x.abs() * 2 < 0.5) & (y.abs() * 2 < 0.3)
    assert torch.equal(views.object_id[0] == 0, face)
    torch.testing.assert_close(views.depth_m[0][face], torch.full_like(x[face], 2.0))
    torch.testing.assert_close(views.normal[0][face], torch.tensor([0.0, 0, -1]).expand(int(face.sum()), 3))


def test_yaw_turns_z_towards_x():
    box = Box(center_m=(0, 0, 3), size_m=(0.1, 1, 1.8), yaw_rad=0.6, material=MATERIAL)
    far_end = torch.tensor([[0.8 * math.sin(0.6), 0.0, 3 + 0.8 * math.cos(0.6)]])
    scene = scene_of(box)
    assert scene.is_solid(far_end).item()
    assert not scene.is_solid(far_end * torch.tensor([-1.0, 1, 1])).item()
    views = look(scene)
    hit = views.object_id[0] == 0
    x, y = rays()
    points = torch.stack([x * views.depth_m[0], y * views.depth_m[0], views.depth_m[0]], dim=-1)[hit]
    assert scene.distance(points).abs().max() < 1e-5


def test_cylinder_shows_its_side_and_its_lid():
    cylinder = Cylinder(center_m=(0, 1.0, 3), radius_m=0.5, height_m=1.0, material=MATERIAL)
    views = look(scene_of(cylinder))  # from above the lid, which is at y = 0.5
    side, lid = views.normal[0, 25, 20], views.normal[0, 22, 20]  # rays at y = 10/40 and 7/40
    torch.testing.assert_close(side, torch.tensor([0.0, 0, -1]))
    assert views.depth_m[0, 25, 20] == pytest.approx(2.5, rel=1e-5)
    torch.testing.assert_close(lid, torch.tensor([0.0, -1, 0]))
    assert views.depth_m[0, 22, 20] == pytest.approx(0.5 / (7 / 40), rel=1e-5)


def test_looking_straight_down_onto_a_cylinder():
    down = pose_from(R=Rotation.from_euler("x", -90, degrees=True).as_matrix())  # z forward becomes y down
    cylinder = Cylinder(center_m=(0, 2, 0), radius_m=0.3, height_m=1.0, material=MATERIAL)
    assert look(scene_of(cylinder), down[None]).depth_m[0, 15, 20] == pytest.approx(1.5, rel=1e-5)


def test_the_nearest_solid_wins_whatever_its_place():
    near = Sphere(center_m=(0, 0, 2), radius_m=0.3, material=MATERIAL)
    far = Box(center_m=(0, 0, 5), size_m=(4, 4, 1), material=MATERIAL)
    assert look(scene_of(near, far)).object_id[0, 15, 20] == 0
    assert look(scene_of(far, near)).object_id[0, 15, 20] == 1


@pytest.mark.parametrize(
    ("motion", "time_s", "offset"),
    [
        (Linear(velocity_mps=(0.5, 0.0, 0.0)), 2.0, (1.0, 0.0, 0.0)),
        (BackAndForth(reach_m=(0.0, -0.4, 0.2), period_s=4.0), 2.0, (0.0, -0.4, 0.2)),
        (BackAndForth(reach_m=(0.0, -0.4, 0.2), period_s=4.0), 4.0, (0.0, 0.0, 0.0)),
        (Circular(radius_m=0.5, period_s=4.0), 1.0, (-0.5, 0.0, 0.5)),
    ],
)
def test_moving_solids_are_where_their_motion_says(motion, time_s, offset):
    moving = scene_of(Sphere(center_m=(0, 0, 3), radius_m=0.4, material=MATERIAL, motion=motion))
    center = (offset[0], offset[1], 3 + offset[2])
    still = scene_of(Sphere(center_m=center, radius_m=0.4, material=MATERIAL))
    torch.testing.assert_close(look(moving, time_s=time_s).depth_m, look(still).depth_m, rtol=1e-5, atol=1e-5)
    assert moving.is_solid(torch.tensor([center]), time_s).item()


def test_shadows_fall_away_from_the_lamp():
    floor = Plane(point_m=(0, 1, 0), normal=(0, -1, 0), material=MATERIAL)
    ball = Sphere(center_m=(0, 0, 4), radius_m=0.3, material=MATERIAL)
    lamps = [Light(position_m=(0, -2, 4), casts_shadows=shadows) for shadows in (True, False)]
    scenes = [Scene(solids=(floor, ball), lights=(lamp,), low_m=(-5, -5, -5), high_m=(5, 5, 5)) for lamp in lamps]
    dark, bright = (look(scene).rgb_u8[0].int() for scene in scenes)
    x, y = rays()
    depth = 1 / y.clamp(min=1e-6)  # of the floor
    to_axis = torch.hypot(x * depth, depth - 4)  # from the point under the lamp
    shadow_radius = 3 * math.tan(math.asin(0.3 / 2))  # the cone around the ball, three metres below the lamp
    on_floor = look(scenes[0]).object_id[0] == 0
    is_darker = (dark < bright).all(dim=-1)
    assert torch.equal(is_darker & on_floor, (to_axis < shadow_radius) & on_floor)
    assert is_darker.any()


def test_views_from_two_poses_tell_the_same_geometry():
    scene = random_room(5, layout="room")
    other = pose_from(R=Rotation.from_euler("yx", [8, 3], degrees=True).as_matrix(), t_m=[0.2, -0.1, 0.1])
    views = render(scene, CAMERA, np.stack([np.eye(4), other]), [0, 0])
    x, y = rays()
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1) * views.depth_m[0][..., None]
    assert scene.distance(points.reshape(-1, 3)).abs().max() < 1e-4
    T = torch.tensor(inverse(other), dtype=torch.float32)
    moved = points @ T[:3, :3].T + T[:3, 3]
    u = (moved[..., 0] / moved[..., 2] * 50 + 20).round().long()
    v = (moved[..., 1] / moved[..., 2] * 40 + 15).round().long()
    inside = (u >= 0) & (u < 41) & (v >= 0) & (v < 31)
    # Nothing in the other view may stand behind a point that the first view sees, but for the rounding.
    behind = views.depth_m[1][v[inside], u[inside]] - moved[..., 2][inside]
    same_solid = views.object_id[1][v[inside], u[inside]] == views.object_id[0][inside]
    assert (behind.abs() < 0.15)[same_solid].float().mean() > 0.97
    assert same_solid.float().mean() > 0.8


def test_a_batch_equals_its_views_alone():
    scene = random_room(3, layout="room")
    T = np.stack([pose_from(R=Rotation.from_euler("y", angle).as_matrix()) for angle in (0, 0.7, 2.0, 3.5)])
    times = [0.0, 0.5, 1.0, 1.5]
    batch = render(scene, CAMERA, T, times)
    for i in range(len(T)):
        alone = render(scene, CAMERA, T[i : i + 1], times[i : i + 1])
        assert torch.equal(batch.object_id[i], alone.object_id[0])
        torch.testing.assert_close(batch.depth_m[i], alone.depth_m[0], rtol=1e-6, atol=0)
        assert (batch.rgb_u8[i].int() - alone.rgb_u8[0].int()).abs().max() <= 1


def test_the_same_call_gives_the_same_bytes():
    first, second = (look(random_room(11), supersample=2) for _ in range(2))
    assert torch.equal(first.rgb_u8, second.rgb_u8)
    assert torch.equal(first.depth_m, second.depth_m)


def test_supersampling_smooths_colour_and_leaves_geometry():
    scene = scene_of(Sphere(center_m=(0, 0, 3), radius_m=0.8, material=MATERIAL))
    plain, smooth = look(scene), look(scene, supersample=3)
    assert torch.equal(plain.depth_m, smooth.depth_m)
    assert torch.equal(plain.object_id, smooth.object_id)
    background = plain.rgb_u8[0, 0, 0]
    row_plain, row_smooth = (views.rgb_u8[0, 15] for views in (plain, smooth))
    mixed = (plain.object_id[0, 15] == -1) & (row_smooth != background).any(dim=-1)
    assert mixed.any()  # a pixel beside the silhouette holds some of the ball
    assert (row_plain[plain.object_id[0, 15] == -1] == background).all()


def test_flow_follows_camera_and_solids():
    wall = Plane(point_m=(0, 0, 4), normal=(0, 0, -1), material=MATERIAL)
    motion = Linear(velocity_mps=(0.0, 1.0, 0.0))
    ball = Sphere(center_m=(0, 0, 2.5), radius_m=0.5, material=MATERIAL, motion=motion)
    scene = scene_of(wall, ball)
    T = np.stack([np.eye(4), pose_from(t_m=[0.1, 0, 0])])
    views = render(scene, CAMERA, T, [0.0, 0.1])
    flow_px = forward_flow(scene, views, CAMERA, T, [0.0, 0.1])
    assert flow_px.shape == (1, 31, 41, 2)
    torch.testing.assert_close(flow_px[0, 0, 0], torch.tensor([-0.1 * 50 / 4, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(flow_px[0, 15, 20], torch.tensor([-0.1 * 50 / 2, 0.1 * 40 / 2]), atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_sees_what_the_cpu_sees():
    scene = random_room(4, layout="room")
    cpu, gpu = (render(scene, CAMERA, LEVEL, [0.5], device=device) for device in ("cpu", "cuda"))
    assert gpu.rgb_u8.device.type == "cuda"
    assert (cpu.object_id != gpu.object_id.cpu()).float().mean() < 1e-3
    assert ((cpu.rgb_u8.int() - gpu.rgb_u8.cpu().int()).abs() > 2).float().mean() < 5e-3


def test_bad_arguments_are_named():
    scene = scene_of(Sphere(center_m=(0, 0, 3), radius_m=0.8, material=MATERIAL))
    with pytest.raises(InputError, match="time_s"):
        render(scene, CAMERA, LEVEL, [0.0, 1.0])
    with pytest.raises(InputError, match="time_s"):
        render(scene, CAMERA, LEVEL, [math.nan])
    with pytest.raises(InputError, match="T_world_camera"):
        render(scene, CAMERA, np.full((1, 4, 4), np.nan), [0.0])
    with pytest.raises(InputError, match="supersample=0"):
        look(scene, supersample=0)
    with pytest.raises(InputError, match="radius_m"):
        Sphere(center_m=(0, 0, 0), radius_m=-1, material=MATERIAL)
    with pytest.raises(InputError, match="zebra"):
        Texture(pattern="zebra")
