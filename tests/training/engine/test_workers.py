import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.training.engine.workers import in_order


def complaints():
    def complain(index):
        if index == 3:
            raise InputError("clip 3: cannot be")
        return index

    return complain


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_work_comes_back_in_order_and_errors_too(num_workers):
    results = in_order(complaints, range(20), num_workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="clip 3: cannot be"):
        next(results)
