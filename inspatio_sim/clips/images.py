"""Image files in: upright 8-bit RGB, whatever was stored."""

from __future__ import annotations

import logging
import os
import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from inspatio_sim.clips.framing import MAX_IMAGE_PX, check_side
from inspatio_sim.errors import InputError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame_10 after frame_9."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts]


def files_with_suffix(folder: Path, suffixes: frozenset[str] | set[str]) -> list[Path]:
    """Visible files of these kinds, in natural order."""
    try:
        names = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {os.strerror(error.errno or 0)}") from error
    found = [path for path in names if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted((path for path in found if path.is_file()), key=natural_key)


def check_readable(path: Path) -> None:
    """Refuse a missing, unreadable or empty file."""
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:  # a null character
        raise InputError(f"{str(path)!r}: is no file name") from error
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read: permission denied")
    if path.is_file() and num_bytes == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")


def open_image(path: Path) -> Image.Image:
    """Decode an image file; every way in which it can be broken becomes an InputError."""
    check_readable(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of big images (`check_side` is stricter) and odd metadata
            image = Image.open(path)
            check_side(image.height, image.width, str(path))
            image.load()
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit lies higher
        raise InputError(
            f"{path}: the image is too big: want at most {MAX_IMAGE_PX // 1_000_000} million pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image that can be read") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{path}: the image is damaged: {_first_line(error)}") from error
    return image


def read_image(path: Path, *, is_upright: bool = True) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB.

    Transparent parts are laid over black. 16-bit pictures keep their high byte. Palettes, gray and
    CMYK become RGB.

    Args:
        path: the file.
        is_upright: turn the picture as its EXIF orientation says. Off for frames that come with K,
            which belongs to the pixels as stored.

    Returns:
        RGB. [H, W, 3]
    """
    image = open_image(path)
    if is_upright:
        image = _upright(image, path)
    if image.mode == "F":
        raise InputError(f"{path}: floating-point pixels: want an 8- or 16-bit picture")
    if image.mode.startswith("I"):  # 16-bit gray
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 0xFFFF:
            raise InputError(f"{path}: 32-bit pixels: want an 8- or 16-bit picture")
        return np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def over_black(rgba_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a picture with straight alpha over black. [H, W, 4] -> [H, W, 3]"""
    rgb, alpha = rgba_u8[..., :3].astype(np.uint16), rgba_u8[..., 3:].astype(np.uint16)
    return ((rgb * alpha + 127) // 255).astype(np.uint8)


def _upright(image: Image.Image, path: Path) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF parser raises many kinds; a picture with damaged EXIF is still a picture
        logger.warning("%s: damaged EXIF data: the picture is taken as stored", path)
        return image


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
