"""UMT5-XXL, the text encoder of the Wan models, from a local folder in diffusers format.

The model has 5.7 billion weights (11 GB in bfloat16) and is needed once a prompt: it is loaded for a prompt and
dropped after it, on the CPU unless told otherwise. Wrap it in `CachedText` so that this happens once.

The folder is read with safetensors only, without the network, and without running code from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from typing_extensions import Self

from inspatio_sim.errors import InputError, NotEnoughMemory
from inspatio_sim.text.protocol import clean_prompt

log = logging.getLogger(__name__)

PUBLISHED = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"  # on Hugging Face, Apache-2.0
WAN_PICKLE = "models_t5_umt5-xxl-enc-bf16.pth"

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"  # of weights split over several files
_DTYPES = (torch.bfloat16, torch.float32)
_SAMPLES, _SAMPLE_BYTES = 16, 4096  # of each weight file, for the identity
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


class Umt5:
    """UMT5 encoder and its tokenizer.

    Each call of `encode` loads the model and drops it. For many prompts in a row keep it:

        with Umt5(folder) as encoder:
            rows = [encoder.encode(prompt) for prompt in prompts]

    As in Wan, the model sees the prompt's own tokens only and the rows after them are zero; whoever attends to the
    rows does not mask them. The prompt is encoded at its own length instead of padded and masked: the same numbers
    up to rounding, in a fraction of the time.

    Args:
        folder: holds `text_encoder` and `tokenizer`, as published in Wan-AI/Wan2.1-T2V-1.3B-Diffusers; or is such a
            `text_encoder` folder with the tokenizer inside, in `google/umt5-xxl` inside or in `tokenizer` beside it.
        dtype: of weights and computation, bfloat16 or float32.
        device: where the model runs.
        text_len: rows of the result; a longer prompt is refused.

    Raises:
        InputError: files are missing or are not UMT5's, transformers is missing, or an argument is out of range.

    Source: Wan2.1, wan/modules/t5.py.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: str | torch.device = "cpu",
        text_len: int = 512,
    ) -> None:
        if dtype not in _DTYPES:  # float16 overflows in this model
            raise InputError(f"dtype={dtype}: want torch.bfloat16 or torch.float32")
        if text_len < 1:
            raise InputError(f"text_len={text_len}: want 1 or more")
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise InputError(f"device={device!r}: want a device of torch, such as 'cpu' or 'cuda'") from error
        self.dtype = dtype
        self.text_len = text_len
        self._folder, self._tokenizer_file, weights = _find_files(Path(folder))
        config_file = self._folder / "config.json"
        self._config = _read_config(config_file)
        self.text_dim = int(self._config["d_model"])
        digest = _digest([config_file, self._tokenizer_file], weights)
        self.identity = f"umt5-1 {dtype} {self.device.type} {text_len}x{self.text_dim} {digest}"
        self._model: Any = None
        self._keeps_model = False

    def encode(self, prompt: str) -> Tensor:
        """Embed one prompt: float32 on the CPU, zero rows after the prompt's own. [text_len, text_dim]"""
        text = clean_prompt(prompt)
        rows = torch.zeros(self.text_len, self.text_dim)
        if not text:
            return rows
        ids = self._tokenize(text)
        try:
            if self._model is None:
                self._model = self._load()
            with torch.no_grad():
                own = self._model(input_ids=torch.tensor([ids], device=self.device)).last_hidden_state[0]
            rows[: len(ids)] = own.float().cpu()
        except torch.OutOfMemoryError as error:
            raise NotEnoughMemory(f"device={self.device}: not enough memory for UMT5: use device='cpu'") from error
        finally:
            if not self._keeps_model:
                self.close()
        if not rows.isfinite().all():
            raise InputError(f"{self._folder}: the embedding of the prompt is not finite: damaged weights?")
        return rows

    def close(self) -> None:
        """Drop the model; the next prompt loads it again."""
        self._model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        self._keeps_model = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keeps_model = False
        self.close()

    def _tokenize(self, text: str) -> list[int]:
        """The token numbers of a cleaned prompt, the end token included."""
        _transformers()
        from tokenizers import Tokenizer  # comes with transformers

        # Not through AutoTokenizer: transformers 5 builds T5's tokenizer anew and leaves out the normalizer and the
        # byte fallback of the published tokenizer.json.
        try:
            tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"{self._tokenizer_file}: not a tokenizer: {_first_line(error)}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        ids = tokenizer.encode(text).ids
        end, num_words = self._config.get("eos_token_id", 1), self._config["vocab_size"]
        if ids[-1:] != [end] or max(ids) >= num_words:
            raise InputError(
                f"{self._tokenizer_file}: not this model's tokenizer: want numbers below {num_words}, {end} at the end"
            )
        if len(ids) > self.text_len:
            raise InputError(f"prompt: {len(ids)} tokens, want at most {self.text_len}: shorten it")
        return ids

    def _load(self) -> Any:
        transformers = _transformers()
        transformers.utils.logging.disable_progress_bar()  # a library does not print
        log.info("loading text encoder from %s", self._folder)
        try:
            model, info = transformers.UMT5EncoderModel.from_pretrained(
                str(self._folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=self.dtype,
                output_loading_info=True,
            )
        except torch.OutOfMemoryError:
            raise
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{self._folder}: not a UMT5 encoder: {_first_line(error)}") from error
        absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
        if absent:
            raise InputError(
                f"{self._folder}: {len(absent)} weights are missing or of another shape, such as {absent[0]}"
            )
        return model.to(self.device).eval()


def _transformers() -> Any:
    try:
        import transformers  # seconds to import
    except ImportError as error:
        raise InputError("text encoder UMT5: package transformers is missing: pip install transformers") from error
    return transformers


def _find_files(folder: Path) -> tuple[Path, Path, list[Path]]:
    """The encoder's folder, tokenizer.json and the weight files, or an error that lists what is missing."""
    model_folder = folder / "text_encoder"
    if (folder / "config.json").is_file() and not model_folder.is_dir():
        model_folder = folder
    places = [folder / "tokenizer", folder / "google" / "umt5-xxl", folder]
    if folder.name == "text_encoder":
        places.append(folder.parent / "tokenizer")
    tokenizer_files = [place / "tokenizer.json" for place in places]
    tokenizer_file = next((path for path in tokenizer_files if path.is_file()), tokenizer_files[0])

    weights = [model_folder / _WEIGHTS]
    if not weights[0].is_file() and (model_folder / _INDEX).is_file():
        weights = [model_folder / name for name in _shard_names(model_folder / _INDEX)]
    missing = [path for path in [model_folder / "config.json", tokenizer_file, *weights] if not path.is_file()]
    if not missing:
        return model_folder, tokenizer_file, weights

    get = f"hf download {PUBLISHED} --include 'text_encoder/*' --include 'tokenizer/*' --local-dir DIR, and name DIR"
    if folder.name == WAN_PICKLE or (folder / WAN_PICKLE).is_file():
        raise InputError(f"{folder}: {WAN_PICKLE} is Wan's own format, want the diffusers-format folder: {get}")
    names = ", ".join(str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path) for path in missing)
    raise InputError(f"{folder}: no {names}; published on Hugging Face in {PUBLISHED} (Apache-2.0): {get}")


