"""Where the camera of a generated frame really is: matched against true views with exact depth.

Keypoints of the frame (SIFT) are matched with those of true views of the same place; each match gives a point of
the world and the pixel that shows it, and all of them the camera (PnP inside RANSAC). Moving things and made-up
parts give matches that do not fit; a true frame, put through the same, says how exact the method is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, Intrinsics, check_pose, inverse

ZOOM = 2  # small frames are enlarged first: keypoints are found some pixels away from edges of their own size
MAX_KEYPOINTS = 600
MAX_RATIO = 0.8  # of the best match's distance to the second best's (Lowe 2004)
MAX_REPROJECTION_PX = 1.0
MIN_INLIERS = 16
MIN_INLIER_SHARE = 0.5  # of the matches: fewer agree on what is likely a moving thing, or chance
MIN_CONTRAST = 0.004  # of a keypoint: plain rooms have few strong ones
RANSAC_ROUNDS = 300
RANSAC_CONFIDENCE = 0.999
FLAT = 0.03  # a keypoint whose neighbours' depths differ by more than this share lies on an edge
NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class TrueView:
    """Keypoints of a true frame whose place in the world is known."""

    points_m: Array  # in the world. [N, 3]
    descriptors: NDArray[np.float32]  # [N, 128]

    @classmethod
    def of(
        cls,
        frame_u8: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        intrinsics: Intrinsics,
        T_world_camera: Array,
    ) -> TrueView:
        """Find keypoints on surfaces. Frame [H, W, 3], depth [H, W] (0 = unknown)."""
        if depth_m.shape != frame_u8.shape[:2]:
            raise InputError(f"depth has shape {depth_m.shape}: want the frame's {frame_u8.shape[:2]}")
        pixels, descriptors = _keypoints(frame_u8)
        places_px = np.rint(pixels).astype(np.int64)
        columns, rows = places_px[:, 0], places_px[:, 1]
        nearest_m = np.asarray(cv2.erode(depth_m, NEIGHBOURS))
        farthest_m = np.asarray(cv2.dilate(depth_m, NEIGHBOURS))
        is_flat = np.asarray((nearest_m > 0) & (farthest_m < (1 + FLAT) * nearest_m), np.bool_)
        kept = is_flat[rows, columns]
        z_m = depth_m[rows, columns][kept].astype(np.float64)
        x_m = (pixels[kept, 0] - intrinsics.cx_px) / intrinsics.fx_px * z_m
        y_m = (pixels[kept, 1] - intrinsics.cy_px) / intrinsics.fy_px * z_m
        points_m = np.stack([x_m, y_m, z_m], -1) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
        return cls(points_m=points_m, descriptors=descriptors[kept])


@dataclass(frozen=True, kw_only=True)
class CameraErrors:
    """Of the frames of one path; NaN where no camera could be recovered. N frames"""

    rotation_rad: Array  # [N]
    translation_m: Array  # [N]

    @property
    def recovered_share(self) -> float:
        return float(np.isfinite(self.rotation_rad).mean()) if len(self.rotation_rad) else math.nan


def recover_camera(frame_u8: NDArray[np.uint8], true_views: Sequence[TrueView], intrinsics: Intrinsics) -> Array | None:
    """T_world_camera of a frame [H, W, 3] by its likeness to true views; None where too little of it is like them."""
    pixels, descriptors = _keypoints(frame_u8)
    matches = [_matches(descriptors, view.descriptors) for view in true_views]
    points_m = np.concatenate([view.points_m[m[:, 1]] for view, m in zip(true_views, matches, strict=True)])
    image_px = np.concatenate([pixels[m[:, 0]] for m in matches])
    if len(points_m) < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    K_px = intrinsics.K_px
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points_m,
        image_px,
        K_px,
        None,
        iterationsCount=RANSAC_ROUNDS,
        reprojectionError=MAX_REPROJECTION_PX,
        confidence=RANSAC_CONFIDENCE,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or inliers is None or len(inliers) < max(MIN_INLIERS, MIN_INLIER_SHARE * len(points_m)):
        return None
    kept = inliers.ravel().astype(np.int64)
    rotation, translation = cv2.solvePnPRefineLM(points_m[kept], image_px[kept], K_px, None, rotation, translation)
    T_camera_world = np.eye(4)
    T_camera_world[:3, :3] = cv2.Rodrigues(rotation)[0]
    T_camera_world[:3, 3] = translation.ravel()
    return inverse(check_pose(T_camera_world)) if np.isfinite(T_camera_world).all() else None


def camera_errors(
    frames_u8: NDArray[np.uint8],
    true_views: Sequence[Sequence[TrueView]],
    intrinsics: Intrinsics,
    T_world_camera: Array,
) -> CameraErrors:
    """How far frames' cameras are from where they should be.

    Args:
        frames_u8: generated. [N, H, W, 3]
        true_views: to match each frame with, such as true frames from a little before and after.
        intrinsics: of all frames.
        T_world_camera: where the cameras should be. [N, 4, 4]
    """
    rotation_rad, translation_m = np.full(len(frames_u8), np.nan), np.full(len(frames_u8), np.nan)
    for i, (frame_u8, views) in enumerate(zip(frames_u8, true_views, strict=True)):
        T_found = recover_camera(frame_u8, views, intrinsics)
        if T_found is not None:
            T_wanted_found = inverse(T_world_camera[i]) @ T_found
            rotation_rad[i] = _angle_rad(T_wanted_found[:3, :3])
            translation_m[i] = np.linalg.norm(T_wanted_found[:3, 3])
    return CameraErrors(rotation_rad=rotation_rad, translation_m=translation_m)


def path_length_m(T_world_camera: Array) -> float:
    """Way of the camera's centre. [N, 4, 4]"""
    return float(np.linalg.norm(np.diff(T_world_camera[:, :3, 3], axis=0), axis=-1).sum())


