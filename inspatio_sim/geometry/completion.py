"""Depth of generated frames where nothing was measured: from the depth network, or from push-pull alone.

Known pixels do not change, so made-up depth stays metric.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inspatio_sim.checkpoints.files import SHIPPED
from inspatio_sim.errors import InputError
from inspatio_sim.geometry.complete import complete_depth
from inspatio_sim.geometry.depth_network import DepthNetwork, load_depth_network
from inspatio_sim.kernels import has_bfloat16_units, run_chunks
from inspatio_sim.motion.camera import Array

DepthCompletion = Literal["auto", "network", "push-pull"]

MAX_PUSH_PULL_SHARE = 0.02  # share of pixels without depth above which the network completes a frame
SHIPPED_NETWORK = SHIPPED / "tiny" / "tiny_depth.safetensors"


class CompleteDepth(Protocol):
    """Gives every pixel of some frames a depth."""

    def __call__(
        self, rgb_u8: NDArray[np.uint8], depth_m: NDArray[np.float32], fallback_m: float | Array
    ) -> NDArray[np.float32]:
        """Fill unknown depth.

        Args:
            rgb_u8: the frames. [F, H, W, 3]
            depth_m: z-depth, 0 = unknown. [F, H, W]
            fallback_m: typical depth of frames with no known depth; one for all, or one each. [F]

        Returns:
            z-depth, unchanged where it was known. [F, H, W]
        """
        ...


def depth_completion(choice: DepthCompletion, *, looks_real: bool) -> CompleteDepth:
    """The completion that a choice stands for.

    Args:
        choice: network: the shipped network. push-pull: smooth interpolation from the known pixels, ignoring the
            image. auto: the network if its weights are present and the frames look real.
        looks_real: unknown pixels were generated as an image of the place, not smeared in from their borders.

    Raises:
        InputError: the network is requested but its weights are missing.
    """
    if choice == "network" or (choice == "auto" and looks_real and SHIPPED_NETWORK.is_file()):
        return shipped_completion()
    return push_pull


def push_pull(
    rgb_u8: NDArray[np.uint8], depth_m: NDArray[np.float32], fallback_m: float | Array
) -> NDArray[np.float32]:
    """Smooth from the known pixels around; a `CompleteDepth`."""
    del rgb_u8
    return np.stack(
        run_chunks(complete_depth, list(zip(depth_m, np.broadcast_to(fallback_m, len(depth_m)), strict=True)))
    )


class NetworkCompletion:
    """The depth network as a `CompleteDepth`; all frames with much missing depth in one pass, on the CPU.

    If only cracks and edges are missing, push-pull gives the same result in a tenth of the time.
    """

    def __init__(self, network: DepthNetwork) -> None:
        """Take over a network; its convolutions run in bfloat16 if the processor supports it natively."""
        self.network = network
        for layer in network.modules() if has_bfloat16_units() else ():
            if isinstance(layer, nn.Conv2d):
                layer.to(torch.bfloat16)

    @torch.inference_mode()
    def __call__(
        self, rgb_u8: NDArray[np.uint8], depth_m: NDArray[np.float32], fallback_m: float | Array
    ) -> NDArray[np.float32]:
        fallbacks_m = np.broadcast_to(np.float32(fallback_m), len(depth_m))
        is_known = depth_m > 0
        lacks_much = is_known.mean(axis=(1, 2)) < 1 - MAX_PUSH_PULL_SHARE
        lacking = np.flatnonzero(lacks_much)
        completed_m = depth_m.copy()
        for i in np.flatnonzero(~lacks_much):
            completed_m[i] = complete_depth(depth_m[i], float(fallbacks_m[i]))
        if not len(lacking):
            return completed_m
        rgb = torch.from_numpy(rgb_u8[lacking]).permute(0, 3, 1, 2).float() / 127.5 - 1
        filled_m = self.network(rgb, torch.from_numpy(depth_m[lacking])[:, None])[:, 0].numpy()
        is_blank = ~is_known[lacking].any(axis=(1, 2))
        filled_m[is_blank] *= fallbacks_m[lacking][is_blank, None, None]
        completed_m[lacking] = filled_m
        return completed_m


@lru_cache(maxsize=1)
def shipped_completion() -> NetworkCompletion:
    """Completion by the network that comes with the package; all worlds share it.

    Raises:
        InputError: its weights are missing.
    """
    if not SHIPPED_NETWORK.is_file():
        raise InputError(f"{SHIPPED_NETWORK}: no such file: want the depth network's weights, or depth_completion auto")
    return NetworkCompletion(load_depth_network(SHIPPED_NETWORK))
