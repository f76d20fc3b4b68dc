import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspatio_sim.errors import InputError
from inspatio_sim.geometry.complete import complete_depth
from inspatio_sim.geometry.depth_network import DepthNetwork, DepthNetworkConfig, fill_holes
from inspatio_sim.training.depth.losses import depth_loss, hide

SMALL = DepthNetworkConfig(widths=(8, 16, 16))


def picture(seed=0, batch=2, size_px=(24, 40)):
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.rand(batch, 3, *size_px, generator=generator) * 2 - 1
    depth_m = 1 + 3 * torch.rand(batch, 1, *size_px, generator=generator)
    return rgb, depth_m


def randomised(seed=0):
    torch.manual_seed(seed)
    network = DepthNetwork(SMALL)
    torch.nn.init.normal_(network.last.weight, std=0.3)
    return network.eval()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), height=st.integers(5, 33), width=st.integers(5, 33))
def test_known_pixels_stay_and_all_others_get_a_depth(seed, height, width):
    rgb, true_m = picture(seed, size_px=(height, width))
    known_m = hide(true_m, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        completed = randomised(seed)(rgb, known_m)
    assert torch.equal(completed[known_m > 0], known_m[known_m > 0])
    assert completed.isfinite().all()
    assert completed.min() > 0


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_metres_follow_what_is_known(factor):
    rgb, true_m = picture()
    known_m = torch.where(torch.arange(40) < 20, true_m, 0)
    network = randomised()
    with torch.no_grad():
        torch.testing.assert_close(network(rgb, factor * known_m), factor * network(rgb, known_m), rtol=1e-4, atol=1e-5)


def test_nothing_known_gives_depth_of_median_one():
    rgb, true_m = picture()
    with torch.no_grad():
        completed = randomised()(rgb, torch.zeros_like(true_m))
    medians = completed.flatten(1).median(1).values
    torch.testing.assert_close(medians, torch.ones(2), atol=0.02, rtol=0)
    assert completed.std() > 0.01


def test_untrained_it_is_push_pull_completion():
    rgb, true_m = picture(size_px=(32, 32))
    known_m = torch.where(torch.arange(32) < 12, true_m, 0)
    with torch.no_grad():
        completed = DepthNetwork(SMALL)(rgb, known_m)
    plain = np.stack([complete_depth(depth[0].numpy(), 1.0) for depth in known_m])
    ratio = completed[:, 0].numpy() / plain
    assert 0.9 < np.median(ratio) < 1.1


def test_holes_are_filled_within_the_range_of_the_known():
    values, is_known = torch.rand(1, 1, 17, 30), torch.rand(1, 1, 17, 30) < 0.1
    filled = fill_holes(values, is_known)
    assert values[is_known].min() - 1e-5 <= filled.min() <= filled.max() <= values[is_known].max() + 1e-5
    torch.testing.assert_close(filled[is_known], values[is_known])
    torch.testing.assert_close(fill_holes(values, torch.zeros_like(is_known)), torch.ones_like(values))


def test_the_loss_asks_only_for_what_was_hidden():
    _, true_m = picture()
    known_m = torch.where(torch.arange(40) < 20, true_m, 0)
    assert depth_loss(true_m, true_m, known_m) == 0
    assert depth_loss(2 * true_m, true_m, torch.zeros_like(true_m)).item() == pytest.approx(0, abs=1e-6)
    off = torch.where(known_m > 0, true_m, 2 * true_m)
    assert depth_loss(off, true_m, known_m).item() > np.log(2)
    no_truth = torch.where(known_m > 0, true_m, 0)
    assert depth_loss(off, no_truth, known_m) == 0


def test_pictures_are_hidden_in_many_ways_and_the_same_again():
    true_m = torch.ones(200, 1, 24, 40)
    known = hide(true_m, torch.Generator().manual_seed(0)) > 0
    shares = known.flatten(1).float().mean(1)
    assert torch.equal(known, hide(true_m, torch.Generator().manual_seed(0)) > 0)
    assert 0.1 < (shares == 0).float().mean() < 0.35
    assert shares.max() > 0.9


def test_training_beats_push_pull_on_a_slanted_floor():
    """Depth follows from the row, which the picture shows as brightness."""
    torch.manual_seed(0)
    network = DepthNetwork(SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    rows = torch.linspace(-1, 1, 24).view(1, 1, -1, 1)
    true_m = (1.5 / (1.2 + rows)).expand(4, 1, 24, 40).contiguous()
    rgb = rows.expand(4, 3, 24, 40).contiguous()
    known_m = torch.where(torch.arange(24).view(-1, 1) > 18, true_m, 0)
    with torch.no_grad():
        before = depth_loss(network(rgb, known_m), true_m, known_m).item()
    for _ in range(80):
        loss = depth_loss(network(rgb, known_m), true_m, known_m)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3 * before


def test_mistakes_are_named():
    rgb, depth_m = picture()
    with pytest.raises(InputError, match="want \\[B, 3, H, W\\]"):
        DepthNetwork(SMALL)(rgb, depth_m[:1])
    with pytest.raises(InputError, match="widths"):
        DepthNetworkConfig(widths=(8,))
