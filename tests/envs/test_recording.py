"""Gymnasium's recorders, windows and everyday wrappers around an env, and what they make of it."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import av
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.wrappers import vector

from inspatio_sim.scenes.demo import write_demo_clip
from tests.envs.conftest import make
from tests.envs.test_env import same
from tests.envs.test_vector_env import make_vec

needs_moviepy = pytest.mark.skipif(find_spec("moviepy") is None, reason="moviepy is not installed")
needs_pygame = pytest.mark.skipif(find_spec("pygame") is None, reason="pygame is not installed")
needs_xvfb = pytest.mark.skipif(
    shutil.which("Xvfb") is None or find_spec("_tkinter") is None, reason="no Xvfb to open a window on, or no tkinter"
)
STOP, FORWARD, TURN_LEFT = 0, 1, 5


def read_video(path):
    """Frames, and how many a second."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    assert rate is not None
    return np.stack(frames), float(rate)


def looks_like(video, frame):
    """Compression left the picture what it was."""
    return np.abs(video.astype(float) - frame).mean() < 8  # other frames are 12 to 35 away


@needs_moviepy
@pytest.mark.parametrize("frame_skip", [1, 3])
def test_a_video_has_a_frame_for_each_step_and_plays_as_fast_as_time_goes(tmp_path, frame_skip):
    env = make("PointNav", render_mode="rgb_array", frame_skip=frame_skip, max_steps=5)
    recorder = wrappers.RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    expected = []
    for seed in range(2):
        observation, _ = recorder.reset(seed=seed)
        expected.append([observation["rgb"]])
        while len(expected[-1]) < 6:
            observation, _, _, truncated, _ = recorder.step(TURN_LEFT)
            expected[-1].append(observation["rgb"])
        assert truncated
    recorder.close()
    for episode, shown in enumerate(expected):
        frames, fps = read_video(tmp_path / "videos" / f"rl-video-episode-{episode}.mp4")
        assert frames.shape[1:] == (48, 80, 3)
        assert len(frames) in (5, 6)  # moviepy 2.2 leaves out the last one of some lengths
        assert fps == pytest.approx(12 / frame_skip)
        assert all(looks_like(frame, other) for frame, other in zip(frames, shown, strict=False))


@needs_moviepy
def test_a_clip_of_another_rate_is_known_after_the_first_reset(tmp_path):
    clip = str(write_demo_clip(tmp_path / "clip.mp4", num_frames=6, size_px=(48, 80), fps=24))
    env = make(video=clip, render_mode="rgb_array")
    assert env.metadata["render_fps"] == 12
    env.reset(seed=0)
    with wrappers.RecordVideo(env, str(tmp_path / "videos")) as recorder:
        recorder.reset(seed=0)
        recorder.step(recorder.action_space.sample())
    assert read_video(tmp_path / "videos" / "rl-video-episode-0.mp4")[1] == 24


@needs_moviepy
def test_all_frames_of_all_blocks_can_be_saved(tmp_path):
    from gymnasium.utils.save_video import save_video

    env = make(render_mode="rgb_array_list", generator_options={"frames_per_block": 3}, frame_skip=2)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.array([0.5, 1], np.float32))
    save_video(env.render(), str(tmp_path), fps=env.metadata["render_fps"], episode_trigger=lambda episode: True)
    frames, fps = read_video(tmp_path / "rl-video-episode-0.mp4")
    assert len(frames) in (14, 15)  # 3 + 2 * 6; see above
    assert fps == 12


@needs_moviepy
def test_slots_side_by_side_in_one_video(tmp_path):
    envs = make_vec(num_envs=4, render_mode="rgb_array", max_steps=3)
    recorder = vector.RecordVideo(envs, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    observations, _ = recorder.reset(seed=0)
    first = observations["rgb"]
    for _ in range(3):
        recorder.step(np.full(4, TURN_LEFT))
    recorder.close()
    frames, fps = read_video(tmp_path / "videos" / "rl-video-episode-0.mp4")
    assert frames.shape == (4, 96, 160, 3)
    assert fps == 12
    assert looks_like(frames[0], np.block([[[first[0]], [first[1]]], [[first[2]], [first[3]]]]))


@needs_moviepy
def test_gymnasium_says_when_a_folder_has_videos_already(tmp_path):
    for _ in range(2):
        if any(tmp_path.iterdir()):
            with pytest.warns(UserWarning, match="Overwriting existing videos"):
                recorder = wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path / "videos"))
        else:
            recorder = wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path / "videos"))
        recorder.reset(seed=0)
        recorder.step(recorder.action_space.sample())
        recorder.close()
    assert len(list((tmp_path / "videos").iterdir())) == 1


def test_frames_can_be_collected_by_gymnasium_too():
    env = wrappers.RenderCollection(make(render_mode="rgb_array"))
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    assert [frame.shape for frame in env.render()] == [(48, 80, 3)] * 2


