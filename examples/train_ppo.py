"""Teach an agent to walk to a goal (PointNav) with Stable-Baselines3's PPO.

    # learn in warp's frames, then be judged
    python examples/train_ppo.py --minutes 25
    # what is lost in star's frames?
    python examples/train_ppo.py --generator star --evaluate-only outputs/ppo/policy.zip --out outputs/gap
    # go on learning there
    python examples/train_ppo.py --generator star --init outputs/ppo/policy.zip --out outputs/star

The agent is 0.6 m tall, so furniture stands in its way. It sees depth, a floor plan of 2.4 m around it, and where the
goal is; it may stop, go forward 0.25 m, or turn left or right by 30 degrees. It is judged on episodes that it was
not trained on, beside a random policy. OUT then holds policy.zip, evaluation.json, paths.png, episode.mp4, the
episodes, and curves for `tensorboard --logdir OUT`. A policy.zip is unpickled: open only your own.
"""

import argparse
import importlib.util
import math
import os
import sys
import time
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import numpy as np
import torch
from gymnasium import spaces
from inspatio_envs.episodes import save_episodes
from inspatio_envs.evaluation import in_words, judge, split_episodes
from inspatio_envs.vector_env import InspatioVectorEnv
from torch import nn

from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.generators import GENERATORS, kind_by_name

if missing := [name for name in ("stable_baselines3", "tensorboard") if importlib.util.find_spec(name) is None]:
    sys.exit(f"train_ppo.py: missing: {', '.join(missing)}: pip install 'inspatio-sim[rl]'")
from inspatio_envs.sb3 import InspatioVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnvWrapper, VecMonitor

ACTIONS = np.array([0, 1, 5, 6])  # of the env's nine: stop, forward, turn left, turn right
LEARNING_RATE = 7e-4  # falls to a tenth


