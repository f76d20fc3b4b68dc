"""Points of the map as PLY, PCD (both through Open3D) and its whole state as npz."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to

POINT_CLOUD_SUFFIXES = (".ply", ".pcd")
LAYOUT = {  # end of a file's header, and bytes per point: position, colour, confidence, time, source
    ".ply": (b"end_header\n", 24),
    ".pcd": (b"DATA binary\n", 25),
}
EMPTY_PLY = """ply
format ascii 1.0
element vertex 0
property float x
property float y
property float z
end_header
"""
EMPTY_PCD = """VERSION 0.7
FIELDS x y z
SIZE 4 4 4
TYPE F F F
COUNT 1 1 1
WIDTH 0
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 0
DATA ascii
"""


@dataclass(frozen=True, kw_only=True)
class PointCloud:
    """Coloured points with their attributes in the map."""

    position_m: NDArray[np.float32]  # [N, 3]
    rgb_u8: NDArray[np.uint8]  # [N, 3]
    confidence: NDArray[np.float32]  # pixels behind the point. [N]
    last_seen_s: NDArray[np.float32]  # [N]
    source: NDArray[np.uint8]  # 1 generated, 2 reference. [N]


def write_points(cloud: PointCloud, path: str | Path) -> None:
    """Write a binary PLY or PCD, by suffix; confidence, last_seen_s and source are extra columns."""
    open3d = _open3d()

    path = _point_cloud_path(path)
    if len(cloud.position_m) == 0:  # Open3D cannot write an empty cloud
        with replacing(path) as temporary, writing_to(path):
            temporary.write_text(EMPTY_PLY if path.suffix.lower() == ".ply" else EMPTY_PCD, encoding="ascii")
        return
    points = open3d.t.geometry.PointCloud(_column_tensor(cloud.position_m))
    points.point["colors"] = _column_tensor(cloud.rgb_u8)
    for name in ("confidence", "last_seen_s", "source"):
        points.point[name] = _column_tensor(getattr(cloud, name)[:, None])
    with replacing(path) as temporary, writing_to(path):
        with open(temporary, "wb") as file:  # is there room? Open3D would not raise
            os.posix_fallocate(file.fileno(), 0, LAYOUT[path.suffix.lower()][1] * len(cloud.position_m) + 4096)
        with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
            is_written = open3d.t.io.write_point_cloud(str(temporary), points, write_ascii=False, compressed=False)
        if not is_written or not _is_whole(temporary, len(cloud.position_m)):
            raise InputError(f"cannot write {path.name} to folder {path.parent}: no room or no permission")


def _is_whole(path: Path, num_points: int) -> bool:
    """Whether the file has all bytes of its points, since Open3D also reports success on a full disk."""
    end_of_header, point_bytes = LAYOUT[path.suffix.lower()]
    with open(path, "rb") as file:
        before, found, _ = file.read(4096).partition(end_of_header)
    return path.stat().st_size == len(before) + len(found) + point_bytes * num_points


def read_points(path: str | Path) -> PointCloud:
    """Read a PLY or PCD with colours; columns missing in files of other programs become 1, 0 s and `reference`."""
    open3d = _open3d()
    path = _point_cloud_path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        points = open3d.t.io.read_point_cloud(str(path))
    if "positions" not in points.point or len(points.point["positions"]) == 0:
        raise InputError(f"{path}: no points in it, or no readable {path.suffix[1:].upper()}: want a point cloud")
    if "colors" not in points.point:
        raise InputError(f"{path}: points have no colours: want red, green, blue")
    position_m = points.point["positions"].numpy().astype(np.float32)
    num_points = len(position_m)

    def column(name: str, default: float, dtype: Any) -> NDArray[Any]:
        if name not in points.point:
            return np.full(num_points, default, dtype=dtype)
        return points.point[name].numpy().reshape(num_points).astype(dtype)

    colors = points.point["colors"].numpy()
    if colors.dtype != np.uint8:
        colors = np.rint(255 * np.clip(colors, 0, 1)).astype(np.uint8)
    return PointCloud(
        position_m=position_m,
        rgb_u8=colors,
        confidence=column("confidence", 1, np.float32),
        last_seen_s=column("last_seen_s", 0, np.float32),
        source=column("source", 2, np.uint8),
    )


def write_npz(state: dict[str, NDArray[Any]], path: str | Path) -> None:
    """Write arrays by name; reading them back needs no pickle."""
    with replacing(path) as temporary, writing_to(Path(path)), open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **state)


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read arrays by name; a file with anything but plain arrays is refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable npz of plain arrays") from error


def _point_cloud_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in POINT_CLOUD_SUFFIXES:
        raise InputError(f"{path}: want a name that ends in {' or '.join(POINT_CLOUD_SUFFIXES)}")
    return path


def _open3d() -> Any:
    """Open3D, imported on demand since that takes a second; its stubs are partly wrong, hence Any."""
    import open3d

    return open3d


def _column_tensor(values: NDArray[Any]) -> Any:
    return _open3d().core.Tensor(np.ascontiguousarray(values))
