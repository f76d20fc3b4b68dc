"""Teach an agent to walk to a goal (PointNav) with PPO: one file, PyTorch only, after CleanRL's ppo.py.

    # learn in warp's frames, then be judged
    python examples/cleanrl_ppo.py --minutes 25
    # what is lost in star's frames?
    python examples/cleanrl_ppo.py --generator star --evaluate-only outputs/cleanrl/policy.safetensors --out outputs/gap
    # go on learning there
    python examples/cleanrl_ppo.py --generator star --init outputs/cleanrl/policy.safetensors --out outputs/star

The agent is 0.6 m tall, so furniture stands in its way. It sees depth, a floor plan of 2.4 m around it, and where the
goal is; it may stop, go forward 0.25 m, or turn left or right by 30 degrees. It is judged on episodes that it was
not trained on, beside a random policy. OUT then holds policy.safetensors, evaluation.json, paths.png, episode.mp4,
the episodes, and curves for `tensorboard --logdir OUT`.

Source: Schulman et al., Proximal policy optimization algorithms (2017); Huang et al., CleanRL (2022).
"""

import argparse
import math
import os
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
from inspatio_envs.episodes import save_episodes
from inspatio_envs.evaluation import in_words, judge, split_episodes
from inspatio_envs.vector_env import InspatioVectorEnv
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.generators import GENERATORS, kind_by_name

try:
    from torch.utils.tensorboard.writer import SummaryWriter
except ImportError:
    sys.exit("cleanrl_ppo.py: package tensorboard is missing: pip install 'inspatio-sim[rl]'")

ACTIONS = np.array([0, 1, 5, 6])  # of the env's nine: stop, forward, turn left, turn right
LEARNING_RATE, GAMMA, LAMBDA, CLIP = 7e-4, 0.99, 0.95, 0.2
ENTROPY_WEIGHT, VALUE_WEIGHT, MAX_GRADIENT = 0.01, 0.5, 0.5
ROLLOUT_STEPS, EPOCHS, MINIBATCH = 128, 4, 256


class Agent(nn.Module):
    """Depth [B, H, W, 1], grid [B, 24, 24, 1] and goal [B, 4] -> logits of `ACTIONS` [B, 4] and value [B]."""

    def __init__(self):
        super().__init__()
        self.depth = nn.Sequential(  # coarse: what stands in the way is large
            nn.AdaptiveAvgPool2d((16, 24)), conv(1, 16), conv(16, 32), nn.Flatten(), dense(32 * 4 * 6, 64)
        )
        self.grid = nn.Sequential(conv(1, 16), conv(16, 32), nn.Flatten(), dense(32 * 6 * 6, 64))
        self.goal = dense(3, 64)
        self.body = nn.Sequential(dense(192, 128), dense(128, 128))
        self.policy, self.value = linear(128, len(ACTIONS), 0.01), linear(128, 1, 1.0)
        self.policy.bias.data[0] = -2.0  # who stops at once learns nothing

    def forward(self, seen):
        depth, grid = (seen[name].permute(0, 3, 1, 2).float() / 255 for name in ("depth", "grid"))
        goal = seen["goal"][:, :3] * torch.tensor([0.3, 1.0, 1.0])  # distance, cos and sin of the bearing
        x = self.body(torch.cat([self.depth(depth), self.grid(grid), self.goal(goal)], dim=1))
        return torch.distributions.Categorical(logits=self.policy(x)), self.value(x)[:, 0]


def linear(inputs, outputs, gain=2**0.5):
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def dense(inputs, outputs):
    return nn.Sequential(linear(inputs, outputs), nn.ReLU())


def conv(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU())


def tensors(observations):
    return {name: torch.as_tensor(array) for name, array in observations.items()}