class Eyes(BaseFeaturesExtractor):
    """Depth [B, 1, H, W] and grid [B, 1, 24, 24], both 0..1, and goal [B, 4] -> features [B, 128]."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=128)

        def conv(inputs, outputs):
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU())

        def dense(inputs, outputs):
            return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())

        coarse = nn.AdaptiveAvgPool2d((16, 24))  # what stands in the way is large
        self.depth = nn.Sequential(coarse, conv(1, 16), conv(16, 32), nn.Flatten(), dense(32 * 4 * 6, 64))
        self.grid = nn.Sequential(conv(1, 16), conv(16, 32), nn.Flatten(), dense(32 * 6 * 6, 64))
        self.goal = dense(3, 64)
        self.body = nn.Sequential(dense(192, 128), dense(128, 128))

    def forward(self, seen):
        goal = seen["goal"][:, :3] * torch.tensor([0.3, 1.0, 1.0])  # distance, cos and sin of the bearing
        return self.body(torch.cat([self.depth(seen["depth"]), self.grid(seen["grid"]), self.goal(goal)], dim=1))


class Walker(VecEnvWrapper):
    """Only `ACTIONS`, and success under the name that Stable-Baselines3 logs."""

    def __init__(self, venv):
        super().__init__(venv, action_space=spaces.Discrete(len(ACTIONS)))

    def reset(self):
        return self.venv.reset()

    def step_async(self, actions):
        self.venv.step_async(ACTIONS[actions])

    def step_wait(self):
        seen, rewards, dones, infos = self.venv.step_wait()
        return seen, rewards, dones, [info | {"is_success": info["success"]} for info in infos]


class Budget(BaseCallback):
    """Ends the training when its time is over; lets the learning rate fall; writes a checkpoint every minute."""

    def __init__(self, args, path, progress):
        super().__init__()
        self.args, self.path, self.progress = args, path, progress

    def _on_training_start(self):
        self.now_s = time.monotonic()
        self.saved_s = self.model.seconds_trained

    def _on_step(self):
        now_s = time.monotonic()
        self.model.seconds_trained += now_s - self.now_s
        self.now_s = now_s
        return bool(self.args.steps) or share_done(self.args, self.model) < 1  # steps end with a whole rollout

    def _on_rollout_end(self):
        model, done = self.model, share_done(self.args, self.model)
        model.lr_schedule = lambda _: LEARNING_RATE * (1 - 0.9 * done)
        self.progress("training", done)
        if model.seconds_trained - self.saved_s >= 60:
            self.saved_s = model.seconds_trained
            save(model, self.path)
            newest = list(model.ep_info_buffer)
            success, reward = np.mean(model.ep_success_buffer), np.mean([episode["r"] for episode in newest])
            print(f"{model.num_timesteps} steps: success {success:.3g}, return {reward:.3g}", flush=True)


def share_done(args, model):
    if args.steps:
        return min(1.0, model.num_timesteps / args.steps)
    return min(1.0, model.seconds_trained / (60 * args.minutes))


def save(model, path):
    with replacing(path) as temporary, writing_to(path):
        model.save(temporary)


def load(path):
    want = "want a policy.zip that this program wrote"
    if not path.is_file():
        raise InputError(f"{path}: no such file: {want}")
    try:
        return PPO.load(path, device="cpu")
    except (OSError, ValueError, KeyError, AttributeError, AssertionError, BadZipFile, UnpicklingError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}: {want}") from error


def learn(args, envs, saved, path, progress):
    """PPO until the budget is spent, from scratch or from what was saved."""
    model = new_model(args, envs)
    if saved and args.resume:
        model.set_parameters(saved.get_parameters())
        model.num_timesteps, model.seconds_trained = saved.num_timesteps, saved.seconds_trained
        model.set_random_seed(args.seed + saved.num_timesteps)
    elif saved:
        model.policy.load_state_dict(saved.policy.state_dict())
    model.set_logger(configure(str(args.out / "tensorboard"), ["tensorboard"]))
    if share_done(args, model) < 1:
        steps = args.steps - model.num_timesteps if args.steps else sys.maxsize
        model.learn(steps, Budget(args, path, progress), reset_num_timesteps=False)
    save(model, path)
    return model


def new_model(args, envs):
    model = PPO(
        "MultiInputPolicy",
        envs,
        learning_rate=LEARNING_RATE,
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        ent_coef=0.01,
        policy_kwargs={"features_extractor_class": Eyes, "net_arch": []},
        seed=args.seed,
        device="cpu",
    )
    model.seconds_trained = 0.0  # kept in policy.zip
    with torch.no_grad():
        model.policy.action_net.bias[0] = -2.0  # who stops at once learns nothing
    return model


def main(args):
    torch.set_num_threads(args.num_threads)
    path = args.out / "policy.zip"
    begin = args.evaluate_only or args.init or (path if args.resume else None)
    model = load(begin) if begin else None
    if not (args.evaluate_only or args.resume) and path.exists():
        raise InputError(f"{path} is there already: want --resume to go on with it, or another --out")
    options = {
        "task": "pointnav",
        "video": args.video,
        "generator": args.generator,
        "generator_options": kind_by_name(args.generator).shortest_block,  # star: 4 frames a step, not 12
        "size_px": tuple(args.size),
        "observations": ("depth", "grid", "goal"),
        "layout": "pictures",
        "grid_cells": 24,  # of 0.1 m
        "action_options": {"move_m": 0.25, "turn_rad": math.radians(30)},
        "episode_options": {"camera_height_m": 0.6},
        "max_steps": 100,
    }
    judged = InspatioVectorEnv(min(args.num_envs, args.eval_episodes), autoreset_mode="Disabled", **options)
    judged.reset(seed=0)
    num_train = 0 if args.evaluate_only else args.train_episodes
    train, held_out = split_episodes(judged.envs[0].sampler, num_train, args.eval_episodes)
    save_episodes(args.out / "held_out_episodes.json", held_out, source=args.video or "demo room")
    facts = {"checkpoint": str(args.evaluate_only or path), "generator": args.generator, "seed": args.seed}
    with Terminal().progress() as progress:
        if not args.evaluate_only:
            file = args.out / "train_episodes.json"
            save_episodes(file, train, source=args.video or "demo room")
            envs = InspatioVectorEnv(
                args.num_envs,
                num_workers=args.num_workers,
                autoreset_mode="SameStep",
                episodes=str(file),
                **options,
            )
            model = learn(args, VecMonitor(Walker(InspatioVecEnv(envs))), model, path, progress)
            envs.close()
        facts |= {"steps": model.num_timesteps, "seconds": model.seconds_trained}

        def act(seen):
            return ACTIONS[model.predict(seen, deterministic=True)[0]]

        report = judge(judged, act, held_out, args.out, actions=ACTIONS, facts=facts, progress=progress)
    print(f"{args.out}: {report['steps']} steps in {report['seconds'] / 60:.1f} minutes")
    for name in ("policy", "random"):
        print(f"{name}: {in_words(report[name])}")


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def parsed(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=25, metavar="M", help="of training, loading and judging not counted (25)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of training, in all slots; in place of --minutes, so that a seed gives the same run",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, episodes and actions (0)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/ppo"), metavar="FOLDER", help="for all results (outputs/ppo)"
    )
    parser.add_argument("--video", metavar="CLIP", help="that the world is made from (the demo room)")
    parser.add_argument("--generator", choices=GENERATORS, default="warp", help="of the frames (warp)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(64, 96), metavar=("H", "W"), help="of frames in pixels (64 96)"
    )
    parser.add_argument("--num-envs", type=int, default=8, metavar="N", help="worlds that step together (8)")
    parser.add_argument(
        "--num-workers", type=int, metavar="N", help="processes that step them (warp: one a core; star: 0, none)"
    )
    parser.add_argument("--num-threads", type=int, default=2, metavar="N", help="of PyTorch (2)")
    parser.add_argument("--train-episodes", type=int, default=2000, metavar="N", help="to learn from (2000)")
    parser.add_argument("--eval-episodes", type=int, default=50, metavar="N", help="to be judged by (50)")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--init", type=Path, metavar="FILE", help="begin with the policy of this checkpoint")
    begin.add_argument("--resume", action="store_true", help="go on with the training in --out")
    begin.add_argument("--evaluate-only", type=Path, metavar="FILE", help="judge this checkpoint, train nothing")
    args = parser.parse_args(arguments)
    if not 0 < args.minutes < math.inf:
        parser.error(f"--minutes {args.minutes:g}: want more than 0")
    for name in ("steps", "num_envs", "num_threads", "train_episodes", "eval_episodes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: want 1 or more")
    if args.num_workers is None:
        has_network = bool(kind_by_name(args.generator).presets)
        args.num_workers = 0 if has_network else min(os.cpu_count() or 1, args.num_envs)
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: want 0 or more")
    return args


if __name__ == "__main__":
    try:
        main(parsed())
    except (InputError, OSError) as error:
        print(f"train_ppo.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "train_ppo.py: interrupted: --resume goes on from the checkpoint, which is written every minute",
            file=sys.stderr,
        )
        sys.exit(130)
