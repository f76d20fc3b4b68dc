"""The transformer against golden tensors, against a plain joint pass, and against itself in other shapes."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.golden import GoldenCase
from benchmarks.parity_cases.worldfm_dit import load_transformer
from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.model import FrameTransformer, timestep_waves
from inspatio_sim.generators.presets.frame_config import frame_tiny
from tests.generators.frame.small import MAKE_NETWORK, SMALL, make_transformer, random_images, random_latents

GOLDEN_TOLERANCE = 5e-5
T = torch.tensor([700])

configs = st.builds(
    replace,
    st.just(SMALL),
    patch_size=st.sampled_from([1, 2]),
    mask_channels=st.sampled_from([0, 1]),
    depth=st.integers(1, 3),
    learns_sigma=st.booleans(),
    has_caption=st.just(False),
    pe_interpolation=st.sampled_from([1.0, 0.5]),
)


@pytest.fixture(scope="module")
def golden(test_data) -> GoldenCase:
    return GoldenCase.load(test_data / "golden" / "worldfm_dit.safetensors")


@pytest.mark.parametrize("name", ["sq", "batch", "rect"])
def test_results_match_the_published_network(golden, network_kind, name):
    network = MAKE_NETWORK[network_kind](load_transformer(golden))
    given = [golden[f"in.{name}.{key}"].split(1) for key in ("x", "t", "cond1", "cond2")]  # one by one: times differ
    results = torch.cat([network(*one) for one in zip(*given, strict=True)])
    expected = torch.cat([golden[f"out.{name}.eps"], golden[f"out.{name}.sigma"]], dim=1)
    torch.testing.assert_close(results, expected, atol=GOLDEN_TOLERANCE, rtol=0)


def test_each_image_of_a_batch_may_have_its_own_timestep(golden):
    network = load_transformer(golden)
    assert golden["in.batch.t"].unique().numel() == 2
    given = [golden[f"in.batch.{key}"] for key in ("x", "t", "cond1", "cond2")]
    eps = network(*given)[:, : network.config.in_channels]
    torch.testing.assert_close(eps, golden["out.batch.eps"], atol=GOLDEN_TOLERANCE, rtol=0)


# A plain computation: one wide image, everything for every token


def joint_pass(transformer: FrameTransformer, x, timestep: int, anchors=None, reference=None):
    """Join three images to a wide one, work out all of it, keep the noisy third; alone: its third of the positions.

    Plainly, from the weights alone, in float64. [1, C, h, w] -> [1, out_channels, h, w]
    """
    config = transformer.config
    w = {name: tensor.double() for name, tensor in transformer.state_dict().items()}
    dim, heads, patch = config.hidden_size, config.num_heads, config.patch_size

    def linear(name, x):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, shift, scale):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    def waves(coordinates):  # [n] -> [n, D / 2]
        angle = coordinates[:, None] * 10000 ** (-torch.arange(dim // 4).double() / (dim // 4))
        return torch.cat([angle.sin(), angle.cos()], 1)

    wide = F.pad(x, (0, 0, 0, 0, 0, config.mask_channels)).double()
    if anchors is not None:
        wide = torch.cat([wide, anchors.double(), reference.double()], dim=3)
    tokens = F.conv2d(wide, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=patch)[
        0
    ]  # [D, rows, columns]
    _, rows, columns = tokens.shape
    num_columns = 3 * (x.shape[3] // patch)  # of the joined grid, also where the other two are absent
    of_row = waves(torch.arange(rows).double() * config.base_size / rows / config.pe_interpolation)
    of_column = waves(torch.arange(num_columns).double() * config.base_size / num_columns / config.pe_interpolation)
    places = torch.cat([of_column[None, :columns].expand(rows, -1, -1), of_row[:, None].expand(-1, columns, -1)], dim=2)
    tokens = (tokens.movedim(0, 2) + places).flatten(0, 1)  # [N, D]

    e = timestep_waves(torch.tensor([timestep])).double()
    e = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", e)))
    e6 = linear("t_block.1", F.silu(e)).view(6, dim)
    for layer in range(config.depth):
        b = f"blocks.{layer}"
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = w[f"{b}.scale_shift_table"] + e6
        q, k, v = linear(f"{b}.attn.qkv", norm(tokens, shift, scale)).view(-1, 3, heads, dim // heads).unbind(1)
        scores = torch.einsum("nhk,mhk->hnm", q, k) / (dim // heads) ** 0.5
        attended = torch.einsum("hnm,mhk->nhk", scores.softmax(-1), v).flatten(1)
        tokens = tokens + gate * linear(f"{b}.attn.proj", attended)
        hidden = F.gelu(linear(f"{b}.mlp.fc1", norm(tokens, mlp_shift, mlp_scale)), approximate="tanh")
        tokens = tokens + mlp_gate * linear(f"{b}.mlp.fc2", hidden)
    shift, scale = w["final_layer.scale_shift_table"] + e
    patches = linear("final_layer.linear", norm(tokens, shift, scale)).view(rows, columns, patch, patch, -1)
    return patches.permute(4, 0, 2, 1, 3).reshape(1, -1, patch * rows, patch * columns)[..., : x.shape[3]]


@settings(max_examples=25, deadline=None)
@given(
    config=configs,
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    is_alone=st.booleans(),
    kind=st.sampled_from(sorted(MAKE_NETWORK)),
)
def test_nothing_is_left_out_that_matters(config, rows, columns, is_alone, kind):
    """The last block's work for the noisy image only gives what the whole work gives, in any size."""
    transformer = make_transformer(config)
    x, *others = random_images(config, (config.patch_size * rows, config.patch_size * columns))
    seen = () if is_alone else others
    expected = joint_pass(transformer, x, 700, *seen)
    result = MAKE_NETWORK[kind](transformer)(x, T, *seen)
    assert result.shape == (1, config.out_channels, *x.shape[2:])
    torch.testing.assert_close(result.double(), expected, atol=2e-5, rtol=0)


