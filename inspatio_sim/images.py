"""Image files in: upright 8-bit RGB, whatever was stored. A file may hold one picture or a film of several."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from inspatio_sim.errors import InputError
from inspatio_sim.framing import PixelT
from inspatio_sim.image_kinds import errors_named, identified

logger = logging.getLogger(__name__)

_FILM_FORMATS = ("PNG", "WEBP", "AVIF", "GIF", "TIFF")
_UNTOLD_S = 0.1  # how long browsers show a picture of a film that says 0
_SUBFILE_TYPE = 254  # a TIFF tag; its bits:
_IS_REDUCED, _IS_MASK = 1, 4


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
        if path.is_dir():
            os.scandir(path).close()
        elif path.is_file():  # opening says what permission bits do not: of containers, access lists, capabilities
            path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:  # a null character
        raise InputError(f"{str(path)!r}: is no file name") from error
    if path.is_file() and num_bytes == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")


def open_image(path: Path) -> Image.Image:
    """Decode the picture of an image file; a film of several is refused."""
    check_readable(path)
    image = identified(path)
    pages = _pages(image, path)
    if len(pages) > 1:
        raise InputError(
            f"{path}: {len(pages)} pictures in one file: want one; given alone it would be read as a clip of them"
        )
    _turn_to(image, pages[0], path)
    return image


def read_image(path: Path, *, is_upright: bool = True) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB.

    Transparent parts are laid over black. 16-bit pictures keep their high byte. Palettes, gray and CMYK
    become RGB. Of a stereo photo (MPO) the first picture counts, of several resolutions the full one.

    Args:
        path: the file.
        is_upright: turn the picture as its EXIF orientation says. Off for frames that come with K,
            which belongs to the pixels as stored.

    Returns:
        RGB. [H, W, 3]
    """
    image = open_image(path)
    return _rgb(_upright(image, path) if is_upright else image, path)


@dataclass(frozen=True, kw_only=True)
class Film:
    """An image file with several pictures: animated WebP, PNG or AVIF, or a TIFF of many pages."""

    path: Path
    pages: Sequence[int]
    durations_s: Sequence[float] | None  # how long each is shown; None: the format has no times

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """All pictures, as `read_image` would give them. [H, W, 3] each"""
        with identified(self.path) as image:
            for page in self.pages:
                _turn_to(image, page, self.path)
                yield _rgb(_upright(image, self.path), self.path)


def open_film(path: Path) -> Film | None:
    """What an image file with several pictures holds; None if it has one."""
    with identified(path) as image:
        pages = _pages(image, path)
        if len(pages) == 1:
            return None
        if image.format == "TIFF":
            return Film(path=path, pages=pages, durations_s=None)
        durations_s = []
        for page in pages:
            _turn_to(image, page, path)  # decodes: the times are told as late as that
            durations_s.append(image.info.get("duration", 0) / 1000 or _UNTOLD_S)
    return Film(path=path, pages=pages, durations_s=durations_s)


def over_black(rgba: NDArray[PixelT]) -> NDArray[PixelT]:
    """Lay a picture with straight alpha over black; 8 or 16 bits stay. [H, W, 4] -> [H, W, 3]"""
    white = np.iinfo(rgba.dtype).max
    rgb, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((rgb * alpha + white // 2) // white).astype(rgba.dtype)


def _pages(image: Image.Image, path: Path) -> list[int]:
    """Which pictures of a file belong to its film; one for a still, whatever else lies beside it."""
    with errors_named(path):
        num_pages = getattr(image, "n_frames", 1)
    first = image.tell()
    if num_pages == 1 or image.format == "MPO":  # the other eye's, or a smaller one
        return [first]
    if image.format not in _FILM_FORMATS:
        logger.warning("%s: %d pictures in this file: the main one is taken", path, num_pages)
        return [first]
    if isinstance(image, TiffImageFile):
        return _full_pages(image, num_pages, path)
    return list(range(int(getattr(image, "default_image", False)), num_pages))  # a PNG's stand-in is no part of it


def _full_pages(image: TiffImageFile, num_pages: int, path: Path) -> list[int]:
    """Pages of a TIFF that are no previews, masks or coarser levels."""
    sizes_px = {}
    with errors_named(path):
        for page in range(num_pages):
            image.seek(page)
            if not image.tag_v2.get(_SUBFILE_TYPE, 0) & (_IS_REDUCED | _IS_MASK):
                sizes_px[page] = image.size
    if not sizes_px:
        raise InputError(f"{path}: holds previews only: want the picture itself")
    first = next(iter(sizes_px))
    pages = [page for page, size_px in sizes_px.items() if size_px == sizes_px[first]]
    if len(pages) < len(sizes_px):
        logger.warning("%s: %d pages of another size are left out", path, len(sizes_px) - len(pages))
    return pages


def _turn_to(image: Image.Image, page: int, path: Path) -> None:
    """Decode one picture of an open file."""
    with errors_named(path):
        image.seek(page)
        image.load()


def _upright(image: Image.Image, path: Path) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF parser raises many kinds; a picture with damaged EXIF is still a picture
        logger.warning("%s: damaged EXIF data: the picture is taken as stored", path)
        return image


def _rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise InputError(f"{path}: floating-point pixels: want an 8- or 16-bit picture")
    if image.mode.startswith("I"):  # 16-bit gray
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 0xFFFF:
            raise InputError(f"{path}: 32-bit pixels: want an 8- or 16-bit picture")
        return np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "LAB":
        raise InputError(f"{path}: Lab colours: want RGB, gray or CMYK")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))
