import pytest
import torch

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.mask_latent import mask_latent


def random_mask(num_frames, batch=2):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 2, (batch, num_frames, 1, 32, 48), generator=generator, dtype=torch.int8) * 2 - 1


def test_each_latent_is_the_mean_of_the_middle_four_pixels():
    mask = random_mask(9)
    latent = mask_latent(mask)
    assert latent.shape == (2, 3, 4, 4, 6)
    assert latent.dtype == torch.float32
    middle = mask[:, 3, 0].float().unfold(1, 8, 8).unfold(2, 8, 8)[..., 3:5, 3:5].mean((-1, -2))
    assert torch.allclose(latent[:, 1, 2], middle)  # frame 3 is the third of the second four


def test_the_first_frame_of_a_clip_counts_four_times():
    latent = mask_latent(random_mask(9))
    assert all(torch.equal(latent[:, 0, 0], latent[:, 0, channel]) for channel in range(4))


def test_chunks_equal_the_whole_clip():
    mask = random_mask(21)
    chunks = [mask_latent(mask[:, :9]), mask_latent(mask[:, 9:], starts_clip=False)]
    assert torch.equal(torch.cat(chunks, 1), mask_latent(mask))


def test_frames_beyond_the_last_four_are_dropped():
    mask = random_mask(11)
    assert torch.equal(mask_latent(mask), mask_latent(mask[:, :9]))


def test_only_the_first_channel_counts():
    mask = random_mask(5)
    assert torch.equal(
        mask_latent(mask.repeat(1, 1, 3, 1, 1) * torch.tensor([1, 0, 0])[:, None, None]), mask_latent(mask)
    )


@pytest.mark.parametrize("shape", [(2, 5, 32, 48), (1, 0, 1, 32, 48), (1, 5, 1, 30, 48), (1, 5, 1, 0, 48)])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(InputError, match="mask has"):
        mask_latent(torch.zeros(shape))
