import numpy as np

from inspatio_sim.generators.blocks.paste import FEATHER_PX, close_cracks, paste_renders
from tests.generators.star.small import condition_of, make_generator, make_reference


def test_rendered_pixels_are_seen_and_others_generated():
    render = np.full((2, 20, 40, 3), 200, np.uint8)
    frames = np.full((2, 20, 40, 3), 50, np.uint8)
    is_rendered = np.zeros((2, 20, 40), bool)
    is_rendered[0, :, :20] = True
    pasted = paste_renders(frames, render, is_rendered)
    assert (pasted[0, :, : 20 - int(FEATHER_PX)] == 200).all()
    assert (pasted[0, :, 20:] == 50).all()
    row = pasted[0, 10, 15:25, 0].astype(int)
    assert (np.diff(row) <= 0).all()  # from one to the other, never back
    assert len(set(row.tolist())) > 3
    assert (pasted[1] == 50).all()
    assert (paste_renders(frames, render, np.ones_like(is_rendered)) == 200).all()


def test_cracks_are_closed_and_holes_stay():
    render = np.full((2, 20, 40, 3), 200, np.uint8)
    is_rendered = np.ones((2, 20, 40), bool)
    is_rendered[0, :, 8] = False
    is_rendered[0, 5:7, 20:] = False
    is_rendered[0, 12:15, 20:23] = False  # too wide to be a crack
    is_rendered[0, :, 35:] = False  # nothing beyond it
    render[0, ~is_rendered[0]] = 0
    closed, is_closed = close_cracks(render, is_rendered)
    expected = np.ones((20, 40), bool)
    expected[12:15, 20:23] = False
    expected[:, 35:] = False
    assert (is_closed[0] == expected).all()
    assert (closed[0, expected] == 200).all()
    assert (closed[0, ~expected] == 0).all()
    assert (closed[1] == render[1]).all()
    assert is_closed[1].all()
    assert not is_rendered[0, :, 8].any()  # what came is left as it was


def test_a_generator_pastes_what_it_was_given():
    reference, condition = make_reference(), condition_of(range(9))
    plain, pasting = (make_generator(pastes_renders=pastes) for pastes in (False, True))
    (frames,), (pasted,) = (
        generator.generate([condition], [generator.begin(reference, 0)]).frames_u8 for generator in (plain, pasting)
    )
    assert (pasted == paste_renders(frames, condition.render_u8, condition.is_rendered)).all()
    assert (pasted != frames).any()
