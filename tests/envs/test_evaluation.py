"""Evaluation: a planner walks to its goals, a random policy does not; numbers, pictures and videos say so."""

import json
import math

import numpy as np
import pytest
from inspatio_envs.actions import DISCRETE
from inspatio_envs.evaluation import (
    FAILURE_COLOUR,
    START_COLOUR,
    SUCCESS_COLOUR,
    Trial,
    draw_path,
    draw_paths,
    evaluate,
    in_words,
    judge,
    record,
    split_episodes,
    summary,
    wilson_interval,
)
from inspatio_envs.vector_env import InspatioVectorEnv

from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.mapping.geodesic import descend
from inspatio_sim.mapping.grid import ros_from_world

STOP, FORWARD, LEFT, RIGHT = (DISCRETE.index(name) for name in ("stop", "forward", "turn_left", "turn_right"))
TURN_RAD = math.radians(30)


def make_envs(num_envs=4, **options):
    own = {
        "task": "pointnav",
        "generator": "warp",
        "size_px": (48, 80),
        "observations": ("depth", "grid", "goal"),
        "max_steps": 60,
        "episode_options": {"camera_height_m": 0.6},
        "action_options": {"turn_rad": TURN_RAD},
        "autoreset_mode": "Disabled",
    }
    envs = InspatioVectorEnv(num_envs, **own | options)
    envs.reset(seed=0)
    return envs


@pytest.fixture(scope="module")
def envs():
    return make_envs()


@pytest.fixture(scope="module")
def sampler(envs):
    return envs.envs[0].sampler


@pytest.fixture(scope="module")
def held_out(sampler):
    return split_episodes(sampler, 0, 12)[1]


def planner(envs):
    """Follows the shortest way on the floor plan, a quarter of a metre ahead."""

    def action(env):
        sampler, T_world_camera = env.sampler, env.world.T_world_camera
        goal_m, position_m = env.episode.goal_m, T_world_camera[:3, 3]
        if sampler.geodesic_m(position_m, goal_m) < 0.22:
            return STOP
        field_m, here = sampler.distance_field(goal_m), ros_from_world(position_m)
        cells = np.argwhere(np.isfinite(field_m))
        nearest = cells[np.linalg.norm(sampler.grid.centre_of(cells) - here, axis=1).argmin()]
        way = sampler.grid.centre_of(descend(field_m, tuple(nearest.tolist()), sampler.grid.resolution_m))
        ahead = [point for point in way if np.linalg.norm(point - here) >= 0.25]
        to = (ahead[0] if ahead else way[-1]) - here
        forward = np.array([T_world_camera[2, 2], -T_world_camera[0, 2]])
        angle_rad = np.arctan2(forward[0] * to[1] - forward[1] * to[0], forward @ to)
        return FORWARD if abs(angle_rad) <= TURN_RAD / 2 + 1e-3 else LEFT if angle_rad > 0 else RIGHT

    return lambda observations: np.array([action(env) for env in envs.envs])


def random(envs, seed=0):
    rng = np.random.default_rng(seed)
    return lambda observations: rng.choice([STOP, FORWARD, LEFT, RIGHT], envs.num_envs)


@pytest.fixture(scope="module")
def trials(envs, held_out):
    return evaluate(envs, planner(envs), held_out)


def test_a_planner_succeeds_by_nearly_the_shortest_way(trials, held_out):
    report = summary(trials)
    assert report["success"] >= 0.9
    assert report["spl"] >= 0.85
    assert all(0 <= trial.spl <= trial.success for trial in trials)
    assert [trial.episode for trial in trials] == held_out
    for trial in trials:
        assert trial.path_m.shape == (trial.num_steps + 1, 3)
        assert np.allclose(trial.path_m[0], np.array(trial.episode.T_world_start)[:3, 3])


def test_a_random_policy_hardly_ever_succeeds(envs, held_out):
    report = summary(evaluate(envs, random(envs), held_out))
    assert report["success"] <= 0.2
    assert report["spl"] <= report["success"]


def test_it_does_not_matter_how_many_play_at_once(trials, held_out):
    alone = make_envs(num_envs=1)
    for one, other in zip(evaluate(alone, planner(alone), held_out[:3]), trials[:3], strict=True):
        assert np.array_equal(one.path_m, other.path_m)
        assert (one.reward, one.spl) == (other.reward, other.spl)


def test_more_slots_than_episodes_and_progress(envs, held_out):
    shares = []
    trials = evaluate(envs, planner(envs), held_out[:2], progress=lambda what, share: shares.append((what, share)))
    assert len(trials) == 2
    assert shares[-1] == ("evaluation", 1.0)
    assert shares == sorted(shares)


