from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.iteration import BatchPlan, SampleRandom, shuffled

CPU = torch.device("cpu")


@given(
    batch_size=st.integers(1, 4), accumulate=st.integers(1, 3), world_size=st.integers(1, 3), first=st.integers(0, 50)
)
def test_ranks_and_micro_batches_share_the_samples(
    batch_size: int, accumulate: int, world_size: int, first: int
) -> None:
    plan = BatchPlan(seed=0, batch_size=batch_size, accumulate=accumulate)
    per_step = batch_size * accumulate * world_size
    seen = [
        sample
        for step in range(first, first + 3)
        for micro in range(accumulate)
        for rank in range(world_size)
        for sample in plan.samples(step, micro, Ranks(rank=rank, world_size=world_size))
    ]
    assert seen == list(range(first * per_step, (first + 3) * per_step))


def test_random_numbers_belong_to_samples() -> None:
    plan = BatchPlan(seed=3, batch_size=4, accumulate=1)

    def draw(samples: list[int], step: int = 5, update: int = 0) -> torch.Tensor:
        random = plan.sample_random(samples, step, update, CPU)
        return torch.cat([random.normal(2, 3).flatten(1), random.uniform(2), random.integers(9, 2).float()], dim=1)

    together = draw([7, 8, 9])
    assert together.shape == (3, 10)
    assert torch.equal(together, torch.cat([draw([7]), draw([8, 9])]))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, draw([7, 8, 9], step=6))
    assert not torch.equal(together, draw([7, 8, 9], update=1))


def test_distributions() -> None:
    random = SampleRandom(range(200), CPU)
    normal, uniform, integers = random.normal(50), random.uniform(50), random.integers(3, 50)
    assert normal.mean().abs() < 0.05
    assert normal.std() == pytest.approx(1, abs=0.05)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert integers.unique().tolist() == [0, 1, 2]
    assert random.integers(4).shape == (200,)


@given(length=st.integers(1, 20), seed=st.integers(0, 5))
def test_an_epoch_has_each_once(length: int, seed: int) -> None:
    counts = Counter(shuffled(sample, length, seed) for sample in range(length, 4 * length))
    assert counts == dict.fromkeys(range(length), 3)


def test_epochs_differ() -> None:
    first, second = ([shuffled(20 * epoch + i, 20, 0) for i in range(20)] for epoch in (0, 1))
    assert first != second
