"""What a transformer made ready for some device has in common with the one it was made from."""

from __future__ import annotations

import torch
from torch import Tensor

from inspatio_sim.generators.blocks.modulation import TimeModulation
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer, TextKeys


class PreparedTransformer:
    """Everything but the two passes, which each kind runs in its own way; see `sampler.FlowNetwork`."""

    def __init__(self, transformer: StarTransformer) -> None:
        self.config: StarConfig = transformer.config
        self.dtype: torch.dtype = transformer.dtype
        self.device: torch.device = transformer.device
        self._plain = transformer

    def time_modulation(self, timestep: Tensor) -> TimeModulation:
        """As `StarTransformer`."""
        return self._plain.time_modulation(timestep)

    def text_keys(self, text: Tensor) -> TextKeys:
        """As `StarTransformer`."""
        return self._plain.text_keys(text)

    def rotary(self, frame_idx: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        """As `StarTransformer`."""
        return self._plain.rotary(frame_idx, h, w)
