"""The sphere around one point as a picture, and perspective views of it.

An equirectangular picture is twice as wide as high: columns are azimuths, rows are elevations. Its middle looks along
the world's +z, its right half to +x, its top to -y (up). Azimuths count to the right, elevations upwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import py360convert
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.motion.camera import Array, Intrinsics, pose_from

OVERLAP = 0.2  # of its field of view, that a view shares with the next one, at least
MARGIN = 0.95  # of the way to a view's edge: all that the views have to cover lies within
BEND = 0.02  # relative second difference of inverse distance above which neighbours are on different surfaces
MIN_ROWS, MAX_ROWS = 64, 2048  # of a distance map made from views

NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Where a view looks, without roll."""

    azimuth_rad: float  # to the right
    elevation_rad: float  # upwards

    @property
    def T_world_camera(self) -> Array:
        """At the world's origin. [4, 4]"""
        turned, tipped = (
            Rotation.from_rotvec([0, self.azimuth_rad, 0]),
            Rotation.from_rotvec([self.elevation_rad, 0, 0]),
        )
        return pose_from((turned * tipped).as_matrix())


def directions_around(intrinsics: Intrinsics) -> list[Direction]:
    """Views that together cover the sphere with overlap, the one along +z first.

    One ring at the horizon, rings above and below it a part of the vertical field apart, and both poles.
    """
    half_width = 0.5 * intrinsics.width_px / intrinsics.fx_px
    half_height = 0.5 * intrinsics.height_px / intrinsics.fy_px
    num_steps = math.ceil(0.5 * math.pi / (2 * math.atan(half_height) * (1 - OVERLAP)))  # from the horizon to a pole
    step_rad = 0.5 * math.pi / num_steps
    directions = []
    for ring in sorted(range(-num_steps, num_steps + 1), key=abs):
        elevation_rad = ring * step_rad
        num_views = 1 if abs(ring) == num_steps else _num_in_ring(abs(elevation_rad), step_rad, half_width, half_height)
        directions += [
            Direction(azimuth_rad=2 * math.pi * i / num_views, elevation_rad=elevation_rad) for i in range(num_views)
        ]
    return directions


def _num_in_ring(elevation_rad: float, step_rad: float, half_width: float, half_height: float) -> int:
    """The fewest views that cover a ring's band of elevations, half a view's overlap at its widest circle.

    Half widths and heights are slopes of rays at a view's edges.
    """
    band_rad = elevation_rad + step_rad * np.linspace(-0.5, 0.5, 9)
    widest = math.cos(max(band_rad[0], 0))
    num_views = max(3, math.ceil(2 * math.pi * widest / (2 * math.atan(half_width) * (1 - OVERLAP))))
    while True:
        between_rad = math.pi / num_views  # as far from this view as from the next
        ray = np.stack(
            [np.cos(band_rad) * math.sin(between_rad), -np.sin(band_rad), np.cos(band_rad) * math.cos(between_rad)]
        )
        x, y, z = Rotation.from_rotvec([-elevation_rad, 0, 0]).as_matrix() @ ray
        if np.all((z > 0) & (np.abs(x) <= MARGIN * half_width * z) & (np.abs(y) <= MARGIN * half_height * z)):
            return num_views
        num_views += 1


def rays_of(height_px: int) -> Array:
    """Unit direction in the world of every pixel of an equirectangular picture. [H, 2 H, 3]"""
    azimuth = ((np.arange(2 * height_px) + 0.5) / height_px - 1) * math.pi
    elevation = (0.5 - (np.arange(height_px) + 0.5) / height_px)[:, None] * math.pi
    across, up = np.cos(elevation), np.sin(elevation) + 0 * azimuth
    return np.stack([across * np.sin(azimuth), -up, across * np.cos(azimuth)], axis=-1)


def picture_of(panorama_u8: NDArray[np.uint8], intrinsics: Intrinsics, direction: Direction) -> NDArray[np.uint8]:
    """What a view sees; each pixel is the mean of what falls into it. [h, 2 h, 3] -> [H, W, 3]"""
    pixels_per_pixel = panorama_u8.shape[1] / (2 * math.pi) / intrinsics.fx_px
    finer = max(1, round(pixels_per_pixel))
    fine = intrinsics.resized(finer * intrinsics.width_px, finer * intrinsics.height_px)
    fine_u8 = _sampled(panorama_u8, fine, direction, "bilinear")
    size = intrinsics.width_px, intrinsics.height_px
    return (
        cv2.resize(fine_u8, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False) if finer > 1 else fine_u8
    )


class RangeMap:
    """Distances in all directions from one point, and the z-depth that views of it have."""

    def __init__(self, range_m: NDArray[np.float32]) -> None:
        """From distances along the ray, 0 = unknown. [h, w]"""
        self._inverse = np.divide(1, range_m, out=np.zeros_like(range_m), where=range_m > 0)  # linear on planes
        around = np.pad(np.pad(self._inverse, ((0, 0), (1, 1)), mode="wrap"), ((1, 1), (0, 0)), mode="edge")
        bends = [
            np.abs(around[:-2, 1:-1] + around[2:, 1:-1] - 2 * self._inverse)[1:-1],
            np.abs(around[1:-1, :-2] + around[1:-1, 2:] - 2 * self._inverse)[1:-1],
        ]
        is_flat = np.zeros(range_m.shape, np.uint8)
        is_flat[1:-1] = (np.maximum(*bends) <= BEND * self._inverse[1:-1]) & (self._inverse[1:-1] > 0)
        self._is_surface = cv2.erode(is_flat, NEIGHBOURS)

    def depth_of(self, intrinsics: Intrinsics, direction: Direction) -> NDArray[np.float32]:
        """z-depth of a view, 0 = unknown: interpolated on surfaces, the nearest sample at their edges. [H, W]"""
        inverse = _sampled(self._inverse, intrinsics, direction, "nearest")
        is_surface = _sampled(self._is_surface, intrinsics, direction, "nearest") > 0
        inverse[is_surface] = _sampled(self._inverse, intrinsics, direction, "bilinear")[is_surface]
        with np.errstate(divide="ignore"):
            depth_m = np.where(inverse > 0, 1 / (inverse * ray_lengths(intrinsics)), 0)
        return depth_m.astype(np.float32)


def ray_lengths(intrinsics: Intrinsics) -> Array:
    """Distance along the ray per unit of z-depth. [H, W]"""
    x = (np.arange(intrinsics.width_px) - intrinsics.cx_px) / intrinsics.fx_px
    y = (np.arange(intrinsics.height_px) - intrinsics.cy_px) / intrinsics.fy_px
    return np.sqrt(1 + x**2 + y[:, None] ** 2)


def _sampled(
    image: NDArray, intrinsics: Intrinsics, direction: Direction, mode: Literal["bilinear", "nearest"]
) -> NDArray:
    """An equirectangular image at a view's pixel centres. [h, 2 h, ...] -> [H, W, ...]"""
    fov_deg = (  # py360convert's fields reach from the first pixel's centre to the last one's
        math.degrees(2 * math.atan(0.5 * (intrinsics.width_px - 1) / intrinsics.fx_px)),
        math.degrees(2 * math.atan(0.5 * (intrinsics.height_px - 1) / intrinsics.fy_px)),
    )
    azimuth_deg, elevation_deg = math.degrees(direction.azimuth_rad), math.degrees(direction.elevation_rad)
    size = intrinsics.height_px, intrinsics.width_px
    return py360convert.e2p(image, fov_deg, azimuth_deg, elevation_deg, size, mode=mode)
