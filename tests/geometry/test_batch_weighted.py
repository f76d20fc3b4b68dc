"""The reference implementation's warp: its dependence on the batch is a feature here. Golden parity: test_parity."""

import torch

from inspatio_sim.geometry.batch_weighted import forward_warp_batch_weighted
from inspatio_sim.motion.camera import Intrinsics, pose_from

CAMERA = Intrinsics.from_fov(1.1, 40, 24)


def test_batch_weighting_depends_on_the_batch_as_the_reference_implementation_does():
    generator = torch.Generator().manual_seed(0)
    image = 2 * torch.rand(1, 3, 24, 40, generator=generator) - 1
    depth = 1 + torch.rand(1, 1, 24, 40, generator=generator)
    K = torch.from_numpy(CAMERA.K_px)[None].float()
    T = torch.from_numpy(pose_from(t_m=[0.2, 0.03, -0.1])).float()[None]
    alone, known = forward_warp_batch_weighted(image, depth, K, K, T)
    both, _ = forward_warp_batch_weighted(
        image.repeat(2, 1, 1, 1),
        torch.cat([depth, 30 * depth]),
        K.repeat(2, 1, 1),
        K.repeat(2, 1, 1),
        T.repeat(2, 1, 1),
    )
    assert (both[0] - alone[0]).abs().max() > 1e-3
    assert (alone[0, :, known[0, 0] == 0] == -1).all()
