"""What a stage of the video student, or of what it is made with, costs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from inspatio_sim.codecs import TinyAutoencoder
from inspatio_sim.generators.blocks.flop import flop_by_layers, flop_of
from inspatio_sim.generators.presets.shapes import num_parameters
from inspatio_sim.generators.presets.star_config import PATCH, StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.geometry.depth_network import DepthNetwork
from inspatio_sim.latents import BLOCK_LATENTS
from inspatio_sim.training.codec.losses import reconstruct
from inspatio_sim.training.engine.cost import Network, StageCost, activation_bytes, counted_cost
from inspatio_sim.training.star.configs import RunConfig
from inspatio_sim.training.star.flows import Conditions, student_flow, teacher_flow

GUIDED_PASSES = 2  # of the real score: with and without the prompt


def stage_cost(stage: str, config: RunConfig) -> StageCost | None:
    """Count a stage; None for one that is not known here."""
    if stage == "codec":
        return _codec_cost(config)
    if stage == "depth":
        return _depth_cost(config)
    parameters, batch = num_parameters(config.star), config.trainer.batch_size
    num_latents = config.data.num_latents
    backward = 3 + config.checkpoint_activations  # forward, perhaps again, and twice that backwards
    if stage == "distill":
        tasks = [("v2v", _joint_flop(config)), ("t2v", _alone_flop(config))][: 1 + (config.t2v_weight > 0)]
        networks = [Network(name="student", num_parameters=parameters, is_trained=True, is_averaged=True)]
        for name, _ in tasks:
            networks.append(Network(name=f"critic_{name}", num_parameters=parameters, is_trained=True))
            networks.append(Network(name=f"teacher_{name}", num_parameters=parameters, is_trained=False))
        streamed = _streamed_flop(config)
        flop = sum(_matching_flop(config, scores, streamed, backward) for _, scores in tasks) / len(tasks)
        activations = max(_activations(config, 2 * num_latents), _activations(config, 3 * BLOCK_LATENTS))
        return StageCost(networks=tuple(networks), activation_bytes=batch * activations, flop_per_sample=flop)
    stages = {
        "teacher": ("teacher", _joint_flop, 2 * num_latents),
        "t2v-teacher": ("teacher", _alone_flop, num_latents),
        "init": ("student", _streamed_flop, 3 * BLOCK_LATENTS),
    }
    if stage not in stages:
        return None
    name, forward, tokens_latents = stages[stage]
    return StageCost(
        networks=(Network(name=name, num_parameters=parameters, is_trained=True, is_averaged=True),),
        activation_bytes=batch * _activations(config, tokens_latents),
        flop_per_sample=backward * forward(config),
    )


def _matching_flop(config: RunConfig, scores: float, streamed: float, backward: int) -> float:
    """A step of one task: the critic's update, and its share of the student's."""
    num_steps = len(config.distill.steps)
    roll_out = streamed * (num_steps + 1) / 2  # every pass with a context of its own, up to a step drawn evenly
    critic = roll_out + backward * scores
    student = roll_out + (1 + GUIDED_PASSES) * scores + backward * streamed
    return critic + student / config.distill.critic_updates


def _joint_flop(config: RunConfig) -> int:
    """A teacher's pass over target and reference."""
    return _flop(config, lambda network: teacher_flow(network, *_given(config, config.data.num_latents)))


def _alone_flop(config: RunConfig) -> int:
    """A pass over the target, from text alone."""

    def run(network: StarTransformer) -> torch.Tensor:
        x_t, timestep, conditions = _given(config, config.data.num_latents)
        return teacher_flow(network, x_t, timestep, Conditions(text=conditions.text))

    return _flop(config, run)


def _streamed_flop(config: RunConfig) -> int:
    """The student's way through a clip, one pass a chunk; the first has no history."""
    given = _given(config, BLOCK_LATENTS)
    first = _flop(config, lambda network: student_flow(network, *given, None))
    later = _flop(config, lambda network: student_flow(network, *given, given[0]))
    return first + (config.data.num_latents // BLOCK_LATENTS - 1) * later


def _flop(config: RunConfig, run: Callable[[StarTransformer], torch.Tensor]) -> int:
    def count(star: StarConfig) -> int:
        with torch.device("meta"):
            network = StarTransformer(star)
        return flop_of(lambda: run(network))

    return flop_by_layers(config.star, "num_layers", count)


def _given(config: RunConfig, num_latents: int) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    """Noisy latents of one clip, their timestep, and all that it is generated from, without numbers."""
    star, grid = config.star, config.data.grid
    with torch.device("meta"):
        x_t = torch.empty(1, num_latents, star.out_channels, *grid)
        view = torch.empty(1, num_latents, star.condition_channels, *grid)
        text = torch.empty(1, star.text_len, star.text_dim)
        return x_t, torch.empty(1), Conditions(text=text, reference=torch.empty_like(x_t), view=view)


def _activations(config: RunConfig, num_latents: int) -> int:
    height, width = config.data.grid
    return activation_bytes(
        num_latents * (height // PATCH) * (width // PATCH),
        config.star.num_layers,
        config.star.dim,
        config.star.ffn_dim,
        dtype=config.trainer.dtype,
        is_recomputed=config.checkpoint_activations,
    )


def _codec_cost(config: RunConfig) -> StageCost:
    data = config.data
    with torch.device("meta"):
        network = TinyAutoencoder(config.codec)
        frames = torch.empty(1, data.crop_frames, *data.crop_px, 3)
    return counted_cost("codec", network, lambda: reconstruct(network, frames)[0], config.trainer.batch_size)


def _depth_cost(config: RunConfig) -> StageCost:
    with torch.device("meta"):
        network = DepthNetwork(config.depth.network)
        rgb, depth_m = (torch.empty(1, channels, *config.depth.size_px) for channels in (3, 1))
    return counted_cost("depth", network, lambda: network(rgb, depth_m), config.trainer.batch_size)
