"""A real UMT5, only small, in the layout of Wan's diffusers checkpoints."""

from pathlib import Path

import pytest
import torch

WORDS = ["▁a", "▁red", "▁car", "▁blue", "▁house", "▁by", "▁the", "▁sea"]


def save_tokenizer(folder: Path) -> None:
    """Unigram with bytes for unknown characters, as UMT5's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(word, -3.0) for word in WORDS] + [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz<>"]
    vocab += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_truncation(4)  # some published files hold such settings: they must not count
    tokenizer.enable_padding(length=9)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_umt5(folder: Path, seed: int = 0, max_shard_size: str = "1GB") -> Path:
    """text_encoder and tokenizer in `folder`."""
    transformers = pytest.importorskip("transformers", reason="UMT5 runs in transformers")
    torch.manual_seed(seed)
    config = transformers.UMT5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model = transformers.UMT5EncoderModel(config)
    with torch.no_grad():
        for weight in model.parameters():  # the initial ones let positions and attention count for next to nothing
            weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder / "text_encoder", max_shard_size=max_shard_size)
    save_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def umt5_folder(tmp_path_factory) -> Path:
    """Not to be changed by a test."""
    return save_umt5(tmp_path_factory.mktemp("umt5"))