def _shard_names(index_file: Path) -> list[str]:
    """The files that weights are split over."""
    try:
        names = sorted(set(json.loads(index_file.read_text(encoding="utf-8"))["weight_map"].values()))
        is_usable = bool(names) and all(Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index_file}: not an index of weight files ({_first_line(error)})") from error
    if not is_usable:
        raise InputError(f"{index_file}: want the names of files beside it in weight_map")
    return names


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({_first_line(error)})") from error
    if not isinstance(config, dict) or config.get("model_type") != "umt5":
        raise InputError(f"{path}: not a UMT5 model: want model_type 'umt5'")
    for name in ("d_model", "vocab_size"):
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise InputError(f"{path}: {name}={config.get(name)!r}: want a positive whole number")
    return config


def _digest(small: list[Path], weights: list[Path]) -> str:
    """Tell one model from another without reading 11 GB.

    Small files count whole; a weight file by its name, size, header and 16 samples of 4 KiB.
    """
    digest = hashlib.sha256()
    try:
        for path in small:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        for path in weights:
            size = path.stat().st_size
            digest.update(f"\0{path.name}\0{size}\0".encode(errors="surrogateescape"))
            with path.open("rb") as file:
                num_header_bytes = int.from_bytes(file.read(8), "little")
                digest.update(file.read(min(num_header_bytes, _MAX_HEADER_BYTES)))
                for i in range(_SAMPLES):
                    file.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:32]


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
