"""Noise levels of the frame model, and the ways between clean, noise, velocity and noisy.

x_t = sqrt(ab) x_0 + sqrt(1 - ab) epsilon,  v = sqrt(ab) epsilon - sqrt(1 - ab) x_0,
x_0 = sqrt(ab) x_t - sqrt(1 - ab) v, where ab is alphas_cumprod of the timestep.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02


class DdpmSchedule:
    """1000 timesteps with noise that grows linearly. Timesteps are int64 [B], and images [B, ...].

    Results are float32, or float64 where the images are.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        betas = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS, dtype=torch.float64)
        alphas_cumprod = (1 - betas).cumprod(0)
        self.alphas_cumprod = alphas_cumprod.float().to(device)  # [1000]
        self._signal = alphas_cumprod.sqrt().to(device)
        self._noise = (1 - alphas_cumprod).sqrt().to(device)

    def noised(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t of clean images and standard normal noise."""
        signal, sigma = self._levels(x0, timestep)
        return signal * x0 + sigma * noise

    def velocity(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What a network that predicts velocity should say about x_t."""
        signal, sigma = self._levels(x0, timestep)
        return signal * noise - sigma * x0

    def clean_from_velocity(self, x_t: Tensor, velocity: Tensor, timestep: Tensor) -> Tensor:
        """x_0; few-step models are sampled by this formula, whatever they call their result."""
        signal, sigma = self._levels(x_t, timestep)
        return signal * x_t - sigma * velocity

    def _levels(self, like: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Of signal and noise, each [B, 1, ...]."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        shape = (-1, *[1] * (like.ndim - 1))
        return self._signal[timestep].to(dtype).view(shape), self._noise[timestep].to(dtype).view(shape)
