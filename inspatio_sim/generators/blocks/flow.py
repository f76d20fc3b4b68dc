"""Flow matching: the noise schedule, and the ways between clean, noise, flow and noisy.

x_t = (1 - sigma) x_0 + sigma epsilon,  v = epsilon - x_0,  x_0 = x_t - sigma v.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inspatio_sim.errors import InputError

NUM_TABLE_STEPS = 1000
DISTILLED_STEPS = (1000, 750, 500, 250)  # of the four-step student, before the shift


class FlowSchedule:
    """Noise levels between 1 and nearly 0, pushed towards noise by a shift.

    sigma_i = shift s_i / (1 + (shift - 1) s_i) with s_i = 1 - i / 1000; the network's timestep is 1000 sigma_i.
    A timestep's sigma is that of the nearest table entry, so that timestep 0 has sigma 0.00498 (shift 5):
    the published networks were trained and run with this table.
    """

    def __init__(self, shift: float = 5.0) -> None:
        if not 0 < shift < math.inf:
            raise InputError(f"shift={shift}: want a positive number, such as 5")
        self.shift = shift
        s = torch.arange(NUM_TABLE_STEPS, 0, -1, dtype=torch.float32) / NUM_TABLE_STEPS
        self.sigmas = shift * s / (1 + (shift - 1) * s)  # [1000]
        self.timesteps = NUM_TABLE_STEPS * self.sigmas  # [1000]

    def warped(self, steps: Sequence[int]) -> Tensor:
        """Network timesteps of nominal steps: 1000, 750, 500, 250 -> 1000, 937.5, 833.3, 625 (shift 5). [S]"""
        if not steps or any(not 0 <= step <= NUM_TABLE_STEPS or step != int(step) for step in steps):
            raise InputError(f"steps={list(steps)}: want whole numbers from 0 to {NUM_TABLE_STEPS}, at least one")
        if list(steps) != sorted(set(steps), reverse=True):
            raise InputError(f"steps={list(steps)}: want them falling, each once, such as {list(DISTILLED_STEPS)}")
        table = torch.cat([self.timesteps, torch.zeros(1)])
        return table[NUM_TABLE_STEPS - torch.tensor(steps, dtype=torch.long)]

    def table_index(self, t: Tensor) -> Tensor:
        """Entry with the nearest timestep, the first of two equally near. [...] -> [...]"""
        return (self.timesteps.to(t.device) - t.unsqueeze(-1)).abs().argmin(-1)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level of a timestep. [...] -> [...]"""
        return self.sigmas.to(t.device)[self.table_index(t)]

    def training_weights(self) -> Tensor:
        """Weight of each table entry in the training loss: a bell around 500, mean 1. [1000]"""
        bell = torch.exp(-2 * ((self.timesteps - NUM_TABLE_STEPS / 2) / NUM_TABLE_STEPS) ** 2)
        weights = bell - bell.min()
        return weights * (NUM_TABLE_STEPS / weights.sum())


def add_noise(x_0: Tensor, epsilon: Tensor, sigma: Tensor | float) -> Tensor:
    """x_t = (1 - sigma) x_0 + sigma epsilon; sigma broadcasts."""
    return (1 - sigma) * x_0 + sigma * epsilon


def clean_from_flow(x_t: Tensor, flow: Tensor, sigma: Tensor | float) -> Tensor:
    """x_0 = x_t - sigma v, in float64 like the reference, then rounded back; sigma broadcasts."""
    sigma = sigma.double() if isinstance(sigma, Tensor) else sigma
    return (x_t.double() - sigma * flow.double()).to(x_t.dtype)


def flow_from_clean(x_t: Tensor, x_0: Tensor, sigma: Tensor | float) -> Tensor:
    """Flow: v = (x_t - x_0) / sigma, in float64, then rounded back; sigma broadcasts."""
    sigma = sigma.double() if isinstance(sigma, Tensor) else sigma
    return ((x_t.double() - x_0.double()) / sigma).to(x_t.dtype)
