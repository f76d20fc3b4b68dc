import threading
import time

import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.iteration import BatchPlan
from inspatio_sim.training.engine.prefetch import Prefetched


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
