import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.latents import BLOCK_FRAMES, BLOCK_LATENTS, check_block_latents, num_frames_of, num_latents_of


def test_a_stream_begins_with_one_frame_and_goes_on_by_fours():
    assert [num_frames_of(n) for n in (1, 2, BLOCK_LATENTS)] == [1, 5, 9]
    assert BLOCK_FRAMES == num_frames_of(2 * BLOCK_LATENTS) - num_frames_of(BLOCK_LATENTS) == 12
    assert [num_latents_of(n) for n in (1, 2, 5, 6, 9)] == [1, 2, 2, 3, 3]


@pytest.mark.parametrize("block_latents", [0, 4, 2.0, "3", True])
def test_blocks_that_have_no_slots_are_refused(block_latents):
    with pytest.raises(InputError, match="want a whole number from 1 .low latency. to 3"):
        check_block_latents(block_latents)
