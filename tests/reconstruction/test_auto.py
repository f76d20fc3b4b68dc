import json
from dataclasses import dataclass

import numpy as np
import pytest

from inspatio_sim.clips.video import Clip
from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.reconstruction import BACKENDS, Reconstruction, Reconstructor, ScaleRequest, reconstruct
from inspatio_sim.reconstruction.auto import backend, choose
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
    assert "static" in reference.provenance.reason
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
    class Failing:
        def reconstruct(self, clip, progress=None):
            raise InputError("too few points")

    monkeypatch.setattr("inspatio_sim.reconstruction.sfm.method.SfmReconstructor", Failing)
    reference = reconstruct(two_layers_clip())
    assert reference.provenance.method == "layout"
    assert reference.provenance.reason == "the camera moves, but structure from motion failed"
    assert "too few points" in reference.provenance.warnings[0]
    with pytest.raises(InputError, match="too few points"):  # asked for by name, nothing takes its place
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
    with pytest.raises(InputError, match=f"{name}: model_folder is missing"):
        reconstruct(static_clip(), name)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_backend_can_be_made_and_knows_its_name(name, tmp_path):
    made = backend(name, tmp_path)
    assert isinstance(made, Reconstructor)
    assert made.name == name


def test_progress_is_told():
    seen = []
    reconstruct(static_clip(), "layout", progress=lambda what, share: seen.append((what, share)))
    assert seen[-1] == ("layout", 1.0)
