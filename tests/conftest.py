"""What many tests need: the real clips, and a small world with exact geometry."""

import os
from pathlib import Path

import pytest

from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.reference.reference import Reference
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.scenes.demo_room import demo_room
from inspatio_sim.scenes.panorama import PanoramaView, render_panorama


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real clips, camera paths and golden tensors."""
    folder = os.environ.get("INSPATIO_TEST_DATA")
    if not folder:
        pytest.skip("INSPATIO_TEST_DATA is not set: no real clips to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def static_reference() -> Reference:
    """A few frames of the demo room from a camera that stands still."""
    return reconstruct(demo_clip(num_frames=6, size_px=(48, 80), camera="static"), method="rgbd")


@pytest.fixture(scope="session")
def demo_panorama() -> PanoramaView:
    """All that the first camera of the demo room could see, with exact distances."""
    return render_panorama(demo_room(), 256, supersample=2)
