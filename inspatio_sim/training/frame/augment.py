"""Faults that the frame generator has to live with: estimated depth, soft sources, holes in what is known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError

BEND_GRID = (4, 6)  # a depth map that is bent has so many errors of its own, rows and columns
MAX_BORDER = 0.7  # of a side, knocked out at most
MAX_BLOBS = 4
MAX_COARSENESS = 3.0  # pixels of a soft picture that become one
MAX_BLUR_PX = 1.3
MAX_NOISE = 6.0  # levels, standard deviation
MAX_TINT = 0.05  # of each colour


@dataclass(frozen=True, kw_only=True)
class FrameAugment:
    """Faults and variety of samples; shares and chances are between 0 and 1."""

    depth_scale: float = 0.02  # standard deviation of a factor on the depth of a whole source
    depth_bend: float = 0.01  # of a factor that changes slowly across a source
    depth_noise: float = 0.005  # of a factor on the depth of each pixel
    dropped_points: float = 0.02  # share of pixels without depth
    known_sky: float = 0.5  # chance that the sky is a surface far away, as it is to a depth network; else unknown
    soft_source: float = 0.3  # chance that a source of anchors is coarse or blurred, and noisy
    holes: float = 0.4  # chance that borders or blobs of a render are knocked out
    unknown_view: float = 0.08  # chance that nothing at all is rendered
    soft_reference: float = 0.3  # chance that the reference is coarse or blurred, and noisy
    no_reference: float = 0.08  # chance that the reference is black
    mirrored: float = 0.5  # chance
    recoloured: float = 0.5  # chance of other colours and another light

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{name}={value}: want 0 to 1")


NONE = FrameAugment(**dict.fromkeys(FrameAugment.__dataclass_fields__, 0.0))
"""No faults and no variety: for evaluation."""


def faulty_depth(depth_m: NDArray[np.float32], augment: FrameAugment, rng: np.random.Generator) -> NDArray[np.float32]:
    """Depth as it is estimated: off as a whole, bent, noisy, with gaps. 0 = unknown. [H, W]

    Every fault draws from `rng` whatever its size, so that one setting does not shift the others.
    """
    height_px, width_px = depth_m.shape
    scale = np.float32(augment.depth_scale * rng.standard_normal())
    grid = np.float32(augment.depth_bend) * rng.standard_normal(BEND_GRID, dtype=np.float32)
    noise = np.float32(augment.depth_noise) * rng.standard_normal(depth_m.shape, dtype=np.float32)
    is_kept = rng.random(depth_m.shape, dtype=np.float32) >= augment.dropped_points
    bend = cv2.resize(grid, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    return depth_m * np.exp(scale + bend + noise) * is_kept


def soft(frame_u8: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture as a map's points or an earlier generated frame give it: less sharp, noisy, off in colour. [H, W, 3]"""
    height_px, width_px = frame_u8.shape[:2]
    if rng.random() < 0.5:
        coarseness = rng.uniform(1, MAX_COARSENESS)
        size = max(1, round(width_px / coarseness)), max(1, round(height_px / coarseness))
        small = cv2.resize(frame_u8, size, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    else:
        picture = cv2.GaussianBlur(frame_u8, (0, 0), float(rng.uniform(0.4, MAX_BLUR_PX)))
    tint = rng.uniform(1 - MAX_TINT, 1 + MAX_TINT, 3).astype(np.float32)
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0, MAX_NOISE))
    return np.clip(picture * tint + noise + np.float32(0.5), 0, 255).astype(np.uint8)


def holes(size_px: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """What is knocked out of a render: one side of it, or blobs. [H, W]"""
    height_px, width_px = size_px
    mask = np.zeros(size_px, np.uint8)
    if rng.random() < 0.5:
        side, share = int(rng.integers(4)), rng.uniform(0, MAX_BORDER)
        depth = round(share * (width_px if side < 2 else height_px))
        mask[[np.s_[:, :depth], np.s_[:, width_px - depth :], np.s_[:depth], np.s_[height_px - depth :]][side]] = 1
        return mask > 0
    for _ in range(int(rng.integers(1, MAX_BLOBS + 1))):
        centre = int(rng.integers(width_px)), int(rng.integers(height_px))
        axes = [max(1, round(float(rng.uniform(0.03, 0.3)) * side)) for side in (width_px, height_px)]
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, thickness=-1)
    return mask > 0
