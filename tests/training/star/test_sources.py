import threading
import time

import numpy as np
import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.iteration import BatchPlan
from inspatio_sim.training.engine.workers import in_order
from inspatio_sim.training.star.sources import EncodedClips, FrameCrops, InMemory, Prefetched, TextAlone, film_clips


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


class Encoded:
    """Five encoded clips that count how often they are read."""

    def __init__(self):
        self.num_read = 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.num_read += 1
        generator = torch.Generator().manual_seed(index)
        sizes = {"target": (6, 8, 4, 6), "reference": (6, 8, 4, 6), "view": (6, 12, 4, 6), "text": (4, 8)}
        return {name: torch.randn(size, generator=generator).half() for name, size in sizes.items()}


def complaints():
    def complain(index):
        if index == 3:
            raise InputError("clip 3: cannot be")
        return index

    return complain


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


def test_an_epoch_has_every_clip_once():
    clips = EncodedClips(Encoded(), seed=0)
    seen = [clips([i])[0][0, 0, 0, 0, 0].item() for i in range(10)]
    assert len(set(seen[:5])) == 5
    assert sorted(seen[:5]) == sorted(seen[5:])


def test_clips_in_memory_are_read_once_and_stay_what_they_were():
    encoded = Encoded()
    held = EncodedClips(InMemory(encoded), seed=3)
    target, conditions = held([4, 9, 1])
    assert encoded.num_read == 5
    again, others = EncodedClips(Encoded(), seed=3)([4, 9, 1])
    assert target.dtype == torch.float32
    assert torch.equal(target, again)
    assert torch.equal(conditions.view, others.view)


def test_text_alone_is_neither_reference_nor_view():
    clips = EncodedClips(Encoded(), seed=0)
    target, conditions = TextAlone(clips)([2])
    assert conditions.reference is None
    assert conditions.view is None
    assert torch.equal(target, clips([2])[0])


@pytest.mark.parametrize(("rank", "world_size", "accumulate", "num_tasks"), [(0, 1, 1, 1), (1, 2, 3, 1), (1, 3, 2, 2)])
def test_prefetching_asks_for_what_comes(rank, world_size, accumulate, num_tasks):
    """Every batch but the first was begun before it was asked for, and none is made twice."""
    plan, ranks = BatchPlan(seed=0, batch_size=2, accumulate=accumulate), Ranks(rank=rank, world_size=world_size)
    made = []

    def source(samples):
        made.append(tuple(samples))
        return torch.tensor(samples)

    ahead = Prefetched(source, plan, world_size=world_size, every=num_tasks)
    for step_idx in range(0, 4 * num_tasks, num_tasks):
        for _ in range(2):  # updates, which see the same samples
            for micro_idx in range(accumulate):
                samples = plan.samples(step_idx, micro_idx, ranks)
                assert step_idx + micro_idx == 0 or tuple(samples) in ahead._batches
                assert ahead(samples).tolist() == samples
    ahead._thread.shutdown()
    assert len(made) == len(set(made)) == 4 * accumulate + 1


def test_prefetching_runs_beside_the_step_and_its_errors_are_heard():
    threads = []

    def source(samples):
        threads.append(threading.current_thread())
        if samples[0] >= 4:
            raise InputError("no such clip")
        return samples

    ahead = Prefetched(source, BatchPlan(seed=0, batch_size=2, accumulate=1))
    ahead([0, 1])
    while len(threads) < 2:
        time.sleep(0.001)
    assert threading.main_thread() not in threads
    ahead([2, 3])
    with pytest.raises(InputError, match="no such clip"):
        ahead([4, 5])


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_work_comes_back_in_order_and_errors_too(num_workers):
    results = in_order(complaints, range(20), num_workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="clip 3: cannot be"):
        next(results)
