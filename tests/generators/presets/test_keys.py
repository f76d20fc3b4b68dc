"""Names and shapes against the public implementation's; mismatches in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets.keys import PREFIXES, compare, config_from_shapes, expected_shapes, strip_prefixes
from inspatio_sim.generators.presets.star_config import StarConfig, star_1_3b, star_14b
from tests.checkpoints.small import SMALL, SMALL_BASE


@pytest.mark.parametrize("case", ["star_dit", "star_dit_b2", "star_rollout"])
def test_names_and_shapes_are_the_public_ones(test_data, case):
    index = json.loads((test_data / "golden" / f"{case}.json").read_text())
    sizes = index["config"]["model"]
    config = StarConfig(
        in_channels=sizes["in_dim"],
        out_channels=sizes["out_dim"],
        **{
            key: sizes[key] for key in ("dim", "ffn_dim", "freq_dim", "text_dim", "text_len", "num_heads", "num_layers")
        },
    )
    golden = {
        name.removeprefix("weights."): tuple(shape)
        for name, (shape, _) in index["tensors"].items()
        if name.startswith("weights.")
    }
    assert expected_shapes(config) == golden
    assert config_from_shapes(golden, num_heads=config.num_heads, text_len=config.text_len) == config


def test_published_sizes():
    """1.42 billion weights at 1.3B, as others count them; the 14B has the number in its name."""
    counts = []
    for config in (star_1_3b(), star_14b()):
        counts.append(0)
        for shape in expected_shapes(config).values():
            size = 1
            for length in shape:
                size *= length
            counts[-1] += size
    assert counts[0] == pytest.approx(1.42e9, rel=1e-3)
    assert counts[1] == pytest.approx(14.29e9, rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    heads=st.integers(1, 8),
    head_dim=st.integers(3, 32).map(lambda half: 2 * half),
    layers=st.integers(1, 12),
    sizes=st.tuples(*[st.integers(1, 300)] * 4),
    half_freq=st.integers(1, 200),
)
def test_a_config_is_read_off_its_shapes(heads, head_dim, layers, sizes, half_freq):
    ffn_dim, text_dim, in_channels, out_channels = sizes
    config = StarConfig(
        dim=heads * head_dim, ffn_dim=ffn_dim, num_heads=heads, num_layers=layers, text_dim=text_dim, text_len=9,
        freq_dim=2 * half_freq, in_channels=in_channels, out_channels=out_channels,
    )  # fmt: skip
    assert config_from_shapes(expected_shapes(config), num_heads=heads, text_len=9) == config


@pytest.mark.parametrize("name", ["patch_embedding.weight", "head.head.weight", "time_embedding.0.weight"])
def test_no_config_without_its_tensors(name):
    shapes = expected_shapes(SMALL)
    del shapes[name]
    with pytest.raises(InputError, match="no STAR transformer"):
        config_from_shapes(shapes, num_heads=4, text_len=8)
    with pytest.raises(InputError, match="no STAR transformer"):
        config_from_shapes({**shapes, name: ()}, num_heads=4, text_len=8)


@pytest.mark.parametrize("prefix", [*PREFIXES, "module.model.", "generator.model._orig_mod."])
def test_prefixes_go_when_all_names_have_them(prefix):
    names = list(expected_shapes(SMALL))
    taken, sources = strip_prefixes([prefix + name for name in names])
    assert taken == prefix
    assert sources == {name: prefix + name for name in names}
    taken, sources = strip_prefixes([prefix + names[0], *names[1:]])
    assert taken == ""
    assert sources == {name: name for name in [prefix + names[0], *names[1:]]}


def test_a_mismatch_names_everything_once_in_one_line():
    expected = expected_shapes(SMALL)
    found = dict(expected)
    compare(expected, found, "file")
    for layer in "qkvo":
        del found[f"blocks.0.self_attn.{layer}.weight"]
    found["strange\nname"] = (1,)
    found["patch_embedding.weight"] = expected_shapes(SMALL_BASE)["patch_embedding.weight"]
    with pytest.raises(CheckpointMismatch) as caught:
        compare(expected, found, "file")
    message = str(caught.value)
    assert "\n" not in message
    assert (
        "4 missing (blocks.0.self_attn.q.weight; blocks.0.self_attn.k.weight; blocks.0.self_attn.v.weight; ...)"
        in message
    )
    assert "1 extra (strange\\nname)" in message
    assert "1 of another shape (patch_embedding.weight is 96x16x1x2x2, want 96x36x1x2x2)" in message


def test_a_deeper_model_lacks_nothing_but_layers():
    with pytest.raises(CheckpointMismatch, match="27 missing"):
        compare(expected_shapes(replace(SMALL, num_layers=3)), expected_shapes(SMALL), "file")
