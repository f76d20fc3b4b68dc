import torch

from inspatio_sim.training.star.sources import EncodedClips, InMemory, TextAlone


class Encoded:
    """Five encoded clips that count how often they are read."""

    def __init__(self):
        self.num_read = 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.num_read += 1
        generator = torch.Generator().manual_seed(index)
        sizes = {"target": (6, 8, 4, 6), "reference": (6, 8, 4, 6), "view": (6, 12, 4, 6), "text": (4, 8)}
        return {name: torch.randn(size, generator=generator).half() for name, size in sizes.items()}


def test_an_epoch_has_every_clip_once():
    clips = EncodedClips(Encoded(), seed=0)
    seen = [clips([i])[0][0, 0, 0, 0, 0].item() for i in range(10)]
    assert len(set(seen[:5])) == 5
    assert sorted(seen[:5]) == sorted(seen[5:])


def test_clips_in_memory_are_read_once_and_stay_what_they_were():
    encoded = Encoded()
    held = EncodedClips(InMemory(encoded), seed=3)
    target, conditions = held([4, 9, 1])
    assert encoded.num_read == 5
    again, others = EncodedClips(Encoded(), seed=3)([4, 9, 1])
    assert target.dtype == torch.float32
    assert torch.equal(target, again)
    assert torch.equal(conditions.view, others.view)


def test_text_alone_is_neither_reference_nor_view():
    clips = EncodedClips(Encoded(), seed=0)
    target, conditions = TextAlone(clips)([2])
    assert conditions.reference is None
    assert conditions.view is None
    assert torch.equal(target, clips([2])[0])
