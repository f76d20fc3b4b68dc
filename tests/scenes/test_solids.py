"""Ray hits, signed distances and textures, for any solid and ray."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from inspatio_sim.scenes.mipmap import sample, texel_table
from inspatio_sim.scenes.primitives import Box, Cylinder, Material, Plane, Solid, Sphere
from inspatio_sim.scenes.solids import pack
from inspatio_sim.scenes.textures import PATTERNS, SIZE_PX, Texture, texture_image

MATERIAL = Material(texture=Texture(pattern="plaster"))
NOW = torch.zeros(1)

coordinate = st.floats(-3, 3, width=32)
small = st.floats(-0.0625, 0.0625, width=32)
length = st.floats(0.125, 2, width=32)
place = st.tuples(coordinate, coordinate, coordinate)
solids = st.one_of(
    st.builds(
        Box, center_m=place, size_m=st.tuples(length, length, length), yaw_rad=coordinate, material=st.just(MATERIAL)
    ),
    st.builds(Sphere, center_m=place, radius_m=length, material=st.just(MATERIAL)),
    st.builds(Cylinder, center_m=place, radius_m=length, height_m=length, material=st.just(MATERIAL)),
    st.builds(
        Plane,
        point_m=place,
        normal=place.filter(lambda normal: math.hypot(*normal) > 0.1),
        material=st.just(MATERIAL),
    ),
)


@settings(max_examples=150, deadline=None)
@given(solid=solids, start=place, end=place)
def test_a_ray_enters_at_the_surface_and_nowhere_before(solid: Solid, start, end):
    (kind,) = pack([solid], NOW)
    origin, aim = torch.tensor(start), torch.tensor(end)
    direction = aim - origin
    assume(direction.norm() > 0.1)
    assume(kind.distance(origin[None]).item() > 0.01)
    t = kind.intersect(origin[None], direction[None, :, None]).item()
    along = origin + torch.linspace(0, min(t, 20.0), 100)[:, None] * direction
    assert kind.distance(along).min() > -1e-3  # free all the way
    if math.isfinite(t) and t < 20:
        assert abs(kind.distance(along[-1:]).item()) < 2e-3
    if kind.distance(aim[None]).item() < -1e-3:
        assert t < 1  # whoever ends inside has entered


@settings(max_examples=100, deadline=None)
@given(solid=solids, start=place, aside=st.tuples(small, small, small))
def test_normals_point_out_along_the_distance(solid: Solid, start, aside):
    (kind,) = pack([solid], NOW)
    middle = solid.point_m if isinstance(solid, Plane) else solid.center_m
    origin, direction = torch.tensor(start), torch.tensor(middle) + torch.tensor(aside) - torch.tensor(start)
    assume(kind.distance(origin[None]).item() > 0.05)
    t = kind.intersect(origin[None], direction[None, :, None]).item()
    assume(t < 20)
    point = (origin + t * direction)[None]
    zero = torch.zeros(1, dtype=torch.long)
    surface = kind.surface(zero, zero, point)
    assert surface.normal.norm().item() == pytest.approx(1, abs=1e-4)
    assert (surface.normal * direction).sum() <= 1e-3 * direction.norm()  # it faces the ray
    assert kind.distance(point + 0.02 * surface.normal).item() == pytest.approx(0.02, abs=2e-3)
    assert kind.distance(point - 0.02 * surface.normal).item() < 0
    assert torch.isfinite(surface.uv).all()


@settings(max_examples=50, deadline=None)
@given(solid=solids, first=place, second=place)
def test_distance_grows_no_faster_than_one_walks(solid: Solid, first, second):
    (kind,) = pack([solid], NOW)
    points = torch.tensor([first, second])
    change = kind.distance(points).diff().abs().item()
    assert change <= (points[0] - points[1]).norm().item() + 1e-4


def test_kinds_answer_together_as_alone():
    balls = [Sphere(center_m=(x, 0.0, 3.0), radius_m=0.4, material=MATERIAL) for x in (-1.0, 0.0, 1.0)]
    direction = torch.randn(1, 3, 50, generator=torch.Generator().manual_seed(0))
    origin = torch.zeros(1, 3)
    (together,) = pack(balls, NOW)
    alone = [pack([ball], NOW)[0].intersect(origin, direction) for ball in balls]
    assert torch.equal(together.intersect(origin, direction), torch.cat(alone, dim=1))
    assert torch.equal(together.only(torch.tensor([2])).intersect(origin, direction), alone[2])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_textures_are_seamless_and_the_same_every_time(pattern: str):
    image = texture_image(Texture(pattern=pattern, color_a=(1, 1, 1), color_b=(0, 0, 0), seed=3))
    assert image.shape == (SIZE_PX, SIZE_PX, 3)
    assert 0 <= image.min() < image.max() <= 1
    texture_image.cache_clear()
    again = texture_image(Texture(pattern=pattern, color_a=(1, 1, 1), color_b=(0, 0, 0), seed=3))
    assert torch.equal(image, again)
    inside = image.diff(dim=0).abs().mean(dim=(1, 2)).max()
    across_the_seam = (image[0] - image[-1]).abs().mean()
    assert across_the_seam <= 1.5 * inside + 0.01


def test_seeds_make_different_textures():
    first, second = (texture_image(Texture(pattern="bricks", seed=seed)) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_lookup_reads_texels_near_and_the_mean_far():
    texture = Texture(pattern="chelsea")
    image, table = texture_image(texture), texel_table((Texture(pattern="coffee"), texture), torch.device("cpu"))
    row, column = 100, 37
    uv = torch.tensor([[(column + 0.5) / SIZE_PX, (row + 0.5) / SIZE_PX]])
    second = torch.tensor([1])
    near = sample(table, second, uv - 3.0, torch.tensor([0.5 / SIZE_PX]))  # three repeats away is the same place
    torch.testing.assert_close(near[0], image[row, column], atol=1e-3, rtol=0)
    far = sample(table, second, uv, torch.tensor([100.0]))
    torch.testing.assert_close(far[0], image.mean(dim=(0, 1)), atol=1e-2, rtol=0)
