"""Image files in: which files are pictures, in what order, how they lie, and what a film of pictures holds."""

import numpy as np
import pytest
from PIL import Image

from inspatio_sim.clips.image_kinds import IMAGE_SUFFIXES, is_image_file
from inspatio_sim.clips.images import files_with_suffix, open_film, over_black, read_image
from inspatio_sim.errors import InputError

H, W = 20, 30
ORIENTATION = 0x0112


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (H, W, 3), dtype=np.uint8)


def test_files_of_a_folder_in_natural_order(tmp_path):
    for name in ("frame_10.PNG", "frame_9.jpg", "Frame_8.heic", ".frame_1.png", "frame_2.txt"):
        (tmp_path / name).write_bytes(b"whatever")
    (tmp_path / "frame_3.png").mkdir()
    found = [path.name for path in files_with_suffix(tmp_path, IMAGE_SUFFIXES)]
    assert found == ["Frame_8.heic", "frame_9.jpg", "frame_10.PNG"]


@pytest.mark.parametrize(
    ("name", "format", "is_image"),
    [
        ("a.png", "PNG", True),
        ("a.mp4", "PNG", True),
        ("a.png", "GIF", False),  # FFmpeg reads it, as a film or not
        ("a.gif", "GIF", False),
        ("a.tga", "TGA", True),
        ("a.dat", "TGA", False),  # nothing to know it by
        ("a.png", None, True),  # meant as one; reading it says what is wrong
        ("a.dng", None, True),
        ("a.mp4", None, False),
    ],
)
def test_what_is_an_image_file(tmp_path, name, format, is_image):
    if format:
        Image.fromarray(noise()).save(tmp_path / name, format=format)
    else:
        (tmp_path / name).write_bytes(bytes(100))
    assert is_image_file(tmp_path / name) == is_image


def test_frames_that_come_with_K_stay_as_stored(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", is_upright=False), noise())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(noise(), -1))


def test_damaged_exif_costs_the_orientation_only(tmp_path, caplog):
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), noise())
    assert "a.png: damaged EXIF data: the picture is taken as stored" in caplog.text


def test_a_film_and_a_still(tmp_path):
    first, second = Image.fromarray(noise(0)), Image.fromarray(noise(1))
    first.save(tmp_path / "still.webp", lossless=True)
    assert open_film(tmp_path / "still.webp") is None
    first.save(tmp_path / "film.webp", save_all=True, append_images=[second], duration=[40, 250], lossless=True)
    film = open_film(tmp_path / "film.webp")
    assert film is not None
    assert film.durations_s == [0.04, 0.25]
    np.testing.assert_array_equal(list(film.frames()), [noise(0), noise(1)])
    with pytest.raises(InputError, match=r"film\.webp: 2 pictures in one file: want one"):
        read_image(tmp_path / "film.webp")
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    film = open_film(tmp_path / "pages.tif")
    assert film is not None
    assert film.durations_s is None


def test_over_black():
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 128], [200, 100, 50, 0]]], np.uint8)
    np.testing.assert_array_equal(over_black(rgba), [[[200, 100, 50], [100, 50, 25], [0, 0, 0]]])
