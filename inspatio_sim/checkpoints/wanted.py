"""A file that is wanted: what it may be called, where it is published, and what to type to get it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["transformer", "codec", "wan_codec", "text_encoder"]
UNSTATED_LICENCE = "not stated for the weights (their code is Apache-2.0)"


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """One file, or folder of files, that a preset needs."""

    role: Role
    names: tuple[str, ...]  # that it may have, best first; looked for in a folder and two levels below
    holds: tuple[str, ...] = ()  # a folder is wanted, with these files in it
    model_class: str = ""  # of diffusers, that the folder's config.json names
    licence: str
    repo: str | None = None  # at Hugging Face, where it can be downloaded
    published: tuple[str, ...] = ()  # its name there, or patterns
    url: str = ""  # where it is published otherwise
    size_gb: float | None = None  # None: not confirmed
    is_needed: bool = True  # False: only for what `note` says
    note: str = ""

    @property
    def label(self) -> str:
        """What it is called where it is published."""
        return ", ".join(self.published) or self.names[0]

    @property
    def origin(self) -> str:
        """Where it is published."""
        return f"huggingface.co/{self.repo}" if self.repo else self.url or self.note

    def download_command(self, folder: str) -> str:
        """What to type to get it into a folder, whose name is quoted; empty where it cannot be had."""
        if self.repo:
            names = " ".join(f"--include '{name}'" if "*" in name else name for name in self.published)
            return f"hf download {self.repo} {names} --local-dir {folder}/{self.repo.rpartition('/')[2]}"
        if self.url:
            return f"curl -L --create-dirs -o {folder}/{self.names[0]} {self.url}"
        return ""

    def missing_in(self, folder: Path) -> tuple[str, ...]:
        """What a folder lacks to be it."""
        return tuple(name for name in self.holds if not (folder / name).is_file())
