"""The transformer against golden tensors, against a plain joint pass, and against itself in other shapes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.golden import GoldenCase
from benchmarks.parity_cases.star_dit import load_transformer
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.attention import rotary_table, rotate
from inspatio_sim.generators.blocks.flow import FlowSchedule, clean_from_flow
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import BLOCK_SLOT, StarTransformer
from tests.generators.star.small import (
    MAKE_NETWORK,
    SMALL,
    make_transformer,
    random_latents,
    random_text,
    two_calls,
)

GOLDEN_TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=["star_dit", "star_dit_b2"])
def golden(request, test_data) -> GoldenCase:
    return GoldenCase.load(test_data / "golden" / f"{request.param}.safetensors")


def test_flows_match_the_published_network(golden, network_kind):
    network = MAKE_NETWORK[network_kind](load_transformer(golden))
    sigma = FlowSchedule().sigma(golden["in.t"]).view(-1, 1, 1, 1, 1)
    noisy, text, t = golden["in.noisy"], golden["in.prompt_embeds"], golden["in.t"].item()
    view = torch.cat([noisy, golden["in.mask"], golden["in.render"]], dim=2)
    both = torch.cat([golden["in.ref"], golden["in.last_pred"]], dim=1)
    for name, context, latents in (
        ("b", golden["in.ref"], view),
        ("c", both, view),
        ("d1", None, noisy),
        ("d2", golden["in.ref"], noisy),
    ):
        flow = two_calls(network, context, latents, text, t)
        torch.testing.assert_close(flow, golden[f"out.{name}.flow"], atol=GOLDEN_TOLERANCE, rtol=0)
        if f"out.{name}.x0" in golden.tensors:
            x_0 = clean_from_flow(noisy, flow, sigma)
            torch.testing.assert_close(x_0, golden[f"out.{name}.x0"], atol=GOLDEN_TOLERANCE, rtol=0)


# A plain computation of the student: one joint pass


def joint_pass(transformer: StarTransformer, context, block, text, timestep):
    """Context and block as one sequence: the context may not look at the block, and each token has its time.

    Plainly, from the weights alone, in float64. [1, F, 16, h, w] and [1, F, 36, h, w] -> flow [1, F, 16, h, w]
    """
    config = transformer.config
    w = {name: tensor.double() for name, tensor in transformer.state_dict().items()}
    heads = config.num_heads

    def linear(name, x):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def rms(name, x):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    def norm(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()

    def attend(q, k, v, mask=None):
        scores = torch.einsum("nhk,mhk->hnm", q, k) / config.head_dim**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.einsum("hnm,mhk->nhk", scores.softmax(-1), v).flatten(1)

    def split(x):
        return x.unflatten(-1, (heads, -1))

    # tokens, [N, D]: what a context frame has no channels for is zero
    padded = F.pad(context, (0, 0, 0, 0, 0, config.in_channels - context.shape[2]))
    latents = torch.cat([padded, block], dim=1)[0].double().movedim(0, 1)  # [36, F, h, w]
    x = F.conv3d(latents[None], w["patch_embedding.weight"], w["patch_embedding.bias"], stride=(1, 2, 2))
    _, _, num_frames, rows, columns = x.shape
    x = x[0].flatten(1).T
    num_context = context.shape[1] * rows * columns
    is_block = torch.arange(len(x)) >= num_context
    may_see = ~is_block[None, :] | is_block[:, None]  # [N, N]
    slots = torch.cat([torch.arange(context.shape[1]), BLOCK_SLOT + torch.arange(block.shape[1])])
    cos, sin = rotary_table(slots, rows, columns, config.head_dim)

    # time, a row for each token
    t = torch.where(is_block, float(timestep), 0.0).double()
    half = config.freq_dim // 2
    angles = t[:, None] * 10000 ** (-torch.arange(half).double() / half)
    e = torch.cat([angles.cos(), angles.sin()], 1)
    e = linear("time_embedding.2", F.silu(linear("time_embedding.0", e)))
    e6 = linear("time_projection.1", F.silu(e)).unflatten(-1, (6, -1))  # [N, 6, D]

    text = F.pad(text[0].double(), (0, 0, 0, config.text_len - text.shape[1]))
    text = linear("text_embedding.2", F.gelu(linear("text_embedding.0", text), approximate="tanh"))
    for layer in range(config.num_layers):
        b = f"blocks.{layer}"
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (w[f"{b}.modulation"] + e6).unbind(1)
        y = norm(x) * (1 + scale) + shift
        q, k = (
            rotate(split(rms(f"{b}.self_attn.norm_{n}", linear(f"{b}.self_attn.{n}", y))), (cos, sin))
            for n in ("q", "k")
        )
        attended = attend(q, k, split(linear(f"{b}.self_attn.v", y)), may_see)
        x = x + gate * linear(f"{b}.self_attn.o", attended)
        y = norm(x) * w[f"{b}.norm3.weight"] + w[f"{b}.norm3.bias"]
        q = rms(f"{b}.cross_attn.norm_q", linear(f"{b}.cross_attn.q", y))
        k = rms(f"{b}.cross_attn.norm_k", linear(f"{b}.cross_attn.k", text))
        attended = attend(split(q), split(k), split(linear(f"{b}.cross_attn.v", text)))
        x = x + linear(f"{b}.cross_attn.o", attended)
        y = norm(x) * (1 + ffn_scale) + ffn_shift
        x = x + ffn_gate * linear(f"{b}.ffn.2", F.gelu(linear(f"{b}.ffn.0", y), approximate="tanh"))
    shift, scale = (w["head.modulation"] + e[:, None]).unbind(1)
    patches = linear("head.head", norm(x) * (1 + scale) + shift)[num_context:]
    patches = patches.view(block.shape[1], rows, columns, 2, 2, config.out_channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(1, block.shape[1], config.out_channels, 2 * rows, 2 * columns)


@pytest.mark.parametrize("num_context", [3, 6])
def test_two_calls_are_one_joint_pass_in_which_the_context_sees_no_block(network_kind, num_context):
    transformer = make_transformer(replace(SMALL, num_layers=3))
    context, block = random_latents(num_context, seed=1), random_latents(3, channels=36, seed=2)
    text = random_text(3)
    expected = joint_pass(transformer, context, block, text, 937.5)
    flow = two_calls(MAKE_NETWORK[network_kind](transformer), context, block, text, 937.5)
    torch.testing.assert_close(flow.double(), expected, atol=1e-5, rtol=0)
    assert (joint_pass(transformer, context, block, text, 0.0) - expected).abs().max() > 1e-2
    other = joint_pass(transformer, random_latents(num_context, seed=3), block, text, 937.5)
    assert (other - expected).abs().max() > 1e-2


def test_the_joint_forward_is_a_pass_without_context():
    transformer = make_transformer()
    x, text = random_latents(3, channels=36), transformer.text_keys(random_text())
    time = transformer.time_modulation(torch.tensor([750.0]))
    joint = transformer(x, time, text, transformer.rotary(BLOCK_SLOT + torch.arange(3), 4, 6))
    torch.testing.assert_close(two_calls(transformer, None, x, random_text()), joint, atol=1e-5, rtol=0)


# Channels


def test_new_channels_that_begin_as_zero_change_nothing(network_kind):
    """A text-to-video network widened from 16 to 36 channels gives what it gave, whatever the view."""
    base_config = replace(SMALL, in_channels=16)
    base, wide = make_transformer(base_config), make_transformer(SMALL, seed=9)
    weights = base.state_dict()
    patch = weights["patch_embedding.weight"]
    weights["patch_embedding.weight"] = torch.cat([patch, patch.new_zeros(patch.shape[0], 20, *patch.shape[2:])], 1)
    wide.load_state_dict(weights)
    make = MAKE_NETWORK[network_kind]
    context, block, text = random_latents(3, seed=1), random_latents(3, channels=36), random_text()
    expected = two_calls(make(base), context, block[:, :, :16], text)
    torch.testing.assert_close(two_calls(make(wide), context, block, text), expected, atol=1e-5, rtol=0)


def test_channels_left_out_are_zeros(network_kind):
    """Context frames and text-only blocks have no mask and no render."""
    network = MAKE_NETWORK[network_kind](make_transformer())
    context, noisy, text = random_latents(3, seed=1), random_latents(3), random_text()
    left_out = two_calls(network, context, noisy, text)
    zeros = torch.zeros(1, 3, 20, 4, 6)
    padded = two_calls(network, torch.cat([context, zeros], 2), torch.cat([noisy, zeros], 2), text)
    torch.testing.assert_close(left_out, padded, atol=1e-5, rtol=0)
    black = two_calls(network, context, torch.cat([noisy, zeros - 1], 2), text)  # unknown is not absent
    assert (black - padded).abs().max() > 1e-2


# Text


def test_padding_rows_take_part(network_kind):
    transformer = make_transformer()
    network = MAKE_NETWORK[network_kind](transformer)
    context, block, text = random_latents(3, seed=1), random_latents(3, channels=36), random_text(2)
    padded = F.pad(text, (0, 0, 0, SMALL.text_len - 2))
    flow = two_calls(network, context, block, text)
    assert torch.equal(flow, two_calls(network, context, block, padded))
    more_rows = make_transformer(replace(SMALL, text_len=9))  # the same weights, five more rows of padding
    assert (two_calls(MAKE_NETWORK[network_kind](more_rows), context, block, text) - flow).abs().max() > 1e-4
    keys = transformer.text_keys(text).keys
    assert [tuple(k.shape) for k in keys] == [(1, SMALL.text_len, SMALL.num_heads, SMALL.head_dim)] * SMALL.num_layers


def test_text_that_is_too_long_is_refused():
    with pytest.raises(InputError, match="text: 5 rows came: want at most text_len=4"):
        make_transformer().text_keys(random_text(5))


# Shapes


@settings(max_examples=12, deadline=None)
@given(batch=st.integers(2, 4), num_frames=st.integers(1, 3), kind=st.sampled_from(sorted(MAKE_NETWORK)))
def test_a_batch_is_its_items_one_by_one(batch, num_frames, kind):
    network = MAKE_NETWORK[kind](make_transformer())
    context = random_latents(2 * num_frames, batch=batch, seed=1)
    block = random_latents(num_frames, channels=36, batch=batch)
    text = random_text(3, batch=batch)
    together = two_calls(network, context, block, text)
    for i in range(batch):
        alone = two_calls(network, context[i : i + 1], block[i : i + 1], text[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), num_frames=st.integers(1, 3), has_history=st.booleans())
def test_any_whole_number_of_tokens_and_any_block_length(rows, columns, num_frames, has_history):
    transformer = make_transformer()
    grid = (2 * rows, 2 * columns)
    context = random_latents((1 + has_history) * num_frames, grid, seed=1)
    block, text = random_latents(num_frames, grid, channels=36), random_text()
    expected = joint_pass(transformer, context, block, text, 750.0)
    for make in MAKE_NETWORK.values():
        flow = two_calls(make(transformer), context, block, text)
        assert flow.shape == (1, num_frames, 16, *grid)
        torch.testing.assert_close(flow.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dim", "num_heads"), [(32, 2), (48, 2), (64, 1), (128, 1), (36, 6)])
def test_any_head_width(dim, num_heads):
    transformer = make_transformer(replace(SMALL, dim=dim, num_heads=num_heads))
    context, block, text = random_latents(3, seed=1), random_latents(3, channels=36), random_text()
    expected = joint_pass(transformer, context, block, text, 750.0)
    for make in MAKE_NETWORK.values():
        flow = two_calls(make(transformer), context, block, text)
        torch.testing.assert_close(flow.double(), expected, atol=1e-5, rtol=0)


def test_worlds_may_have_their_own_timesteps():
    transformer = make_transformer()
    together = transformer.time_modulation(torch.tensor([0.0, 750.0]))
    for i, timestep in enumerate((0.0, 750.0)):
        alone = transformer.time_modulation(torch.tensor([timestep]))
        torch.testing.assert_close(together.head_scale[i : i + 1], alone.head_scale)
        for both, one in zip(together.blocks, alone.blocks, strict=True):
            for a, b in zip(both, one, strict=True):
                torch.testing.assert_close(a[i : i + 1], b)
    x = random_latents(2, channels=36, batch=2)
    text, rotary = transformer.text_keys(random_text(batch=2)), transformer.rotary(torch.arange(2), 4, 6)
    flow = transformer(x, together, text, rotary)
    for i, timestep in enumerate((0.0, 750.0)):
        text_i = transformer.text_keys(random_text(batch=2)[i : i + 1])
        alone = transformer(x[i : i + 1], transformer.time_modulation(torch.tensor([timestep])), text_i, rotary)
        torch.testing.assert_close(flow[i : i + 1], alone, atol=1e-5, rtol=0)


def test_parameters_have_wan_names():
    names = set(StarTransformer(replace(SMALL, num_layers=1)).state_dict())
    attention = {f"{part}.{kind}" for part in ("q", "k", "v", "o") for kind in ("weight", "bias")}
    attention |= {"norm_q.weight", "norm_k.weight"}
    expected = {f"blocks.0.{which}_attn.{name}" for which in ("self", "cross") for name in attention}
    linears = ["patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"]
    linears += ["time_projection.1", "head.head", "blocks.0.ffn.0", "blocks.0.ffn.2", "blocks.0.norm3"]
    expected |= {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")}
    assert names == expected | {"blocks.0.modulation", "head.modulation"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 50, "num_heads": 4}, "dim=50 over num_heads=4: want an even head width"),
        ({"dim": 20, "num_heads": 4}, "want an even head width of 6 or more"),
        ({"num_layers": 0}, "num_layers=0: want a whole number, 1 or more"),
        ({"freq_dim": 15}, "freq_dim=15: want an even number"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        StarConfig(**{**vars(SMALL), **change})
