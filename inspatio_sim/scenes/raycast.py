"""The ray caster: a scene seen by a batch of pinhole cameras, exactly.

Directions are scaled to have z = 1 in the camera, so the ray parameter of a hit is its z-depth.
Shading is Lambertian: a surface looks the same from everywhere, so that views can be compared by warping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics, check_poses
from inspatio_sim.scenes.mipmap import sample, texel_table
from inspatio_sim.scenes.scene import Light, Scene
from inspatio_sim.scenes.solids import Kind, Planes, pack

RAYS_PER_CHUNK_CPU = 1 << 13  # intermediate results stay in the processor's cache
RAYS_PER_CHUNK_GPU = 1 << 21
PIXELS_PER_TEXEL = 1.25  # more blurs, less lets texture finer than a pixel through
MIN_SLANT = 0.1  # cosine of viewing below which textures are not blurred further
SHADOW_MARGIN = 2e-3  # share of the way to the light within which a surface does not shade itself


@dataclass(frozen=True, kw_only=True)
class Views:
    """Images of F cameras of H x W pixels, on the device they were made on."""

    rgb_u8: Tensor  # [F, H, W, 3]
    depth_m: Tensor  # z-depth, 0 = nothing there. float32 [F, H, W]
    object_id: Tensor  # place in `scene.solids`, -1 = nothing there. int16 [F, H, W]
    normal: Tensor  # unit, in world axes, 0 = nothing there. float32 [F, H, W, 3]


@dataclass(frozen=True, kw_only=True)
class _Hits:
    """What the rays of a chunk met first. F frames, N rays each."""

    direction: Tensor  # of the rays, z = 1 in the camera. [F, 3, N]
    depth: Tensor  # the scene's far_m where there is nothing. [F, N]
    point: Tensor  # in the world. [F, 3, N]
    object_id: Tensor  # -1 = nothing. [F, N]


def render(
    scene: Scene,
    intrinsics: Intrinsics,
    T_world_camera: ArrayLike,
    time_s: ArrayLike,
    *,
    supersample: int = 1,
    device: str | torch.device = "cpu",
) -> Views:
    """Look at the scene from F cameras, each at its own time.

    Args:
        scene: what is there.
        intrinsics: shared by all cameras.
        T_world_camera: camera poses. [F, 4, 4]
        time_s: when each camera looks; moves the moving solids. [F]
        supersample: colour is the mean of this many rays squared a pixel; depth, id and normal are always
            those of the pixel's centre.
        device: where to work and where the result stays.

    Raises:
        InputError: for poses that are no poses, or another number of times.
    """
    poses, times = checked_views(T_world_camera, time_s)
    if supersample < 1:
        raise InputError(f"supersample={supersample}: want 1 or more rays a pixel side")
    tracer = Tracer(scene, intrinsics, poses, times, supersample, torch.device(device))
    height, width = intrinsics.height_px, intrinsics.width_px
    views = Views(
        rgb_u8=torch.empty(len(poses), height, width, 3, dtype=torch.uint8, device=device),
        depth_m=torch.empty(len(poses), height, width, device=device),
        object_id=torch.empty(len(poses), height, width, dtype=torch.int16, device=device),
        normal=torch.empty(len(poses), height, width, 3, device=device),
    )
    rays_per_chunk = RAYS_PER_CHUNK_GPU if torch.device(device).type == "cuda" else RAYS_PER_CHUNK_CPU
    rows_step = max(1, min(height, rays_per_chunk // width))
    frames_step = max(1, rays_per_chunk // (rows_step * width))
    for first in range(0, len(poses), frames_step):
        frames = slice(first, min(first + frames_step, len(poses)))
        for top in range(0, height, rows_step):
            rows = slice(top, min(top + rows_step, height))
            chunk = tracer.views(frames, rows)
            for name in ("rgb_u8", "depth_m", "object_id", "normal"):
                getattr(views, name)[frames, rows] = getattr(chunk, name)
    return views


def checked_views(T_world_camera: ArrayLike, time_s: ArrayLike) -> tuple[Array, Array]:
    """Poses [F, 4, 4] and times [F] as arrays.

    Raises:
        InputError: for poses that are no poses, or another number of times.
    """
    poses, times = check_poses(T_world_camera, "T_world_camera"), np.asarray(time_s, dtype=np.float64)
    if times.shape != (len(poses),) or not np.all(np.isfinite(times)):
        raise InputError(f"time_s has shape {times.shape}: want one finite time for each of {len(poses)} poses")
    return poses, times


class Tracer:
    """One call of `render`: the scene as tensors, and the work on one chunk of rays."""

    def __init__(
        self,
        scene: Scene,
        intrinsics: Intrinsics,
        poses: np.ndarray,
        times: np.ndarray,
        supersample: int,
        device: torch.device,
    ) -> None:
        self.scene, self.intrinsics, self.supersample, self.device = scene, intrinsics, supersample, device
        self.T_world_camera = torch.as_tensor(poses, dtype=torch.float32, device=device)
        self.kinds = pack(scene.solids, torch.as_tensor(times, dtype=torch.float32, device=device))
        materials = [solid.material for solid in scene.solids]
        textures = tuple(dict.fromkeys(material.texture for material in materials))
        self.texels = texel_table(textures, device)
        self.texture_idx = torch.tensor([textures.index(m.texture) for m in materials], device=device)
        self.tint = self._floats([m.tint for m in materials])
        self.background = self._floats(scene.background)
        self.ambient = self._floats(scene.ambient)

    def _floats(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def views(self, frames: slice, rows: slice) -> Views:
        """Render some rows of some frames."""
        kinds = [kind.at_frames(frames) for kind in self.kinds]
        T = self.T_world_camera[frames]
        n = self.supersample
        shape = (len(T), rows.stop - rows.start, self.intrinsics.width_px)
        middle = self._trace(kinds, T, rows, (0.0, 0.0))
        normal, rgb = self._shade(kinds, middle)
        if n > 1:
            offsets_px = [((i + 0.5) / n - 0.5, (j + 0.5) / n - 0.5) for j in range(n) for i in range(n)]
            shaded = [self._shade(kinds, self._trace(kinds, T, rows, offset_px))[1] for offset_px in offsets_px]
            rgb = torch.stack(shaded).mean(dim=0)
        return Views(
            rgb_u8=(rgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).view(*shape, 3),
            depth_m=torch.where(middle.object_id >= 0, middle.depth, 0.0).view(shape),
            object_id=middle.object_id.to(torch.int16).view(shape),
            normal=normal.view(*shape, 3),
        )

    def _trace(self, kinds: list[Kind], T: Tensor, rows: slice, offset_px: tuple[float, float]) -> _Hits:
        """Follow one ray a pixel, `offset_px` beside the pixel's centre, to what it meets first."""
        direction = self.directions(T, rows, offset_px)
        origin = T[:, :3, 3]
        depth, object_id = _nearest(kinds, origin, direction)
        is_hit = depth < self.scene.far_m
        depth, object_id = torch.where(is_hit, depth, self.scene.far_m), torch.where(is_hit, object_id, -1)
        point = torch.addcmul(origin[..., None], depth[:, None], direction)
        return _Hits(direction=direction, depth=depth, point=point, object_id=object_id)

    def directions(self, T: Tensor, rows: slice, offset_px: tuple[float, float]) -> Tensor:
        """Rays through some rows of pixels, in world axes, with z = 1 in the camera. [F, 3, N]"""
        camera = self.intrinsics
        x = (torch.arange(camera.width_px, device=self.device) + (offset_px[0] - camera.cx_px)) / camera.fx_px
        y = (torch.arange(rows.start, rows.stop, device=self.device) + (offset_px[1] - camera.cy_px)) / camera.fy_px
        R = T[:, :3, :3, None, None]  # [F, 3, 3, 1, 1]
        return (R[:, :, 0] * x + (R[:, :, 1] * y[:, None] + R[:, :, 2])).flatten(2)

    def _shade(self, kinds: list[Kind], hits: _Hits) -> tuple[Tensor, Tensor]:
        """Normals (0 where nothing was hit) and colours in 0..1 of what the rays met. [F, N, 3], [F, N, 3]"""
        num_frames, num_rays = hits.depth.shape
        frame = torch.arange(num_frames, device=self.device)[:, None].expand_as(hits.depth).flatten()
        ids = hits.object_id.flatten()
        flat_point, ray = (vectors.transpose(1, 2).reshape(-1, 3) for vectors in (hits.point, hits.direction))
        normal, uv, repeats_per_m = torch.zeros_like(ray), torch.zeros_like(ray[:, :2]), torch.ones_like(ray[:, 0])
        for kind in kinds:
            place_in_kind = torch.full((len(self.scene.solids) + 1,), -1, device=self.device)  # the last one: id -1
            place_in_kind[kind.object_id] = torch.arange(len(kind), device=self.device)
            which = place_in_kind[ids]
            rays = (which >= 0).nonzero()[:, 0]
            surface = kind.surface(frame[rays], which[rays], flat_point[rays])
            normal[rays], uv[rays], repeats_per_m[rays] = surface.normal, surface.uv, surface.repeats_per_m
        slant = (-(ray * normal).sum(-1) / ray.norm(dim=-1)).clamp(min=MIN_SLANT)
        pixel_m = hits.depth.flatten() / self.intrinsics.fx_px / slant
        footprint = PIXELS_PER_TEXEL * pixel_m * repeats_per_m
        albedo = sample(self.texels, self.texture_idx[ids], uv, footprint) * self.tint[ids]
        normal, albedo = normal.view(num_frames, num_rays, 3), albedo.view(num_frames, num_rays, 3)
        light = self.ambient * (1 - 0.08 * normal[..., 1:2])  # a little more from above than from below
        for lamp in self.scene.lights:
            light = light + self._lamp_light(kinds, lamp, hits.point, normal)
        rgb = torch.where(hits.object_id[..., None] >= 0, albedo * light, self.background)
        return normal, rgb

    def _lamp_light(self, kinds: list[Kind], lamp: Light, point: Tensor, normal: Tensor) -> Tensor:
        """Light that arrives from one lamp. [F, 3, N], [F, N, 3] -> [F, N, 3]"""
        position = self._floats(lamp.position_m).expand(len(point), 3)
        to_point = point - position[..., None]  # [F, 3, N]
        distance_2 = to_point.square().sum(dim=1)
        cosine = (-(to_point * normal.transpose(1, 2)).sum(dim=1) * torch.rsqrt(distance_2)).clamp(min=0)
        strength = cosine / (1 + distance_2 / lamp.reach_m**2)
        if lamp.casts_shadows:
            # Planes bound the free space from outside: none stands between a lamp and a point that is seen.
            blockers = [kind for kind in kinds if not isinstance(kind, Planes)]
            blocked_at, _ = _nearest(blockers, position, to_point)
            strength = torch.where(blocked_at < 1 - SHADOW_MARGIN, 0.0, strength)
        return strength[..., None] * self._floats(lamp.color)


