"""What torch.compile and CUDA graphs are given equals the plain transformer, and is compiled once a size."""

import copy
import shutil

import pytest
import torch

from inspatio_sim.generators.blocks.compiled import compile_blocks, num_compiled_graphs
from inspatio_sim.generators.star.compiled import ENTRY_POINTS, FusedSelfAttention, GraphedTransformer, fuse_projections
from inspatio_sim.generators.star.sampler import MAX_CACHES, BlockSampler, SamplerConfig
from tests.generators.star.small import (
    SMALL,
    make_transformer,
    random_latents,
    random_text,
    two_calls,
)


def inputs(num_context=6, batch=1, grid=(4, 6)):
    """Of `two_calls`."""
    context = random_latents(num_context, grid, batch=batch, seed=1)
    return context, random_latents(3, grid, batch=batch, channels=36), random_text(batch=batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_product_for_three(dtype):
    transformer = make_transformer(dtype=dtype)
    fused = copy.deepcopy(transformer)
    fuse_projections(fused)
    assert all(isinstance(block.self_attn, FusedSelfAttention) for block in fused.blocks)
    for num_context in (3, 6):
        plain = two_calls(transformer, *inputs(num_context))
        atol = 1e-6 if dtype == torch.float32 else 0.02  # two or three roundings of a flow of size 1
        torch.testing.assert_close(two_calls(fused, *inputs(num_context)), plain, atol=atol, rtol=0)


def test_keys_and_values_come_without_queries():
    separate = make_transformer().blocks[0].self_attn
    fused = FusedSelfAttention(separate)
    x = random_latents(1, (2, SMALL.dim // 2))[0, 0]  # any numbers
    x = x.reshape(1, -1, SMALL.dim)
    rotary = make_transformer().rotary(torch.arange(1), 2, 2 * x.shape[1])
    expected = separate.project(x, rotary)
    for computed, wanted in zip(fused.project(x, rotary), expected, strict=True):
        torch.testing.assert_close(computed, wanted, atol=1e-6, rtol=0)
    for computed, wanted in zip(fused.keys_values(x, rotary), expected[1:], strict=True):
        torch.testing.assert_close(computed, wanted, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: no g++")
@torch.inference_mode()
def test_compiled_equals_eager_and_every_size_is_compiled_once():
    transformer = make_transformer()
    compiled = copy.deepcopy(transformer)
    fuse_projections(compiled)
    compile_blocks(compiled, ENTRY_POINTS)
    sizes = [inputs(3), inputs(6)]  # a first block, and every later one

    def compare():
        for size in sizes:
            torch.testing.assert_close(two_calls(compiled, *size), two_calls(transformer, *size), atol=1e-4, rtol=0)

    before = num_compiled_graphs()
    compare()
    seen = num_compiled_graphs()
    # with_keys and keys_values of 3 and 6 context frames, forward behind each: no layer of its own
    assert seen - before == 6
    for _ in range(3):
        compare()
    assert num_compiled_graphs() == seen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
def test_replayed_graphs_equal_the_network():
    transformer = make_transformer(dtype=torch.bfloat16).cuda()
    plain = BlockSampler(transformer, SamplerConfig(steps=(1000, 500)))
    graphed = BlockSampler(GraphedTransformer(transformer), plain.config)
    for seed, has_history in ((0, False), (10, True), (20, True), (30, False), (40, True)):
        prompt = random_text(seed=seed).cuda()
        given = {
            "reference": random_latents(3, seed=seed + 1).cuda(),
            "history": random_latents(3, seed=seed + 2).cuda() if has_history else None,
            "condition": random_latents(3, channels=20, seed=seed + 3).cuda(),
            "noise": lambda step, seed=seed: random_latents(3, seed=seed + 4 + step).cuda(),
        }
        expected = plain.sample(**given, text=plain.transformer.text_keys(prompt))
        block = graphed.sample(**given, text=graphed.transformer.text_keys(prompt))
        torch.testing.assert_close(block, expected, atol=0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
def test_graphs_go_with_their_caches():
    network = GraphedTransformer(make_transformer().cuda())
    sampler = BlockSampler(network, SamplerConfig(steps=(1000,)))
    text = network.text_keys(random_text().cuda())
    for columns in range(2, 2 * MAX_CACHES + 6, 2):
        latents = random_latents(3, (2, columns)).cuda()
        sampler.sample(reference=latents, history=None, condition=None, text=text, noise=lambda _, x=latents: x)
    assert len(network._recordings) == MAX_CACHES
