import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction import BACKENDS, Reconstruction, Reconstructor, ScaleRequest, reconstruct
from inspatio_sim.reconstruction.auto import NEED_MODEL_FOLDER, Recipe, backend, choose
from inspatio_sim.reconstruction.one_view.layout import LayoutReconstructor
from inspatio_sim.reconstruction.sfm.method import SfmReconstructor
from inspatio_sim.reference.reference import Reference

H, W = 120, 208


def picture() -> np.ndarray:
    """Random squares: corners to track, whatever the motion."""
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (40, 60, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


def static_clip(num_frames: int = 6, **geometry) -> Clip:
    return Clip(frames_u8=np.repeat(picture()[None, :H, :W], num_frames, 0), fps=10.0, source="clip.mp4", **geometry)


def two_layers_clip(num_frames: int = 12) -> Clip:
    """A near strip slides faster than the far rest: parallax that only a moving camera makes."""
    world = picture()
    frames = []
    for i in range(num_frames):
        frame = world[:H, 2 * i : 2 * i + W].copy()
        frame[H // 2 :] = world[H // 2 + 100 : H + 100, 7 * i : 7 * i + W]
        frames.append(frame)
    return Clip(frames_u8=np.stack(frames), fps=10.0, source="clip.mp4")


GEOMETRY = {
    "depth_m": np.full((6, H, W), 2.0, np.float32),
    "intrinsics": Intrinsics.from_fov(1.0, W, H),
    "T_world_camera": np.stack([np.eye(4)] * 6),
}


def test_given_geometry_is_used():
    reference = reconstruct(static_clip(**GEOMETRY))
    assert isinstance(reference, Reference)
    assert reference.provenance.method == "rgbd"
    assert reference.provenance.reason == "the clip brings depth, intrinsics and poses"
    assert reference.scale.source == "sensor"


def test_a_static_camera_gets_the_layout_prior_and_says_why():
    reference = reconstruct(static_clip())
    assert reference.provenance.method == "layout"
    assert "the camera stands still" in reference.provenance.reason
    assert reference.scale.source == "assumed"
    assert any("not a measurement" in warning for warning in reference.provenance.warnings)


def test_a_single_image_gets_the_layout_prior():
    assert choose(static_clip(1)) == ("layout", "a single image, and no depth model is given")


def test_parallax_asks_for_structure_from_motion():
    name, reason = choose(two_layers_clip())
    assert (name, reason) == ("sfm", "the camera moves")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A backend with a closed-form answer."""

    distance: float = 4.0

    @property
    def name(self) -> str:
        return "plane"

    def reconstruct(self, clip: Clip, progress=None) -> Reconstruction:
        num_frames, height_px, width_px = clip.frames_u8.shape[:3]
        return Reconstruction(
            depth_units=np.full((num_frames, height_px, width_px), self.distance, np.float32),
            intrinsics=Intrinsics.from_fov(1.0, width_px, height_px),
            T_world_camera=np.stack([np.eye(4)] * num_frames),
            is_metric=False,
        )


def test_when_motion_fails_layout_takes_over_and_says_so(monkeypatch):
    def fail(self, clip, progress=None):
        raise InputError("too few points")

    monkeypatch.setattr(SfmReconstructor, "reconstruct", fail)
    reference = reconstruct(two_layers_clip())
    assert reference.provenance.method == "layout"
    assert reference.provenance.reason == "the camera moves, but structure from motion failed"
    assert "too few points" in reference.provenance.warnings[0]
    with pytest.raises(InputError, match=r"^clip\.mp4: too few points"):  # asked for by name, nothing takes its place
        reconstruct(two_layers_clip(), "sfm")


def test_a_users_own_backend():
    assert isinstance(Plane(), Reconstructor)
    scale = ScaleRequest(length_m=1.0, length_pixels=((0, 0), (W - 1, 0)))
    reference = reconstruct(static_clip(), Plane(), scale=scale)
    assert reference.provenance.method == "plane"
    assert reference.scale.source == "length"


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"model_name": "da3-small"}, "da3"), ({"model_type": "dpt", "architectures": ["DPTForDepthEstimation"]}, "hf")],
)
def test_a_model_folder_is_told_by_its_config(tmp_path, config, expected):
    (tmp_path / "config.json").write_text(json.dumps(config))
    name, reason = choose(static_clip(), tmp_path)
    assert name == expected
    assert expected in reason


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("{", "not JSON"), ("[]", "want a JSON object"), ("{}", "neither model_name")],
)
def test_bad_model_folders_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=rf"config\.json.*{message}"):
        reconstruct(static_clip(), model_folder=tmp_path)


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match="'magic': want one of auto, rgbd, sfm, da3, hf, layout, tiny"):
        reconstruct(static_clip(), "magic")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["da3", "hf"])
def test_networks_want_a_folder(name):
    with pytest.raises(InputError, match=f"model_folder is missing: method {name} wants"):
        reconstruct(static_clip(), name)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_backend_can_be_made_and_knows_its_name(name, tmp_path):
    made = backend(name, **({"model_folder": tmp_path} if name in NEED_MODEL_FOLDER else {}))
    assert isinstance(made, Reconstructor)
    assert made.name == name


def test_progress_is_told():
    seen = []
    reconstruct(static_clip(), "layout", progress=lambda what, share: seen.append((what, share)))
    assert seen[-1] == ("layout", 1.0)


def test_options_of_a_method_are_given_by_name():
    assert Recipe.of({"method": "sfm", "max_keyframes": 5}).method == SfmReconstructor(max_keyframes=5)
    assert Recipe.of({"method": "layout", "model_folder": None, "scale": None}).method == LayoutReconstructor()
    assert Recipe.of({"model_folder": "weights"}).model_folder == Path("weights")
    scale = {"length_m": 1.0, "length_pixels": [[0, 0], [W - 1, 0]]}
    assert Recipe.of({"scale": scale}).scale == ScaleRequest(length_m=1.0, length_pixels=((0, 0), (W - 1, 0)))
    narrow, wide = (
        reconstruct(static_clip(1), "layout", horizontal_fov_rad=fov_rad, scale=scale) for fov_rad in (0.5, 1.5)
    )
    assert narrow.intrinsics.fx_px > wide.intrinsics.fx_px
    assert narrow.scale.source == "length"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metod": "sfm"}, "option metod='sfm': no option of method auto: want method, scale, model_folder"),
        ({"max_keyframes": 5}, "option max_keyframes=5: no option of method auto"),
        (
            {"method": "sfm", "model_folder": "x"},
            "option model_folder='x': no option of method sfm: want .*max_keyframes",
        ),
        ({"method": "sfm", "horizontal_fov_rad": 1.0}, "option horizontal_fov_rad=1.0: no option of method sfm"),
        ({"method": "sfm", "max_keyframes": "many"}, "option max_keyframes='many': want a whole number"),
        ({"method": "sfm", "max_keyframes": 2}, "option max_keyframes=2: want at least 3"),
        ({"method": "sfm", "density": {"side": 3}}, "option side=3: no option of density: want side_px"),
        ({"method": "sfm", "density": {"far_factor": float("inf")}}, "option far_factor=inf: want a positive, finite"),
        ({"method": "hf", "model_folder": 5}, "option model_folder=5: want a path"),
        ({"method": "hf", "model_folder": "x", "output": "m"}, "option output='m': want one of 'inverse', 'metric'"),
        ({"method": 5}, "option method=5: want one of auto, rgbd, sfm"),
        ({"method": SfmReconstructor}, "option method=.*SfmReconstructor.*: want one of auto, rgbd, sfm"),
        (
            {"method": LayoutReconstructor(), "max_keyframes": 5},
            "max_keyframes=5: want it where LayoutReconstructor is",
        ),
        ({"model_folder": 5}, "option model_folder=5: want a path or None"),
        ({"scale": 5}, "option scale=5: want a ScaleRequest, or a mapping of its fields"),
        ({"scale": {"length": 5}}, "option length=5: no option of scale: want camera_height_m"),
        ({"scale": {"camera_height_m": -1}}, "option camera_height_m=-1: want more than 0"),
        ({"clip": 5}, "option clip=5: no option of method auto"),
        ({5: "sfm"}, "option 5: want names"),
        ("sfm", "reconstruct options 'sfm': want a mapping"),
        (None, "reconstruct options None: want a mapping"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(InputError, match=message):
        Recipe.of(options)


def test_progress_is_a_function():
    with pytest.raises(InputError, match="progress=5: want a function"):
        reconstruct(static_clip(), "layout", progress=5)  # type: ignore[arg-type]


def test_errors_name_the_clip_once():
    with pytest.raises(InputError) as of_scale:
        reconstruct(static_clip(), "layout", scale={"length_m": 1, "length_pixels": [[0, 0], [0, 0]]})
    assert str(of_scale.value).startswith("clip.mp4: length_pixels=")
    with pytest.raises(InputError) as of_backend:
        reconstruct(static_clip(), "rgbd")
    assert str(of_backend.value).count("clip.mp4") == 1


def test_frames_that_a_backend_leaves_out_are_not_in_the_reference():
    @dataclass(frozen=True, kw_only=True)
    class Middle(Plane):
        def reconstruct(self, clip: Clip, progress=None) -> Reconstruction:
            whole = super().reconstruct(clip)
            depth_units, T_world_camera = whole.depth_units[2:5], whole.T_world_camera[2:5]
            return replace(whole, depth_units=depth_units, T_world_camera=T_world_camera, kept=range(2, 5))

    clip = two_layers_clip(8)
    length = {"length_m": 1.0, "length_pixels": [[0, 0], [W - 1, 0]]}
    reference = reconstruct(clip, Middle(), scale={**length, "length_frame": 2})
    np.testing.assert_array_equal(reference.frames_u8, clip.frames_u8[2:5])
    with pytest.raises(InputError, match="length_frame=1: want 2 to 4"):
        reconstruct(clip, Middle(), scale={**length, "length_frame": 1})
    with pytest.raises(InputError, match="for 3 frames"):
        replace(Middle().reconstruct(clip), kept=range(2, 6))


DEGENERATE = {
    "one colour": [np.full((60, 80, 3), 90, np.uint8)] * 5,
    "colours": [np.full((60, 80, 3), grey, np.uint8) for grey in (0, 90, 255)],
    "one pixel": [np.zeros((1, 1, 3), np.uint8)] * 3,
    "one row": list(np.random.default_rng(0).integers(0, 256, (3, 1, 40, 3), np.uint8)),
    "tiny": list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)),
    "noise": list(np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)),
    "two frames": [picture()[:60, :80], picture()[:60, 40:120]],
    "one frame": [picture()[:60, :80]],
    "turns by": [picture()[:60, 4 * i : 4 * i + 80] for i in range(3)],
    "strip": [picture()[:12, 4 * i : 4 * i + 200] for i in range(3)],
}


@pytest.mark.parametrize("method", ["auto", "rgbd", "sfm", "layout", "tiny"])
@pytest.mark.parametrize("name", list(DEGENERATE))
def test_degenerate_clips_become_a_guess_or_are_refused_by_name(name, method):
    clip = Clip(frames_u8=np.stack(DEGENERATE[name]), fps=10.0, source="clip.mp4")
    if method in ("rgbd", "sfm"):
        with pytest.raises(InputError, match=r"^clip\.mp4: .*(want|found)"):
            reconstruct(clip, method)
    else:
        reference = reconstruct(clip, method)
        assert reference.num_frames == len(clip.frames_u8)
        assert reference.provenance.warnings
