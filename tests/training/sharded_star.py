"""Gradients of the streaming student, two chunks of two clips: `python -m tests.training.sharded_star FILE`."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.engine.distributed import gathered, joined, shard
from inspatio_sim.training.star.flows import Conditions, student_flow

ENTRY_POINTS = ("time_modulation", "text_keys", "write_context", "denoise")


def main(path: Path) -> None:
    with joined("cpu") as ranks:
        torch.manual_seed(ranks.rank)  # every rank begins with rank 0's weights all the same
        config = StarConfig(dim=24, ffn_dim=32, num_layers=2, num_heads=2, text_dim=8, text_len=4)
        transformer = StarTransformer(config)
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.2)
        shard(transformer, ENTRY_POINTS, ranks)
        generator = torch.Generator().manual_seed(7)
        own = slice(ranks.rank, None, ranks.world_size)  # of two clips
        for _ in range(2):  # two chunks, each with its own backward pass
            x, reference, history = (torch.randn(2, 3, 16, 4, 4, generator=generator)[own] for _ in range(3))
            view = torch.randn(2, 3, 20, 4, 4, generator=generator)[own]
            text = torch.randn(2, 4, 8, generator=generator)[own]
            conditions = Conditions(text=text, reference=reference, view=view)
            with torch.no_grad():
                student_flow(transformer, x, torch.full((len(x),), 900.0), conditions, None)
            student_flow(transformer, x, torch.full((len(x),), 500.0), conditions, history).square().mean().backward()
        gradients = {}
        for name, parameter in transformer.named_parameters():
            if parameter.grad is not None:
                gradients[name] = gathered(parameter.grad, ranks)
        if ranks.is_main:
            save_file(gradients, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