def test_both_other_images_and_the_timestep_matter(network_kind):
    network = MAKE_NETWORK[network_kind](make_transformer())
    x, anchors, reference = random_images()
    result = network(x, T, anchors, reference)
    other = random_images(seed=9)
    changed = [
        network(x, T, other[1], reference),
        network(x, T, anchors, other[2]),
        network(x, T, reference, anchors),
        network(x, torch.tensor([200]), anchors, reference),
        network(x, T),
    ]
    for mutant in changed:
        assert (mutant - result).abs().max() > 1e-2


def test_the_last_block_works_for_the_noisy_image_only():
    transformer = make_transformer()
    counted = []
    for block in transformer.blocks:
        for module in (block.attn.proj, block.mlp.fc1):
            module.register_forward_hook(lambda _, given, __: counted.append(given[0].shape[1]))
    transformer(random_images()[0], T, *random_images()[1:])
    assert counted == [18, 18, 6, 6]


def test_the_mask_of_the_noisy_image_is_0():
    transformer = make_transformer()
    x, anchors, reference = random_images()
    alone, together = transformer(x, T), transformer(x, T, anchors, reference)
    with torch.no_grad():
        transformer.x_embedder.proj.weight[:, -1] *= 2
    assert torch.equal(transformer(x, T), alone)
    assert (transformer(x, T, anchors, reference) - together).abs().max() > 1e-3


# Positions


def test_positions_are_the_published_table(golden):
    transformer = load_transformer(golden)
    for name, columns in (("sq", 4), ("rect", 5)):
        positions = transformer.positions(*golden[f"in.{name}.x"].shape[2:])
        joined = golden[f"out.{name}.pos_embed"].unflatten(0, (-1, 3, columns))  # row, image, column
        torch.testing.assert_close(
            positions.view(3, -1, columns, 48).double(), joined.transpose(0, 1), atol=1e-6, rtol=0
        )
    torch.testing.assert_close(transformer.pos_embed, golden["weights.pos_embed"], atol=1e-6, rtol=0)
    torch.testing.assert_close(FrameTransformer(transformer.config).pos_embed, transformer.pos_embed, atol=1e-6, rtol=0)


def test_positions_are_made_once_a_size():
    transformer = make_transformer(dtype=torch.bfloat16)
    first = transformer.positions(4, 6)
    transformer.positions(6, 4)
    assert transformer.positions(4, 6) is first
    assert first.dtype == torch.float32
    assert first.shape == (18, SMALL.hidden_size)
    assert first.unique(dim=0).shape == first.shape  # no two places are alike


# Shapes


@settings(max_examples=12, deadline=None)
@given(batch=st.integers(2, 4), kind=st.sampled_from(sorted(MAKE_NETWORK)))
def test_a_batch_is_its_images_one_by_one(batch, kind):
    network = MAKE_NETWORK[kind](make_transformer())
    images = random_images(batch=batch)
    x, anchors, reference = images
    together = network(x, T.expand(batch), anchors, reference)
    torch.testing.assert_close(network.denoise(x, network.modulation(T), anchors, reference), together)
    for i in range(batch):
        x, anchors, reference = (image[i : i + 1] for image in images)
        torch.testing.assert_close(network(x, T, anchors, reference), together[i : i + 1], atol=1e-5, rtol=0)


