"""Shards of latents: round trip, same bytes after an interruption, damage found and mended, and every refusal."""

import json

import numpy as np
import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import Intrinsics
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.data.shards import ShardDataset, write_shards

NUM_SAMPLES = 5
IDENTITY = "made-up clips, seed 0"


class Clips:
    """Samples whose pictures are their own number."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> Sample:
        u8 = np.full((1, 16, 16, 3), index, np.uint8)
        depth_m, pose = np.ones((1, 16, 16), np.float32), np.eye(4)[None]
        return Sample(
            reference_u8=u8,
            target_u8=u8,
            reference_depth_m=depth_m,
            target_depth_m=depth_m,
            intrinsics=Intrinsics(fx_px=16, fy_px=16, cx_px=7.5, cy_px=7.5, width_px=16, height_px=16),
            T_world_reference=pose,
            T_world_target=pose,
            caption="",
        )


class Encode:
    """Tensors that depend on the sample alone; counts the samples, and stops at one if told so."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[int] = []
        self.stop_at = stop_at

    def __call__(self, sample: Sample) -> dict[str, torch.Tensor]:
        number = int(sample.target_u8[0, 0, 0, 0])
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(number)
        generator = torch.Generator().manual_seed(number)
        return {
            "target": torch.randn(3, 16, 4, 6, generator=generator),
            "mask": torch.randn(3, 4, 6, 4, generator=generator).transpose(2, 3).to(torch.bfloat16),
            "text": torch.randn(number + 1, 8, generator=generator).half(),
        }


def write(folder, encode=None, **changes) -> Encode:
    encode = encode or Encode()
    write_shards(Clips(), encode, folder, **{"samples_per_shard": 2, "identity": IDENTITY, **changes})
    return encode


def refusal(call, *args, **changes) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def edit_index(folder, **changes) -> None:
    values = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**values, **changes}))


def test_samples_come_back_bit_for_bit(tmp_path):
    shares = []
    write(tmp_path / "out", progress=lambda what, share: shares.append(share))
    dataset = ShardDataset(tmp_path / "out", IDENTITY)
    assert len(dataset) == NUM_SAMPLES
    assert dataset.identity == IDENTITY
    assert shares == [0.4, 0.8, 1.0]
    for index in range(NUM_SAMPLES):
        expected, read = Encode()(Clips()[index]), dataset[index]
        assert sorted(read) == sorted(expected)
        for name, tensor in expected.items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name], tensor)
    assert torch.equal(dataset[-1]["text"], dataset[4]["text"])
    with pytest.raises(IndexError):
        dataset[NUM_SAMPLES]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", Encode(stop_at=3))
    assert sorted(contents(tmp_path / "out")) == ["index.json", "shard-00000.safetensors"]
    assert "1 of 3 shards are written" in refusal(ShardDataset, tmp_path / "out")
    assert write(tmp_path / "out").seen == [2, 3, 4]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert write(tmp_path / "out").seen == []


def test_a_shard_written_before_the_index_was_is_made_again(tmp_path):
    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", Encode(stop_at=2))
    (tmp_path / "out" / "shard-00001.safetensors").write_bytes(b"half of it")
    assert write(tmp_path / "out").seen == [2, 3, 4]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_shard_is_refused_and_made_again(tmp_path, damage):
    folder = tmp_path / "out"
    write(folder)
    whole = contents(folder)
    path = folder / "shard-00001.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
        assert "missing or cut off" in refusal(ShardDataset, folder)
    elif damage == "gone":
        path.unlink()
        assert "missing or cut off" in refusal(ShardDataset, folder)
    else:
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    assert write(folder).seen == [2, 3]
    assert contents(folder) == whole


def test_a_shard_cut_while_it_is_in_use_is_an_input_error(tmp_path):
    write(tmp_path / "out")
    dataset = ShardDataset(tmp_path / "out")
    path = tmp_path / "out" / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert "damaged" in refusal(dataset.__getitem__, 0)
    path.unlink()
    assert "shard-00000" in refusal(dataset.__getitem__, 0)
    assert dataset[2]


def test_shards_of_two_runs_are_not_mixed(tmp_path):
    write(tmp_path / "out")
    write(tmp_path / "other", identity="other clips")
    whole = contents(tmp_path / "out")
    assert "asked for 5 samples of 'other clips'" in refusal(write, tmp_path / "out", identity="other clips")
    assert "3 a shard" in refusal(write, tmp_path / "out", samples_per_shard=3)
    assert contents(tmp_path / "out") == whole
    assert "want 'other clips'" in refusal(ShardDataset, tmp_path / "out", "other clips")
    name = "shard-00002.safetensors"
    (tmp_path / "out" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    dataset = ShardDataset(tmp_path / "out")
    assert "not of this index" in refusal(dataset.__getitem__, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "something else"}, "not an index of shards"),
        ({"identity": "other"}, "its fingerprint is not that of its contents"),
        ({"num_samples": 6}, "its fingerprint is not that of its contents"),
        ({"num_samples": "5"}, "num_samples is missing or no int"),
        ({"samples_per_shard": 0}, "the numbers do not fit"),
        ({"shards": {}}, "shards is missing or no list"),
        ({"shards": [7]}, "shard 0 is no object"),
        (
            {"shards": [{"file": "../../x.safetensors", "num_bytes": 1, "sha256": ""}]},
            "shard 0 is '../../x.safetensors'",
        ),
    ],
)
def test_a_changed_index_is_refused(tmp_path, changes, message):
    write(tmp_path)
    edit_index(tmp_path, **changes)
    assert message in refusal(ShardDataset, tmp_path)
    assert message in refusal(write, tmp_path)


def test_a_broken_or_missing_index_is_refused(tmp_path):
    assert "no index.json" in refusal(ShardDataset, tmp_path)
    write(tmp_path)
    (tmp_path / "index.json").write_text((tmp_path / "index.json").read_text()[:50])
    assert "not valid JSON" in refusal(ShardDataset, tmp_path)


def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "out"
    assert "samples_per_shard=0" in refusal(write, folder, samples_per_shard=0)
    assert "no tensors for sample 0" in refusal(write, folder, lambda sample: {})
    assert "NaN or inf in z of sample 0" in refusal(write, folder, lambda sample: {"z": torch.tensor([1, torch.nan])})
    assert "torch.int64" in refusal(write, folder, lambda sample: {"z": torch.tensor([1, 2])})
    assert "want a name" in refusal(write, folder, lambda sample: {"": torch.ones(2)})
    assert not folder.exists()
    folder.write_text("a file")
    assert "is a file" in refusal(write, folder)
    assert "empty" in refusal(write_shards, [], Encode(), tmp_path / "none", 2, identity=IDENTITY)
