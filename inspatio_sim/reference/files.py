"""Reference <-> folder: png frames, safetensors geometry, and a json that describes them.

frames/000000.png ...   the frames, lossless
geometry.safetensors    depth_m [T, H, W] f32, T_world_camera [T, 4, 4] f64
reference.json          format version, sizes, fps, intrinsics, scale, provenance, source, fingerprint,
                        is_static if it is
preview.png             a few frames above their depth, for people; not read back
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import save_arrays
from inspatio_sim.files.folders import staged_folder
from inspatio_sim.kernels import chunk_bounds, run_chunks

FORMAT = "inspatio-sim reference"
VERSION = 1
META_NAME, GEOMETRY_NAME, FRAMES_NAME, PREVIEW_NAME = "reference.json", "geometry.safetensors", "frames", "preview.png"

_MAX_META_BYTES = 1 << 20
_MAX_PIXELS = 1 << 34  # frames x height x width: what a folder may claim before anything is allocated
_NUM_CHUNKS = 8
_PREVIEW_FRAMES, _PREVIEW_WIDTH_PX = 4, 320


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a Reference folder."""

    frames_u8: NDArray[np.uint8]  # [T, H, W, 3]
    depth_m: NDArray[np.float32]  # [T, H, W]
    T_world_camera: NDArray[np.float64]  # [T, 4, 4]
    described: dict[str, Any]  # everything else in the fingerprint, JSON-ready
    source: str  # where the clip was; not in the fingerprint

    def fingerprint(self) -> str:
        """SHA-256 of everything but the source."""
        digest = hashlib.sha256(json.dumps(self.described, sort_keys=True).encode())
        for array in (self.frames_u8, self.depth_m, self.T_world_camera):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def write_contents(contents: Contents, folder: Path, *, overwrite: bool = False) -> None:
    """Write the folder whole or not at all.

    Raises:
        InputError: the folder exists (unless `overwrite`), holds other files, or cannot be written.
    """
    if folder.exists() and not overwrite:
        raise InputError(f"reference folder {folder}: exists already: want a new name, or overwrite=True")
    with staged_folder(folder, {META_NAME, GEOMETRY_NAME, FRAMES_NAME, PREVIEW_NAME}) as staging:
        (staging / FRAMES_NAME).mkdir()
        num_frames, height_px, width_px = contents.depth_m.shape
        chunks = chunk_bounds(num_frames, _NUM_CHUNKS)
        run_chunks(_write_frames, [(contents.frames_u8, staging / FRAMES_NAME, *bounds) for bounds in chunks])
        arrays = {"depth_m": contents.depth_m, "T_world_camera": contents.T_world_camera}
        save_arrays(arrays, staging / GEOMETRY_NAME)
        Image.fromarray(preview(contents.frames_u8, contents.depth_m)).save(staging / PREVIEW_NAME)
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "num_frames": num_frames,
            "height_px": height_px,
            "width_px": width_px,
            **contents.described,
            "source": contents.source,
            "fingerprint": contents.fingerprint(),
        }
        (staging / META_NAME).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def read_contents(folder: Path) -> tuple[Contents, str]:
    """Read what `write_contents` wrote, and its fingerprint at that time.

    Raises:
        InputError: a file is missing, damaged or of another version; the message names it.
    """
    meta = _read_meta(folder / META_NAME)
    try:
        num_frames, height_px, width_px = (meta.pop(key) for key in ("num_frames", "height_px", "width_px"))
        if not all(type(n) is int and n >= 1 for n in (num_frames, height_px, width_px)):
            raise InputError(f"{num_frames} frames of {width_px}x{height_px} px: want whole numbers from 1")
        if num_frames * height_px * width_px > _MAX_PIXELS:
            raise InputError(f"{num_frames} frames of {width_px}x{height_px} px: more than any memory holds")
        source, expected = str(meta.pop("source")), meta.pop("fingerprint")
    except (KeyError, ValueError) as error:
        raise InputError(f"{folder / META_NAME}: {_said(error)}") from error
    shape = (num_frames, height_px, width_px)
    depth_m, T_world_camera = _read_geometry(folder / GEOMETRY_NAME, shape)
    contents = Contents(
        frames_u8=_read_frames(folder / FRAMES_NAME, shape),
        depth_m=depth_m,
        T_world_camera=T_world_camera,
        described={name: value for name, value in meta.items() if name not in ("format", "version")},
        source=source,
    )
    return contents, expected


