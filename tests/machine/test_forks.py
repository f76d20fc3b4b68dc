"""Pools of threads before and after a fork."""

import os

import pytest

from tests.programs import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

USE = """
import multiprocessing, sys
import cv2, numpy as np, torch
from inspatio_sim import kernels

def on_threads(count):
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    kernels.set_num_threads(count)

def threads():
    return torch.get_num_threads(), cv2.getNumThreads(), kernels._num_threads

def use():
    x = torch.rand(400_000, requires_grad=True)
    x.exp().sum().backward()
    torch.nn.functional.conv2d(torch.rand(1, 8, 200, 200), torch.rand(8, 8, 3, 3))
    torch.rand(300, 300) @ torch.rand(300, 300)
    cv2.GaussianBlur(np.zeros((800, 800, 3), np.uint8), (31, 31), 0)
    assert kernels.run_chunks(abs, [(-i,) for i in range(8)]) == list(range(8))

def in_a_fork(target):
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode

on_threads(4)
use()
"""


def test_a_fork_works_on_one_thread_and_its_parent_goes_on():
    program = """
def child():
    assert threads() == (1, 1, 1), threads()
    use()

in_a_fork(child)
assert threads() == (4, 4, 4), threads()
use()
"""
    done = run_program(["-c", USE + program])
    assert done.returncode == 0, done.stdout


def test_a_fork_may_ask_for_more_threads_and_fork_again():
    program = """
def grandchild():
    assert threads() == (1, 1, 1), threads()
    use()

def child():
    on_threads(3)
    use()
    in_a_fork(grandchild)
    use()

in_a_fork(child)
"""
    done = run_program(["-c", USE + program])
    assert done.returncode == 0, done.stdout


def test_a_fork_of_a_process_without_torch_and_opencv():
    program = """
import os, sys
import inspatio_sim
assert not {"torch", "cv2"} & set(sys.modules)
pid = os.fork()
if not pid:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    done = run_program(["-c", program])
    assert done.returncode == 0, done.stdout
    assert not done.stdout
