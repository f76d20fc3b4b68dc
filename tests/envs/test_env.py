"""The env keeps Gymnasium's contract, whatever it is asked for."""

import json
import subprocess
import sys
import warnings
from copy import deepcopy

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from inspatio_envs.config import EnvConfig
from inspatio_envs.env import InspatioEnv
from inspatio_envs.episodes import save_episodes
from inspatio_envs.window import window_problem

from inspatio_sim.errors import InputError
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.world.world import reset_worlds, step_worlds
from tests.envs.conftest import IDS, make

ALL = ["rgb", "depth", "known", "grid", "pose"]


def inner(env) -> InspatioEnv:
    assert isinstance(env.unwrapped, InspatioEnv)
    return env.unwrapped


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, np.ndarray) and first.dtype == object:
        return same(list(first), list(second))
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(same(*pair) for pair in zip(first, second, strict=True))
    return np.array_equal(first, second)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observations": ALL, "action": "unicycle"},
        {"observations": ALL, "action": "6dof", "time_control": True, "layout": "pictures"},
        {"action": "discrete", "time_control": True, "frame_skip": 2, "sparse": True},
        {"action": "discrete", "chunk_actions": True, "generator_options": {"frames_per_block": 3}},
        {
            "action": "unicycle",
            "time_control": True,
            "chunk_actions": True,
            "generator_options": {"frames_per_block": 3},
        },
    ],
    ids=["default", "unicycle", "6dof-time-pictures", "discrete-time-skip", "discrete-chunk", "unicycle-time-chunk"],
)
def test_check_env_has_nothing_to_say(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(name, render_mode="rgb_array", **options).unwrapped)


@pytest.mark.parametrize("name", ["PointNav", "ImageNav", "Follow"])
@pytest.mark.parametrize("layout", ["plain", "pictures"])
def test_check_env_with_all_that_a_goal_shows(name, layout):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(name, observations=[*ALL, "goal", "goal_image"], layout=layout).unwrapped)


