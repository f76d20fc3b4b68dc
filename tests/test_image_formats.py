"""Kinds of pictures and their traits: orientation, alpha, 16 bit, CMYK, palettes, tiles, films of several pictures.

All files are made here and compared with the pixels that went in.
"""

import io
import logging
import struct
import zlib

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from inspatio_sim.clips.images import read_image
from inspatio_sim.clips.video import clip_files, read_clip
from inspatio_sim.errors import InputError

H, W = 48, 64
ORIENTATION = 0x0112

UPRIGHT = {  # what viewers do with the stored picture for each value of EXIF's orientation
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: np.swapaxes(stored, 0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(np.swapaxes(stored, 0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}


def picture(height_px: int = H, width_px: int = W, shift: int = 0) -> np.ndarray:
    """Smooth colours without any symmetry."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    ramps = 30 + 180 * y / height_px, 200 - 150 * x / width_px, 40 + 90 * (x + y + shift) / (height_px + width_px)
    return np.stack(ramps, axis=-1).astype(np.uint8)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


def refusal(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_clip(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# HEIC, box by box, as phones write it: tiles in HEVC, a grid that says how they lie, turned by its properties


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def hevc(tiles_u8: list[np.ndarray]) -> tuple[bytes, list[bytes]]:
    """The decoder's configuration (hvcC) and the coded tiles, each by itself."""
    file = io.BytesIO()
    options = {"crf": "12", "preset": "ultrafast", "x265-params": "log-level=none:keyint=1:bframes=0"}
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *tiles_u8[0].shape[:2], "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        for tile_u8 in tiles_u8:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(tile_u8), format="rgb24")))
        output.mux(stream.encode())
    data = file.getvalue()
    at = data.index(b"hvcC") - 4
    config = data[at : at + int.from_bytes(data[at : at + 4], "big")]
    with av.open(io.BytesIO(data), "r") as written:
        return config, [bytes(packet) for packet in written.demux(video=0) if packet.size]


def heic(rgb_u8: np.ndarray, *, tile_px: int = 64, turns: int = 0, mirror: int | None = None) -> bytes:
    """A HEIC file.

    Args:
        rgb_u8: the picture as stored, its sides multiples of `tile_px`. [H, W, 3]
        tile_px: side of the tiles.
        turns: quarter turns counterclockwise that show it upright.
        mirror: after that; 0 exchanges top and bottom, 1 left and right.
    """
    height_px, width_px = rgb_u8.shape[:2]
    rows, columns = height_px // tile_px, width_px // tile_px
    config, tiles = hevc(
        [
            rgb_u8[y : y + tile_px, x : x + tile_px]
            for y in range(0, height_px, tile_px)
            for x in range(0, width_px, tile_px)
        ]
    )
    grid_id = len(tiles) + 1
    properties = [
        config,
        full_box(b"ispe", 0, 0, struct.pack(">II", tile_px, tile_px)),
        full_box(b"ispe", 0, 0, struct.pack(">II", width_px, height_px)),
        box(b"irot", bytes([turns])),
        *([] if mirror is None else [box(b"imir", bytes([mirror]))]),
    ]
    of_tile, of_grid = bytes([2, 0x81, 2]), bytes([len(properties) - 2, *range(3, len(properties) + 1)])
    items = [(n, b"hvc1", 1) for n in range(1, grid_id)] + [(grid_id, b"grid", 0)]
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width_px, height_px)
    ftyp = box(b"ftyp", b"heic", bytes(4), b"mif1heic")

    def meta(first_byte: int) -> bytes:
        places, at = [], first_byte
        for n, data in enumerate(tiles, start=1):
            places.append(struct.pack(">HHHHII", n, 0, 0, 1, at, len(data)))
            at += len(data)
        places.append(struct.pack(">HHHHII", grid_id, 1, 0, 1, 0, len(grid)))  # in idat
        return full_box(
            b"meta",
            0,
            0,
            full_box(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, 0, struct.pack(">H", grid_id)),
            full_box(b"iloc", 1, 0, struct.pack(">HH", 0x4400, len(places)), *places),
            full_box(
                b"iinf",
                0,
                0,
                struct.pack(">H", len(items)),
                *(full_box(b"infe", 2, hidden, struct.pack(">HH", n, 0), kind, b"\0") for n, kind, hidden in items),
            ),
            full_box(
                b"iref", 0, 0, box(b"dimg", struct.pack(f">HH{len(tiles)}H", grid_id, len(tiles), *range(1, grid_id)))
            ),
            box(
                b"iprp",
                box(b"ipco", *properties),
                full_box(
                    b"ipma",
                    0,
                    0,
                    struct.pack(">I", len(items)),
                    *(struct.pack(">H", n) + (of_grid if n == grid_id else of_tile) for n, _, _ in items),
                ),
            ),
            box(b"idat", grid),
        )

    first_byte = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(first_byte) + box(b"mdat", *tiles)


@pytest.fixture
def needs_x265():
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV has no libx265 to make HEIC files with")


@pytest.mark.usefixtures("needs_x265")
@pytest.mark.parametrize("mirror", [None, 0, 1])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_heic_is_whole_and_upright(tmp_path, turns, mirror):
    stored = picture(128, 192)
    (tmp_path / "photo.heic").write_bytes(heic(stored, turns=turns, mirror=mirror))
    upright = np.rot90(stored, turns)
    if mirror is not None:
        upright = np.flip(upright, axis=mirror)
    frames = read_clip(tmp_path / "photo.heic").frames_u8
    assert frames.shape[0] == 1
    assert difference(frames[0], upright) < 3


@pytest.mark.usefixtures("needs_x265")
def test_heic_of_48_tiles_by_content_and_in_a_folder(tmp_path):
    stored = picture(6 * 64, 8 * 64)
    for name in ("IMG_1.HEIC", "IMG_2.heif"):
        (tmp_path / name).write_bytes(heic(stored))
    clip = read_clip(tmp_path)
    assert len(clip.frames_u8) == 2
    assert difference(clip.frames_u8[1], stored) < 3
    (tmp_path / "IMG_1.HEIC").rename(tmp_path / "IMG_1.mp4")
    assert difference(read_clip(tmp_path / "IMG_1.mp4").frames_u8[0], stored) < 3


@pytest.mark.usefixtures("needs_x265")
def test_broken_heic(tmp_path):
    path = tmp_path / "photo.heic"
    data = heic(picture(64, 64))
    for num_bytes in (30, 200, len(data) - 100):
        path.write_bytes(data[:num_bytes])
        assert str(path) in refusal(path)
    path.write_bytes(data.replace(b"ftypheic", b"ftypmsf1"))
    assert "photo.heic: a HEIF sequence" in refusal(path)
    assert "`ffmpeg -i photo.heic photo.mp4`" in refusal(path)


def test_handed_heic(test_data):
    folder = test_data / "cases" / "clips"
    if not (folder / "grid.heic").is_file():
        pytest.skip(f"{folder} has no grid.heic")
    assert difference(read_clip(folder / "grid.heic").frames_u8[0], read_image(folder / "grid_truth.png")) < 3


# Orientation


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("suffix", "tolerance"), [("jpg", 3), ("png", 0), ("webp", 3), ("tif", 0), ("avif", 3)])
def test_exif_orientation(tmp_path, suffix, tolerance, orientation):
    stored = picture()
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif_of(orientation), quality=95)
    upright = UPRIGHT[orientation](stored)
    assert difference(read_image(path), upright) <= tolerance
    assert difference(read_clip(path).frames_u8[0], upright) <= tolerance


