"""Pictures for people: layout, meaning of colours, atomic png."""

import numpy as np
import pytest
from PIL import Image

from inspatio_sim.errors import InputError
from inspatio_sim.pictures import colour_depth, contact_sheet, save_png, side_by_side

STRIP, GAP = 22, 4  # heights of a label and of the gap between pictures


def flat(level: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_contact_sheet_shows_first_to_last():
    frames = np.stack([flat(10 * n) for n in range(20)])
    sheet = contact_sheet(frames, columns=3, max_frames=5)
    assert sheet.shape == (2 * (STRIP + 40) + GAP, 3 * 60 + 2 * GAP, 3)
    middles = [(STRIP + 20 + row * (STRIP + 40 + GAP), 30 + col * (60 + GAP)) for row in (0, 1) for col in (0, 1, 2)]
    shown = [int(sheet[v, u, 0]) for v, u in middles]
    assert shown[:5] == [0, 50, 100, 140, 190]
    assert shown[5] < 20  # an empty cell


def test_contact_sheet_labels():
    frames = np.stack([flat(100)] * 3)
    plain, named = contact_sheet(frames), contact_sheet(frames, labels=["start", "middle", "end"])
    assert plain.shape == named.shape
    assert (plain[:STRIP] != named[:STRIP]).any()
    np.testing.assert_array_equal(plain[STRIP:], named[STRIP:])
    assert named[:STRIP].max() > 150  # there is text


def test_big_frames_shrink_on_a_contact_sheet():
    assert contact_sheet(np.zeros((2, 480, 960, 3), np.uint8)).shape == (STRIP + 240, 2 * 480 + GAP, 3)


def test_side_by_side_puts_panels_at_one_height():
    picture = side_by_side({"render": flat(50), "depth": flat(100), "map": flat(200, 80, 80)})
    assert picture.shape == (STRIP + 40, 60 + 60 + 40 + 2 * GAP, 3)
    assert [int(picture[STRIP + 20, u, 0]) for u in (30, 94, 148)] == [50, 100, 200]


def test_side_by_side_grid():
    picture = side_by_side({str(n): flat(n) for n in range(5)})
    assert picture.shape == (2 * (STRIP + 40) + GAP, 3 * 60 + 2 * GAP, 3)
    assert side_by_side({str(n): flat(n) for n in range(5)}, columns=5).shape[0] == STRIP + 40


def test_long_labels_stay_inside_their_panel():
    picture = side_by_side({"a very long label that does not fit " * 3: flat(0), "b": flat(0)})
    assert picture[:STRIP, 58:60].max() < 60


def test_near_is_red_and_far_is_blue():
    depth_m = np.geomspace(0.5, 20, 100).astype(np.float32)[None].repeat(4, 0)
    depth_m[0] = 0
    colours = colour_depth(depth_m).astype(int)
    near, far = colours[1, 3], colours[1, -3]
    assert near[0] > near[2] + 50
    assert far[2] > far[0] + 50
    assert (colours[0] == 0).all()
    assert colours[1:].sum(axis=-1).min() > 100  # black means unknown and nothing else


def test_fixed_range_keeps_colours_between_frames():
    first, second = np.full((4, 4), 2.0, np.float32), np.full((4, 4), 2.0, np.float32)
    second[0] = 9.0
    one, other = (colour_depth(depth_m, max_m=10, min_m=0.5) for depth_m in (first, second))
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_unknown_depth_is_black(value):
    assert not colour_depth(np.full((4, 4), value, np.float32)).any()


def test_flat_depth_has_a_colour():
    assert colour_depth(np.full((4, 4), 3.0, np.float32)).any()


def test_save_png(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    save_png(tmp_path / "new" / "a.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write a\.png to folder"):
        save_png(tmp_path / "file" / "a.png", picture)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contact_sheet(np.zeros((0, 4, 4, 3), np.uint8)), "frames have shape"),
        (lambda: contact_sheet(np.zeros((2, 20, 20, 3), np.uint8), labels=["one"]), "1 labels for 2 frames"),
        (lambda: contact_sheet(np.zeros((2, 20, 20, 3), np.uint8), columns=0), "columns=0"),
        (lambda: side_by_side({}), "no panels"),
        (lambda: side_by_side({"a": np.zeros((4, 4), np.uint8)}), "picture 'a' is uint8"),
        (lambda: colour_depth(np.ones((2, 2), np.float32), max_m=-1), "max_m=-1"),
        (lambda: save_png("a.jpg", np.zeros((4, 4, 3), np.uint8)), "a.jpg"),
        (lambda: save_png("a.png", np.zeros((4, 4, 3), np.float32)), "float32"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