def test_check_env_of_stable_baselines():
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    for name in IDS:
        for action in ("discrete", "unicycle", "6dof"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                checker.check_env(make(name, layout="pictures", observations=ALL, action=action).unwrapped)


ROLLOUT = """
import hashlib, json, sys
import numpy as np
from tests.envs.conftest import IDS, make
digest, envs = {}, []
for name in IDS:
    env = make(name, observations=["rgb", "depth", "known", "grid", "pose"])
    envs.append(env)  # they share one clip as long as one of them is there
    env.action_space.seed(5)
    sums = hashlib.sha256()
    observation, info = env.reset(seed=3)
    for _ in range(5):
        for key in sorted(observation):
            sums.update(np.ascontiguousarray(observation[key]).tobytes())
        sums.update(json.dumps(info, sort_keys=True).encode())
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        sums.update(repr((reward, terminated, truncated)).encode())
        if terminated or truncated:
            observation, info = env.reset()
    digest[name] = sums.hexdigest()
"""


def test_seeded_rollouts_are_the_same_in_another_process():
    other = subprocess.run(
        [sys.executable, "-c", ROLLOUT + "print(json.dumps(digest))"], capture_output=True, text=True, check=True
    )
    here = {}
    exec(ROLLOUT, here)  # noqa: S102 - the same lines as there
    assert json.loads(other.stdout.splitlines()[-1]) == here["digest"]
    assert len(set(here["digest"].values())) == len(IDS) - 1  # without their goals PointNav and ImageNav are one


def test_other_seeds_are_other_episodes():
    env = make("PointNav")
    ids = {env.reset(seed=seed)[1]["episode_id"] for seed in range(4)}
    assert len(ids) > 1
    again = {env.reset(seed=seed)[1]["episode_id"] for seed in range(4)}
    assert again == ids
    assert make("PointNav", seed=2).reset()[1]["episode_id"] == env.reset(seed=2)[1]["episode_id"]


@pytest.mark.parametrize("name", IDS)
def test_snapshot_and_go_on_is_go_on(name):
    env = make(name, action="unicycle", observations=ALL)
    env.reset(seed=1)
    env.step(np.array([0.3, 1], np.float32))
    snapshot = inner(env).snapshot()
    actions = [np.array(action, np.float32) for action in ([1, 0.2], [1, -1], [0.5, 0])]
    went_on = [deepcopy(env.step(action)) for action in actions]
    back, _ = inner(env).restore(snapshot)
    assert np.array_equal(back["pose"], inner(env).observe_as("pose"))
    assert same(went_on, [env.step(action) for action in actions])
    fork = make(name, action="unicycle", observations=ALL)
    inner(fork).restore(snapshot)
    assert same(went_on, [inner(fork).step(action) for action in actions])
    assert same(env.reset(), fork.reset())  # random numbers go on as well


def test_many_in_one_batch_are_as_one_by_one():
    singles = [inner(make("PointNav", frame_skip=2)) for _ in range(3)]
    batch = [inner(make("PointNav", frame_skip=2)) for _ in range(3)]
    alone = [env.reset(seed=i) for i, env in enumerate(singles)]
    asked = [env.plan_reset(i, None) for i, env in enumerate(batch)]
    seeds, poses = zip(*asked, strict=True)
    first = reset_worlds([env.world for env in batch], seeds, poses)
    assert same(alone, [env.finish_reset(observation) for env, observation in zip(batch, first, strict=True)])
    for action in (1, 5, 1):
        alone = [env.step(action) for env in singles]
        motions, times = zip(*[env.plan(action) for env in batch], strict=True)
        for observation, env in zip(step_worlds([env.world for env in batch], motions, times), batch, strict=True):
            env.watch(observation)
        last = step_worlds([env.world for env in batch], motions, times)
        assert same(alone, [env.finish(observation) for env, observation in zip(batch, last, strict=True)])


def test_positive_turn_is_left_and_forward_is_ahead():
    env = inner(make())
    env.reset(seed=0)
    start = env.world.T_world_camera
    env.step(np.array([0, 1], np.float32))
    assert (start[:3, 0] @ env.world.T_world_camera[:3, 2]) < 0  # looks towards -x: left
    env.reset(seed=0)
    env.step(np.array([1, 0], np.float32))
    assert env.world.T_world_camera[2, 3] == pytest.approx(1 / 12)  # 1 m/s, 12 frames a second


def test_an_action_takes_all_blocks_of_its_step():
    env = inner(make(action="discrete", frame_skip=5))
    env.reset(seed=0)
    info = env.step(1)[-1]
    assert env.world.T_world_camera[2, 3] == pytest.approx(0.25)
    assert info["time_s"] == pytest.approx(5 / 12)


def test_one_action_a_frame():
    env = inner(
        make(action="discrete", chunk_actions=True, generator_options={"frames_per_block": 3}, observations=["pose"])
    )
    env.reset(seed=0)
    env.step(np.array([1, 5, 1]))  # forward, turn left, forward
    turned = np.radians(15)
    assert env.world.T_world_camera[:3, 3] == pytest.approx(
        [-0.25 * np.sin(turned), 0, 0.25 + 0.25 * np.cos(turned)], abs=1e-9
    )


def test_a_world_takes_one_motion_a_frame_or_one_for_all():
    env = inner(make(generator_options={"frames_per_block": 3}))
    env.reset(seed=0)
    forward = PoseDelta.from_twist([0, 0, 0.1], [0, 0, 0], 1.0)
    observation = env.world.step([forward, forward.inverse(), forward], ["freeze", None, "reverse"])
    assert observation.T_world_camera[:, 2, 3] == pytest.approx([0.1, 0, 0.1])
    assert np.diff(observation.reference_frame_idx).tolist() == [1, -1]
    before = env.world.T_world_camera
    for motion, clock, message in (
        ([forward] * 2, None, "motion: 2 for a block of 3 frames"),
        ([forward, forward, 1.0], None, "motion is a float"),
        (forward, ["slow"], "clock: 1 for a block of 3 frames"),
        (forward, ["slow", "fast", None], "clock='fast'"),
    ):
        with pytest.raises(InputError, match=message):
            env.world.step(motion, clock)
    assert np.array_equal(env.world.T_world_camera, before)


def test_time_is_an_action():
    env = inner(make(action="discrete", time_control=True))
    env.reset(seed=0)
    shown = []
    for time in (3, 3, 1, 0):  # play, play, freeze, reverse
        env.step(np.array([0, time]))
        shown.append(env.world.clock.frame_idx)
    assert shown == [1, 2, 2, 1]


def test_info_is_plain_and_holds_no_wall_clock():
    env = make("PointNav")
    env.reset(seed=0)
    info = env.step(1)[-1]
    json.dumps(info)
    assert [name for name in info if name.endswith("_s")] == ["time_s"]
    assert info["time_s"] == pytest.approx(1 / 12)


def test_observations_are_copies():
    env = make(observations=ALL)
    observation, _ = env.reset(seed=0)
    kept = deepcopy(observation)
    for array in observation.values():
        array[...] = 0
    snapshot = inner(env).restore(inner(env).snapshot())[0]
    assert same(kept, snapshot)


def test_render_modes():
    env = make(render_mode="rgb_array_list", generator_options={"frames_per_block": 3})
    env.reset(seed=0)
    env.step(np.array([1, 0], np.float32))
    assert len(env.render()) == 6
    assert env.render() == []
    assert env.metadata["render_fps"] == 12
    depth = make(render_mode="depth_array")
    observation, _ = depth.reset(seed=0)
    assert np.array_equal(depth.render(), observation["depth"])
    assert make(render_mode="rgb_array", frame_skip=4).metadata["render_fps"] == 3


@pytest.mark.skipif(window_problem() is None, reason="a window can be opened here")
def test_human_without_a_display_says_so():
    with pytest.raises(InputError, match="render_mode='human': there is no display|no tkinter"):
        make(render_mode="human")
    assert "human" not in make().metadata["render_modes"]


def test_close_twice_and_go_on():
    env = make()
    first = env.reset(seed=0)
    inner(env).close()
    inner(env).close()
    with pytest.raises(ResetNeeded, match="before reset"):
        inner(env).step(np.zeros(2, np.float32))
    assert same(first, inner(env).reset(seed=0))


def test_reset_elsewhere():
    env = inner(make("PointNav"))
    env.reset(seed=0)
    episode = env.episode
    assert episode is not None
    env.reset(seed=5, options={"episode": episode})
    assert env.episode == episode
    as_json = json.loads(json.dumps(episode, default=vars))
    env.reset(options={"episode": as_json})
    assert env.episode == episode
    pose = np.eye(4)
    _, info = env.reset(options={"episode": episode, "pose": pose})
    assert np.array_equal(env.world.T_world_camera, pose)
    assert env.episode is not None
    assert env.episode.geodesic_m == pytest.approx(info["distance_to_goal_m"])


def test_episodes_of_a_file(tmp_path):
    env = inner(make("PointNav"))
    episodes = []
    for seed in range(3):
        env.reset(seed=seed)
        episodes.append(env.episode)
    path = str(tmp_path / "episodes.json")
    save_episodes(path, episodes, source="demo")
    env = inner(make("PointNav", episodes=path))
    for episode in episodes:
        assert env.reset(options={"episode": episode.episode_id})[1]["episode_id"] == episode.episode_id
    assert {env.reset(seed=seed)[1]["episode_id"] for seed in range(20)} == {e.episode_id for e in episodes}
    with pytest.raises(InputError, match="want an id of the file"):
        env.reset(options={"episode": "nowhere"})


def test_another_clip_for_one_episode(tmp_path):
    clip = str(write_demo_clip(tmp_path / "clip", num_frames=4, size_px=(48, 80), seed=3))
    env = inner(make())
    usual, _ = env.reset(seed=0)
    other, _ = env.reset(seed=0, options={"video": clip})
    assert not np.array_equal(usual["rgb"], other["rgb"])
    assert env.world.reference.num_frames == 4
    snapshot = env.snapshot()
    assert same(usual, env.reset(seed=0)[0])
    assert same(other, env.restore(snapshot)[0])
    assert same(other, make(video=clip).reset(seed=0)[0])


def test_limits_of_trust_and_time_truncate():
    env = make(max_hallucinated_fraction=0.2)
    env.reset(seed=0)
    for _ in range(12):
        *_, truncated, info = env.step(np.array([0, -1], np.float32))
        assert truncated == (info["hallucinated_fraction"] > 0.2)
        assert info["left_trust"] == ("hallucinated_fraction" if truncated else "")
        if truncated:
            break
    assert truncated
    with pytest.raises(ResetNeeded, match="after the end"):
        inner(env).step(np.zeros(2, np.float32))
    env = make(max_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(2, np.float32))[3] for _ in range(2)] == [False, True]