@needs_pygame
@pytest.mark.parametrize("render_mode", ["rgb_array", "rgb_array_list"])
def test_the_window_of_gymnasium(render_mode, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make(render_mode=render_mode)
    env.metadata["render_fps"] = 1000  # it waits in between
    shown = wrappers.HumanRendering(env)
    observation, _ = shown.reset(seed=0)
    import pygame

    assert np.array_equal(pygame.surfarray.array3d(shown.window), observation["rgb"].transpose(1, 0, 2))
    shown.close()


def test_everyday_wrappers():
    env = wrappers.RecordEpisodeStatistics(make("PointNav", render_mode="rgb_array_list", max_steps=3))
    env.reset(seed=0)
    rewards = [env.step(FORWARD) for _ in range(3)]
    assert rewards[-1][-1]["episode"]["l"] == 3
    assert rewards[-1][-1]["episode"]["r"] == pytest.approx(sum(step[1] for step in rewards))
    assert len(env.render()) == 4

    env = wrappers.TimeLimit(make("PointNav", max_steps=None), 2)
    env.reset(seed=0)
    assert [env.step(FORWARD)[3] for _ in range(2)] == [False, True]

    plain = make("PointNav", observations=["known", "goal"])
    flat = wrappers.FlattenObservation(make("PointNav", observations=["known", "goal"]))
    assert isinstance(flat.observation_space, spaces.Box)
    expected = spaces.flatten(plain.observation_space, plain.reset(seed=0)[0])
    assert np.array_equal(flat.reset(seed=0)[0], expected)
    assert expected.shape == (48 * 80 + 4,)

    only = plain.observation_space["known"]
    env = wrappers.TransformObservation(plain, lambda observation: observation["known"], only)
    observation, _ = env.reset(seed=0)
    assert only.contains(observation)
    assert np.array_equal(wrappers.FilterObservation(plain, ["goal"]).reset(seed=0)[0]["goal"], expected[:4])
    stacked = wrappers.FrameStackObservation(env, 3)
    assert stacked.observation_space.contains(stacked.reset(seed=0)[0])


def test_everyday_wrappers_of_many():
    make_slots = {"num_envs": 2, "observations": ["known", "goal"]}
    seen, _ = make_vec(**make_slots).reset(seed=0)
    flat = vector.FlattenObservation(make_vec(**make_slots))
    observation, _ = flat.reset(seed=0)
    assert np.array_equal(observation, np.concatenate([seen["goal"], seen["known"].reshape(2, -1)], axis=1))
    envs = make_vec(**make_slots)
    near = vector.TransformObservation(
        envs, lambda seen: seen["goal"], single_observation_space=envs.single_observation_space["goal"]
    )
    assert np.array_equal(near.reset(seed=0)[0], seen["goal"])
    halved = vector.TransformReward(near, lambda reward: reward / 2)
    expected = make_vec(**make_slots)
    expected.reset(seed=0)
    halved.reset(seed=0)
    action = np.array([FORWARD, TURN_LEFT])
    assert same(halved.step(action)[1], expected.step(action)[1] / 2)
    filtered = vector.FilterObservation(make_vec(**make_slots), ["goal"])
    assert filtered.reset(seed=0)[0].keys() == {"goal"}


WINDOW = """
import sys
import numpy as np
from pathlib import Path
from tests.envs.conftest import make

def screen():
    data = Path(sys.argv[1], "Xvfb_screen0").read_bytes()  # an XWD file, 32 bits a pixel
    header = np.frombuffer(data, ">u4", 25)
    height, width, start = header[5], header[4], header[0] + 12 * header[19]
    return np.frombuffer(data, np.uint8, height * width * 4, start).reshape(height, width, 4)[..., 2::-1]

env = make("PointNav", render_mode="human")
assert "human" in env.metadata["render_modes"]
assert not screen().any()
window = None
for act in (lambda: env.reset(seed=0), lambda: env.step(5)):
    frame = act()[0]["rgb"].repeat(10, 0).repeat(10, 1)
    window = env.unwrapped._window
    window._root.update()
    shown = screen()
    assert np.array_equal(shown[: frame.shape[0], : frame.shape[1]], frame), np.abs(shown[:480, :800] - frame).max()
    assert not shown[frame.shape[0] :].any()
assert env.render() is None
window.close()  # as its button does
window.show(frame)
env.step(1)
env.close()
env.close()
print("closed")
"""


@needs_xvfb
def test_a_window_shows_the_frame_until_it_is_closed(tmp_path):
    read, write = os.pipe()
    options = ["-displayfd", str(write), "-screen", "0", "900x600x24", "-nolisten", "tcp", "-fbdir", str(tmp_path)]
    server = subprocess.Popen(["Xvfb", *options], pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as answer:
            number = answer.readline().strip()
        assert number, "Xvfb says which display it is"
        script = subprocess.run(
            [sys.executable, "-c", WINDOW, str(tmp_path)],
            env={**os.environ, "DISPLAY": f":{number}"},
            capture_output=True,
            text=True,
        )
        assert script.stdout == "closed\n", script.stderr
    finally:
        server.terminate()
        server.wait()


@pytest.mark.skipif(find_spec("_tkinter") is None, reason="this Python has no tkinter")
def test_a_display_that_does_not_answer():
    script = """
from inspatio_sim.errors import InputError
from tests.envs.conftest import make
try:
    make(render_mode="human").reset(seed=0)
except InputError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "DISPLAY": ":977"}, capture_output=True, text=True
    )
    assert result.stdout.count("\n") == 1
    assert "render_mode='human'" in result.stdout
    assert "want a display that answers, or render_mode='rgb_array'" in result.stdout
    assert "Traceback" not in result.stderr