def test_images_have_their_own_timesteps():
    transformer = make_transformer()
    images = random_images(batch=3)
    timestep = torch.tensor([999, 200, 0])
    x, anchors, reference = images
    together = transformer(x, timestep, anchors, reference)
    for i in range(3):
        x, anchors, reference = (image[i : i + 1] for image in images)
        alone = transformer(x, timestep[i : i + 1], anchors, reference)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


def test_one_image_of_two_is_refused(network_kind):
    network = MAKE_NETWORK[network_kind](make_transformer())
    x, anchors, reference = random_images()
    with pytest.raises(InputError, match="reference: None came: want both images or neither"):
        network(x, T, anchors)
    with pytest.raises(InputError, match="anchors: None came"):
        network(x, T, None, reference)


def test_half_patches_are_refused(network_kind):
    network = MAKE_NETWORK[network_kind](make_transformer())
    with pytest.raises(InputError, match="latents: 5x6 came: want multiples of patch_size=2"):
        network(random_latents((5, 6)), T)


# Training


def loss_of(transformer, batch=2, timestep=(900, 30)):
    x, anchors, reference = random_images(transformer.config, batch=batch)
    result = transformer(x, torch.tensor(timestep), anchors, reference)
    return result.double().pow(2).mean()


def gradient_of(transformer) -> torch.Tensor:
    transformer.zero_grad()
    loss_of(transformer).backward()
    return torch.cat([weight.grad.flatten() for weight in transformer.parameters()])


def test_every_weight_has_a_gradient():
    transformer = make_transformer().requires_grad_(True)
    with torch.inference_mode():
        transformer(random_images()[0], T)  # leaves its positions to training
    gradient_of(transformer)
    for name, weight in transformer.named_parameters():
        assert weight.grad is not None, name
        assert (weight.grad != 0).any(), name


def test_the_gradient_is_the_slope():
    """Of the loss in float64 along a random direction; the shared timestep goes another way, and is checked too."""
    transformer = make_transformer().requires_grad_(True).double()
    direction = dict(make_transformer(seed=1, dtype=torch.float64).named_parameters())
    for timestep in ((900, 30), (900,)):
        transformer.zero_grad()
        loss_of(transformer, timestep=timestep).backward()
        slope = sum((weight.grad * direction[name]).sum().item() for name, weight in transformer.named_parameters())

        def moved(step, timestep=timestep):
            other = copy.deepcopy(transformer)
            with torch.no_grad():
                for name, weight in other.named_parameters():
                    weight += step * direction[name]
                return loss_of(other, timestep=timestep).item()

        assert (moved(1e-5) - moved(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-4)


def test_training_in_mixed_precision():
    transformer = make_transformer().requires_grad_(True)
    exact = gradient_of(transformer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradient_of(transformer)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).norm() / exact.norm() < 0.05


def test_parts_that_nothing_uses_change_nothing():
    bare = make_transformer()
    whole = make_transformer(replace(SMALL, has_caption=True, model_max_length=3, caption_channels=5), seed=1)
    missing, extra = whole.load_state_dict(bare.state_dict(), strict=False)
    assert not extra
    assert {name.split(".")[0] for name in missing} == {"pos_embed", "y_embedder", "plucker_proj", "blocks"}
    x, anchors, reference = random_images()
    made = bare(x, T, anchors, reference)
    assert torch.equal(whole(x, T, anchors, reference), made)
    whole.forget_caption()
    assert {name for name, _ in whole.named_parameters()} == {name for name, _ in bare.named_parameters()}
    assert torch.equal(whole(x, T, anchors, reference), made)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: no g++")
@torch.inference_mode()
def test_compiled_blocks_equal_eager_ones_and_share_their_graphs():
    transformer = make_transformer(replace(SMALL, depth=4))
    compiled = copy.deepcopy(transformer)
    for block in compiled.blocks:
        setattr(block, "forward", torch.compile(block.forward, fullgraph=True, dynamic=False))  # noqa: B010
    x, anchors, reference = random_images()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for timestep in (T, torch.tensor([5])):
        expected = transformer(x, timestep, anchors, reference)
        torch.testing.assert_close(compiled(x, timestep, anchors, reference), expected, atol=1e-4, rtol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 2  # the last block has its own


def test_the_small_preset_has_its_size():
    with torch.device("meta"):
        transformer = FrameTransformer(frame_tiny())
    assert 4e6 < sum(weight.numel() for weight in transformer.parameters()) < 5e6
