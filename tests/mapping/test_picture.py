import numpy as np
import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import WorldMap
from inspatio_sim.mapping.picture import FREE_COLOUR, UNKNOWN_COLOUR
from tests.mapping.synthetic import insert, look


def test_the_picture_shows_walls_free_space_path_and_camera():
    world_map = WorldMap()
    for yaw in np.arange(0, 6.3, 0.3):
        insert(world_map, look(yaw))
    path_m = np.array([[-1.0, 0, -1.0], [0, 0, -1.0], [1.0, 0, 1.0]])
    bare = world_map.top_down_image(size_px=300)
    image = world_map.top_down_image(path_m, T_world_camera=look(0, path_m[-1]), size_px=300)
    assert image.shape == (300, 300, 3)
    assert (bare[2, 2] == UNKNOWN_COLOUR).all()
    assert (bare[150, 150] == FREE_COLOUR).all()
    pixel = lambda x, z: image[round(149.5 - z * 66), round(149.5 + x * 66)].astype(int)  # noqa: E731  264 px = 4 m
    assert pixel(-0.5, -1.0)[0] > 200 > 100 > pixel(-0.5, -1.0)[2]  # the amber path
    assert pixel(1.0, 1.03).min() > 230  # the white camera
    assert np.abs(pixel(-1.0, 1.0) - FREE_COLOUR).max() == 0
    wall = image[18 - 2 : 18 + 3, 100:200].astype(int)
    assert (np.abs(wall - FREE_COLOUR).sum(axis=-1) > 60).any(axis=0).all()


def test_an_empty_map_has_a_picture():
    image = WorldMap().top_down_image([[0, 0, 0]])
    assert image.shape == (480, 480, 3)
    assert image[240, 240].min() > 230


def test_bad_paths_are_refused():
    with pytest.raises(InputError, match="path has shape"):
        WorldMap().top_down_image(np.zeros((0, 3)))
