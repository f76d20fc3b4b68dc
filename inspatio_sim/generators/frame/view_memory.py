"""Implicit spatial memory: views seen or made before, of which each new frame gets one to look at.

A view is a latent with the depth and the pose it was seen at. There is room for a number of them; a view too
many pushes out the one whose places another view shows best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.selection import (
    Samples,
    Selection,
    SelectionConfig,
    ViewTable,
    count_hits,
    distance_weight,
    sample_depth,
    select_samples,
)
from inspatio_sim.generators.options import MAX_VIEWS
from inspatio_sim.motion.camera import Array, Intrinsics

MAX_DEPTH_WIDTH_PX = 160  # of the depth images that are kept
NOVEL_SHARE = 0.7  # a view is new if less than this share of it is covered by the best of those stored
METRES_PER_RADIAN = 2.0  # a camera so far away is as unlike as one turned by a radian
SELECTION = SelectionConfig()
GENERATED_IDX = -1  # stands for no frame of the reference in saved memories


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A frame as the memory keeps it; made by `View.of`."""

    latent: Tensor  # as the codec gave it; float32, on the CPU. [C, h, w]
    depth_m: NDArray[np.float32]  # z-depth, 0 = unknown; at most 160 px wide. [h', w']
    K_px: Array  # at the size of `depth_m`. [3, 3]
    T_world_camera: Array  # [4, 4]
    frame_idx: int | None  # of the reference; None: generated
    samples: Samples = field(init=False, repr=False)  # of `depth_m`

    def __post_init__(self) -> None:
        samples = sample_depth(self.depth_m, self.K_px, self.T_world_camera, SELECTION)
        object.__setattr__(self, "samples", samples)

    @classmethod
    def of(
        cls,
        latent: Tensor,
        depth_m: NDArray[np.float32],
        intrinsics: Intrinsics,
        T_world_camera: Array,
        frame_idx: int | None = None,
    ) -> View:
        """Keep a frame, its depth reduced to every k-th pixel.

        Args:
            latent: of the frame, from any device. [C, h, w]
            depth_m: z-depth; 0, NaN or infinite where unknown. [H, W]
            intrinsics: at the size of `depth_m`.
            T_world_camera: [4, 4]
            frame_idx: of the reference; None: generated.
        """
        _check_size(depth_m, intrinsics)
        stride = -(-intrinsics.width_px // MAX_DEPTH_WIDTH_PX)
        left, top = ((side - 1) % stride // 2 for side in (intrinsics.width_px, intrinsics.height_px))
        reduced = np.array(depth_m[top::stride, left::stride], dtype=np.float32, order="C")
        reduced[~np.isfinite(reduced)] = 0
        K_px = intrinsics.K_px
        K_px[:2, 2] -= [left, top]
        K_px[:2] /= stride
        return cls(
            latent=latent.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format),
            depth_m=reduced,
            K_px=K_px,
            T_world_camera=np.array(T_world_camera, dtype=np.float64),
            frame_idx=frame_idx,
        )

    @property
    def is_generated(self) -> bool:
        return self.frame_idx is None


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewMemory:
    """At most `max_views` views. Never changed in place: `with_view` gives another memory that shares them."""

    max_views: int = MAX_VIEWS
    views: tuple[View, ...] = ()
    coverage: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    """Share of view i's places that view j shows, less the farther its camera; 0 for i = j. [N, N]"""

    def __post_init__(self) -> None:
        if self.max_views < 1:
            raise InputError(f"max_views={self.max_views}: want 1 or more")
        num_views = len(self.views)
        assert self.coverage.shape == (num_views, num_views), f"{self.coverage.shape} for {num_views} views"

    def __len__(self) -> int:
        return len(self.views)

    @cached_property
    def table(self) -> ViewTable:
        """All views, for the selection."""
        return _table_of(self.views)

    def with_view(self, view: View) -> ViewMemory:
        """The memory with one more view.

        If that is one too many, the most redundant generated view goes: the one that another covers best, of equal
        ones the newest. Views of the reference only go where no generated one is left.
        """
        if self.views:
            stored = self.views[0]
            sizes = [(tuple(each.latent.shape), each.depth_m.shape) for each in (view, stored)]
            if sizes[0] != sizes[1]:
                raise InputError(
                    f"view with latent {sizes[0][0]} and depth {sizes[0][1]}: want them as in the views "
                    f"already stored, {sizes[1][0]} and {sizes[1][1]}"
                )
        num_views = len(self.views)
        coverage = np.zeros((num_views + 1, num_views + 1), np.float32)
        coverage[:-1, :-1] = self.coverage
        if num_views:
            distance_m = np.linalg.norm(self.table.centre_m - view.samples.centre_m, axis=1)
            weight = distance_weight(distance_m, SELECTION)
            coverage[-1, :-1] = _share(count_hits(view.samples, self.table, SELECTION) * weight, len(view.samples))
            table = _table_of((view,))
            for i, stored in enumerate(self.views):
                hits = count_hits(stored.samples, table, SELECTION)[0]
                coverage[i, -1] = _share(hits * weight[i], len(stored.samples))
        memory = replace(self, views=(*self.views, view), coverage=coverage)
        return memory if len(memory) <= self.max_views else memory._without(memory._most_redundant())

    def select(
        self, depth_m: NDArray[np.float32], intrinsics: Intrinsics, T_world_camera: Array, *, of_reference: bool = False
    ) -> int:
        """Index of the view that shows most of what is in sight; where none shows any of it, of the nearest camera.

        Args:
            depth_m: z-depth as far as it is rendered; 0, NaN or infinite elsewhere. [H, W]
            intrinsics: at the size of `depth_m`.
            T_world_camera: [4, 4]
            of_reference: choose among the views of the reference, if there are any.
        """
        if not self.views:
            raise InputError("view memory is empty: want at least one view, such as a frame of the reference")
        allowed = np.array([not (of_reference and view.is_generated) for view in self.views])
        allowed |= not allowed.any()
        score = np.where(allowed, self._selection(depth_m, intrinsics, T_world_camera).score_per_view, 0)
        if score.max() > 0:
            return int(score.argmax())
        forward = np.stack([view.T_world_camera[:3, 2] for view in self.views]) @ T_world_camera[:3, 2]
        angle_rad = np.arccos(np.clip(forward, -1, 1))
        distance_m = np.linalg.norm(self.table.centre_m - T_world_camera[:3, 3], axis=1)
        return int(np.where(allowed, angle_rad + distance_m / METRES_PER_RADIAN, np.inf).argmin())

    def is_novel(self, depth_m: NDArray[np.float32], intrinsics: Intrinsics, T_world_camera: Array) -> bool:
        """Whether no stored view covers most of what is in sight; far views cover less. Arguments as in `select`.

        What has no depth is not new: no later selection would find it.
        """
        if not self.views:
            return True
        selection = self._selection(depth_m, intrinsics, T_world_camera)
        return bool(selection.score_per_view.max() < NOVEL_SHARE * selection.num_samples)

    def pack(self) -> dict[str, np.ndarray]:
        """As arrays: generated views whole, those of the reference by their frame."""
        frame_idx = [GENERATED_IDX if view.frame_idx is None else view.frame_idx for view in self.views]
        arrays: dict[str, np.ndarray] = {
            "max_views": np.array([self.max_views]),
            "frame_idx": np.array(frame_idx, dtype=np.int64),
            "coverage": self.coverage.copy(),
        }
        generated = [view for view in self.views if view.is_generated]
        if generated:
            arrays["latent"] = np.stack([view.latent.numpy() for view in generated])
            for name in ("depth_m", "K_px", "T_world_camera"):
                arrays[name] = np.stack([getattr(view, name) for view in generated])
        return arrays

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray], views_of_reference: Iterable[View]) -> ViewMemory:
        """The memory that `pack` was given, bit for bit.

        Args:
            arrays: what was packed.
            views_of_reference: the same views of the reference as before, at least those that were kept.
        """
        of_frame = {view.frame_idx: view for view in views_of_reference}
        views, num_generated = [], 0
        for frame_idx in arrays["frame_idx"].tolist():
            if frame_idx == GENERATED_IDX:
                view = View(
                    latent=torch.from_numpy(arrays["latent"][num_generated].copy()),
                    depth_m=arrays["depth_m"][num_generated].copy(),
                    K_px=arrays["K_px"][num_generated].copy(),
                    T_world_camera=arrays["T_world_camera"][num_generated].copy(),
                    frame_idx=None,
                )
                num_generated += 1
            elif frame_idx in of_frame:
                view = of_frame[frame_idx]
            else:
                known = sorted(idx for idx in of_frame if idx is not None)
                raise InputError(f"saved view memory: wants a view of reference frame {frame_idx}, there are {known}")
            views.append(view)
        return cls(max_views=int(arrays["max_views"][0]), views=tuple(views), coverage=arrays["coverage"].copy())

    def _selection(self, depth_m: NDArray[np.float32], intrinsics: Intrinsics, T_world_camera: Array) -> Selection:
        _check_size(depth_m, intrinsics)
        samples = sample_depth(depth_m, intrinsics.K_px, T_world_camera, SELECTION)
        return select_samples(samples, self.table, SELECTION)

    def _most_redundant(self) -> int:
        """Which view to do without."""
        candidates = [i for i, view in enumerate(self.views) if view.is_generated] or list(range(len(self)))
        redundancy = self.coverage.max(axis=1)
        return max(candidates, key=lambda i: (redundancy[i], i))

    def _without(self, index: int) -> ViewMemory:
        coverage = np.delete(np.delete(self.coverage, index, axis=0), index, axis=1)
        return replace(self, views=self.views[:index] + self.views[index + 1 :], coverage=coverage)


def _table_of(views: tuple[View, ...]) -> ViewTable:
    return ViewTable(
        depth_m=[view.depth_m for view in views],
        K_px=np.array([view.K_px for view in views]).reshape(-1, 3, 3),
        T_world_camera=np.array([view.T_world_camera for view in views]).reshape(-1, 4, 4),
    )


def _share(hits: NDArray, num_samples: int) -> NDArray:
    """What shows nothing is covered by everything."""
    return hits / num_samples if num_samples else np.ones_like(hits, dtype=np.float64)


def _check_size(depth_m: NDArray[np.float32], intrinsics: Intrinsics) -> None:
    if depth_m.shape != (intrinsics.height_px, intrinsics.width_px):
        raise InputError(
            f"depth image of {depth_m.shape} with intrinsics for {intrinsics.height_px}x{intrinsics.width_px} px: "
            "want them to fit"
        )
