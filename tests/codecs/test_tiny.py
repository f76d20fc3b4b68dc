import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from inspatio_sim.codecs.protocol import Codec, CodecState
from inspatio_sim.codecs.tiny import TinyCodec
from inspatio_sim.codecs.tiny_network import (
    TimeAlignment,
    TinyAutoencoder,
    TinyConfig,
    frames_of_pixels,
    pixels_of_latents,
    taew2_1,
    tiny_narrow,
)
from inspatio_sim.errors import InputError

H, W = 16, 24
ALIGNMENTS = ("look-ahead", "causal")
GOLDEN_TOLERANCE = 5e-5


def make_codec(time_alignment: TimeAlignment = "look-ahead", dtype=torch.float32, seed=0) -> TinyCodec:
    torch.manual_seed(seed)
    config = TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), time_alignment=time_alignment)
    return TinyCodec(TinyAutoencoder(config).to(dtype))


def random_video(num_frames, batch=1, seed=1, size=(H, W)):
    return torch.rand(batch, num_frames, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def random_latents(num_latents, batch=1, seed=2):
    return torch.randn(batch, num_latents, 16, H // 8, W // 8, generator=torch.Generator().manual_seed(seed))


def in_chunks(call, whole, sizes):
    """Results and states of a stream cut into chunks."""
    results, states, state = [], [], None
    for chunk in whole.split(sizes, dim=1):
        result, state = call(chunk, state)
        results.append(result)
        states.append(state)
    return results, states


def frame_counts(latent_counts):
    return [4 * n - 3 if i == 0 else 4 * n for i, n in enumerate(latent_counts)]


chunkings = st.lists(st.integers(1, 3), min_size=1, max_size=4)


# The published network


def golden_codec(case, weights):
    with torch.device("meta"):
        network = TinyAutoencoder(
            TinyConfig(encoder_width=case["encoder_width"], decoder_widths=tuple(case["decoder_widths"]))
        )
    network.load_state_dict(weights, strict=True, assign=True)
    return TinyCodec(network)


def weights_by_rule(entries):
    """Weights that are described instead of stored."""
    weights = {}
    for entry in entries:
        normals = np.random.RandomState(62000 + entry["index"]).standard_normal(entry["shape"])  # noqa: NPY002
        values = (normals * entry["scale"] + entry["offset"]).astype(np.float32)
        assert values.flat[0] == pytest.approx(entry["first"], rel=1e-6)
        weights[entry["key"]] = torch.from_numpy(values)
    return weights


@pytest.fixture(scope="module", params=["taehv", "taehv_full_width"])
def golden(request, test_data):
    """A codec and its golden tensors."""
    path = test_data / "golden" / f"{request.param}.safetensors"
    config = json.loads(path.with_suffix(".json").read_text())["config"]
    tensors = load_file(path)
    stored = {key.removeprefix("weights."): t for key, t in tensors.items() if key.startswith("weights.")}
    return golden_codec(config, stored or weights_by_rule(config["weights"])), tensors


def test_whole_clips_match_the_published_network(golden):
    codec, tensors = golden
    video = tensors["in.video"] * 2 - 1

    def close(computed, name):
        torch.testing.assert_close(computed, tensors[name], atol=GOLDEN_TOLERANCE, rtol=0)

    latents = codec.encode(video)
    close(latents, "out.encode.parallel")
    close((codec.decode(tensors["in.latent"]) + 1) / 2, "out.decode.parallel")
    close((codec.decode(latents) + 1) / 2, "out.roundtrip.decode")


def test_parameter_names_are_the_published_ones(test_data):
    config = json.loads((test_data / "golden" / "taehv_full_width.json").read_text())["config"]
    with torch.device("meta"):
        network = TinyAutoencoder(taew2_1())
    ours = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert ours == {entry["key"]: entry["shape"] for entry in config["weights"]}
    assert sum(tensor.numel() for tensor in network.parameters()) == 11_315_539


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 10])
def test_a_clip_of_any_length_is_encoded_as_if_its_last_frame_went_on(num_frames, alignment):
    codec = make_codec(alignment)
    video = random_video(num_frames)
    latents = codec.encode(video)
    first = 1 if alignment == "causal" else 0  # a causal codec's first latent is one frame
    assert latents.shape[1] == first + -(-(num_frames - first) // 4)
    num_missing = (first - num_frames) % 4
    assert torch.equal(latents, codec.encode(torch.cat([video, *num_missing * [video[:, -1:]]], dim=1)))


# Streams


@settings(max_examples=15, deadline=None)
@given(sizes=chunkings, batch=st.sampled_from([1, 3]), alignment=st.sampled_from(ALIGNMENTS))
def test_decoding_in_chunks_is_decoding_the_whole(sizes, batch, alignment):
    codec = make_codec(alignment)
    latents = random_latents(sum(sizes), batch)
    results, _ = in_chunks(codec.decode_chunk, latents, sizes)
    assert [result.shape[1] for result in results] == frame_counts(sizes)
    assert torch.equal(torch.cat(results, 1), codec.decode(latents))


@settings(max_examples=15, deadline=None)
@given(sizes=chunkings, batch=st.sampled_from([1, 3]))
def test_causal_encoding_in_chunks_is_encoding_the_whole(sizes, batch):
    codec = make_codec("causal")
    video = random_video(4 * sum(sizes) - 3, batch)
    results, _ = in_chunks(codec.encode_chunk, video, frame_counts(sizes))
    assert [result.shape[1] for result in results] == sizes
    assert torch.equal(torch.cat(results, 1), codec.encode(video))


@settings(max_examples=15, deadline=None)
@given(sizes=chunkings, batch=st.sampled_from([1, 3]))
def test_only_the_last_latent_of_a_chunk_looks_ahead_in_vain(sizes, batch):
    codec = make_codec("look-ahead")
    video = random_video(4 * sum(sizes) - 3, batch)
    whole = codec.encode(video)
    results, _ = in_chunks(codec.encode_chunk, video, frame_counts(sizes))
    assert [result.shape[1] for result in results] == sizes
    num_latents = num_frames = 0
    for size, result in zip(sizes, results, strict=True):
        num_latents, num_frames = num_latents + size, num_frames + (size * 4 if num_frames else size * 4 - 3)
        assert torch.equal(result[:, :-1], whole[:, num_latents - size : num_latents - 1])
        assert torch.equal(result[:, -1], codec.encode(video[:, :num_frames])[:, -1])  # as if the clip ended here
    assert torch.equal(results[-1], whole[:, -sizes[-1] :])


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    alignment=st.sampled_from(ALIGNMENTS),
)
def test_complete_latents_of_any_frames_are_those_of_the_whole(sizes, alignment):
    codec = make_codec(alignment)
    video = random_video(4 * ((sum(sizes) + 6) // 4) - 3)  # the next whole clip
    sizes = [*sizes, video.shape[1] - sum(sizes)]
    results, states = in_chunks(codec.encode_complete, video, [size for size in sizes if size])
    latents = torch.cat([*results, codec.finish(states[-1])], 1)
    assert torch.equal(latents, codec.encode(video))
    if alignment == "causal":
        assert codec.finish(states[-1]).shape[1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_streams_can_be_joined_and_split(alignment, dtype):
    codec = make_codec(alignment, dtype)
    for call, first, later in (
        (codec.encode_chunk, random_video(5, 3), random_video(8, 3, seed=3)),
        (codec.decode_chunk, random_latents(2, 3), random_latents(3, 3, seed=3)),
    ):
        joined = call(later, call(first)[1])[0]
        states: list[CodecState] = [call(first[i : i + 1])[1] for i in range(3)]
        assert torch.equal(torch.cat([call(later[i : i + 1], states[i])[0] for i in range(3)]), joined)
        state = {name: torch.cat([one[name] for one in states]) for name in states[0]}
        assert torch.equal(call(later, state)[0], joined)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_states_stay_as_they_were(alignment):
    codec = make_codec(alignment)
    for call, first, later in (
        (codec.encode_chunk, random_video(5), random_video(8)),
        (codec.decode_chunk, random_latents(2), random_latents(3)),
    ):
        _, state = call(first)
        before = {name: tensor.clone() for name, tensor in state.items()}
        result, _ = call(later, state)
        assert all(torch.equal(state[name], before[name]) for name in before)
        assert torch.equal(call(later, state)[0], result)  # and can be gone back to


def test_chunks_are_the_whole_at_the_size_in_use():
    torch.manual_seed(0)
    codec = TinyCodec(TinyAutoencoder(tiny_narrow()))
    latents, video = torch.randn(1, 4, codec.latent_channels, 12, 20), random_video(13, size=(96, 160))
    assert torch.equal(torch.cat(in_chunks(codec.decode_chunk, latents, [1, 3])[0], 1), codec.decode(latents))
    assert torch.equal(torch.cat(in_chunks(codec.encode_chunk, video, [1, 12])[0], 1), codec.encode(video))


def test_streams_of_the_world_loop():
    """Blocks of three latents: 9 frames, then 12; of one: 1, then 4."""
    codec = make_codec()
    for block, counts in ((3, [9, 12, 12]), (1, [1, 4, 4])):
        results, _ = in_chunks(codec.decode_chunk, random_latents(3 * block), block)
        assert [len(result[0]) for result in results] == counts


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_latents_remember_so_many_frames_and_no_more(alignment):
    codec = make_codec(alignment)
    with torch.no_grad():
        for parameter in codec.network.parameters():  # positive, so that no ReLU hides a frame
            parameter.abs_()
    num_latents = 10
    own = 4 * (num_latents - 1) - (3 if alignment == "causal" else 0)  # the first of the last latent's own frames
    video = random_video(4 * num_latents - 3).double()
    codec.network.double()
    latent = codec.encode(video)[:, -1]

    def changed(frame):
        other = video.clone()
        other[:, frame] = -other[:, frame]
        return not torch.equal(codec.encode(other)[:, -1], latent)

    assert not changed(own - codec.memory_frames - 1)
    assert changed(own - codec.memory_frames)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_encoding_may_begin_late(alignment):
    """As the protocol says: one latent more than what is remembered, and the rest is the same."""
    codec = make_codec(alignment)
    video = random_video(4 * 13 - 3)
    num_before = -(-codec.memory_frames // codec.temporal_stride) + 1
    wanted = codec.encode(video)[:, 11:]
    begun_late = codec.encode(video[:, 4 * (11 - num_before) :])
    assert torch.equal(begun_late[:, num_before:], wanted)


# Numbers and types


def test_decoded_video_stays_in_range():
    codec = make_codec()
    with torch.no_grad():
        codec.network.get_parameter("decoder.22.weight").mul_(100)
    video = codec.decode(random_latents(3))
    assert video.min() == -1
    assert video.max() == 1


def test_bfloat16_is_near_float32():
    exact, fast = make_codec(), make_codec(dtype=torch.bfloat16)
    latents = fast.encode(random_video(9))
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, exact.encode(random_video(9)), atol=0.02, rtol=0.02)
    torch.testing.assert_close(fast.decode(latents), exact.decode(latents), atol=0.05, rtol=0)


def test_same_seed_same_bits():
    first, second = make_codec(seed=5), make_codec(seed=5)
    assert torch.equal(first.encode(random_video(9)), second.encode(random_video(9)))
    assert torch.equal(first.decode(random_latents(3)), second.decode(random_latents(3)))


def test_presets():
    assert tiny_narrow().time_alignment == "causal"
    assert taew2_1() == TinyConfig(encoder_width=64, decoder_widths=(256, 128, 64, 64), latent_channels=16)
    codec: Codec = make_codec()  # checked by type
    assert (codec.latent_channels, codec.spatial_stride, codec.temporal_stride) == (16, 8, 4)


# The linear path


def linear_codec(encoder_width, decoder_widths=(16, 8, 8, 8), seed=0):
    torch.manual_seed(seed)
    config = TinyConfig(
        encoder_width=encoder_width, decoder_widths=decoder_widths, linear_path=True, time_alignment="causal"
    )
    return TinyCodec(TinyAutoencoder(config))


def test_pixels_lie_under_their_latents():
    frames = torch.rand(2, 8, H, W, 3, generator=torch.Generator().manual_seed(0))
    pixels = pixels_of_latents(frames)
    assert pixels.shape == (2, 2, H // 8, W // 8, 768)
    assert torch.equal(frames_of_pixels(pixels), frames)
    assert set(pixels[1, 1, 0, 2].tolist()) == set(frames[1, 4:, :8, 16:].flatten().tolist())


@pytest.mark.parametrize(("encoder_width", "decoder_widths"), [(0, ()), (8, ()), (0, (16, 8, 8, 8))])
@settings(max_examples=10, deadline=None)
@given(latent_counts=chunkings)
def test_chunks_are_as_the_whole_with_a_linear_path(encoder_width, decoder_widths, latent_counts):
    codec = linear_codec(encoder_width, decoder_widths)
    num_latents = sum(latent_counts)
    video, latents = random_video(4 * num_latents - 3), random_latents(num_latents)
    encoded, _ = in_chunks(codec.encode_chunk, video, frame_counts(latent_counts))
    assert torch.equal(torch.cat(encoded, dim=1), codec.encode(video))
    decoded, _ = in_chunks(codec.decode_chunk, latents, latent_counts)
    assert torch.equal(torch.cat(decoded, dim=1), codec.decode(latents))


def test_a_linear_encoder_sees_a_latents_own_pixels_alone():
    codec = linear_codec(0)
    assert codec.memory_frames == 0
    video = random_video(13)
    other = video.clone()
    other[:, 5:9, :, :8, 8:16] *= -1  # under latent 2, row 0, column 1
    changed = (codec.encode(video) != codec.encode(other)).any(2)  # [1, 4, h, w]
    assert changed.nonzero().tolist() == [[0, 2, 0, 1]]


def test_gradients_reach_every_weight():
    network = make_codec().network
    latents, _ = network.encode(torch.rand(1, 8, H, W, 3))
    frames, _ = network.decode(latents)
    frames.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_each_half_is_one_graph(alignment):
    """Nothing of it depends on data, so compilers can take it whole."""
    network = make_codec(alignment).network
    frames, latents = torch.rand(2, 8, H, W, 3), torch.randn(2, 3, 2, 3, 16)
    with torch.no_grad():
        for call, chunk in ((network.encode, frames), (network.decode, latents)):
            _, memory = call(chunk)
            compiled = torch.compile(call, backend="eager", fullgraph=True)
            assert torch.equal(compiled(chunk, memory)[0], call(chunk, memory)[0])


@pytest.mark.slow
def test_compiled_is_as_plain():
    codec = make_codec("causal")
    video, latents = random_video(9), random_latents(3)
    plain = codec.encode(video), codec.decode(latents)
    codec.compile()
    torch.testing.assert_close(codec.encode(video), plain[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.decode(latents), plain[1], atol=1e-4, rtol=0)


# What is refused


def test_refusals_are_one_line_and_say_what_is_wanted():
    codec = make_codec()
    _, encoder_state = codec.encode_chunk(random_video(5))
    _, decoder_state = codec.decode_chunk(random_latents(2))
    wide = torch.zeros(1, 2, 16, 2, 4)

    def refused(message, call, *arguments):
        with pytest.raises(InputError, match=message) as caught:
            call(*arguments)
        assert "\n" not in str(caught.value)

    refused("height 20 px came: want a multiple of 8, such as 16 or 24", codec.encode, random_video(5, size=(20, 24)))
    refused("width 4 px came: want a multiple of 8, such as 8", codec.encode, random_video(5, size=(16, 4)))
    refused(r"\[1, 5, 4, 16, 24\] came", codec.encode, torch.zeros(1, 5, 4, H, W))
    refused("int64", codec.encode, torch.zeros(1, 5, 3, H, W, dtype=torch.int64))
    refused(r"float32 \[5, 3, 16, 24\]", codec.encode, torch.zeros(5, 3, H, W))
    refused("8 frames came in a first chunk: .* such as 5 or 9", codec.encode_chunk, random_video(8))
    refused("2 frames came in a first chunk: .* such as 1 or 5", codec.encode_chunk, random_video(2))
    refused("9 frames came in a later chunk: .* such as 8 or 12", codec.encode_chunk, random_video(9), encoder_state)
    refused("3 frames came in a later chunk: .* such as 4", codec.encode_chunk, random_video(3), encoder_state)
    refused(r"\[1, 0, 16, 2, 3\] came", codec.decode, random_latents(0))
    refused("want float .*16", codec.decode, torch.zeros(1, 2, 4, 2, 3))
    refused("as many streams", codec.encode_chunk, random_video(4, batch=2), encoder_state)
    refused("as many streams", codec.decode_chunk, random_latents(2, batch=2), decoder_state)
    refused("as many streams, of the same size", codec.decode_chunk, wide, decoder_state)
    refused("same half of the same codec", codec.decode_chunk, random_latents(2), encoder_state)
    refused("same half of the same codec", codec.encode_complete, random_video(4), decoder_state)
    refused("encode_complete or encode_chunk", codec.finish, decoder_state)
    refused("pending", codec.encode_chunk, random_video(4), codec.encode_complete(random_video(6))[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_width": 0}, "encoder_width: 0"),
        ({"encoder_width": "64"}, "encoder_width: '64'"),
        ({"decoder_widths": (8, 8, -1, 8)}, "decoder_widths: -1"),
        ({"decoder_widths": (8, 8)}, "want four"),
        ({"latent_channels": 0}, "latent_channels: 0"),
        ({"time_alignment": "centred"}, "look-ahead, causal"),
    ],
)
def test_configs_check_themselves(changes, message):
    with pytest.raises(InputError, match=message):
        TinyConfig(**changes)
