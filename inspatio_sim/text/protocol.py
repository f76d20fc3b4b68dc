"""What every text encoder offers, and what all of them do to a prompt first."""

from __future__ import annotations

import html
from typing import Protocol

from torch import Tensor

from inspatio_sim.errors import InputError


class TextEncoder(Protocol):
    """A prompt goes in; rows of an embedding come out."""

    @property
    def text_dim(self) -> int: ...

    @property
    def text_len(self) -> int: ...

    @property
    def identity(self) -> str:
        """Everything the result depends on but the prompt: two encoders of one identity give the same rows."""
        ...

    def encode(self, prompt: str) -> Tensor:
        """Embed one prompt.

        The empty prompt is the null prompt: all rows zero, and no model is loaded for it.

        Returns:
            float32 on the CPU; rows without text are zero. [text_len, text_dim]

        Raises:
            InputError: the prompt has more words or tokens than the encoder takes, or is no text.
        """
        ...


def clean_prompt(prompt: str) -> str:
    """Resolve HTML entities and make every run of white space one space; "" is the null prompt.

    Source: Wan2.1, wan/modules/tokenizers.py, `clean="whitespace"` (without its repair of broken encodings).
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt: is a {type(prompt).__name__}: want a string")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"prompt: character {error.start + 1} is not valid Unicode: want UTF-8 text") from error
    return " ".join(html.unescape(html.unescape(prompt)).split())  # twice, as Wan does
