"""The CPU's ray caster against the plain one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.scenes.demo_room import demo_room
from inspatio_sim.scenes.fast_raycast import render_fast
from inspatio_sim.scenes.raycast import render
from inspatio_sim.scenes.rooms import random_room
from inspatio_sim.scenes.scene import Scene

CAMERA = Intrinsics(fx_px=60, fy_px=55, cx_px=50.5, cy_px=33, width_px=101, height_px=67)  # tiles are cut off
TIME_S = np.array([0.0, 0.7, 2.1])
POSES = np.stack(
    [
        pose_from(R=Rotation.from_euler("YXZ", angles).as_matrix(), t_m=t_m)
        for angles, t_m in (((0, 0, 0), (0, 0, 0)), ((2.0, -0.4, 0.1), (0.2, -0.2, 0.1)), ((-1.2, 0.5, 0), (0, 0.1, 0)))
    ]
)
SCENES = {
    "demo": demo_room(),
    **{layout: random_room(5, i, layout=layout) for i, layout in enumerate(("room", "corridor", "open"))},
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_it_shows_what_the_plain_one_shows(scene: Scene):
    fast, plain = render_fast(scene, CAMERA, POSES, TIME_S), render(scene, CAMERA, POSES, TIME_S)
    same = (fast.object_id == plain.object_id).numpy()
    assert same.mean() > 0.999  # a ray on an edge goes either way
    error = (fast.depth_m - plain.depth_m).abs() / plain.depth_m.clamp(min=1e-3)
    assert (error.numpy()[same] < 1e-4).mean() > 0.999  # the plain one works in float32: silhouettes of balls are rough
    assert np.quantile(error.numpy()[same], 0.99) < 1e-5
    levels = (fast.rgb_u8.int() - plain.rgb_u8.int()).abs().amax(dim=-1).numpy()
    assert (levels <= 2).mean() > 0.99
    turned = (fast.normal - plain.normal).abs().amax(dim=-1).numpy()
    assert (turned[same] < 1e-3).mean() > 0.999


def test_threads_do_not_change_a_byte():
    one, two = (render_fast(SCENES["room"], CAMERA, POSES, TIME_S, num_threads=n) for n in (1, 2))
    for name in ("rgb_u8", "depth_m", "object_id", "normal"):
        np.testing.assert_array_equal(getattr(one, name).numpy(), getattr(two, name).numpy())


@pytest.mark.parametrize(
    ("time_s", "num_threads", "message"),
    [
        ([0.0], 1, "time_s has shape"),
        ([0.0, math.nan, 1.0], 1, "time_s has shape"),
        ([0.0, 1.0, 2.0], 0, "num_threads=0: want at least 1"),
    ],
)
def test_wrong_arguments_are_named(time_s: list[float], num_threads: int, message: str):
    with pytest.raises(InputError, match=message):
        render_fast(SCENES["room"], CAMERA, POSES, time_s, num_threads=num_threads)
