import gc
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspatio_sim.errors import InputError
from inspatio_sim.text.umt5 import WAN_PICKLE, Umt5
from tests.text.conftest import save_umt5

transformers = pytest.importorskip("transformers", reason="UMT5 runs in transformers")

PROMPT = "a red car by the sea"


def load_by_hand(folder: Path, dtype: torch.dtype):
    from tokenizers import Tokenizer

    model = transformers.UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return model, tokenizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_the_models_own(umt5_folder, dtype):
    rows = Umt5(umt5_folder, dtype=dtype, text_len=24).encode(PROMPT)
    model, tokenizer = load_by_hand(umt5_folder, dtype)
    ids = tokenizer.encode(PROMPT).ids
    assert ids == [5, 6, 7, 10, 11, 12, 1]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    assert rows.shape == (24, 32)
    assert rows.dtype == torch.float32
    assert torch.equal(rows[:7], expected.float())
    assert not rows[7:].any()
    assert not rows.requires_grad


def test_is_what_wan_computes_with_padding_and_mask(umt5_folder):
    rows = Umt5(umt5_folder, dtype=torch.float32, text_len=24).encode(PROMPT)
    model, tokenizer = load_by_hand(umt5_folder, torch.float32)
    ids = torch.zeros(1, 24, dtype=torch.long)
    mask = torch.zeros(1, 24, dtype=torch.long)
    ids[0, :7], mask[0, :7] = torch.tensor(tokenizer.encode(PROMPT).ids), 1
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        unmasked = model(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(rows[:7], padded[:7], rtol=1e-4, atol=1e-5)
    assert (rows[:7] - unmasked[:7]).abs().max() > 0.01  # the mask counts


def test_is_the_published_formula(umt5_folder):
    """T5 v1.1 written out in float64, each layer with its own position bias, attention without scaling."""
    w = {key: value.double() for key, value in load_file(umt5_folder / "text_encoder" / "model.safetensors").items()}
    ids = torch.tensor([5, 6, 7, 10, 11, 12, 1])
    offset = torch.arange(7)[None] - torch.arange(7)[:, None]  # of the key from the query
    bucket = offset.abs() + 16 * (offset > 0)  # distances below 8 have buckets of their own

    def norm(x, gain):
        return gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    x = w["shared.weight"][ids]
    for block in ("encoder.block.0.layer", "encoder.block.1.layer"):
        attention, ffn = f"{block}.0.SelfAttention", f"{block}.1.DenseReluDense"
        h = norm(x, w[f"{block}.0.layer_norm.weight"])
        q, k, v = ((h @ w[f"{attention}.{name}.weight"].T).reshape(7, 4, 8) for name in "qkv")
        bias = w[f"{attention}.relative_attention_bias.weight"][bucket]  # [query, key, head]
        p = (torch.einsum("ihd,jhd->ijh", q, k) + bias).softmax(dim=1)
        x = x + torch.einsum("ijh,jhd->ihd", p, v).reshape(7, 32) @ w[f"{attention}.o.weight"].T
        h = norm(x, w[f"{block}.1.layer_norm.weight"])
        gate = torch.nn.functional.gelu(h @ w[f"{ffn}.wi_0.weight"].T, approximate="tanh")
        x = x + (gate * (h @ w[f"{ffn}.wi_1.weight"].T)) @ w[f"{ffn}.wo.weight"].T
    expected = norm(x, w["encoder.final_layer_norm.weight"])

    rows = Umt5(umt5_folder, dtype=torch.float32, text_len=24).encode(PROMPT)
    torch.testing.assert_close(rows[:7].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_prompt_does_not_depend_on_others(umt5_folder):
    alone = Umt5(umt5_folder, text_len=16).encode(PROMPT)
    with Umt5(umt5_folder, text_len=16) as encoder:
        other = encoder.encode("the blue house")
        assert torch.equal(encoder.encode(PROMPT), alone)
    assert not torch.equal(other, alone)
    wider = Umt5(umt5_folder, text_len=40).encode(PROMPT)
    assert torch.equal(wider[:16], alone)


def test_prompts_are_cleaned(umt5_folder):
    with Umt5(umt5_folder, text_len=64) as encoder:
        expected = encoder.encode("a <red> car")
        for prompt in ("  a\n&lt;red&gt;\t car ", "a &amp;lt;red&amp;gt; car", "a <ｒｅｄ> car"):
            assert torch.equal(encoder.encode(prompt), expected), prompt
        assert encoder.encode("火").any(dim=1).sum() == 5  # a space, three bytes, the end


def loaded_models() -> int:
    return sum(type(thing) is transformers.UMT5EncoderModel for thing in gc.get_objects())


def test_model_is_loaded_for_a_prompt_and_dropped(umt5_folder):
    gc.collect()
    assert loaded_models() == 0
    encoder = Umt5(umt5_folder)
    assert not encoder.encode(" \n").any()
    assert encoder.encode("").shape == (512, 32)
    encoder.encode("a car")
    assert loaded_models() == 0
    with encoder:
        assert loaded_models() == 0
        encoder.encode("a car")
        encoder.encode("a house")
        assert loaded_models() == 1
    assert loaded_models() == 0


def test_null_prompt_does_not_even_import_transformers(umt5_folder):
    code = (
        "import sys; from inspatio_sim.text import Umt5\n"
        f"assert not Umt5({str(umt5_folder)!r}).encode('').any()\n"
        "assert 'transformers' not in sys.modules\n"
        "sys.modules['transformers'] = None\n"
        "from inspatio_sim.errors import InputError\n"
        f"try: Umt5({str(umt5_folder)!r}).encode('car')\n"
        "except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("package transformers is missing: pip install transformers")


def test_other_layouts_give_the_same(umt5_folder, tmp_path):
    expected = Umt5(umt5_folder).encode(PROMPT)
    assert torch.equal(Umt5(umt5_folder / "text_encoder").encode(PROMPT), expected)

    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*(umt5_folder / "text_encoder").iterdir(), umt5_folder / "tokenizer" / "tokenizer.json"]:
        (flat / path.name).write_bytes(path.read_bytes())
    assert torch.equal(Umt5(flat).encode(PROMPT), expected)

    (flat / "google" / "umt5-xxl").mkdir(parents=True)
    (flat / "tokenizer.json").rename(flat / "google" / "umt5-xxl" / "tokenizer.json")
    assert torch.equal(Umt5(str(flat)).encode(PROMPT), expected)

    sharded = save_umt5(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((sharded / "text_encoder").glob("*.safetensors"))) > 1
    assert torch.equal(Umt5(sharded).encode(PROMPT), expected)


def refused(message: str, *args, prompt: str = PROMPT, **options) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Umt5(*args, **options).encode(prompt)
    assert "\n" not in str(caught.value)


def test_too_many_tokens_are_refused(umt5_folder):
    assert Umt5(umt5_folder, text_len=7).encode(PROMPT).any(dim=1).all()
    refused("prompt: 7 tokens, want at most 6", umt5_folder, text_len=6)


def test_missing_files_are_listed(tmp_path):
    refused("no text_encoder/config.json, tokenizer/tokenizer.json, text_encoder/model.safetensors;", tmp_path)
    refused("Wan-AI/Wan2.1-T2V-1.3B-Diffusers .Apache-2.0.: hf download", tmp_path / "nothing")
    folder = save_umt5(tmp_path / "a", max_shard_size="20KB")
    shards = sorted((folder / "text_encoder").glob("*.safetensors"))
    shards[0].unlink()
    shards[1].unlink()
    refused(f"no text_encoder/{shards[0].name}, text_encoder/{shards[1].name};", folder)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    refused(f"no tokenizer/tokenizer.json, text_encoder/{shards[0].name}", folder)


def test_wans_own_format_is_told_apart(tmp_path):
    (tmp_path / WAN_PICKLE).write_bytes(b"PK")
    refused("is Wan's own format, want the diffusers-format folder: hf download", tmp_path)
    refused("is Wan's own format", tmp_path / WAN_PICKLE)


def test_damaged_folders_are_refused(tmp_path):
    folder = save_umt5(tmp_path / "a")
    weights, config_file = folder / "text_encoder" / "model.safetensors", folder / "text_encoder" / "config.json"
    whole, config = weights.read_bytes(), json.loads(config_file.read_text())

    weights.write_bytes(whole[:-1000])
    refused("not a UMT5 encoder: ", folder)
    weights.write_bytes(b"")
    refused("not a UMT5 encoder: ", folder)
    weights.write_bytes(whole)

    tensors = load_file(weights)
    save_file({key: value for key, value in tensors.items() if "SelfAttention.k" not in key}, weights, {"format": "pt"})
    refused("2 weights are missing or of another shape, such as encoder.block.0", folder)
    save_file({key: value * torch.nan for key, value in tensors.items()}, weights, {"format": "pt"})
    refused("embedding of the prompt is not finite", folder)
    weights.write_bytes(whole)

    for changes, message in [
        ({"d_model": 64}, "missing or of another shape|not a UMT5 encoder"),
        ({"d_model": "many"}, "d_model='many': want a positive whole number"),
        ({"model_type": "bert"}, "want model_type 'umt5'"),
        ({"vocab_size": 10}, "not this model's tokenizer: want numbers below 10"),
        ({"eos_token_id": 2}, "not this model's tokenizer: .* 2 at the end"),
    ]:
        config_file.write_text(json.dumps({**config, **changes}))
        refused(message, folder)
    config_file.write_text("[1")
    refused("config.json: cannot be read", folder)
    config_file.write_text(json.dumps(config))

    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    refused("tokenizer.json: not a tokenizer", folder)


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "../b"}}'])
def test_damaged_indices_are_refused(tmp_path, index):
    folder = save_umt5(tmp_path / "a")
    (folder / "text_encoder" / "model.safetensors").unlink()
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(index)
    refused("model.safetensors.index.json: ", folder)