@pytest.mark.parametrize("orientation", [3, 6, 7])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_films_are_turned_as_well(tmp_path, suffix, orientation):
    stored = [picture(shift=20 * n) for n in range(3)]
    path = tmp_path / f"a.{suffix}"
    first, *others = (Image.fromarray(frame) for frame in stored)
    if suffix == "tif":
        first.save(path, save_all=True, append_images=others, exif=exif_of(orientation))
    else:
        first.save(path, save_all=True, append_images=others, exif=exif_of(orientation), duration=40, lossless=True)
    frames = read_clip(path).frames_u8
    assert len(frames) == 3
    for frame, before in zip(frames, stored, strict=True):
        np.testing.assert_array_equal(frame, UPRIGHT[orientation](before))


# Pixels


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("a.png", 0),
        ("a.bmp", 0),
        ("a.tif", 0),
        ("a.ppm", 0),
        ("a.tga", 0),
        ("a.pcx", 0),
        ("a.sgi", 0),
        ("a.qoi", 0),
        ("a.jp2", 0),
        ("a.j2k", 0),
        ("a.ico", 0),
        ("a.jpg", 3),
        ("a.jpe", 3),
        ("a.jfif", 3),
        ("a.webp", 3),
        ("a.avif", 3),
    ],
)
def test_kinds_of_pictures(tmp_path, name, tolerance):
    if name == "a.qoi":
        (tmp_path / name).write_bytes(qoi(picture()))
    else:
        Image.fromarray(picture()).save(tmp_path / name, sizes=[(W, H)])  # of an ico, the others do not look
    assert difference(read_clip(tmp_path / name).frames_u8[0], picture()) <= tolerance
    assert clip_files(tmp_path / name) == [tmp_path / name]


