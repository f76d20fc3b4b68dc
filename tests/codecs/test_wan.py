import json
import sys
from pathlib import Path

import pytest
import torch

from inspatio_sim.codecs.protocol import Codec
from inspatio_sim.codecs.wan import WanCodec, causal_reach
from inspatio_sim.errors import CheckpointMismatch, InputError

diffusers = pytest.importorskip("diffusers", reason="the Wan codec needs diffusers")

H, W = 16, 24
NEAR = 1e-5  # small streams alone are convolved by another algorithm than pairs: float32 rounds otherwise


def make_vae(base_dim=4, z_dim=4, num_res_blocks=1, seed=0):
    torch.manual_seed(seed)
    latents = {"latents_mean": [0.1 * i for i in range(z_dim)], "latents_std": [1 + 0.2 * i for i in range(z_dim)]}
    return diffusers.AutoencoderKLWan(base_dim=base_dim, z_dim=z_dim, num_res_blocks=num_res_blocks, **latents).eval()


@pytest.fixture(scope="module")
def codec() -> WanCodec:
    return WanCodec(make_vae())


def random_video(num_frames, batch=1, seed=1):
    return torch.rand(batch, num_frames, 3, H, W, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def random_latents(num_latents, batch=1, seed=2):
    return torch.randn(batch, num_latents, 4, H // 8, W // 8, generator=torch.Generator().manual_seed(seed))


def in_chunks(call, whole, sizes):
    results, state = [], None
    for chunk in whole.split(sizes, dim=1):
        result, state = call(chunk, state)
        results.append(result)
    return results


@torch.no_grad()
def test_whole_clips_are_as_in_diffusers(codec):
    vae, video, latents = codec.vae, random_video(13), random_latents(4)
    mean = torch.tensor(vae.config.latents_mean).view(1, 1, -1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, 1, -1, 1, 1)
    encoded = vae.encode(video.transpose(1, 2)).latent_dist.mode().transpose(1, 2)
    torch.testing.assert_close(codec.encode(video), (encoded - mean) / std, atol=NEAR, rtol=0)
    decoded = vae.decode((latents * std + mean).transpose(1, 2)).sample.transpose(1, 2)
    torch.testing.assert_close(codec.decode(latents), decoded, atol=NEAR, rtol=0)


def test_a_clip_of_any_length_is_encoded_as_if_its_last_frame_went_on(codec):
    video = random_video(7)
    latents = codec.encode(video)
    assert latents.shape[1] == 3
    assert torch.equal(latents, codec.encode(torch.cat([video, video[:, -1:], video[:, -1:]], dim=1)))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 2], [3, 2], [2, 1, 2]])
def test_chunks_are_the_whole(codec, sizes):
    latents, video = random_latents(5, batch=2), random_video(17, batch=2)
    frame_counts = [4 * n - 3 if i == 0 else 4 * n for i, n in enumerate(sizes)]
    decoded = in_chunks(codec.decode_chunk, latents, sizes)
    assert [chunk.shape[1] for chunk in decoded] == frame_counts
    assert torch.equal(torch.cat(decoded, 1), codec.decode(latents))
    encoded = in_chunks(codec.encode_chunk, video, frame_counts)
    assert [chunk.shape[1] for chunk in encoded] == sizes
    assert torch.equal(torch.cat(encoded, 1), codec.encode(video))


def test_streams_of_any_age_can_be_joined(codec):
    """One after a single latent, one after three: their states have the same shapes."""
    for call, young, old, later in (
        (codec.encode_chunk, random_video(1), random_video(9), random_video(4, batch=2, seed=3)),
        (codec.decode_chunk, random_latents(1), random_latents(3), random_latents(1, batch=2, seed=3)),
    ):
        states = [call(young)[1], call(old)[1]]
        alone = torch.cat([call(later[i : i + 1], states[i])[0] for i in range(2)])
        joined, after = call(later, {name: torch.cat([state[name] for state in states]) for name in states[0]})
        torch.testing.assert_close(joined, alone, atol=NEAR, rtol=0)
        assert {name: tensor.shape for name, tensor in after.items()} == {
            name: torch.Size([2, *tensor.shape[1:]]) for name, tensor in states[0].items()
        }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, NEAR), (torch.float64, 1e-13)])