def test_bad_arguments_are_refused(umt5_folder):
    refused("dtype=torch.float16: want torch.bfloat16 or torch.float32", umt5_folder, dtype=torch.float16)
    refused("text_len=0: want 1 or more", umt5_folder, text_len=0)
    refused("device='quantum'", umt5_folder, device="quantum")


def test_pickles_and_code_are_never_run(tmp_path):
    folder = save_umt5(tmp_path / "a")
    encoder_folder, marker = folder / "text_encoder", tmp_path / "owned"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save({"weight": Evil()}, encoder_folder / "pytorch_model.bin")
    (encoder_folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((encoder_folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (encoder_folder / "config.json").write_text(json.dumps(config))
    Umt5(folder).encode(PROMPT)
    (encoder_folder / "model.safetensors").unlink()
    refused("no text_encoder/model.safetensors", folder)
    assert not marker.exists()


def test_identity_tells_encoders_apart(umt5_folder, tmp_path):
    def identity(folder, **options):
        return Umt5(folder, **options).identity

    same = save_umt5(tmp_path / "same")
    assert identity(same) == identity(umt5_folder) == identity(umt5_folder / "text_encoder")
    others = {
        identity(umt5_folder),
        identity(umt5_folder, dtype=torch.float32),
        identity(umt5_folder, text_len=77),
        identity(save_umt5(tmp_path / "other", seed=1)),  # same sizes and headers
    }
    assert len(others) == 4
    tokenizer_file = same / "tokenizer" / "tokenizer.json"
    tokenizer_file.write_text(tokenizer_file.read_text().replace("▁sea", "▁lake"))
    assert identity(same) not in others


def test_nothing_is_printed(umt5_folder, capfd, caplog):
    with caplog.at_level(logging.INFO, "inspatio_sim"):
        Umt5(umt5_folder).encode(PROMPT)
    assert capfd.readouterr() == ("", "")
    assert "loading text encoder from" in caplog.text