def qoi(rgb_u8: np.ndarray) -> bytes:
    """The format's simplest form: every pixel in full."""
    pixels = np.concatenate([np.full((*rgb_u8.shape[:2], 1), 0xFE, np.uint8), rgb_u8], axis=2)
    return struct.pack(">4sIIBB", b"qoif", rgb_u8.shape[1], rgb_u8.shape[0], 3, 0) + pixels.tobytes() + bytes(7) + b"\1"


def test_the_content_counts_and_not_the_name(tmp_path):
    for name in ("a.png", "a.mp4", "a.dat", "a"):
        Image.fromarray(picture()).save(tmp_path / name, format="JPEG")
        assert difference(read_clip(tmp_path / name).frames_u8[0], picture()) < 3
    clip = read_clip([tmp_path / "a.dat", tmp_path / "a"])
    assert len(clip.frames_u8) == 2


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "avif", "jp2"])
def test_alpha_lies_over_black(tmp_path, suffix):
    alpha = np.zeros((H, W, 1), np.uint8)
    alpha[:, W // 2 :] = 255
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.concatenate([picture(), alpha], axis=2)).save(path, lossless=True, quality=100)
    frame = read_clip(path).frames_u8[0]
    assert difference(frame[:, W // 2 :], picture()[:, W // 2 :]) < 2
    assert frame[:, : W // 2 - 1].max() <= 2


@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_palettes(tmp_path, suffix):
    image = Image.fromarray(picture()).quantize(16)
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), np.asarray(image.convert("RGB")))


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(picture()).quantize(16)
    image.info["transparency"] = bytes([0] * 8 + [255] * 8)
    image.save(tmp_path / "a.png")
    wanted = np.asarray(image.convert("RGB")) * (np.asarray(image) >= 8)[..., None]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), wanted)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bit_gray_keeps_its_high_byte(tmp_path, suffix):
    gray = picture()[..., 0]
    Image.fromarray(gray.astype(np.uint16) << 8 | 77).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), np.repeat(gray[..., None], 3, axis=2))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_png_with_more_channels(tmp_path, channels):
    rgba = np.concatenate([picture(), np.full((H, W, 1), 255, np.uint8)], axis=2)
    stored = {2: rgba[..., [0, 3]], 3: rgba[..., :3], 4: rgba}[channels]
    wanted = np.repeat(rgba[..., :1], 3, axis=2) if channels == 2 else rgba[..., :3]
    (tmp_path / "a.png").write_bytes(png(stored.astype(">u2") << 8 | 77, {2: 4, 3: 2, 4: 6}[channels]))
    assert difference(read_image(tmp_path / "a.png"), wanted) <= 1


def png(samples: np.ndarray, color_type: int) -> bytes:
    """16-bit samples as a PNG file. [H, W, C]"""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("suffix", "tolerance"), [("tif", 0), ("jpg", 3)])
def test_cmyk(tmp_path, suffix, tolerance):
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / f"a.{suffix}", quality=95)
    assert difference(read_image(tmp_path / f"a.{suffix}"), picture()) <= tolerance