def _nearest(kinds: list[Kind], origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """First solid along each ray: parameter (inf = none) and object id (-1 = none). [F, 3, N] -> [F, N], [F, N]"""
    nearest = torch.full_like(direction[:, 0], math.inf)
    object_id = torch.full_like(nearest, -1, dtype=torch.long)
    for kind in _within_reach(kinds, origin, direction):
        t, which = kind.intersect(origin, direction).min(dim=1)
        is_nearer = t < nearest
        nearest = torch.where(is_nearer, t, nearest)
        object_id = torch.where(is_nearer, kind.object_id[which], object_id)
    return nearest, object_id


def _within_reach(kinds: list[Kind], origin: Tensor, direction: Tensor) -> list[Kind]:
    """Drop the solids outside the cone around each frame's rays: most of a scene, for a few rows of an image."""
    unit = direction / direction.square().sum(dim=1, keepdim=True).sqrt()
    axis = torch.nn.functional.normalize(unit.mean(dim=2), dim=-1)  # [F, 3]
    cosine = (unit * axis[..., None]).sum(dim=1).amin(dim=1)
    half_angle = torch.acos(cosine.clamp(-1, 1))[:, None] + 1e-3  # [F, 1]
    near = []
    for kind in kinds:
        bounds = kind.bounds()
        if bounds is not None:
            center, radius = bounds
            offset = center - origin[:, None]  # [F, P, 3]
            distance = offset.norm(dim=-1)
            angle = torch.acos(((offset * axis[:, None]).sum(-1) / distance).clamp(-1, 1))
            reach = torch.asin((radius / distance).clamp(max=1))
            is_near = (distance <= radius) | (angle <= half_angle + reach)
            places = is_near.any(dim=0).nonzero()[:, 0]
            if len(places) == 0:
                continue
            kind = kind.only(places) if len(places) < len(kind) else kind
        near.append(kind)
    return near