def test_kwargs_survive_json():
    env = make("PointNav", observations=["grid", "goal"], action_options={"move_m": 0.2}, grid_cells=40)
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space
    assert inner(again).config.action_options == {"move_m": 0.2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vidoe": "a.mp4"}, "unknown argument 'vidoe': did you mean 'video'"),
        ({"video": "/nowhere/clip.mp4"}, "/nowhere/clip.mp4"),
        ({"size_px": (48,)}, "size_px"),
        ({"size_px": [48.5, 80]}, "size_px"),
        ({"generator": "wrap"}, "generator='wrap': want one of star, frame, warp"),
        ({"preset": "tiny"}, "has no option preset"),
        ({"generator_options": {"speed": 1}}, "has no option speed"),
        ({"generator": "star", "generator_options": {"block_latents": "x"}}, "block_latents='x'"),
        ({"generator": "star", "generator_options": {"speed": 1}}, "has no option speed"),
        ({"world_options": {"radius": 1}}, "world_options has radius"),
        ({"world_options": {"body_radius_m": "big"}}, "world_options: "),
        ({"world_options": {"map": {}}}, "world_options has map="),
        ({"video": 3}, "video=3: want a path"),
        ({"video": ()}, "video=(): want a path"),
        ({"episodes": 3}, "episodes=3"),
        ({"fps": "fast"}, "fps='fast'"),
        ({"fps": 0}, "fps=0"),
        ({"sparse": "yes"}, "sparse='yes': want True or False"),
        ({"world_options": {"body_radius_m": -1}}, "body_radius_m=-1"),
        ({"action": "drive"}, "action='drive'"),
        ({"action_options": {"move": 1}}, "action_options has move"),
        ({"action": "6dof", "action_options": {"speed_mps": 0}}, "speed_mps=0"),
        ({"task_options": {"slack": 1}}, "task_options has slack"),
        ({"observations": ["rgbd"]}, "observations='rgbd'"),
        ({"observations": []}, "observations=()"),
        ({"observations": ["goal"], "task": "free"}, "the task 'free' has no goal"),
        ({"frame_skip": 0}, "frame_skip=0"),
        ({"frame_skip": 2, "chunk_actions": True}, "chunk_actions with frame_skip=2"),
        ({"max_steps": 1.5}, "max_steps=1.5"),
        ({"max_drift": float("nan")}, "max_drift=nan"),
        ({"difficulty": "trivial"}, "difficulty='trivial'"),
        ({"episodes": "/nowhere/episodes.json"}, "/nowhere/episodes.json"),
        ({"action": "6dof", "task_options": {"needs_stop": True}}, "this action space has no stop"),
        ({"grid_cells": True}, "grid_cells=True"),
        ({"render_mode": "hologram"}, "render_mode='hologram'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError) as error:
        InspatioEnv(**{"task": "pointnav", "size_px": (48, 80), "generator": "warp"} | options).reset(seed=0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("action", "value", "message"),
    [
        ("discrete", 9, "want 0 to 8"),
        ("discrete", -1, "want 0 to 8"),
        ("discrete", 1.0, "want whole numbers"),
        ("discrete", True, "want whole numbers"),
        ("discrete", [1], "shape"),
        ("discrete", None, "want whole numbers"),
        ("unicycle", [0.0], "shape (1,): want (2,)"),
        ("unicycle", [0.0, np.nan], "NaN"),
        ("unicycle", ["a", "b"], "want numbers"),
        ("6dof", np.zeros((6, 1)), "want (6,)"),
        ("6dof", [[0.0], [0.0, 1.0]], "want numbers"),
    ],
)
def test_bad_actions_change_nothing(action, value, message):
    env = inner(make(action=action))
    first, _ = env.reset(seed=0)
    with pytest.raises(InputError) as error:
        env.step(value)
    assert message in str(error.value)
    assert same(env.restore(env.snapshot())[0], first)
    assert env.step(env.action_space.sample())[-1]["time_s"] == pytest.approx(1 / 12)


def test_bad_resets():
    env = inner(make("PointNav"))
    with pytest.raises(ResetNeeded, match="before reset"):
        env.step(0)
    with pytest.raises(ResetNeeded, match="before reset"):
        env.snapshot()
    for options, message in (
        ({"goal": 1}, "reset options goal"),
        ([1], "options is a list: want a dict"),
        ({"pose": "origin"}, "options\\['pose'\\] is 'origin': want a 4x4 matrix"),
        ({"pose": np.zeros((4, 4))}, "options\\['pose'\\]"),
        ({"episode": 3}, "options\\['episode'\\] is a int"),
        ({"episode": {"goal_m": [0, 0, 0]}}, "want the fields"),
        ({"video": 7}, "options\\['video'\\]"),
        ({"video": "/nowhere.mp4"}, "/nowhere.mp4"),
    ):
        with pytest.raises(InputError, match=message):
            env.reset(options=options)
    env.reset(seed=0)


def test_impossible_episodes_say_so():
    env = inner(make("PointNav"))
    env.reset(seed=0)
    assert env.episode is not None
    with pytest.raises(InputError, match="cannot be reached: want a point"):
        env.reset(options={"episode": vars(env.episode) | {"goal_m": (50.0, 0.0, 50.0)}})
    with pytest.raises(InputError, match="too small"):
        make("PointNav", world_options={"body_radius_m": 1.9}).reset(seed=0)


def test_config_or_options():
    config = EnvConfig(size_px=(48, 80), generator="warp", action="unicycle")
    assert same(InspatioEnv(config).reset(seed=0), make().reset(seed=0))
    with pytest.raises(InputError, match="want one config"):
        InspatioEnv(config, task="free")


def test_bad_snapshots():
    env = inner(make("PointNav"))
    env.reset(seed=0)
    other = inner(make("World"))
    other.reset(seed=0)
    for snapshot, message in (("x", "snapshot is a str"), (other.snapshot(), "another task or size_px")):
        with pytest.raises(InputError, match=message):
            env.restore(snapshot)
    env.step(1)
