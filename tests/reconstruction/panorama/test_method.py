import json

import numpy as np
import pytest
from PIL import Image

from inspatio_sim.errors import InputError
from inspatio_sim.reconstruction.one_view.tiny import TinyReconstructor
from inspatio_sim.reconstruction.panorama.method import Panorama, read_panorama, reconstruct_panorama
from inspatio_sim.reconstruction.scale import ScaleRequest
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import truth
from inspatio_sim.scenes.panorama import PanoramaView, render_panorama
from inspatio_sim.scenes.rooms import random_room

SIZE_PX = (48, 80)


@pytest.fixture(scope="module")
def open_place() -> PanoramaView:
    """Things on a level floor, under the sky."""
    return render_panorama(random_room(11, 3, layout="open"), 128)


@pytest.fixture(scope="module")
def files(demo_panorama, tmp_path_factory):
    """The demo room as files, and some that are wrong."""
    folder = tmp_path_factory.mktemp("panorama")
    Image.fromarray(demo_panorama.rgb_u8).save(folder / "room.png")
    np.save(folder / "range.npy", demo_panorama.range_m)
    Image.fromarray(np.round(1000 * demo_panorama.range_m).astype(np.uint16)).save(folder / "range.png")
    rows, columns = demo_panorama.range_m.shape
    blocks = (1 / demo_panorama.range_m).reshape(rows // 2, 2, columns // 2, 2)
    np.save(folder / "half.npy", (1 / blocks.mean(axis=(1, 3))).astype(np.float32))
    Image.fromarray(demo_panorama.rgb_u8[:100]).save(folder / "strip.png")
    np.save(folder / "strip.npy", demo_panorama.range_m[:100])
    return folder


@pytest.mark.parametrize(("depth", "tolerance"), [("range.npy", 1e-3), ("range.png", 2e-3), ("half.npy", 2e-3)])
def test_views_have_the_true_colours_and_depth(files, depth, tolerance):
    reference = reconstruct_panorama(read_panorama(files / "room.png", files / depth), size_px=SIZE_PX)
    views = truth(reference.T_world_camera, np.zeros(reference.num_frames), reference.intrinsics)
    error = np.abs(reference.depth_m / views.depth_m.numpy() - 1)
    assert np.median(error) < tolerance
    assert np.mean(error > 0.05) < 0.02  # at edges
    squares = np.square(reference.frames_u8.astype(float) - views.rgb_u8.numpy()).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / squares)).min() > 30
    assert reference.is_static
    assert (reference.provenance.method, reference.scale.source) == ("rgbd", "sensor")
    np.testing.assert_allclose(reference.T_world_camera[0], np.eye(4), atol=1e-12)


def test_the_size_follows_the_panorama_unless_it_is_given(demo_panorama):
    reference = reconstruct_panorama(Panorama(rgb_u8=demo_panorama.rgb_u8, range_m=demo_panorama.range_m))
    assert reference.size_px == (92, 162)  # 512 px around: 81.5 a radian, twice that across 90 degrees


@pytest.mark.parametrize("method", ["auto", "tiny"])
def test_depth_is_guessed_where_none_came(open_place, method):
    reference = reconstruct_panorama(Panorama(rgb_u8=open_place.rgb_u8), size_px=SIZE_PX, method=method)
    measured = reconstruct_panorama(Panorama(rgb_u8=open_place.rgb_u8, range_m=open_place.range_m), size_px=SIZE_PX)
    is_known = (measured.depth_m > 0) & (reference.depth_m > 0)
    log_ratio = np.log(reference.depth_m[is_known] / measured.depth_m[is_known])
    error = np.abs(log_ratio - np.median(log_ratio))
    assert np.median(error) < {"auto": 0.02, "tiny": 0.35}[method]
    assert reference.scale.source == "assumed"
    assert reference.provenance.method == {"auto": "layout", "tiny": "tiny"}[method]
    assert "guess" in reference.provenance.warnings[0]
    assert reference.provenance.quality["overlap_disagreement"] < 0.2


def test_a_camera_height_fixes_the_scale(open_place):
    height_m = float(open_place.range_m[-1].mean())  # straight down
    reference = reconstruct_panorama(
        Panorama(rgb_u8=open_place.rgb_u8), size_px=SIZE_PX, scale=ScaleRequest(camera_height_m=height_m)
    )
    down = int(np.argmax(reference.T_world_camera[:, 1, 2]))
    below_m = float(np.median(reference.depth_m[down]))
    np.testing.assert_allclose(below_m, height_m, rtol=0.05)
    assert reference.scale.source == "camera-height"


