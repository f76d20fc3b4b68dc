"""Embeddings kept between runs: a prompt is encoded once, and its model is not even loaded again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.files.caches import cache_folder
from inspatio_sim.text.protocol import TextEncoder, clean_prompt

log = logging.getLogger(__name__)

MAX_FILES = 256  # the least recently used go first; UMT5's rows of a sentence take some 300 KB
MAX_IN_MEMORY = 64  # prompts that one encoder keeps at hand


class CachedText:
    """Another encoder, asked once a prompt.

    A file holds the prompt's own rows in float32, without the zero rows after them, so later results are bit-equal
    to the first; its metadata hold the prompt and the encoder. A file that is damaged is made again. A folder that
    cannot be written costs time, nothing else.

    Args:
        encoder: what to ask.
        folder: where to keep the files; None: `prompts` in the cache folder of this system.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path | None = None) -> None:
        self.encoder = encoder
        self.folder = cache_folder() / "prompts" if folder is None else Path(folder)
        self._own_rows = lru_cache(MAX_IN_MEMORY)(self._load_or_make)

    @property
    def text_dim(self) -> int:
        return self.encoder.text_dim

    @property
    def text_len(self) -> int:
        return self.encoder.text_len

    @property
    def identity(self) -> str:
        return self.encoder.identity

    def encode(self, prompt: str) -> Tensor:
        """Embed one prompt; a tensor of the caller's own. [text_len, text_dim]"""
        rows = torch.zeros(self.text_len, self.text_dim)
        if clean_prompt(prompt):
            own = self._own_rows(prompt)
            rows[: len(own)] = torch.from_numpy(own)
        return rows

    def _load_or_make(self, prompt: str) -> NDArray[np.float32]:
        """The prompt's rows up to the last that is not zero. [n, text_dim]"""
        key = hashlib.sha256(f"{self.identity}\0{prompt}".encode()).hexdigest()[:32]
        path = self.folder / f"{key}.safetensors"
        rows = self._read(prompt, path)
        if rows is None:
            embedding = self.encoder.encode(prompt).numpy()
            used = np.flatnonzero(embedding.any(axis=1))
            rows = embedding[: used[-1] + 1 if len(used) else 0].copy()
            self._keep(prompt, rows, path)
        return rows

    def _read(self, prompt: str, path: Path) -> NDArray[np.float32] | None:
        try:
            with safe_open(path, framework="np") as file:
                rows, metadata = file.get_tensor("rows"), file.metadata()
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            log.warning("cached prompt %s cannot be read (%s): making it again", path, error)
            return None
        fits = rows.dtype == np.float32 and rows.ndim == 2 and rows.shape[1] == self.text_dim
        if not fits or len(rows) > self.text_len or metadata != self._metadata(prompt, rows):
            log.warning("cached prompt %s is damaged: making it again", path)
            return None
        with suppress(OSError):
            os.utime(path)  # recently used
        return rows

    def _keep(self, prompt: str, rows: NDArray[np.float32], path: Path) -> None:
        data = save({"rows": rows}, self._metadata(prompt, rows))
        try:
            with replacing(path) as temporary, writing_to(path):
                temporary.write_bytes(data)
            files = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
            for old in files[:-MAX_FILES]:
                old.unlink(missing_ok=True)
        except (OSError, InputError) as error:
            log.warning("prompt not cached: %s", error)

    def _metadata(self, prompt: str, rows: NDArray[np.float32]) -> dict[str, str]:
        """What a file says of itself; one entry, since safetensors writes several in random order."""
        about = {"prompt": prompt, "encoder": self.identity, "sha256": hashlib.sha256(rows.tobytes()).hexdigest()}
        return {"about": json.dumps(about, ensure_ascii=False)}
