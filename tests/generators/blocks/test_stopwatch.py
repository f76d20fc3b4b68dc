import time

import pytest
import torch

from inspatio_sim.generators.blocks.stopwatch import Stopwatch


def test_stages_add_up():
    stopwatch = Stopwatch(torch.device("cpu"))
    assert stopwatch.seconds() == {}
    started_s = time.perf_counter()
    for name, seconds in (("encode", 0.02), ("decode", 0.01), ("encode", 0.02)):
        with stopwatch.stage(name):
            time.sleep(seconds)
    total_s = time.perf_counter() - started_s
    seconds = stopwatch.seconds()
    assert list(seconds) == ["encode", "decode"]
    assert 0.04 <= seconds["encode"] < total_s
    assert 0.01 <= seconds["decode"] <= total_s - seconds["encode"]
    assert stopwatch.seconds() == seconds  # asking changes nothing
    seconds.clear()
    assert len(stopwatch.seconds()) == 2


def test_what_fails_inside_comes_out():
    stopwatch = Stopwatch(torch.device("cpu"))
    with pytest.raises(MemoryError), stopwatch.stage("encode"):
        raise MemoryError
    with stopwatch.stage("encode"):
        pass
    assert stopwatch.seconds()["encode"] < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_work_on_a_gpu_is_timed_when_it_is_done():
    stopwatch = Stopwatch(torch.device("cuda"))
    x = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(2):
        with stopwatch.stage("products"):
            for _ in range(20):
                x = (x @ x).tanh()
    launched_s = time.perf_counter() - started_s
    seconds = stopwatch.seconds()
    torch.cuda.synchronize()
    assert launched_s < seconds["products"] <= time.perf_counter() - started_s
