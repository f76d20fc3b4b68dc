"""Speed of warp, splat and map, and how true the geometry is on a clip whose truth is known.

python -m benchmarks.geometry [--json]
"""

from __future__ import annotations

import numpy as np

from benchmarks import mapping, reconstruction
from benchmarks.report import Result, median_ms, run
from inspatio_sim.geometry.splat import splat
from inspatio_sim.geometry.warp import forward_warp
from inspatio_sim.motion.camera import Intrinsics, PoseDelta, pose_from
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import demo_clip, truth
from inspatio_sim.world.world import World, WorldConfig

SIDEWAYS = PoseDelta.from_twist([0.03, 0, 0.02], [0, 0.02, 0], 1.0)
AHEAD = PoseDelta.from_twist([-0.02, 0, 0.02], [0, -0.03, 0], 1.0)


def speed() -> list[Result]:
    """Warp of one frame of the demo room, splat of a cloud spread evenly over the view."""
    clip = demo_clip(num_frames=1, size_px=(480, 832))
    assert clip.depth_m is not None
    assert clip.intrinsics is not None
    rgb_u8, depth_m, camera = clip.frames_u8[0], clip.depth_m[0], clip.intrinsics
    motion = pose_from(t_m=[0.2, 0.05, -0.3])
    rng = np.random.default_rng(0)
    points_m = rng.uniform([-3, -3, 1], [3, 3, 7], (400_000, 3)).astype(np.float32)
    colors_u8 = rng.integers(0, 256, (400_000, 3), dtype=np.uint8)
    square = Intrinsics.from_fov(1.2, 512, 512)
    return [
        Result(
            name="warp of one 480x832 RGB-D frame",
            value=median_ms(lambda: forward_warp(rgb_u8, depth_m, camera, camera, motion)),
            unit="ms",
            floor=30,
            better="lower",
        ),
        Result(
            name="splat of 400k random points at 512x512",
            value=median_ms(lambda: splat(points_m, colors_u8, square, np.eye(4))),
            unit="ms",
            floor=15,
            better="lower",
        ),
    ]


def psnr_db(image_u8: np.ndarray, truth_u8: np.ndarray, mask: np.ndarray) -> float:
    """Over the masked pixels of [F, H, W, 3] images."""
    error = np.square(image_u8.astype(np.float64) - truth_u8)[mask]
    return float(10 * np.log10(255**2 / error.mean()))


def view_truth(size_px: tuple[int, int], num_steps: int, supersample: int) -> list[Result]:
    """Walk through the demo room with its exact depth and compare every view with the ray caster's.

    The clip and the truth are filmed with `supersample`^2 rays a pixel; with few, both alias, each in its own
    way, which no geometry can undo.
    """
    reference = reconstruct(demo_clip(num_steps // 2, size_px, camera="static", supersample=supersample), method="rgbd")
    world = World(reference, generator="warp", config=WorldConfig(collisions="off"))
    world.reset()
    psnrs_db, depth_errors = [], []
    for i in range(num_steps):
        observation = world.step(SIDEWAYS if i < num_steps // 2 else AHEAD)
        view = truth(observation.T_world_camera, observation.reference_frame_idx / reference.fps, reference.intrinsics)
        is_known = observation.known > 0
        psnrs_db.append(psnr_db(observation.rgb_u8, view.rgb_u8.numpy(), is_known))
        depth_errors.append(np.median(np.abs(observation.depth_m / view.depth_m.numpy() - 1)[is_known]))
    size = f"{size_px[0]}x{size_px[1]}, {supersample**2} rays a pixel"
    return [
        Result(
            name=f"rgbd: PSNR on known pixels, {size}",
            value=float(np.median(psnrs_db)),
            unit="dB",
            floor=35,
            better="higher",
        ),
        Result(
            name=f"rgbd: median relative depth error, {size}",
            value=100 * float(np.median(depth_errors)),
            unit="%",
            floor=1,
            better="lower",
        ),
    ]


def measure() -> list[Result]:
    """Every number of geometry, map and reconstruction."""
    return [
        *speed(),
        *view_truth((480, 832), num_steps=8, supersample=2),
        *view_truth((96, 160), num_steps=24, supersample=2),
        *view_truth((96, 160), num_steps=24, supersample=4),
        *(Result(**row) for row in mapping.results()),
        *(Result(**row) for row in reconstruction.results()),
    ]


if __name__ == "__main__":
    run("geometry", "Speed and truth of warp, splat, map and reconstruction.", measure)
