"""N slots together are N envs alone, whatever happens to the episodes of others."""

import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from inspatio_envs.vector_env import InspatioVectorEnv

from inspatio_sim.errors import InputError
from inspatio_sim.scenes.demo import write_demo_clip
from inspatio_sim.world import loop
from tests.envs.conftest import IDS, make
from tests.envs.test_env import same

FAST = {"size_px": (48, 80), "generator": "warp"}
MIXED = [  # tasks, clips (one put in by the tests), seeds and limits differ from slot to slot
    {"task": "pointnav", "max_steps": 3, "seed": 11},
    {"task": "explore", "max_steps": 5, "frame_skip": 3},
    {"task": "free"},
    {"task": "imagenav", "max_steps": 2, "world_options": {"clock": "freeze"}},
]
VIEWS = ["rgb", "depth", "known", "grid", "pose"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_demo_clip(path, num_frames=8, size_px=(48, 80))
    return str(path)


def make_vec(name="PointNav", num_envs=3, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name = f"inspatio_envs:inspatio/{name}-v0"
        envs = gymnasium.make_vec(name, num_envs, "vector_entry_point", **FAST | options)
    assert isinstance(envs, InspatioVectorEnv)
    return envs


def single_envs(name, slots, **options):
    return [make(name, **options | slot) for slot in slots]


def rollout(envs, actions, seed):
    """Everything that a vector env hands out."""
    seen = [envs.reset(seed=seed)]
    return seen + [envs.step(action) for action in actions]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_slots_are_single_envs_of_gymnasiums_own_vector_env(mode, clip):
    slots = [*MIXED, {"task": "free", "video": clip, "max_steps": 4}]
    options = {"observations": VIEWS, "action": "unicycle"}
    envs = make_vec(num_envs=5, slots=slots, autoreset_mode=mode, **options)
    alone = [lambda slot=slot: make("PointNav", **options | slot) for slot in slots]
    expected = SyncVectorEnv(alone, autoreset_mode=mode)  # type: ignore[arg-type]
    assert envs.metadata["autoreset_mode"] == expected.metadata["autoreset_mode"] == AutoresetMode(mode)
    assert envs.observation_space == expected.observation_space
    assert envs.action_space == expected.action_space
    actions = np.random.default_rng(0).uniform(-1, 1, (9, 5, 2)).astype(np.float32)
    ours, theirs = rollout(envs, actions, 7), rollout(expected, actions, 7)
    for step, other in zip(ours, theirs, strict=True):
        assert envs.observation_space.contains(step[0])
        assert [part.dtype for part in step[1:-1]] == [part.dtype for part in other[1:-1]]
        assert infos_are_same(step[-1], other[-1])
        assert same(step[:-1], other[:-1])
    truncations = np.sum([step[3] for step in ours[1:]], axis=0)
    assert all(truncations[[0, 1, 3, 4]] >= 1)
    assert truncations[2] == 0


def infos_are_same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(infos_are_same(first[key], second[key]) for key in first)
    if isinstance(first, np.ndarray) and first.dtype == object:
        return all(same(*pair) for pair in zip(first, second, strict=True))
    return first.dtype == second.dtype and np.array_equal(first, second)


@pytest.mark.parametrize("name", IDS)
def test_every_id_makes_a_vector_env_of_slots_with_seeds_of_their_own(name):
    envs = make_vec(name, num_envs=2, seed=4, action="6dof")
    alone = single_envs(name, [{"seed": 4}, {"seed": 5}], action="6dof")
    starts = [env.reset() for env in alone]
    assert_slots_show(envs.reset()[0], starts)
    for actions in np.random.default_rng(0).uniform(-1, 1, (3, 2, 6)):
        assert_slots_show(envs.step(actions)[0], [env.step(a) for env, a in zip(alone, actions, strict=True)])
    json.dumps(envs.spec.kwargs if envs.spec else None)
    again = gymnasium.make_vec(envs.spec)  # type: ignore[arg-type]
    assert isinstance(again, InspatioVectorEnv)
    assert again.num_envs == 2


def assert_slots_show(observations, answers):
    for name, values in observations.items():
        assert np.array_equal(values, [answer[0][name] for answer in answers]), name


def test_all_worlds_share_one_call_of_the_generator(monkeypatch):
    envs = make_vec(num_envs=4, slots=[{}, {}, {"generator_options": {"frames_per_block": 2}}, {"frame_skip": 2}])
    envs.reset(seed=0)
    generator = envs.envs[0].world.generator
    assert envs.envs[3].world.generator is generator
    sizes = []
    generate = type(generator).generate
    monkeypatch.setattr(
        type(generator), "generate", lambda self, c, s: sizes.append(len(c)) or generate(self, c, s), raising=True
    )
    envs.step(np.ones(4, np.int64))
    assert sizes == [3, 1, 1]  # slot 2 has another generator; slot 3 takes two blocks
    sizes.clear()
    envs.reset(seed=1)
    assert sizes == [3, 1]


def test_disabled_waits_for_a_reset_mask():
    envs = make_vec(num_envs=3, max_steps=3, slots=[{}, {"max_steps": 1}, {}], autoreset_mode="Disabled")
    first, _ = envs.reset(seed=3)
    action = np.array([1, 5, 6])
    seen, _, _, truncated, _ = envs.step(action)
    assert truncated.tolist() == [False, True, False]
    before = [env.world.T_world_camera.copy() for env in envs.envs]
    with pytest.raises(ResetNeeded, match=r"end of the episode in slot 1: call reset\(options=\{'reset_mask'"):
        envs.step(action)
    assert same(before, [env.world.T_world_camera for env in envs.envs])
    options = {"reset_mask": np.array([False, True, False])}
    after, infos = envs.reset(seed=3, options=options)
    assert options.keys() == {"reset_mask"}
    assert infos["_episode_id"].tolist() == [False, True, False]
    for name in first:
        assert np.array_equal(after[name][1], first[name][1])
        assert np.array_equal(after[name][[0, 2]], seen[name][[0, 2]])
    assert envs.step(action)[3].tolist() == [False, True, False]


def test_options_for_all_slots_and_for_each():
    envs = make_vec("World", num_envs=2)
    pose = np.eye(4)
    pose[0, 3] = 0.25
    other = np.eye(4)
    other[2, 3] = 0.5
    seen, _ = envs.reset(options={"pose": pose, "slots": [None, {"pose": other}]})
    np.testing.assert_allclose(seen["pose"][:, :3], [[0.25, 0, 0], [0, 0, 0.5]], atol=1e-6)


def test_what_is_handed_out_stays_as_it_is():
    envs = make_vec("World", num_envs=2, observations=VIEWS)
    seen, _ = envs.reset(seed=0)
    kept = {name: values.copy() for name, values in seen.items()}
    envs.step(np.ones((2, 2), np.float32))
    assert same(seen, kept)
    for values in seen.values():
        values[:] = 0
    fresh, _ = envs.reset(seed=0)
    assert same(fresh, kept)


def test_wrappers_and_rendering_of_gymnasium():
    envs = make_vec(num_envs=2, max_steps=2, render_mode="rgb_array")
    assert envs.render() == (None, None)
    wrapped = DictInfoToList(RecordEpisodeStatistics(envs))
    wrapped.reset(seed=0)
    for _ in range(2):
        *_, infos = wrapped.step(np.zeros(2, np.int64) + 5)
    assert [info["episode"]["l"] for info in infos] == [2, 2]
    assert [frame.shape for frame in envs.render()] == [(48, 80, 3)] * 2
    wrapped.close()
    wrapped.close()
    assert envs.closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs=0: want a whole number of at least 1"),
        ({"num_envs": 2, "slots": [{}]}, "num_envs=2 with 1 slots: want num_envs=1"),
        ({"slots": [3]}, "slots=.*: want a list of dicts"),
        ({"autoreset_mode": "never"}, "autoreset_mode='never': want one of NextStep, SameStep, Disabled"),
        ({"slots": [{}, {"tsk": "free"}]}, "slot 1: unknown argument 'tsk': did you mean 'task'"),
        ({"max_episode_steps": 5}, "slot 0: unknown argument 'max_episode_steps': did you mean 'max_steps'"),
        ({"slots": [{}, {"size_px": (64, 96)}]}, "slot 1: its observation_space is"),
        ({"slots": [{}, {"action": "6dof"}]}, "slot 1: its action_space is"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        InspatioVectorEnv(**FAST | options)


def test_bad_calls():
    envs = make_vec(num_envs=2, action="unicycle")
    with pytest.raises(ResetNeeded, match="before reset"):
        envs.step(np.zeros((2, 2)))
    mask = np.array([True, False])
    with pytest.raises(ResetNeeded, match="leaves out slot 1, never reset"):
        envs.reset(options={"reset_mask": mask})
    envs.reset(seed=0)
    for actions, message in [
        (np.zeros((3, 2)), "actions: 3 for 2 slots"),
        (None, "actions: 0 for 2 slots"),
        (np.zeros((2, 3)), r"slot 0: action has shape \(3,\)"),
        (np.array([[0, 0], [0, np.nan]]), "slot 1: action .* NaN"),
    ]:
        before = envs.envs[0].world.T_world_camera.copy()
        with pytest.raises(InputError, match=message):
            envs.step(actions)
        assert np.array_equal(before, envs.envs[0].world.T_world_camera)
    for bad, message in [
        ([True, False], "reset_mask'] is list: want a numpy array"),
        (np.array([1, 0]), "is int64 of shape"),
        (np.array([True]), r"want a numpy array, bool, of shape \(2,\)"),
        (np.array([False, False]), "no True"),
    ]:
        with pytest.raises(InputError, match=message):
            envs.reset(options={"reset_mask": bad})
    with pytest.raises(InputError, match="seed has 1: want a list of 2"):
        envs.reset(seed=[1])
    with pytest.raises(InputError, match="slot 0: reset options mask"):
        envs.reset(options={"mask": mask})


def test_a_step_that_fails_leaves_all_slots_to_be_tried_again(monkeypatch):
    envs = make_vec("World", num_envs=2)
    action = np.full((2, 2), 0.5, np.float32)
    envs.reset(seed=0)
    expected = envs.step(action)
    envs.reset(seed=0)

    def fail(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "build_conditions", fail)
        with pytest.raises(MemoryError):
            envs.step(action)
    assert same(expected[0], envs.step(action)[0])


@pytest.mark.parametrize(
    ("generator", "generator_options"),
    [("star", {"block_latents": 1, "steps": [1000]}), ("frame", {"steps": [999], "paste_renders": False})],
)
def test_slots_of_networks_are_single_envs_up_to_rounding(generator, generator_options):
    options = {
        "generator": generator,
        "generator_options": {"random_weights": True, "dtype": "float32", **generator_options},
        "size_px": (32, 48),
        "max_frames": 8,
        "max_steps": 2,
        "observations": ["rgb", "depth", "pose"],
    }
    envs = make_vec("World", num_envs=2, **options)
    alone = single_envs("World", [{}, {}], **options)
    actions = np.array([[0.5, 0.2], [-0.5, 1]], np.float32)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(alone)]
    for seen in (envs.reset(seed=5)[0], envs.step(actions)[0]):
        for name, most in (("rgb", 1), ("depth", 1e-3), ("pose", 1e-6)):
            for i in range(2):
                difference = np.abs(seen[name][i].astype(np.float64) - expected[i][name])
                assert difference.max() <= most, name
        expected = [env.step(action)[0] for env, action in zip(alone, actions, strict=True)]
    assert np.abs(expected[0]["rgb"].astype(int) - expected[1]["rgb"]).max() > 10  # the slots do differ
