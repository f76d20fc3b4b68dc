"""One .safetensors file: its list of tensors, and each tensor when asked for."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inspatio_sim.checkpoints.tensors import FLOATS, TensorInfo, check_floats, shown
from inspatio_sim.errors import InputError

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32"}
_LENGTH = struct.Struct("<Q")  # of the header, at the start of the file


class SafetensorsFile:
    """A file whose header was read and found consistent with its size; the data stays on the disk.

    The library checks the header; the data is read here, since its torch interface maps the whole file as writable
    memory, which systems refuse for files larger than the memory there is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="np") as handle:
                self.metadata: dict[str, str] = dict(handle.metadata() or {})
                names = list(handle.keys())
                self.tensors = {name: _info(handle.get_slice(name)) for name in names}
        except (SafetensorError, RuntimeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"{path}: damaged or no safetensors file ({reason}): download or convert it again"
            raise InputError(message) from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        self._offsets = self._read_offsets()

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""
        info, (start, end) = self.tensors[name], self._offsets[name]
        check_floats({name: info}, str(self.path))
        tensor = torch.empty(info.shape, dtype=FLOATS[info.dtype])
        if tensor.nbytes != end - start:
            raise InputError(f"{self.path}: damaged header: {shown(name)} has {end - start:,} bytes of data")
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                num_read = stream.readinto(tensor.flatten().view(torch.uint8).numpy().data) if tensor.nbytes else 0
        except OSError as error:
            raise InputError(f"{self.path}: {shown(name)} cannot be read ({error.strerror})") from error
        if num_read != tensor.nbytes:
            raise InputError(f"{self.path}: ends within {shown(name)}: it was changed while it was read")
        return tensor

    def close(self) -> None:
        """Nothing is held open."""

    def _read_offsets(self) -> dict[str, tuple[int, int]]:
        """Where each tensor's data lies in the file; the header was found to be well-formed before."""
        with self.path.open("rb") as stream:
            (header_b,) = _LENGTH.unpack(stream.read(_LENGTH.size))
            header = json.loads(stream.read(header_b))
        first = _LENGTH.size + header_b
        return {
            name: (first + header[name]["data_offsets"][0], first + header[name]["data_offsets"][1])
            for name in self.tensors
        }


def _info(part: Any) -> TensorInfo:
    dtype: str = part.get_dtype()
    return TensorInfo(shape=tuple(part.get_shape()), dtype=_DTYPES.get(dtype, dtype.lower()))