def test_a_batch_is_each_of_its_streams(dtype, tolerance):
    codec = WanCodec(make_vae().to(dtype))
    for call, batch in ((codec.encode, random_video(9, batch=3)), (codec.decode, random_latents(3, batch=3))):
        one_by_one = torch.cat([call(one[None].to(dtype)) for one in batch])
        torch.testing.assert_close(call(batch.to(dtype)), one_by_one, atol=tolerance, rtol=0)


def test_states_stay_as_they_were(codec):
    for call, first, later in (
        (codec.encode_chunk, random_video(1), random_video(8)),
        (codec.decode_chunk, random_latents(1), random_latents(2)),
    ):
        _, state = call(first)
        before = {name: tensor.clone() for name, tensor in state.items()}
        result, _ = call(later, state)
        call(random_video(5) if later.shape[2] == 3 else random_latents(2))  # another stream between
        assert all(torch.equal(state[name], before[name]) for name in before)
        assert torch.equal(call(later, state)[0], result)


@pytest.fixture(scope="module")
def forgetful() -> WanCodec:
    """The shortest memory that four stages allow."""
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=2, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 2, latents_std=[1.0] * 2
    )
    return WanCodec(vae.double())


def test_encoding_may_begin_late(forgetful):
    """As the protocol says: one latent more than what is remembered, and the rest is the same."""
    num_before = -(-forgetful.memory_frames // 4) + 1
    torch.manual_seed(1)
    video = torch.rand(1, 4 * (num_before + 5) - 3, 3, 8, 8).double()
    wanted = forgetful.encode(video)[:, num_before + 3 :]
    assert torch.equal(forgetful.encode(video[:, 4 * 3 :])[:, num_before:], wanted)
    assert not torch.equal(forgetful.encode(video[:, 4 * 5 :])[:, num_before - 2 :], wanted)


def test_latents_remember_so_many_frames_and_no_more(forgetful):
    codec = forgetful
    assert codec.memory_frames == 77
    num_latents = 22
    own = 4 * (num_latents - 1) - 3  # the first of the last latent's own frames
    torch.manual_seed(0)
    video = torch.rand(2, 4 * num_latents - 3, 3, 8, 8).double()[:1]
    too_far, just_in = video.clone(), video.clone()
    too_far[:, own - codec.memory_frames - 1] *= -1
    just_in[:, own - codec.memory_frames] *= -1
    latent, unchanged, changed = codec.encode(torch.cat([video, too_far, just_in]))[:, -1]
    assert torch.equal(unchanged, latent)
    assert not torch.equal(changed, latent)


def test_the_real_network_remembers_109_frames():
    with torch.device("meta"):
        assert causal_reach(diffusers.AutoencoderKLWan().encoder) == 109


def test_bfloat16_is_near_float32(codec):
    fast = WanCodec(make_vae().to(torch.bfloat16))
    latents = fast.encode(random_video(9))
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, codec.encode(random_video(9)), atol=0.05, rtol=0.05)
    torch.testing.assert_close(fast.decode(latents), codec.decode(latents), atol=0.05, rtol=0.05)


def test_properties(codec):
    as_protocol: Codec = codec  # checked by type
    assert (as_protocol.latent_channels, as_protocol.spatial_stride, as_protocol.temporal_stride) == (4, 8, 4)


def test_saved_folders_give_the_same_codec(tmp_path, codec):
    codec.vae.save_pretrained(tmp_path)
    loaded = WanCodec.from_folder(tmp_path)
    assert torch.equal(loaded.encode(random_video(5)), codec.encode(random_video(5)))
    assert torch.equal(loaded.decode(random_latents(2)), codec.decode(random_latents(2)))


def refused(message, call, *arguments, kind=InputError):
    with pytest.raises(kind, match=message) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


