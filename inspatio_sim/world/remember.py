"""Put a shown block into the map: the reference's frames and what was made up."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspatio_sim.condition.condition import SURFACE_TOLERANCE
from inspatio_sim.condition.observation import Observation
from inspatio_sim.mapping import WorldMap
from inspatio_sim.provenance import Known
from inspatio_sim.reference.reference import Reference

MARGIN = np.ones((3, 3), np.uint8)  # a pixel and its neighbours


def remember(
    observation: Observation,
    reference: Reference,
    *,
    first_frame: int,
    mapped_frame_idx: int | None,
    stride_frames: int,
) -> int | None:
    """Put the new pixels of a block into the observation's map.

    Args:
        observation: the block.
        reference: the clip with geometry; a static one is in the map from the start (`insert_all`).
        first_frame: how many frames were shown before this block.
        mapped_frame_idx: the last reference frame that went into the map; None: none yet.
        stride_frames: insert every n-th frame, counted from the first; a reference so short that some frames would
            never be reached is inserted in full.

    Returns:
        The last reference frame that is now in the map.
    """
    chosen = range(-first_frame % stride_frames, len(observation.rgb_u8), stride_frames)
    of_reference = [] if reference.is_static else chosen
    if not reference.is_static and reference.num_frames <= 2 * stride_frames:
        of_reference = sorted({int(idx): i for i, idx in enumerate(observation.reference_frame_idx)}.values())
    for i in of_reference:
        frame_idx = int(observation.reference_frame_idx[i])
        if frame_idx != mapped_frame_idx:  # nothing new while time stands still
            insert_reference(observation.map, reference, frame_idx, observation.time_s[i])
        mapped_frame_idx = frame_idx
    for i in chosen:
        _remember_made_up(observation, reference, i)
    return mapped_frame_idx


def insert_all(world_map: WorldMap, reference: Reference) -> None:
    """Put all frames of a static reference into a map, since they show the same moment."""
    for frame_idx in range(reference.num_frames):
        insert_reference(world_map, reference, frame_idx, 0.0)


def insert_reference(world_map: WorldMap, reference: Reference, frame_idx: int, time_s: float) -> None:
    """Put one frame of the reference into a map, as its own camera measured it.

    The agent's view would not do: warping loses precision, and pixels rendered from the map itself could never
    contradict it.
    """
    depth_m = reference.depth_m[frame_idx]
    # A pixel next to something nearer has mixed colours.
    is_mixed = cv2.erode(depth_m, MARGIN) < depth_m * (1 - SURFACE_TOLERANCE)
    known = np.where(is_mixed, np.uint8(Known.MAP), np.uint8(Known.CLIP))
    pose = reference.T_world_camera[frame_idx]
    world_map.insert(reference.frames_u8[frame_idx], depth_m, known, reference.intrinsics, pose, time_s)


def _remember_made_up(observation: Observation, reference: Reference, i: int) -> None:
    """Put what the generator just made up into the map, so that a place stays the same."""
    known = made_up_mask(observation.is_rendered[i])
    if (known == Known.MADE_UP).any():
        observation.map.insert(
            observation.rgb_u8[i],
            observation.depth_m[i],
            known,
            reference.intrinsics,
            observation.T_world_camera[i],
            observation.time_s[i],
        )


def made_up_mask(is_rendered: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Known.MADE_UP for pixels whose depth was completed, Known.MAP (nothing new) elsewhere. [H, W]

    Pixels next to rendered ones are left out: their depth lies between two surfaces, and their colour comes from
    the rendered ones anyway.
    """
    is_made_up = cv2.erode((~is_rendered).astype(np.uint8), MARGIN) > 0
    return np.where(is_made_up, np.uint8(Known.MADE_UP), np.uint8(Known.MAP))
