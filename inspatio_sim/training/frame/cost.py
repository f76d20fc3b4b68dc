"""What a stage of the frame generator costs, counted from sizes; see `training.cost`."""

from __future__ import annotations

import torch

from inspatio_sim.generators.frame.cost import pass_flop
from inspatio_sim.generators.presets.frame_config import NUM_IMAGES, expected_shapes
from inspatio_sim.training.engine.cost import FLOAT_BYTES, Network, StageCost
from inspatio_sim.training.frame.configs import FrameRunConfig

SCORE_PASSES = 2  # of an update of the student: teacher and critic


def frame_stage_cost(stage: str, config: FrameRunConfig) -> StageCost:
    """Count a stage."""
    shapes = expected_shapes(config.frame).values()
    parameters = sum(torch.Size(shape).numel() for shape in shapes)
    num_images = 1 if stage == "pretrain" else NUM_IMAGES
    forward = pass_flop(config.frame, config.grid, num_images)
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
    return StageCost(
        networks=tuple(networks),
        activation_bytes=config.trainer.batch_size * _activations(config, num_images),
        flop_per_sample=flop,
    )


def _activations(config: FrameRunConfig, num_images: int) -> int:
    """Bytes that a backward pass needs, of one sample: what each block keeps, roughly."""
    frame = config.frame
    item = 2 if config.trainer.dtype == "bfloat16" else FLOAT_BYTES
    tokens = num_images * frame.tokens_of(*config.grid)
    block = (16 * frame.hidden_size + 2 * frame.mlp_size) * item * tokens
    if config.checkpoint_activations:
        return frame.depth * frame.hidden_size * FLOAT_BYTES * tokens + block
    return frame.depth * block
