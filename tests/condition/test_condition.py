"""Reference first, the map where the reference is silent, and nothing that is out of date."""

import numpy as np

from inspatio_sim.condition.condition import build_condition
from inspatio_sim.mapping import MapConfig, WorldMap
from inspatio_sim.motion.camera import Intrinsics, pose_from
from inspatio_sim.provenance import Known
from inspatio_sim.reference.reference import Provenance, Reference, ScaleCard

CAMERA = Intrinsics.from_fov(1.0, 64, 48)


def wall_reference(depth_m: float, color: int, num_frames: int = 1) -> Reference:
    return Reference(
        frames_u8=np.full((num_frames, 48, 64, 3), color, np.uint8),
        depth_m=np.full((num_frames, 48, 64), depth_m, np.float32),
        intrinsics=CAMERA,
        T_world_camera=np.repeat(np.eye(4)[None], num_frames, 0),
        fps=10,
        scale=ScaleCard(source="sensor", note="exact"),
        provenance=Provenance(method="rgbd", reason="test"),
        source="test",
    )


def map_with_wall(depth_m: float, color: int, pose: np.ndarray, known: int = Known.CLIP) -> WorldMap:
    world_map = WorldMap(MapConfig(occupancy_voxel_m=0.1))
    shape = (48, 64)
    world_map.insert(
        np.full((*shape, 3), color, np.uint8),
        np.full(shape, depth_m, np.float32),
        np.full(shape, known, np.uint8),
        CAMERA,
        pose,
        0.0,
    )
    return world_map


def condition_at(reference, world_map, pose):
    return build_condition(reference, world_map, pose[None], np.array([0]))


def test_identity_gives_the_reference_back():
    condition = condition_at(wall_reference(2.0, 50), WorldMap(), np.eye(4))
    assert (condition.known == Known.CLIP).all()
    assert (condition.render_u8 == 50).all()
    assert np.allclose(condition.depth_m, 2.0)


def test_unseen_pixels_are_black_and_marked():
    behind = pose_from(np.diag([-1.0, 1.0, -1.0]))  # turned by 180 degrees
    condition = condition_at(wall_reference(2.0, 50), WorldMap(), behind)
    assert (condition.known == Known.MADE_UP).all()
    assert condition.render_u8.max() == 0
    assert condition.depth_m.max() == 0


def test_the_map_fills_what_the_reference_does_not_see():
    behind = pose_from(np.diag([-1.0, 1.0, -1.0]))
    condition = condition_at(wall_reference(2.0, 50), map_with_wall(2.0, 120, behind), behind)
    is_from_map = condition.known == Known.MAP
    assert is_from_map.mean() > 0.8
    assert np.allclose(condition.depth_m[is_from_map], 2.0, atol=0.02)
    assert (condition.render_u8[is_from_map] == 120).all()


def test_what_was_made_up_is_rendered_again_but_never_called_seen():
    behind = pose_from(np.diag([-1.0, 1.0, -1.0]))
    made_up = map_with_wall(2.0, 120, behind, known=Known.MADE_UP)
    condition = condition_at(wall_reference(2.0, 50), made_up, behind)
    assert condition.is_rendered.mean() > 0.8
    assert (condition.known == Known.MADE_UP).all()
    assert (condition.render_u8[condition.is_rendered] == 120).all()
    back = pose_from(t_m=[0, 0, -1.0])
    panel = map_with_wall(0.5, 120, back, known=Known.MADE_UP)
    assert not (condition_at(wall_reference(2.0, 50), panel, back).render_u8[0, 20:28, 28:36] == 120).any()


def test_what_the_reference_sees_through_is_not_shown():
    """A wall at 1 m was seen once; the reference now looks through it at one 2 m away."""
    sideways = pose_from(t_m=[0.3, 0, 0])
    condition = condition_at(wall_reference(2.0, 50), map_with_wall(1.0, 120, np.eye(4)), sideways)
    assert (condition.render_u8 == 120).mean() < 0.03  # half a pixel beyond the reference's border may be


def test_a_thing_the_reference_cannot_see_hides_what_it_shows():
    """A panel behind the reference camera stands between the agent, further back, and the wall."""
    back = pose_from(t_m=[0, 0, -1.0])
    panel = map_with_wall(0.5, 120, back)  # at z = -0.5 in the world
    condition = condition_at(wall_reference(2.0, 50), panel, back)
    assert (condition.render_u8[0, 20:28, 28:36] == 120).all()
    assert (condition.known[0, 20:28, 28:36] == Known.MAP).all()
