from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inspatio_sim.errors import InputError
from inspatio_sim.generators.frame.cost import pass_flop
from inspatio_sim.generators.frame.model import FrameTransformer
from inspatio_sim.generators.presets.frame_config import FrameConfig, frame_tiny, frame_xl

SMALL = FrameConfig(
    input_size=4,
    patch_size=1,
    in_channels=16,
    mask_channels=1,
    hidden_size=64,
    depth=3,
    num_heads=2,
    learns_sigma=False,
    has_caption=False,
)
CONFIGS = {
    "tokens of one latent, a mask": SMALL,
    "tokens of 2x2 latents, sigma, unused caption": replace(
        SMALL, patch_size=2, mask_channels=0, learns_sigma=True, has_caption=True, model_max_length=4
    ),
}


@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_operations_are_those_that_are_run(name, num_images):
    config, grid = CONFIGS[name], (4, 6)
    torch.manual_seed(0)
    transformer = FrameTransformer(config).eval()
    x = torch.randn(1, config.in_channels, *grid)
    beside = torch.randn(1, config.in_channels + config.mask_channels, *grid)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        transformer(x, torch.tensor([999]), *([beside, beside] if num_images == 3 else []))
    assert pass_flop(config, grid, num_images) == counter.get_total_flops()


def test_presets_at_their_sizes():
    tiny, large = pass_flop(frame_tiny(), (12, 20)), pass_flop(frame_xl(), (64, 64))
    assert 7e9 < tiny < 8e9
    assert 3e12 < large < 4e12


def test_grid_of_half_tokens_is_refused():
    with pytest.raises(InputError, match="want multiples of patch_size=2"):
        pass_flop(frame_xl(), (63, 64))
