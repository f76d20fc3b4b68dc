"""Kinds of image files, recognised by content; unsupported kinds raise an error with a command to convert them.

Pillow decodes the rest, restricted to formats that read only the file itself. HEIC goes through
libheif (`pi_heif`), which assembles the tiles of a photo.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pi_heif
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from inspatio_sim.clips.framing import MAX_IMAGE_PX, check_side
from inspatio_sim.errors import InputError

pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

IMAGE_SUFFIXES = frozenset(  # collected from folders
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".avif", ".heic", ".heif", ".hif")
    + (".tif", ".tiff", ".bmp", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".sgi", ".qoi")
)
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "PCX", "SGI", "SUN", "QOI", "ICO")
_TGA_SUFFIXES = (".tga", ".icb", ".vda", ".vst")  # TGA has no magic number

# Files in the box layout of MP4, by the brands that they declare
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}
_SEQUENCE_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

_RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f")
_RAW = ("a raw photo", "darktable-cli {name} {stem}.png")
_SEQUENCE = ("a HEIF sequence", "ffmpeg -i {name} {stem}.mp4")
NOT_READ = {  # suffix -> what it is, and a command to convert it
    **dict.fromkeys(_RAW_SUFFIXES, _RAW),
    **dict.fromkeys((".heics", ".heifs"), _SEQUENCE),
    **dict.fromkeys((".mjpg", ".mjpeg"), ("JPEG pictures without a container", "ffmpeg -i {name} {stem}.mp4")),
    **dict.fromkeys((".exr", ".hdr", ".pfm"), ("a floating-point picture", "magick {name} {stem}.png")),
    **dict.fromkeys((".eps", ".ps", ".ai"), ("a PostScript drawing", "magick -density 150 {name} {stem}.png")),
    **dict.fromkeys((".psd", ".psb"), ("a Photoshop document", "magick '{name}[0]' {stem}.png")),
    ".jxl": ("JPEG XL", "djxl {name} {stem}.png"),
    ".pdf": ("a document", "pdftoppm -png -singlefile {name} {stem}"),
    ".svg": ("a drawing", "rsvg-convert {name} -o {stem}.png"),
    ".xcf": ("a GIMP project", "magick {name} -flatten {stem}.png"),
}
_DNG_VERSION = 50706  # a TIFF tag

_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    TypeError,
    LookupError,
    struct.error,
)  # from Pillow


def is_image_file(path: Path) -> bool:
    """Whether a file is an image or an animation, or is meant as one; if not it may be a video.

    GIF counts as a video.
    """
    suffix = path.suffix.lower()
    if suffix in NOT_READ:
        return True
    try:
        with identified(path) as image:
            return image.format != "GIF"
    except InputError:
        return suffix in IMAGE_SUFFIXES - {".gif"}


def check_kind(path: Path) -> None:
    """Raise InputError for an image format that is not supported."""
    if kind := NOT_READ.get(path.suffix.lower()):
        raise _refusal(path, *kind)


def identified(path: Path) -> Image.Image:
    """Open an image file by its content; it is not decoded yet."""
    check_kind(path)
    with errors_named(path):
        with path.open("rb") as file:
            brands = _brands(file.read(256))
        if brands and brands[0] in _SEQUENCE_BRANDS:
            raise _refusal(path, *_SEQUENCE)
        image = Image.open(path, formats=_formats(path, brands))
        if isinstance(image, TiffImageFile) and _DNG_VERSION in image.tag_v2:  # its first page is a small preview
            raise _refusal(path, *_RAW)
        check_side(image.height, image.width, str(path))
    return image


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn every error of a broken image file into an InputError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about big images (`check_side` is stricter) and odd metadata
            yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit is higher
        raise InputError(
            f"{path}: the image is too big: want at most {MAX_IMAGE_PX // 1_000_000} million pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image that can be read") from error
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: the image is damaged: {reason}") from error


def _formats(path: Path, brands: Sequence[bytes]) -> tuple[str, ...]:
    """Pillow's names of the formats that a file may have."""
    if brands:
        if _AVIF_BRANDS.intersection(brands):
            return ("AVIF",)
        return ("HEIF",) if _STILL_BRANDS.intersection(brands) else ()
    return (*_FORMATS, "TGA") if path.suffix.lower() in _TGA_SUFFIXES else _FORMATS


def _brands(head: bytes) -> list[bytes]:
    """The brands of a file in the box layout of MP4, the main one first; empty for other files."""
    if head[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]


def _refusal(path: Path, what: str, command: str) -> InputError:
    command = command.format(name=path.name, stem=path.stem)
    return InputError(f"{path}: {what}, which is not read: want it converted, for example by `{command}`")
