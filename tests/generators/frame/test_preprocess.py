import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.pixels import to_u8
from inspatio_sim.generators.frame.preprocess import to_square


@pytest.mark.parametrize("size_px", [40, 72])
@pytest.mark.parametrize(("way", "antialias"), [("tensor", False), ("pil", True)])
def test_squares_as_published(test_data, size_px, way, antialias):
    golden = load_file(test_data / "golden" / "worldfm_render.safetensors")
    image = to_square(golden["in.pre.image_u8"].numpy(), size_px, antialias=antialias)
    torch.testing.assert_close(image, golden[f"out.pre.{way}.{size_px}"])


@pytest.mark.parametrize("antialias", [False, True])
def test_a_square_of_its_size_stays_as_it_is(antialias):
    image_u8 = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    image = to_square(image_u8, 24, antialias=antialias)
    assert (to_u8(image).movedim(0, -1).numpy() == image_u8).mean() > 0.99  # truncated: float rounding may cost a level
    np.testing.assert_allclose(image.movedim(0, -1).numpy(), image_u8 / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (21, 60)])
def test_the_middle_is_kept(shape, antialias):
    """Of a ramp along the longer side, the mean of the square is the middle of the ramp."""
    longer = int(np.argmax(shape))
    ramp = np.linspace(40, 200, shape[longer])
    image_u8 = np.broadcast_to(ramp[:, None] if longer == 0 else ramp, shape).astype(np.uint8)
    image = to_square(np.repeat(image_u8[..., None], 3, axis=-1), 16, antialias=antialias)
    assert image.shape == (3, 16, 16)
    assert 127.5 * (float(image.mean()) + 1) == pytest.approx(120, abs=4)


def test_bad_input():
    for image in (np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(InputError, match="want HxWx3 bytes"):
            to_square(image, 8, antialias=True)
    with pytest.raises(InputError, match="size_px=0"):
        to_square(np.zeros((4, 4, 3), np.uint8), 0, antialias=True)
