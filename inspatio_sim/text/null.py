"""Text for who has no text model: the null prompt, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.text.protocol import clean_prompt


@dataclass(frozen=True, kw_only=True)
class NullText:
    """Embeds the empty prompt as zeros, as every encoder does; any other is refused."""

    text_dim: int
    text_len: int
    wanted: str  # what to say where a prompt comes: the files of the text model, and where they are published

    @property
    def identity(self) -> str:
        return "null"

    def encode(self, prompt: str) -> Tensor:
        """Zeros. [text_len, text_dim]"""
        if clean_prompt(prompt):
            raise InputError(f"prompt {prompt[:40]!r}: no text model was found: want {self.wanted}; or no prompt")
        return torch.zeros(self.text_len, self.text_dim)
