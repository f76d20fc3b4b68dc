import numpy as np

from inspatio_sim.generators.paste import FEATHER_PX, paste_renders
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


def test_a_generator_pastes_what_it_was_given():
    reference, condition = make_reference(), condition_of(range(9))
    plain, pasting = (make_generator(pastes_renders=pastes) for pastes in (False, True))
    (frames,), (pasted,) = (
        generator.generate([condition], [generator.begin(reference, 0)]).frames_u8 for generator in (plain, pasting)
    )
    assert (pasted == paste_renders(frames, condition.render_u8, condition.is_rendered)).all()
    assert (pasted != frames).any()