def test_a_depth_model_sees_every_view(open_place, tmp_path):
    pytest.importorskip("transformers", reason="the hf backend needs transformers")
    from tests.reconstruction.one_view.test_hf import save_depth_anything

    folder = save_depth_anything(tmp_path, "metric")
    reference = reconstruct_panorama(Panorama(rgb_u8=open_place.rgb_u8), size_px=SIZE_PX, model_folder=folder)
    assert (reference.provenance.method, reference.scale.source) == ("hf", "metric-model")
    assert (reference.depth_m > 0).all()


def test_a_static_reference_is_saved_and_loaded(open_place, tmp_path, static_reference):
    panorama = Panorama(rgb_u8=open_place.rgb_u8, range_m=open_place.range_m)
    reference = reconstruct_panorama(panorama, size_px=SIZE_PX)
    reference.save(tmp_path / "static")
    loaded = Reference.load(tmp_path / "static")
    assert loaded.is_static
    assert loaded.fingerprint() == reference.fingerprint()
    static_reference.save(tmp_path / "clip")
    meta = json.loads((tmp_path / "clip" / "reference.json").read_text())
    assert "is_static" not in meta  # nor in the fingerprint: earlier folders stay what they are
    assert not Reference.load(tmp_path / "clip").is_static
    meta = json.loads((tmp_path / "static" / "reference.json").read_text())
    (tmp_path / "static" / "reference.json").write_text(json.dumps(meta | {"is_static": 1}))
    with pytest.raises(InputError, match="is_static is 1: want true or false"):
        Reference.load(tmp_path / "static")


@pytest.mark.parametrize(
    ("image", "depth", "message"),
    [
        ("strip.png", None, r"strip.png: 512x100 px: an equirectangular panorama is twice as wide as high"),
        ("room.png", "strip.npy", r"strip.npy: 512x100 px: depth of a panorama is twice as wide as high"),
        ("none.png", None, r"none.png: cannot be read"),
        ("range.npy", None, r"range.npy: want an image"),
        ("room.png", "room.jpg", r"room.jpg: cannot be read"),
        ("room.png", "room.png", r"room.png: depth png of mode RGB"),
        (".", None, r"want an image"),
    ],
)
def test_files_that_are_no_panorama_are_refused(files, image, depth, message):
    with pytest.raises(InputError, match=message):
        read_panorama(files / image, files / depth if depth else None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sfm"}, "a panorama has one viewpoint"),
        ({"method": "rgbd"}, "wants the panorama's depth"),
        ({"method": "da3"}, "model_folder is missing"),
        ({"fov_deg": 30}, "fov_deg=30: want 60 to 120 degrees"),
        ({"fov_deg": float("nan")}, "want 60 to 120"),
        ({"fov_deg": "wide"}, "fov_deg='wide': want 60 to 120 degrees"),
        ({"size_px": (4, 4)}, "too small"),
        ({"metod": "tiny"}, "option metod='tiny': no option of method auto: want method, scale, model_folder"),
        ({"method": "tiny", "horizontal_fov_rad": 1.0}, "method tiny with options: want none for a panorama"),
        ({"method": TinyReconstructor()}, "method tiny with options: want none for a panorama"),
        ({"method": 5}, "option method=5: want one of auto, rgbd"),
        ({"progress": 5}, "progress=5: want a function"),
        ({"scale": {"length_m": 1, "length_pixels": [[0, 0], [0, 0]]}}, "^open place: length_pixels"),
    ],
)
def test_what_cannot_be_is_refused(open_place, options, message):
    panorama = Panorama(rgb_u8=open_place.rgb_u8, source="open place")
    with pytest.raises(InputError, match=message):
        reconstruct_panorama(panorama, **{"size_px": SIZE_PX, **options})


def test_a_guess_is_not_made_where_depth_came(open_place):
    with pytest.raises(InputError, match="has its own: want auto or rgbd"):
        reconstruct_panorama(Panorama(rgb_u8=open_place.rgb_u8, range_m=open_place.range_m), method="tiny")


@pytest.mark.parametrize("method", ["layout", "tiny"])
@pytest.mark.parametrize("level", [0, 255])
def test_one_colour_becomes_a_guess(method, level):
    panorama = Panorama(rgb_u8=np.full((32, 64, 3), level, np.uint8))
    reference = reconstruct_panorama(panorama, size_px=(16, 24), method=method)
    assert (reference.depth_m > 0).all()