class Training:
    """PPO: a rollout, an update, and again until the budget is spent."""

    def __init__(self, args):
        self.args = args
        self.agent = Agent()
        self.optimizer = torch.optim.Adam(self.agent.parameters(), LEARNING_RATE, eps=1e-5)
        self.steps, self.seconds = 0, 0.0
        self.successes, self.returns = deque(maxlen=100), deque(maxlen=100)  # of the newest episodes

    def share_done(self):
        args = self.args
        return min(1.0, self.steps / args.steps if args.steps else self.seconds / (60 * args.minutes))

    def run(self, envs, board, progress):
        """Learn; the checkpoint is written every minute."""
        self.envs, self.sums = envs, np.zeros(envs.num_envs)
        self.seen, _ = envs.reset(seed=1000 * self.args.seed + self.steps)
        saved_s = self.seconds
        while self.share_done() < 1:
            began_s, before = time.monotonic(), self.steps
            self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - 0.9 * self.share_done())
            numbers = self.update(*self.rollout())
            took_s = time.monotonic() - began_s
            self.seconds += took_s
            numbers["steps_per_second"] = (self.steps - before) / took_s
            if self.successes:
                numbers |= {"success": np.mean(self.successes), "return": np.mean(self.returns)}
            for name, value in numbers.items():
                board.add_scalar(f"train/{name}", value, self.steps)
            progress("training", self.share_done())
            if self.seconds - saved_s >= 60 or self.share_done() == 1:
                saved_s = self.seconds
                self.save()
                print(
                    f"{self.steps} steps:",
                    ", ".join(f"{name} {value:.3g}" for name, value in numbers.items()),
                    flush=True,
                )

    @torch.no_grad()
    def rollout(self):
        """T steps in each of N slots. Returns what was seen, done and earned, flat. [T * N, ...]"""
        T, N = ROLLOUT_STEPS, self.envs.num_envs
        seen, actions, log_probs, values = [], [], [], []
        rewards, is_over = np.zeros((T, N), np.float32), np.zeros((T, N), np.float32)
        for t in range(T):
            seen.append(tensors(self.seen))
            choice, value = self.agent(seen[-1])
            action = choice.sample()
            actions.append(action)
            log_probs.append(choice.log_prob(action))
            values.append(value)
            self.seen, rewards[t], terminated, truncated, infos = self.envs.step(ACTIONS[action.numpy()])
            self.steps += N
            self.sums += rewards[t]
            for i in np.flatnonzero(terminated | truncated):
                is_over[t, i] = 1
                self.successes.append(infos["final_info"]["success"][i])
                self.returns.append(self.sums[i])
                self.sums[i] = 0
                if not terminated[i]:  # out of time, not at an end: what would have come counts
                    last = {name: array[None] for name, array in infos["final_obs"][i].items()}
                    rewards[t, i] += GAMMA * self.agent(tensors(last))[1].item()
        next_value = self.agent(tensors(self.seen))[1]
        values, rewards, is_over = torch.stack(values), torch.as_tensor(rewards), torch.as_tensor(is_over)
        advantages, advantage = torch.zeros(T, N), torch.zeros(N)
        for t in reversed(range(T)):  # generalised advantage estimation
            delta = rewards[t] + GAMMA * next_value * (1 - is_over[t]) - values[t]
            advantages[t] = advantage = delta + GAMMA * LAMBDA * (1 - is_over[t]) * advantage
            next_value = values[t]
        flat_seen = {name: torch.cat([part[name] for part in seen]) for name in seen[0]}
        returns = (advantages + values).flatten()
        return flat_seen, torch.cat(actions), torch.cat(log_probs), advantages.flatten(), returns

    def update(self, seen, actions, old_log_probs, advantages, returns):
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(actions)).split(MINIBATCH):
                choice, value = self.agent({name: array[batch] for name, array in seen.items()})
                log_ratio = choice.log_prob(actions[batch]) - old_log_probs[batch]
                ratio, advantage = log_ratio.exp(), advantages[batch]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                policy_loss = -torch.min(advantage * ratio, advantage * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
                value_loss, entropy = 0.5 * (value - returns[batch]).square().mean(), choice.entropy().mean()
                self.optimizer.zero_grad()
                (policy_loss + VALUE_WEIGHT * value_loss - ENTROPY_WEIGHT * entropy).backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), MAX_GRADIENT)
                self.optimizer.step()
        kl = ((ratio - 1) - log_ratio).mean()  # of the last minibatch
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "kl": kl}
        return {name: value.item() for name, value in losses.items()}

    def save(self):
        """Policy, optimiser and counters in one file, complete or not at all."""
        kept = {f"agent.{name}": value for name, value in self.agent.state_dict().items()}
        for name, parameter in self.agent.named_parameters():
            kept |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        path = self.args.out / "policy.safetensors"
        counters = {"steps": str(self.steps), "seconds": str(self.seconds)}
        with replacing(path) as temporary, writing_to(path):
            save_file(kept, temporary, metadata=counters)

    def load(self, path, *, whole):
        """Take over the policy of a checkpoint; whole: and all that is needed to go on with its training."""
        try:
            with safe_open(path, framework="pt") as file:
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                counters = file.metadata()
            self.agent.load_state_dict({name[6:]: kept[name] for name in kept if name.startswith("agent.")})
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: {reason}: want a policy.safetensors that this program wrote") from error
        if whole:
            self.steps, self.seconds = int(counters["steps"]), float(counters["seconds"])
            for name, parameter in self.agent.named_parameters():
                state = {key: kept[f"adam.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = state

    @torch.no_grad()
    def act(self, observations):
        """The likeliest action."""
        return ACTIONS[self.agent(tensors(observations))[0].logits.argmax(dim=1).numpy()]


def main(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.num_threads)
    training, path = Training(args), args.out / "policy.safetensors"
    if begin := args.evaluate_only or args.init or (path if args.resume else None):
        training.load(begin, whole=not args.init)
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
            with SummaryWriter(str(args.out / "tensorboard")) as board:
                training.run(envs, board, progress)
            envs.close()
        facts |= {"steps": training.steps, "seconds": training.seconds}
        report = judge(judged, training.act, held_out, args.out, actions=ACTIONS, facts=facts, progress=progress)
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
        "--out", type=Path, default=Path("outputs/cleanrl"), metavar="FOLDER", help="for all results (outputs/cleanrl)"
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
        print(f"cleanrl_ppo.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "cleanrl_ppo.py: interrupted: --resume goes on from the checkpoint, which is written every minute",
            file=sys.stderr,
        )
        sys.exit(130)
