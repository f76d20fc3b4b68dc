"""What a stage of the image student costs."""

from __future__ import annotations

import torch

from inspatio_sim.generators.blocks.flop import flop_by_layers, flop_of
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets.frame_config import NUM_IMAGES, FrameConfig
from inspatio_sim.generators.presets.shapes import num_parameters
from inspatio_sim.training.engine.cost import Network, StageCost, activation_bytes
from inspatio_sim.training.frame.configs import FrameRunConfig

SCORE_PASSES = 2  # of an update of the student: teacher and critic


def frame_stage_cost(stage: str, config: FrameRunConfig) -> StageCost:
    """Count a stage."""
    frame, parameters = config.frame, num_parameters(config.frame)
    num_images = 1 if stage == "pretrain" else NUM_IMAGES
    forward = flop_by_layers(frame, "depth", lambda frame: _pass_flop(frame, config.grid, num_images))
    backward = 3 + config.checkpoint_activations  # forward, perhaps again, and twice that backwards
    networks = [Network(name="frame", num_parameters=parameters, is_trained=True, is_averaged=True)]
    flop = backward * forward
    if stage.startswith("distill"):
        networks.append(Network(name="critic", num_parameters=parameters, is_trained=True))
        networks.append(Network(name="teacher", num_parameters=parameters, is_trained=False))
        made = (len(config.distill.steps) + 1) / 2 * forward  # up to a step drawn evenly
        critic = made + backward * forward
        student = made + SCORE_PASSES * forward + (backward - 1) * forward
        flop = critic + student / config.distill.critic_updates
    activations = activation_bytes(
        num_images * frame.tokens_of(*config.grid),
        frame.depth,
        frame.hidden_size,
        frame.mlp_size,
        dtype=config.trainer.dtype,
        is_recomputed=config.checkpoint_activations,
    )
    return StageCost(
        networks=tuple(networks),
        activation_bytes=config.trainer.batch_size * activations,
        flop_per_sample=flop,
    )


def _pass_flop(config: FrameConfig, grid: tuple[int, int], num_images: int) -> int:
    with torch.device("meta"):
        network = FrameTransformer(config)
        x = torch.empty(1, config.in_channels, *grid)
        beside = torch.empty(1, config.in_channels + config.mask_channels, *grid) if num_images > 1 else None
        timestep = torch.empty(1)
    return flop_of(lambda: network(x, timestep, beside, beside))
