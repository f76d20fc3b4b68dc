"""What a stage costs, counted from sizes: parameters, memory, floating-point operations.

Matrix products, attention and convolutions are counted; a backward pass is twice a forward one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inspatio_sim.codecs import TinyAutoencoder
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.generators.star.cost import block_cost, num_parameters, patch_elements
from inspatio_sim.geometry.depth_network import DepthNetwork
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.training.codec.losses import reconstruct
from inspatio_sim.training.star.configs import RunConfig

FLOAT_BYTES = 4
ADAM_FLOATS = 2  # a weight
GUIDED_PASSES = 2  # of the real score: with and without the prompt


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a stage."""

    name: str
    num_parameters: int
    is_trained: bool
    is_averaged: bool = False

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Weights, and what training keeps beside them."""
        size = FLOAT_BYTES * self.num_parameters
        return {
            "weights": size,
            "gradients": size * self.is_trained,
            "optimiser": ADAM_FLOATS * size * self.is_trained,
            "averages": size * self.is_averaged,
        }


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Of one stage; what a rank computes at a time is `batch_size` samples."""

    networks: tuple[Network, ...]
    activation_bytes: int  # kept for a backward pass, roughly
    flop_per_sample: float  # of a step, the mean over steps


def stage_cost(stage: str, config: RunConfig) -> StageCost | None:
    """Count a stage; None for one that is not known here."""
    parameters, batch = num_parameters(config.star), config.trainer.batch_size
    num_latents, chunk = config.data.num_latents, BLOCK_LATENTS
    joint, alone, streamed = _joint_flop(config), _alone_flop(config), _streamed_flop(config)
    if stage == "codec":
        return _codec_cost(config)
    if stage == "depth":
        return _depth_cost(config)
    backward = 3 + config.checkpoint_activations  # forward, perhaps again, and twice that backwards
    if stage == "distill":
        tasks = [("v2v", joint), ("t2v", alone)][: 1 + (config.t2v_weight > 0)]
        networks = [Network(name="student", num_parameters=parameters, is_trained=True, is_averaged=True)]
        for name, _ in tasks:
            networks.append(Network(name=f"critic_{name}", num_parameters=parameters, is_trained=True))
            networks.append(Network(name=f"teacher_{name}", num_parameters=parameters, is_trained=False))
        flop = sum(_matching_flop(config, scores, streamed, backward) for _, scores in tasks) / len(tasks)
        activations = max(_activations(config, 2 * num_latents), _activations(config, 3 * chunk))
        return StageCost(networks=tuple(networks), activation_bytes=batch * activations, flop_per_sample=flop)
    sizes = {
        "teacher": ("teacher", joint, 2 * num_latents),
        "t2v-teacher": ("teacher", alone, num_latents),
        "init": ("student", streamed, 3 * chunk),
    }
    if stage not in sizes:
        return None
    name, forward, tokens_latents = sizes[stage]
    return StageCost(
        networks=(Network(name=name, num_parameters=parameters, is_trained=True, is_averaged=True),),
        activation_bytes=batch * _activations(config, tokens_latents),
        flop_per_sample=backward * forward,
    )


def _matching_flop(config: RunConfig, scores: float, streamed: float, backward: int) -> float:
    """A step of one task: the critic's update, and its share of the student's."""
    num_steps = len(config.distill.steps)
    roll_out = streamed * (num_steps + 1) / 2  # every pass with a context of its own, up to a step drawn evenly
    critic = roll_out + backward * scores
    student = roll_out + (1 + GUIDED_PASSES) * scores + backward * streamed
    return critic + student / config.distill.critic_updates


def _joint_flop(config: RunConfig) -> float:
    """A teacher's pass over target and reference."""
    num_latents, star = config.data.num_latents, config.star
    tokens = num_latents * _tokens_per_latent(config)
    view = 2 * tokens * patch_elements(star.condition_channels) * star.dim
    return _whole_pass(config, 2 * num_latents) + view


def _alone_flop(config: RunConfig) -> float:
    """A pass over the target, from text alone."""
    return _whole_pass(config, config.data.num_latents)


def _whole_pass(config: RunConfig, num_latents: int) -> float:
    cost = block_cost(config.star, grid=config.data.grid, context_latents=0, block_latents=num_latents, num_steps=1)
    return cost.denoise.total_flop


def _streamed_flop(config: RunConfig) -> float:
    """The student's way through a clip, one pass a chunk."""
    chunk, total = BLOCK_LATENTS, 0.0
    for k in range(config.data.num_latents // chunk):
        context = (1 + (k > 0)) * chunk
        total += block_cost(config.star, grid=config.data.grid, context_latents=context, num_steps=1).total_flop
    return total


def _activations(config: RunConfig, num_latents: int) -> int:
    """Bytes that a backward pass over so many latents needs, of one sample: what each block keeps, roughly."""
    star: StarConfig = config.star
    item = 2 if config.trainer.dtype == "bfloat16" else FLOAT_BYTES
    tokens = num_latents * _tokens_per_latent(config)
    block = (16 * star.dim + 2 * star.ffn_dim) * item * tokens
    if config.checkpoint_activations:
        return star.num_layers * star.dim * FLOAT_BYTES * tokens + block
    return star.num_layers * block


def _tokens_per_latent(config: RunConfig) -> int:
    height, width = config.data.grid
    return (height // PATCH) * (width // PATCH)


def _codec_cost(config: RunConfig) -> StageCost:
    data = config.data
    with torch.device("meta"):
        network = TinyAutoencoder(config.codec)
        frames = torch.empty(1, data.crop_frames, *data.crop_px, 3)
    return _counted_cost("codec", network, lambda: reconstruct(network, frames)[0], config.trainer.batch_size)


def _depth_cost(config: RunConfig) -> StageCost:
    with torch.device("meta"):
        network = DepthNetwork(config.depth.network)
        rgb, depth_m = (torch.empty(1, channels, *config.depth.size_px) for channels in (3, 1))
    return _counted_cost("depth", network, lambda: network(rgb, depth_m), config.trainer.batch_size)


def _counted_cost(name: str, network: nn.Module, run: Callable[[], torch.Tensor], batch_size: int) -> StageCost:
    """Counted by running a network forth and back on one sample, without numbers."""
    kept: dict[int, torch.Tensor] = {}  # by storage

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run().sum().backward()
    size = sum(parameter.numel() for parameter in network.parameters())
    return StageCost(
        networks=(Network(name=name, num_parameters=size, is_trained=True, is_averaged=True),),
        activation_bytes=batch_size * sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
        flop_per_sample=counter.get_total_flops(),
    )
