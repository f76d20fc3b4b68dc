"""Names and shapes against the public implementation's; mismatches in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from inspatio_sim.errors import CheckpointMismatch
from inspatio_sim.generators.presets.keys import PREFIXES, compare, strip_prefixes
from inspatio_sim.generators.presets.shapes import expected_shapes
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
