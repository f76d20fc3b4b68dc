"""tf: a tree of frames that move, and where one is in another at any time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Array, interpolate_poses, inverse

Times = NDArray[np.int64]
"""Nanoseconds. [N]"""

MAX_NORM_ERROR = 0.01  # maximum deviation of a quaternion's norm from 1
MAX_GAP_S = 1.0  # between two transforms that are interpolated
FIXED_FRAMES = ("odom", "map", "world")  # in order of preference; odom is continuous, map may jump (REP-105)


@dataclass(kw_only=True)
class _Edge:
    """A frame in its parent."""

    parent: str
    is_static: bool
    placements: dict[int, tuple[float, ...]] = field(default_factory=dict)  # x y z qx qy qz qw by time in ns


class TransformTree:
    """Frames by name; every frame has one parent."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    @property
    def frames(self) -> set[str]:
        return self._edges.keys() | {edge.parent for edge in self._edges.values()}

    def add(
        self, parent: str, child: str, placement: tuple[float, ...], time_ns: int, *, is_static: bool = False
    ) -> None:
        """One transform; the same frame at the same time again replaces it.

        Args:
            parent: name of the frame.
            child: name of the frame that is in it.
            placement: x y z qx qy qz qw of the child in the parent.
            time_ns: when.
            is_static: it holds for all times.

        Raises:
            InputError: the child has another parent already.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        edge = self._edges.setdefault(child, _Edge(parent=parent, is_static=is_static))
        if edge.parent != parent:
            raise InputError(f"tf: frame {child} is in {edge.parent} and in {parent}: want one parent")
        edge.placements[time_ns] = placement

    def has(self, child: str) -> bool:
        """Whether the frame has a parent."""
        return child.lstrip("/") in self._edges

    def ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, and so on up to the root."""
        found = [frame.lstrip("/")]
        while (edge := self._edges.get(found[-1])) is not None:
            if edge.parent in found:
                raise InputError(f"tf: frame {edge.parent} is above itself: want a tree")
            found.append(edge.parent)
        return found

    def fixed_frame(self, frame: str) -> str:
        """The frame that a path of `frame` is best told in: odom, map, world, or the root."""
        above = self.ancestors(frame)
        by_name = {name.rsplit("/", 1)[-1]: name for name in above[1:]}  # without a prefix such as robot1/
        return next((by_name[name] for name in FIXED_FRAMES if name in by_name), above[-1])

    def lookup(self, fixed: str, frame: str, times_ns: Times, tolerance_s: float) -> tuple[Array, NDArray[np.bool_]]:
        """Where `frame` is in `fixed`, one of its ancestors.

        Args:
            fixed: the ancestor.
            frame: the frame.
            times_ns: [N]
            tolerance_s: how far beyond the first and the last transform a time may be.

        Returns:
            T_fixed_frame [N, 4, 4], and where it is known [N] (elsewhere it is the nearest that is).

        Raises:
            InputError: the ancestor does not exist.
        """
        fixed, above = fixed.lstrip("/"), self.ancestors(frame)
        if fixed not in above:
            known = ", ".join(sorted(self.frames)) or "none"
            raise InputError(f"tf: frame {frame} is not in {fixed}: it is in {' in '.join(above)} (frames: {known})")
        T, is_known = np.tile(np.eye(4), (len(times_ns), 1, 1)), np.ones(len(times_ns), bool)
        for child in above[: above.index(fixed)]:
            T_parent_child, is_near = _at(child, self._edges[child], times_ns, tolerance_s)
            T, is_known = T_parent_child @ T, is_known & is_near
        return T, is_known

    def between(self, a: str, b: str, time_ns: int, tolerance_s: float) -> Array | None:
        """T_a_b at one time; None where no common ancestor is known."""
        above_a, above_b = self.ancestors(a), self.ancestors(b)
        common = next((name for name in above_a if name in above_b), None)
        if common is None:
            return None
        times_ns = np.array([time_ns])
        (T_common_a,), _ = self.lookup(common, a, times_ns, tolerance_s)
        (T_common_b,), _ = self.lookup(common, b, times_ns, tolerance_s)
        return inverse(T_common_a) @ T_common_b


def _at(child: str, edge: _Edge, times_ns: Times, tolerance_s: float) -> tuple[Array, NDArray[np.bool_]]:
    known_ns = np.array(sorted(edge.placements))
    poses = _poses(child, np.array([edge.placements[time_ns] for time_ns in known_ns.tolist()]))
    if edge.is_static:
        return np.repeat(poses[-1:], len(times_ns), axis=0), np.ones(len(times_ns), bool)
    after = np.searchsorted(known_ns, times_ns)
    later_ns = known_ns[np.minimum(after, len(known_ns) - 1)]
    earlier_ns = np.where(later_ns == times_ns, later_ns, known_ns[np.maximum(after - 1, 0)])
    is_inside = (after > 0) & (after < len(known_ns)) & (later_ns - earlier_ns <= MAX_GAP_S * 1e9)
    distance_ns = np.minimum(np.abs(times_ns - earlier_ns), np.abs(later_ns - times_ns))
    is_near = is_inside | (distance_ns <= tolerance_s * 1e9)
    origin_ns = known_ns[0]
    return interpolate_poses(poses, (known_ns - origin_ns) * 1e-9, (times_ns - origin_ns) * 1e-9), is_near


def _poses(child: str, placements: Array) -> Array:
    """X y z qx qy qz qw as matrices. [N, 7] -> [N, 4, 4]"""
    norms = np.linalg.norm(placements[:, 3:], axis=1)
    if not (np.isfinite(placements).all() and np.all(np.abs(norms - 1) < MAX_NORM_ERROR)):
        raise InputError(f"tf: frame {child} has a transform with NaN, or a quaternion that is not of length 1")
    T = np.tile(np.eye(4), (len(placements), 1, 1))
    T[:, :3, :3] = Rotation.from_quat(placements[:, 3:]).as_matrix()
    T[:, :3, 3] = placements[:, :3]
    return T
