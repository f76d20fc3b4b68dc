"""Envs in worker processes after envs in this one, however the processes start."""

import multiprocessing
import os
import shutil

import pytest
import torch
from inspatio_envs import shared

from inspatio_sim.machine.devices import chosen_device
from tests.programs import run_program

PARTIES = ["gymnasium", "sb3"]
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def assert_works(context, party, *names):
    if party == "sb3":
        pytest.importorskip("stable_baselines3")
    program = ["-m", "tests.envs.parallel_envs", context, party, *names]
    done = run_program(program, timeout_s=1800)
    assert done.returncode == 0, done.stdout


@FORK
def test_gymnasiums_workers_by_fork():
    assert_works("fork", "gymnasium", "warp")


@FORK
@pytest.mark.slow
@pytest.mark.parametrize("party", PARTIES)
def test_every_generator_works_in_a_fork(party):
    assert_works("fork", party, "warp", "star", "frame")


@pytest.mark.slow
@pytest.mark.parametrize("party", PARTIES)
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_every_generator_works_in_a_process_of_its_own(context, party):
    assert_works(context, party, "warp", "star", "frame")


@FORK
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: torch.compile has nothing to do it with")
def test_what_torch_compiled_for_four_threads_works_in_a_fork(tmp_path, monkeypatch):
    monkeypatch.setenv("INSPATIO_CACHE", str(tmp_path))
    assert_works("fork", "gymnasium", "star-compiled")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_used_before_the_fork_is_refused_with_what_to_do():
    torch.zeros(1, device="cuda")
    kept = shared.generator("star", "tiny", {})
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child():
        for choose in (lambda: chosen_device("auto"), lambda: shared.generator("star", "tiny", {})):
            try:
                choose()
            except ValueError as error:
                there.send(str(error))

    process = context.Process(target=child)
    process.start()
    try:
        for _ in range(2):
            assert here.poll(60)
            assert "start workers with 'spawn'" in here.recv()
    finally:
        process.kill()
    assert kept is shared.generator("star", "tiny", {})