def test_pixels_that_are_no_picture(tmp_path):
    Image.fromarray(picture()[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    assert "float.tif: floating-point pixels" in refusal(tmp_path / "float.tif")
    Image.fromarray(picture()[..., 0].astype(np.int32) << 16).save(tmp_path / "deep.tif")
    assert "deep.tif: 32-bit pixels" in refusal(tmp_path / "deep.tif")
    Image.new("LAB", (W, H)).save(tmp_path / "lab.tif")
    assert "lab.tif: Lab colours" in refusal(tmp_path / "lab.tif")


# Kinds that are not read


@pytest.mark.parametrize(
    ("name", "what", "command"),
    [
        ("a.dng", "a raw photo", "darktable-cli a.dng a.png"),
        ("a.CR2", "a raw photo", "darktable-cli a.CR2 a.png"),
        ("a.jxl", "JPEG XL", "djxl a.jxl a.png"),
        ("a.exr", "a floating-point picture", "magick a.exr a.png"),
        ("a.pdf", "a document", "pdftoppm -png -singlefile a.pdf a"),
        ("a.mjpg", "JPEG pictures without a container", "ffmpeg -i a.mjpg a.mp4"),
    ],
)
def test_refused_kinds_say_what_to_convert(tmp_path, name, what, command):
    Image.fromarray(picture()).save(tmp_path / name, format="TIFF" if what == "a raw photo" else "JPEG")
    for given in (tmp_path / name, [tmp_path / name]):
        assert refusal(given).endswith(
            f"{name}: {what}, which is not read: want it converted, for example by `{command}`"
        )


def test_a_raw_photo_under_another_name(tmp_path):
    """The first page of a DNG is a preview."""
    Image.fromarray(picture()).save(tmp_path / "a.tif", tiffinfo={50706: b"\1\4\0\0"})
    assert "a.tif: a raw photo" in refusal(tmp_path / "a.tif")


def test_a_folder_of_refused_kinds_says_so(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"raw")
    (tmp_path / "b.dng").write_bytes(b"raw")
    assert "a.dng: a raw photo" in refusal(tmp_path)
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    assert len(read_clip(tmp_path).frames_u8) == 1  # raw files beside their jpegs


# Films


def save_film(path, frames, **options) -> None:
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, **options)


@pytest.mark.parametrize(("suffix", "tolerance"), [("webp", 0), ("png", 0), ("apng", 0), ("avif", 3), ("gif", 2)])
def test_all_pictures_of_a_film_at_its_own_rate(tmp_path, suffix, tolerance):
    frames = [picture(shift=10 * n) for n in range(12)]
    path = tmp_path / f"a.{suffix}"
    save_film(path, frames, duration=80, lossless=True)
    clip = read_clip(path)
    assert clip.fps == pytest.approx(12.5)
    assert len(clip.frames_u8) == 12
    for frame, stored in zip(clip.frames_u8, frames, strict=True):
        assert difference(frame, stored) <= tolerance if suffix != "gif" else 6
    assert clip.source == str(path)
    assert clip_files(path) == [path]


@pytest.mark.parametrize("suffix", ["webp", "png", "avif"])
def test_durations_that_vary(tmp_path, suffix):
    """As for videos: the usual rate, a picture that stays longer is repeated."""
    frames = [np.full((H, W, 3), 40 * n, np.uint8) for n in range(5)]
    save_film(tmp_path / f"a.{suffix}", frames, duration=[100, 100, 300, 100, 200])
    clip = read_clip(tmp_path / f"a.{suffix}")
    assert clip.fps == pytest.approx(10)
    assert [round(frame.mean() / 40) for frame in clip.frames_u8] == [0, 1, 2, 2, 2, 3, 4, 4]
    half = read_clip(tmp_path / f"a.{suffix}", fps=5)
    assert half.fps == 5
    assert len(half.frames_u8) == 4
    assert len(read_clip(tmp_path / f"a.{suffix}", max_frames=3).frames_u8) == 3
    assert read_clip(tmp_path / f"a.{suffix}", every=2).fps == 5
    assert clip.notes == ("frames come at uneven times: at a steady 10 Hz 0 of 5 are left out and 3 are repeats",)
    late = read_clip(tmp_path / f"a.{suffix}", start_frame=4, max_frames=2)
    np.testing.assert_array_equal(late.frames_u8, clip.frames_u8[4:6])


def test_a_long_pause_is_taken_out(tmp_path, caplog):
    frames = [np.full((H, W, 3), 40 * n, np.uint8) for n in range(4)]
    save_film(tmp_path / "a.png", frames, duration=[100, 100, 60_000, 100])
    clip = read_clip(tmp_path / "a.png")
    np.testing.assert_array_equal(clip.frames_u8, frames)
    assert clip.notes == ("pauses of 60.0 s in all are taken out",)
    assert "a.png: pauses of 60.0 s in all are taken out" in caplog.text


def test_a_film_without_times_is_shown_as_browsers_do(tmp_path):
    save_film(tmp_path / "a.png", [picture(), 255 - picture()], duration=0)
    assert read_clip(tmp_path / "a.png").fps == 10


def test_a_png_film_with_a_picture_for_old_viewers(tmp_path):
    frames = [picture(shift=50 * n) for n in range(3)]
    stand_in = Image.new("RGB", (W, H), "red")
    others = [Image.fromarray(frame) for frame in frames]
    stand_in.save(tmp_path / "a.png", save_all=True, append_images=others, default_image=True, duration=40)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.png").frames_u8, frames)


def test_pages_of_a_tiff_come_at_the_rate_of_pictures(tmp_path):
    frames = [picture(shift=10 * n) for n in range(5)]
    save_film(tmp_path / "a.tif", frames)
    clip = read_clip(tmp_path / "a.tif")
    assert clip.fps == 24
    np.testing.assert_array_equal(clip.frames_u8, frames)
    clip = read_clip(tmp_path / "a.tif", fps=5, every=2)
    assert clip.fps == 2.5
    np.testing.assert_array_equal(clip.frames_u8, frames[::2])


def test_previews_and_levels_are_no_film(tmp_path, caplog):
    """A small page first that says it is one, and coarser levels that do not."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for size_px, subfile_type in (((24, 32), 1), ((H, W), 0), ((24, 32), 0), ((16, 20), 0)):
            file.write(picture(*size_px), photometric="rgb", subfiletype=subfile_type)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_clip(tmp_path / "a.tif").frames_u8, picture()[None])
    assert "a.tif: 2 pages of another size are left out" in caplog.text


def test_stereo_photos_are_no_film(tmp_path):
    save_film(tmp_path / "a.jpg", [picture(), 255 - picture()], format="MPO", quality=95)
    frames = read_clip(tmp_path / "a.jpg").frames_u8
    assert frames.shape[0] == 1
    assert difference(frames[0], picture()) < 3


@pytest.mark.parametrize("suffix", ["webp", "png", "avif", "tif", "gif"])
def test_a_film_among_pictures_is_refused(tmp_path, suffix):
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    save_film(tmp_path / f"b.{suffix}", [picture(), 255 - picture()])
    for given in (tmp_path, [tmp_path / "a.jpg", tmp_path / f"b.{suffix}"]):
        assert f"b.{suffix}: 2 pictures in one file: want one" in refusal(given)


def test_a_film_that_takes_too_much_memory(tmp_path):
    save_film(tmp_path / "a.png", [picture(), 255 - picture(), picture()], duration=[10, 10, 1900])
    assert "a.png: the frames need" in refusal(tmp_path / "a.png", max_bytes=1_000_000)


@pytest.mark.parametrize("suffix", ["webp", "png", "avif", "tif"])
def test_a_film_that_is_cut_off(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save_film(path, [picture(shift=10 * n) for n in range(8)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refusal(path)


def test_handed_film(test_data):
    path = test_data / "cases" / "clips" / "anim.webp"
    if not path.is_file():
        pytest.skip(f"no {path}")
    clip = read_clip(path)
    assert len(clip.frames_u8) == 24
    assert np.abs(np.diff(clip.frames_u8.astype(int), axis=0)).mean(axis=(1, 2, 3)).min() > 0
