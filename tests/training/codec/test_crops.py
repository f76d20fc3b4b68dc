import numpy as np
import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.training.codec.crops import FrameCrops, film_clips
from inspatio_sim.training.data.sample import Sample


class Filmed:
    """Three clips of moving noise."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        frames = np.random.default_rng(index).integers(0, 255, (13, 24, 32, 3), dtype=np.uint8)
        depth_m, poses = np.ones((13, 24, 32), np.float32), np.repeat(np.eye(4)[None], 13, 0)
        return Sample(
            reference_u8=frames,
            target_u8=frames[:, ::-1].copy(),
            reference_depth_m=depth_m,
            target_depth_m=depth_m,
            intrinsics=Intrinsics(fx_px=30, fy_px=30, cx_px=15.5, cy_px=11.5, width_px=32, height_px=24),
            T_world_reference=poses,
            T_world_target=poses,
            caption="noise",
        )


def crops(seed=0, **options):
    return FrameCrops(film_clips(Filmed, 3), **{"num_frames": 5, "size_px": (16, 24), "seed": seed} | options)


def test_crops_are_cut_from_the_films():
    batch = crops()(list(range(12)))
    assert batch.shape == (12, 5, 16, 24, 3)
    films = [clip[view] for clip in film_clips(Filmed, 3) for view in (0, 1)]
    for crop in (255 * batch).round().byte().numpy():
        windows = (np.lib.stride_tricks.sliding_window_view(film, crop.shape)[..., 0, :, :, :, :] for film in films)
        assert any((window == crop).all((-4, -3, -2, -1)).any() for window in windows)


def test_crops_are_drawn_by_sample():
    batch = crops()([0, 1, 2, 3])
    assert 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal(batch[2:], crops()([2, 3]))
    assert not torch.equal(batch, crops(seed=1)([0, 1, 2, 3]))


def test_crops_that_cannot_be():
    with pytest.raises(InputError, match="want at least"):
        crops(size_px=(48, 24))
    with pytest.raises(InputError, match="want 4n - 3 frames"):
        crops(num_frames=6)
