import math

import numpy as np
import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.scenes.panorama import render_panorama
from inspatio_sim.scenes.raycast import render
from inspatio_sim.scenes.rooms import random_room


def test_the_middle_of_a_panorama_is_what_a_camera_sees():
    scene = random_room(3, 1, layout="room")
    pose = pose_from(t_m=[0.1, 0.0, 0.2])
    height_px = 128
    around = render_panorama(scene, height_px, T_world_camera=pose)
    focal_px = height_px / math.pi  # pixels of both are as large in the middle
    camera = Intrinsics(fx_px=focal_px, fy_px=focal_px, cx_px=1.5, cy_px=1.5, width_px=4, height_px=4)
    ahead = render(scene, camera, pose[None], [0.0])
    middle_m = around.range_m[62:66, 126:130]
    np.testing.assert_allclose(middle_m, ahead.depth_m[0].numpy(), rtol=2e-3)
    assert np.abs(around.rgb_u8[62:66, 126:130].astype(int) - ahead.rgb_u8[0].numpy()).max() <= 6


def test_distances_are_along_the_ray():
    scene = random_room(3, 1, layout="open")  # a floor under nothing
    around = render_panorama(scene, 64)
    straight_down = float(around.range_m[-1].mean())
    np.testing.assert_allclose(straight_down, scene.high_m[1], rtol=0.01)
    assert (around.range_m[:20] == 0).mean() > 0.5  # the sky


def test_too_small_a_panorama_is_refused():
    with pytest.raises(InputError, match="height_px=4: want at least 16"):
        render_panorama(random_room(0), 4)
