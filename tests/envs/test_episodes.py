"""Episodes of the demo room: where they lie, how long they are, and what the file says when it is wrong."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspatio_envs.episodes import (
    NUM_FIELDS_KEPT,
    Episode,
    EpisodeConfig,
    EpisodeSampler,
    load_episodes,
    reference_map,
    save_episodes,
)

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import WorldMap
from inspatio_sim.mapping.geodesic import descend
from inspatio_sim.mapping.grid import ros_from_world
from inspatio_sim.motion.camera import check_pose
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.world import map_config_for
from tests.mapping.synthetic import insert, look

RADIUS_M = 0.15
LOW = EpisodeConfig(camera_height_m=0.6)  # among the furniture
WALL = ((-0.1, -1.3, -0.2), (0.1, 1.1, 2.0))  # from behind the middle of the synthetic room to its far side


@pytest.fixture(scope="module")
def place():
    """The demo room as its clip shows it."""
    reference = reconstruct(demo_clip(num_frames=24, size_px=(48, 80)), method="rgbd")
    return reference, reference_map(reference, map_config_for(reference))


@pytest.fixture(scope="module")
def sampler(place):
    return EpisodeSampler(*place, LOW, body_radius_m=RADIUS_M)


@pytest.fixture(scope="module")
def walled(static_reference):
    """A room of 4 x 4 m with a wall from the middle on: from its left to its right side the way leads round its end."""
    world_map = WorldMap()
    for x_m, z_m in ((-0.8, 1.0), (-0.8, -1.0), (0.8, 1.0), (0.8, -1.0)):
        for yaw_rad in np.arange(0, 2 * np.pi, 0.5):
            insert(world_map, look(yaw_rad, (x_m, 0, z_m)), boxes=[WALL])
    config = EpisodeConfig(min_clearance_m=0)
    poses = np.stack([look(0, (-0.8, 0, 0.5))] * static_reference.num_frames)
    reference = dataclasses.replace(static_reference, T_world_camera=poses)
    return EpisodeSampler(reference, world_map, config, body_radius_m=RADIUS_M)


def start_of(episode):
    return np.array(episode.T_world_start)[:3, 3]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**63), difficulty=st.sampled_from(["easy", "medium", "hard", None]))
def test_every_episode_can_be_walked(place, sampler, seed, difficulty):
    world_map = place[1]
    episode = sampler.sample(np.random.default_rng(seed), difficulty)
    ends_m = np.stack([start_of(episode), episode.goal_m])
    assert (world_map.occupancy_at(ends_m) < 0).all()  # free, and somebody saw that
    aside_m = np.abs(ends_m[:, None] - world_map.occupied_voxels()) - world_map.config.occupancy_voxel_m / 2
    clearance_m = np.linalg.norm(np.maximum(aside_m, 0), axis=-1).min(axis=1)
    assert (clearance_m >= RADIUS_M + LOW.min_clearance_m - 1e-6).all()
    assert np.isfinite(sampler.distance_field(episode.goal_m)[tuple(sampler.grid.cell_of(ros_from_world(ends_m[0])))])
    assert episode.geodesic_m >= np.linalg.norm(ends_m[0] - ends_m[1]) * (1 - 1e-9)
    low_m, high_m = sampler.bands_m[episode.difficulty]
    assert low_m <= episode.geodesic_m <= high_m
    assert difficulty in (None, episode.difficulty)
    for T in (episode.T_world_start, episode.T_world_goal):
        np.testing.assert_allclose(check_pose(T), T, atol=1e-12)
        assert np.array(T)[:3, 1].tolist() == [0, 1, 0]  # level
    np.testing.assert_array_equal(np.array(episode.T_world_goal)[:3, 3], episode.goal_m)
    assert start_of(episode)[1] == episode.goal_m[1] == pytest.approx(world_map.floor_y_m() - 0.6)


def test_same_seed_same_episode(place, sampler):
    again = EpisodeSampler(*place, LOW, body_radius_m=RADIUS_M)
    first, second = ([one.sample(rng) for _ in range(20)] for one, rng in
                     ((sampler, np.random.default_rng(5)), (again, np.random.default_rng(5))))  # fmt: skip
    assert first == second
    assert len({episode.episode_id for episode in first}) == 20
    assert {episode.difficulty for episode in first} == {"easy", "medium", "hard"}
    assert sampler.sample(np.random.default_rng(6)) != first[0]


def test_bands_shrink_with_the_place(sampler):
    assert sampler.reach_m < 10
    edges_m = [sampler.bands_m["easy"][0], *(high_m for _, high_m in sampler.bands_m.values())]
    np.testing.assert_allclose(edges_m, np.array([1.5, 3, 6, 10]) * sampler.reach_m / 10)


def test_bands_of_a_large_enough_place_are_as_configured(place):
    config = dataclasses.replace(LOW, edges_m=(0.5, 1.0, 1.5, 2.0))
    sampler = EpisodeSampler(*place, config, body_radius_m=RADIUS_M)
    assert sampler.bands_m == {"easy": (0.5, 1.0), "medium": (1.0, 1.5), "hard": (1.5, 2.0)}


def test_headings(place, sampler):
    """Seen: a heading of the clip, which turns from 0 to 0.28 rad to the left. Any: all round."""
    anyhow = EpisodeSampler(*place, dataclasses.replace(LOW, start_heading="any"), body_radius_m=RADIUS_M)
    turned = {}
    for name, one in (("seen", sampler), ("any", anyhow)):
        episodes = [one.sample(np.random.default_rng(seed)) for seed in range(40)]
        forward = np.array([(e.T_world_start, e.T_world_goal) for e in episodes])[:, :, :3, 2]
        turned[name] = np.arctan2(forward[..., 0], forward[..., 2])
    for angles in (turned["seen"], turned["any"][:, 1]):
        assert angles.min() >= -0.29
        assert angles.max() <= 1e-9
    assert np.ptp(turned["any"][:, 0]) > np.pi


def test_ways_lead_round_the_wall(walled):
    left_m, right_m = (-1.0, 0.0, 1.0), (1.0, 0.0, 1.0)
    tip_m = -0.2 - RADIUS_M  # the way turns here, a little past the wall's end
    round_tip_m = 2 * np.hypot(1.0 - 0.1, 1.0 - tip_m) + 0.2
    cell_m = walled.grid.resolution_m
    assert round_tip_m - 4 * cell_m < walled.geodesic_m(left_m, right_m) < round_tip_m + 4 * cell_m
    assert walled.geodesic_m(right_m, left_m) == pytest.approx(walled.geodesic_m(left_m, right_m), abs=2 * cell_m)
    field_m = walled.distance_field(right_m)
    start = tuple(int(i) for i in walled.grid.cell_of(ros_from_world(left_m)))
    way = walled.grid.centre_of(descend(field_m, start, cell_m))
    assert way[:, 0].min() < -0.2  # x_ros: behind the wall's end
    assert not field_m.flags.writeable


def test_what_the_body_does_not_fit_through_is_closed(place):
    slim, stout = (EpisodeSampler(*place, LOW, body_radius_m=radius_m) for radius_m in (0.1, 0.25))
    assert stout.is_open.sum() < slim.is_open.sum()


@settings(deadline=None, max_examples=60)
@given(x_m=st.floats(-1.7, 1.7), z_m=st.floats(-1.7, 1.7))
def test_distances_to_a_goal_are_smooth(walled, x_m, z_m):
    """A step of 1 cm is never worth more than a few; nothing is nearer than straight ahead; walls have a distance."""
    goal_m = (1.0, 0.0, 1.0)
    here_m = walled.geodesic_m((x_m, 0.3, z_m), goal_m)
    assert np.isfinite(here_m)
    assert here_m >= np.hypot(x_m - 1.0, z_m - 1.0) * (1 - 1e-9)
    cell = tuple(walled.grid.cell_of(ros_from_world((x_m, 0, z_m))))
    if walled.is_open[max(cell[0] - 2, 0) : cell[0] + 3, max(cell[1] - 2, 0) : cell[1] + 3].all():
        assert walled.geodesic_m((x_m + 0.01, 0, z_m), goal_m) == pytest.approx(here_m, abs=0.016)


def test_only_some_fields_are_kept(walled):
    for row, column in np.argwhere(walled.is_open)[: NUM_FIELDS_KEPT + 5]:
        x_ros_m, y_ros_m = walled.grid.centre_of((row, column))
        walled.distance_field((-y_ros_m, 0, x_ros_m))
    assert len(walled._fields) == NUM_FIELDS_KEPT


@pytest.mark.parametrize("goal_m", [(0, 0, 1), (50, 0, 50), (2.5, 0, 0)])
def test_goals_out_of_reach_are_refused_with_one_that_is_not(walled, goal_m):
    with pytest.raises(InputError, match="cannot be reached: want a point .* such as ") as caught:
        walled.distance_field(goal_m)
    suggested_m = json.loads(str(caught.value).split("such as ")[1])
    assert np.isfinite(walled.distance_field(suggested_m)).any()


@pytest.mark.parametrize("goal_m", [(0, 0), (0, np.nan, 0)])
def test_goals_are_three_finite_numbers(walled, goal_m):
    with pytest.raises(InputError, match="goal_m is .* want three finite numbers"):
        walled.geodesic_m((0, 0, 0), goal_m)


def test_places_that_are_too_small_say_so(place, walled, static_reference):
    reference, world_map = place
    with pytest.raises(InputError, match="map is too small.* radius 1.9 m .*smaller body_radius_m"):
        EpisodeSampler(reference, world_map, body_radius_m=1.9)
    with pytest.raises(InputError, match=r"is 0\.00 m, want at least 1\.5 m"):
        EpisodeSampler(static_reference, WorldMap(), body_radius_m=RADIUS_M)
    high = EpisodeConfig(camera_height_m=9.0)
    with pytest.raises(InputError, match="9 m above the floor is 0.00 m.* another camera_height_m"):
        EpisodeSampler(reference, world_map, high, body_radius_m=RADIUS_M)
    with pytest.raises(InputError, match="no floor to measure from"):
        EpisodeSampler(static_reference, WorldMap(), LOW, body_radius_m=RADIUS_M)


def test_difficulties_that_are_not_there_say_so(place, sampler):
    with pytest.raises(InputError, match="difficulty='brutal': want one of easy, medium, hard"):
        sampler.sample(np.random.default_rng(0), "brutal")
    config = EpisodeConfig(edges_m=(1e-4, 2e-4, 3e-4, 10.0), camera_height_m=0.6, attempts=3)
    with pytest.raises(InputError, match="no easy episode .* among 3 goals: want another difficulty"):
        EpisodeSampler(*place, config, body_radius_m=RADIUS_M).sample(np.random.default_rng(0), "easy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges_m": (1, 2, 2, 3)}, "rising"),
        ({"edges_m": (1, 2, 3)}, "four"),
        ({"edges_m": 3}, "edges_m=3: want four"),
        ({"edges_m": ("a", 2, 3, 4)}, "want four positive, rising numbers"),
        ({"edges_m": (0, 1, 2, 3)}, "positive"),
        ({"min_reach_m": 0}, "min_reach_m=0"),
        ({"min_reach_m": "far"}, "min_reach_m='far'"),
        ({"camera_height_m": "low"}, "camera_height_m='low': want a positive number, or None"),
        ({"min_clearance_m": -1}, "min_clearance_m=-1"),
        ({"camera_height_m": float("nan")}, "camera_height_m=nan"),
        ({"start_heading": "up"}, "want seen or any"),
        ({"attempts": 0}, "attempts=0"),
    ],
)
def test_configs_check_themselves(options, message):
    with pytest.raises(InputError, match=message):
        EpisodeConfig(**options)


def test_files_come_back_as_they_went(sampler, tmp_path):
    episodes = [sampler.sample(np.random.default_rng(seed)) for seed in range(10)]
    save_episodes(tmp_path / "new" / "episodes.json", episodes, source="demo room")
    assert load_episodes(tmp_path / "new" / "episodes.json") == episodes
    text = (tmp_path / "new" / "episodes.json").read_text()
    assert json.loads(text)["source"] == "demo room"
    assert sum(episode.episode_id in line for line in text.splitlines() for episode in episodes) == 10
    save_episodes(tmp_path / "again.json", load_episodes(tmp_path / "new" / "episodes.json"), source="demo room")
    assert (tmp_path / "again.json").read_text() == text
    assert not list(tmp_path.rglob("*.part*"))


EYE = np.eye(4).tolist()
GOOD = {"episode_id": "a", "T_world_start": EYE, "goal_m": [0, 0, 1], "T_world_goal": EYE, "geodesic_m": 1.0,
        "difficulty": "easy"}  # fmt: skip


def content_of(*items, **head):
    return json.dumps({"format": "inspatio_episodes", "version": 1, "source": "test", "episodes": items} | head)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n\n!", "line 3: .* want JSON"),
        ("[]", 'want a JSON object with "format"'),
        ("[" * 100000, "no JSON text"),
        ("9" * 5000, "no JSON text|want a JSON object"),
        (content_of(GOOD, version=7), "version is 7: want 1"),
        (content_of(), r"episodes is \[\]: want a list"),
        (content_of(3), r"episodes\[0\] is 3: want an object"),
        (content_of(GOOD, GOOD), "'a' is there more than once"),
        (content_of(GOOD, {**GOOD, "episode_id": ""}), r"episodes\[1\].episode_id is '': want a text"),
        (content_of({key: GOOD[key] for key in GOOD if key != "goal_m"}), r"episodes\[0\] has no goal_m: want"),
        (content_of(GOOD | {"speed": 1}), r"has unknown speed: want"),
        (content_of(GOOD | {"goal_m": [0, 1]}), r"episodes\[0\].goal_m is \[0, 1\]: want 3 numbers"),
        (content_of(GOOD | {"goal_m": [0, 1, None]}), r"goal_m\[2\] is None: want a finite number"),
        (content_of(GOOD | {"goal_m": [0, True, 0]}), r"goal_m\[1\] is True: want a finite number"),
        (content_of(GOOD | {"goal_m": [0, 10**400, 0]}), r"goal_m\[1\] is .*: want a finite number"),
        (content_of(GOOD | {"geodesic_m": float("nan")}), "geodesic_m is nan: want a finite number"),
        (content_of(GOOD | {"geodesic_m": -1}), "geodesic_m is -1.0: want 0 or more"),
        (content_of(GOOD | {"T_world_start": EYE[:3]}), "T_world_start is .*: want 4 x 4 numbers"),
        (content_of(GOOD | {"T_world_goal": (2 * np.eye(4)).tolist()}), r"episodes\[0\].T_world_goal has last row"),
        (content_of(GOOD | {"difficulty": ["easy"]}), r"difficulty is \['easy'\]: want one of easy, medium, hard"),
    ],
)
def test_bad_files_name_line_or_key(tmp_path, text, message):
    path = tmp_path / "episodes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_episodes(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InputError, match="cannot read episodes .*No such file"):
        load_episodes(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no JSON text"):
        load_episodes(tmp_path / "binary.json")
    with pytest.raises(InputError, match="no episodes to save"):
        save_episodes(tmp_path / "empty.json", [], source="test")
    episode = Episode(**{key: json.loads(content_of(GOOD))["episodes"][0][key] for key in GOOD})
    with pytest.raises(InputError, match="'a' is there more than once"):
        save_episodes(tmp_path / "twice.json", [episode, episode], source="test")
    assert [path.name for path in tmp_path.iterdir()] == ["binary.json"]