def test_bad_folders_are_refused(tmp_path, codec):
    refused("has no config.json", WanCodec.from_folder, tmp_path / "nothing")
    folder = tmp_path / "cut"
    codec.vae.save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5000])
    refused("that diffusers can load", WanCodec.from_folder, folder)
    weights.unlink()
    refused("that diffusers can load", WanCodec.from_folder, folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_res_blocks": 2}))
    refused("weights are missing|can load", WanCodec.from_folder, folder)


def test_missing_diffusers_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.autoencoder_kl_wan", None)
    refused("pip install", WanCodec.from_folder, tmp_path)
    refused("pip install", WanCodec.from_single_file, tmp_path / "Wan2.1_VAE.pth")


def published_names(state):
    """The original publisher's names for diffusers' parameters."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    block = ["residual.0.gamma", "residual.3.gamma", "time_conv.weight", "time_conv.bias"]
    for layer in ("residual.2", "residual.6", "shortcut", "resample.1"):
        block += [f"{layer}.weight", f"{layer}.bias"]
    middle = [f"{i}.{name}" for i in (0, 2) for name in block]
    middle += ["1.norm.gamma"] + [f"1.{layer}.{kind}" for layer in ("to_qkv", "proj") for kind in ("weight", "bias")]
    names = ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    for half, stages in (("encoder", "downsamples"), ("decoder", "upsamples")):
        names += [f"{half}.{layer}.{kind}" for layer in ("conv1", "head.2") for kind in ("weight", "bias")]
        names.append(f"{half}.head.0.gamma")
        names += [f"{half}.middle.{name}" for name in middle]
        names += [f"{half}.{stages}.{i}.{name}" for i in range(15) for name in block]
    by_ours = {ours: name for name in reversed(names) for ours in convert_wan_vae_to_diffusers({name: None})}
    return {by_ours[ours]: tensor for ours, tensor in state.items()}


def test_the_publishers_file_gives_the_same_codec(tmp_path):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=4)
    published = published_names(vae.state_dict())
    torch.save(published, tmp_path / "Wan2.1_VAE.pth")
    loaded, wanted = WanCodec.from_single_file(tmp_path / "Wan2.1_VAE.pth"), WanCodec(vae)
    assert torch.equal(loaded.encode(random_video(5)), wanted.encode(random_video(5)))

    del published["encoder.head.2.bias"]
    torch.save(published, tmp_path / "less.pth")
    refused("encoder.conv_out.bias", WanCodec.from_single_file, tmp_path / "less.pth", kind=CheckpointMismatch)


def test_pickled_code_is_never_run(tmp_path):
    marker = tmp_path / "owned"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save({"encoder.conv1.weight": Evil()}, tmp_path / "evil.pth")
    refused("holds more than tensors", WanCodec.from_single_file, tmp_path / "evil.pth")
    refused("nothing.pth", WanCodec.from_single_file, tmp_path / "nothing.pth")
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.pth")
    refused("not the weights of Wan 2.1", WanCodec.from_single_file, tmp_path / "other.pth")
    assert not marker.exists()


def test_refusals_are_one_line_and_say_what_is_wanted(codec):
    _, encoder_state = codec.encode_chunk(random_video(5))
    _, decoder_state = codec.decode_chunk(random_latents(2))
    refused("height 20 px came: want a multiple of 8", codec.encode, torch.zeros(1, 5, 3, 20, 24))
    refused(r"\[1, 5, 4, 16, 24\] came", codec.encode, torch.zeros(1, 5, 4, H, W))
    refused("8 frames came in a first chunk: .* such as 5 or 9", codec.encode_chunk, random_video(8))
    refused("9 frames came in a later chunk", codec.encode_chunk, random_video(9), encoder_state)
    refused("want float .*4", codec.decode, torch.zeros(1, 2, 16, 2, 3))
    refused("as many streams", codec.encode_chunk, random_video(4, batch=2), encoder_state)
    refused("as many streams", codec.decode_chunk, random_latents(2, batch=2), decoder_state)
    refused("of the same size", codec.decode_chunk, torch.zeros(1, 2, 4, 2, 4), decoder_state)
    refused("same half of the same codec", codec.decode_chunk, random_latents(2), encoder_state)
    with torch.device("meta"):
        wan_2_2 = diffusers.AutoencoderKLWan(base_dim=8, is_residual=True, in_channels=12, out_channels=12)
    refused("Wan 2.2 came", WanCodec, wan_2_2)