def _angle_rad(R: Array) -> float:
    """Of a rotation; exact for small ones too. [3, 3]"""
    sine = 0.5 * np.linalg.norm([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    return float(np.arctan2(sine, 0.5 * (np.trace(R) - 1)))


def _keypoints(frame_u8: NDArray[np.uint8]) -> tuple[Array, NDArray[np.float32]]:
    """Places in the frame's own pixels [N, 2] (x, y), and descriptors [N, 128]."""
    grey = cv2.cvtColor(frame_u8, cv2.COLOR_RGB2GRAY)
    height_px, width_px = grey.shape
    large = cv2.resize(grey, (ZOOM * width_px, ZOOM * height_px), interpolation=cv2.INTER_CUBIC)
    sift = cv2.SIFT.create(nfeatures=MAX_KEYPOINTS, contrastThreshold=MIN_CONTRAST)
    found, descriptors = sift.detectAndCompute(large, None)
    if descriptors is None or not found:
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    pixels = (np.array([point.pt for point in found], np.float64) + 0.5) / ZOOM - 0.5
    is_inside = np.all((pixels >= 0) & (pixels <= (width_px - 1, height_px - 1)), axis=1)
    return pixels[is_inside], np.asarray(descriptors, np.float32)[is_inside]


def _matches(descriptors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs that are each other's best, and clearly better than the second best. [M, 2]"""
    if len(descriptors) < 2 or len(others) < 2:
        return np.empty((0, 2), np.int64)
    squared = (
        np.square(descriptors).sum(1)[:, None] + np.square(others).sum(1)[None] - 2 * descriptors @ others.T
    ).clip(0)
    best = squared.argmin(1)
    rows = np.arange(len(descriptors))
    nearest = np.partition(squared, 1, axis=1)
    is_clear = nearest[:, 0] < MAX_RATIO**2 * nearest[:, 1]
    is_mutual = squared.argmin(0)[best] == rows
    kept = is_clear & is_mutual
    return np.stack([rows[kept], best[kept]], axis=1)
