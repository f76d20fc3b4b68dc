"""A bag of words without weights: the text encoder of the `tiny` preset.

    row_r = s_r / rms(s_r),   s_r = sum of v(w) over the prompt's words w with b(w) = r

b(w) in 0 .. text_len - 1 and v(w), `text_dim` integers of zero mean that are spread about normally, come from the
SHAKE-256 digest of the word: bytes 0-7 are b (little-endian, modulo text_len), then each component is the sum of
four 16-bit numbers less its mean. Rows without a word stay zero.

Words of different spelling are nearly orthogonal. A prompt of any length fits into the rows, each of unit scale;
the order of words does not matter, and a word changed in a prompt changes at most two rows.

Sums are integers and the last step is one square root and one division, which IEEE 754 rounds the same way
everywhere: the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.text.protocol import clean_prompt

MAX_WORDS = 64  # more say little in so few rows: a prompt that long is meant for another encoder

_TERMS = 4  # 16-bit numbers summed for one component


@dataclass(frozen=True, kw_only=True)
class HashedWords:
    """Frozen hashed bag of words."""

    text_dim: int = 64
    text_len: int = 8  # rows; words share them

    def __post_init__(self) -> None:
        for name, value in (("text_dim", self.text_dim), ("text_len", self.text_len)):
            if value < 1:
                raise InputError(f"{name}={value}: want 1 or more")

    @property
    def identity(self) -> str:
        return f"hashed-words-1 {self.text_len}x{self.text_dim}"

    def encode(self, prompt: str) -> Tensor:
        """Embed one prompt; one without letters or digits counts as empty. [text_len, text_dim]"""
        words = split_words(prompt)
        if len(words) > MAX_WORDS:
            raise InputError(f"prompt: {len(words)} words, want at most {MAX_WORDS}: shorten it")
        sums = np.zeros((self.text_len, self.text_dim), np.int64)
        for word in words:
            bucket, vector = _hashed(word, self.text_dim)
            sums[bucket % self.text_len] += vector
        rms = np.sqrt(np.square(sums).sum(axis=1, keepdims=True) / self.text_dim)
        rows = np.divide(sums, rms, out=np.zeros(sums.shape), where=rms > 0)
        return torch.from_numpy(rows.astype(np.float32))


def split_words(prompt: str) -> list[str]:
    """Runs of letters and digits in lower case; compatibility forms of a character are one."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", clean_prompt(prompt)).lower())


def _hashed(word: str, text_dim: int) -> tuple[int, NDArray[np.int64]]:
    """The word's bucket number, before the modulo, and its vector. [text_dim]"""
    digest = hashlib.shake_256(word.encode()).digest(8 + 2 * _TERMS * text_dim)
    terms = np.frombuffer(digest, "<u2", offset=8).reshape(text_dim, _TERMS)
    vector = terms.sum(axis=1, dtype=np.int64) - _TERMS * 0xFFFF // 2
    return int.from_bytes(digest[:8], "little"), vector
