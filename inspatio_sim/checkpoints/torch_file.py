"""One .pth or .pt file: its list of tensors, and each tensor when asked for. No code in it ever runs."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspatio_sim.checkpoints.tensors import TensorInfo, shown
from inspatio_sim.errors import InputError

WRAPPERS = ("generator_ema", "generator", "state_dict", "model_state_dict", "model")
"""Entries of training checkpoints that hold the weights, best first: an average over steps before the last step."""

_MAPPED_LIMIT_B = 64 * 2**20  # the file is mapped anew after so much was read: what was read leaves the memory


class TorchFile:
    """A file of torch.save (since 1.6) with tensors by name, maybe inside one of `WRAPPERS`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wrapper = ""  # where the weights were, such as "generator_ema."
        self.metadata: dict[str, str] = {}
        self._loaded: dict[str, Tensor] = {}
        self._mapped_b = 0
        _check_zip(path)
        self._load()
        self.tensors = {name: self._info(name, tensor) for name, tensor in self._loaded.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""
        if not self._loaded or self._mapped_b > _MAPPED_LIMIT_B:
            self._load()  # pages of the old mapping are given back
        tensor = self._loaded[name]
        self._mapped_b += tensor.nbytes
        return tensor.detach().clone(memory_format=torch.contiguous_format)

    def close(self) -> None:
        """Let go of the mapping."""
        self._loaded = {}

    def _load(self) -> None:
        self._loaded, self._mapped_b = {}, 0
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{self.path}: holds more than tensors ({_reason(error)}), which only code in the file could make: "
                "it is not run; want plain weights, best as safetensors"
            ) from error
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        except MemoryError:
            raise
        except Exception as error:  # a damaged pickle may raise anything
            if "Cannot allocate memory" in str(error):
                size = f"{self.path.stat().st_size / 1e9:.1f} GB"
                raise InputError(
                    f"{self.path}: {size} are more than this machine maps: convert it to safetensors on a larger one"
                ) from error
            raise InputError(f"{self.path}: damaged torch file ({_reason(error)}): download it again") from error
        self.wrapper, self._loaded = _unwrap(content, self.path)

    def _info(self, name: str, tensor: Tensor) -> TensorInfo:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{self.path}: {shown(name)} is sparse, quantised or without data: want plain tensors")
        if tensor.nbytes > self.path.stat().st_size:  # one number, repeated without end
            raise InputError(f"{self.path}: {shown(name)} claims {tensor.nbytes:,} bytes, more than the file has")
        return TensorInfo(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def _check_zip(path: Path) -> None:
    """Torch files are zip archives of stored, not compressed, entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: no torch file, truncated, or from before torch 1.6: download it again, or torch.save it anew"
        ) from error
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from error
    if not any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise InputError(f"{path}: a zip archive, but no file of torch.save")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(f"{path}: a compressed zip archive: want a file as torch.save writes it")


def _unwrap(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The dict of tensors, and the entries it was found in."""
    wrapper = ""
    while isinstance(content, Mapping):
        others = [key for key, value in content.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
        if content and not others:
            return wrapper, dict(content)
        inside = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inside is None:
            reason = f"entry {shown(str(others[0]))} is no tensor" if others else "it is empty"
            raise InputError(
                f"{path}: no weights by name in it ({reason}): want them alone, or in {', '.join(WRAPPERS)}"
            )
        content, wrapper = content[inside], f"{wrapper}{inside}."
    raise InputError(f"{path}: holds a {type(content).__name__}: want tensors by name")


def _reason(error: Exception) -> str:
    """The first sentence of torch's long explanations."""
    text = " ".join(str(error).split())
    _, _, unpickling = text.partition("WeightsUnpickler error: ")
    return (unpickling or text or type(error).__name__).split(". ")[0][:150]
