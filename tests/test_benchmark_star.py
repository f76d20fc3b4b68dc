import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import star
from benchmarks.star_cases.cpu import CpuCase, measure_cpu
from benchmarks.star_cases.cuda import NAMES, CudaRun, floors, variants_of
from benchmarks.star_cases.machine import empty_cache_folder
from benchmarks.star_cases.steps import Steps
from benchmarks.star_cases.variants import Measured
from inspatio_sim.generators.star.config import StarConfig
from inspatio_sim.observation import StepTiming

REPOSITORY = Path(__file__).parents[1]
SMALL = StarConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, text_dim=8, text_len=4)


@pytest.fixture(scope="module")
def cpu_results():
    case = CpuCase(
        star=SMALL,
        size_px=(32, 48),
        repeats=1,
        num_steps=2,
        matmul_shapes=((64, 64, 64),),
        endless_star=SMALL,
        endless_size_px=(32, 48),
        num_blocks=30,
    )
    with empty_cache_folder():
        return {result.name: result for result in measure_cpu(case)}