def test_episodes_to_train_on_are_others(sampler, held_out):
    train, judged = split_episodes(sampler, 60, 12)
    assert judged == held_out
    assert len({episode.episode_id for episode in train + judged}) == 72
    start, goal = np.array([[np.array(e.T_world_start)[:3, 3], e.goal_m] for e in train]).transpose(1, 0, 2)
    for episode in judged:
        ends = np.array(episode.T_world_start)[:3, 3], episode.goal_m
        for first, second in (ends, ends[::-1]):
            away_m = np.maximum(np.linalg.norm(start - first, axis=1), np.linalg.norm(goal - second, axis=1))
            assert away_m.min() > 0.2
    assert split_episodes(sampler, 60, 12, seed=1)[1] != judged


def test_a_place_has_only_so_many_episodes(sampler):
    with pytest.raises(InputError, match="found 0 episodes of 5 in this place: want fewer"):
        split_episodes(sampler, 5, 1, apart_m=100.0)


@pytest.mark.parametrize(("successes", "trials", "low", "high"), [(8, 10, 0.490, 0.943), (0, 10, 0, 0.278)])
def test_wilson_interval(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-3)


def trial(episode, success, spl, **values):
    path_m = np.array([np.array(episode.T_world_start)[:3, 3]])
    own = {"soft_spl": spl, "distance_to_goal_m": 0.5, "num_steps": 4, "reward": 1.0, "path_m": path_m}
    return Trial(episode=episode, success=success, spl=spl, **own | values)


def test_summary(held_out):
    report = summary([trial(held_out[0], 1.0, 0.8), trial(held_out[1], 0.0, 0.0, num_steps=8)])
    assert (report["num_episodes"], report["num_successes"], report["success"]) == (2, 1, 0.5)
    assert report["spl"] == pytest.approx(0.4)
    assert report["spl_error"] == pytest.approx(0.4)  # std(ddof=1) / sqrt(2)
    assert report["num_steps"] == 6
    assert report["reward_error"] == 0
    assert in_words(report).startswith("success 0.50 (0.09 to 0.91; 1 of 2), SPL 0.40 ± 0.40")


def test_ahead_is_up_and_right_is_right(sampler, held_out):
    def centre(move_m):
        start_m = np.array(episode.T_world_start)[:3, 3] + move_m
        picture = draw_path(sampler, episode, np.stack([start_m, start_m]))
        return np.argwhere((picture == START_COLOUR).all(axis=2)).mean(axis=0)

    episode = max(held_out, key=lambda episode: episode.geodesic_m)
    open_around = [
        move for move in ([0, 0, 0.1], [0, 0, -0.1], [0.1, 0, 0], [-0.1, 0, 0]) if is_open(sampler, episode, move)
    ]
    assert len(open_around) >= 2
    for x, _, z in open_around:
        moved = centre([x, 0, z]) - centre([0, 0, 0])
        assert np.allclose(moved, [-80 * z, 80 * x], atol=1.0)  # 8 pixels a cell of 0.1 m


def is_open(sampler, episode, move_m):
    position_m = np.array(episode.T_world_start)[:3, 3] + move_m
    return bool(sampler.is_open[tuple(sampler.grid.cell_of(ros_from_world(position_m)))])


def test_colours_tell_success(sampler, trials):
    for success, colour in ((1.0, SUCCESS_COLOUR), (0.0, FAILURE_COLOUR)):
        picture = draw_path(sampler, trials[0].episode, trials[0].path_m, success)
        assert (picture == colour).all(axis=2).sum() > 20
    assert draw_paths(sampler, trials, max_panels=2).shape[1] < draw_paths(sampler, trials).shape[1]


def test_a_video_shows_every_step(envs, held_out, tmp_path):
    alone = make_envs(num_envs=1, layout="pictures")
    played = record(alone, planner(alone), held_out[:2], tmp_path / "episode.mp4")
    assert [each.success for each in played] == [each.success for each in evaluate(envs, planner(envs), held_out[:2])]
    clip = read_clip(tmp_path / "episode.mp4")
    assert len(clip.frames_u8) == sum(len(each.path_m) for each in played)


def test_judging_writes_everything(envs, held_out, tmp_path):
    def forward(observations):
        return np.full(len(observations["goal"]), FORWARD)

    report = judge(envs, forward, held_out[:2], tmp_path, actions=[FORWARD, LEFT], facts={"seed": 7})
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert {name: written[name] for name in report} == report
    assert report["seed"] == 7
    assert report["random"]["num_steps"] == 60  # it never stops
    assert [each["episode_id"] for each in written["trials"]["policy"]] == [e.episode_id for e in held_out[:2]]
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.json", "paths.png", "episode.mp4"}


def test_mistakes(envs, held_out, tmp_path):
    with pytest.raises(InputError, match="no episodes to evaluate on"):
        evaluate(envs, random(envs), [])
    with pytest.raises(InputError, match="envs has 4 slots: want one"):
        record(envs, random(envs), held_out[:1], tmp_path / "episode.mp4")
    with pytest.raises(InputError, match="autoreset_mode is SameStep: want autoreset_mode='Disabled'"):
        evaluate(make_envs(1, autoreset_mode="SameStep"), random(envs), held_out[:1])
    with pytest.raises(InputError, match="no trials to summarise"):
        summary([])