@contextmanager
def naming_the_file(folder: Path) -> Iterator[None]:
    """Turn errors in the values of a folder's json into an InputError that names it."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / META_NAME}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def preview(frames_u8: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A few frames, each above its depth (near is bright, unknown is black). [h, w, 3]"""
    num_frames, height_px, width_px = depth_m.shape
    frame_idxs = np.unique(np.linspace(0, num_frames - 1, _PREVIEW_FRAMES).astype(int))
    size = (_PREVIEW_WIDTH_PX, max(1, round(_PREVIEW_WIDTH_PX * height_px / width_px)))
    inverse_depth = 1 / np.where(depth_m[frame_idxs] > 0, depth_m[frame_idxs], np.inf)
    low, high = np.percentile(inverse_depth[inverse_depth > 0], [2, 98])
    columns = []
    for frame_idx, disparity in zip(frame_idxs, inverse_depth, strict=True):
        level = 25 + 230 * np.clip((disparity - low) / max(high - low, 1e-9), 0, 1)
        shades_u8 = np.where(disparity > 0, level, 0).astype(np.uint8)
        depth_u8 = cv2.applyColorMap(shades_u8, cv2.COLORMAP_INFERNO)[..., ::-1]
        frame_u8 = cv2.resize(frames_u8[frame_idx], size, interpolation=cv2.INTER_AREA)
        columns.append(np.vstack([frame_u8, cv2.resize(depth_u8, size, interpolation=cv2.INTER_NEAREST)]))
    return np.hstack(columns)


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_META_BYTES:
            raise InputError(f"{path}: larger than {_MAX_META_BYTES} bytes: not a reference")
        meta = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): want a folder made by Reference.save") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not JSON ({error}): damaged or cut off") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(f"{path}: want a file whose format is {FORMAT!r}")
    if meta.get("version") != VERSION:
        raise InputError(f"{path}: format version {meta.get('version')}: this program reads version {VERSION}")
    return meta


def _read_geometry(path: Path, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Depth and poses; sizes are checked before anything is read."""
    wanted = {"depth_m": ("F32", list(shape)), "T_world_camera": ("F64", [shape[0], 4, 4])}
    try:
        with safe_open(path, framework="numpy") as file:
            if sorted(file.keys()) != sorted(wanted):
                raise InputError(f"{path}: holds {sorted(file.keys())}: want {sorted(wanted)}")
            for name, (dtype, want) in wanted.items():
                entry = file.get_slice(name)
                if entry.get_dtype() != dtype or entry.get_shape() != want:
                    raise InputError(f"{path}: {name} is {entry.get_dtype()} {entry.get_shape()}: want {dtype} {want}")
            return file.get_tensor("depth_m"), file.get_tensor("T_world_camera")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a sound safetensors file ({error}): damaged or cut off") from error


def _write_frames(frames_u8: NDArray[np.uint8], folder: Path, start: int, stop: int) -> None:
    for i in range(start, stop):
        Image.fromarray(frames_u8[i]).save(folder / f"{i:06d}.png", compress_level=1)


def _read_frames(folder: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    for i in (0, shape[0] - 1):  # before a large allocation
        if not (folder / f"{i:06d}.png").is_file():
            raise InputError(f"{folder / f'{i:06d}.png'}: missing: want {shape[0]} frames")
    frames_u8 = np.empty((*shape, 3), np.uint8)
    run_chunks(_read_chunk, [(frames_u8, folder, *bounds) for bounds in chunk_bounds(shape[0], _NUM_CHUNKS)])
    return frames_u8


def _read_chunk(frames_u8: NDArray[np.uint8], folder: Path, start: int, stop: int) -> None:
    height_px, width_px = frames_u8.shape[1:3]
    for i in range(start, stop):
        path = folder / f"{i:06d}.png"
        try:
            with Image.open(path, formats=["PNG"]) as image:
                if image.size != (width_px, height_px) or image.mode != "RGB":
                    came = f"{image.mode} {image.size[0]}x{image.size[1]} px"
                    raise InputError(f"{path}: {came}: want RGB {width_px}x{height_px} px")
                frames_u8[i] = np.asarray(image)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
