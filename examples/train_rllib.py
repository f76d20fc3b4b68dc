"""Train PointNav with RLlib's PPO: a world server in each env runner, on this machine or on a cluster.

    python examples/train_rllib.py --iterations 1 --num-env-runners 2

Every env runner is a process that loads clip and generator once and steps --envs-per-env-runner worlds together. It
asks Ray for one CPU, and for --gpus-per-env-runner of a GPU: `--generator star --gpus-per-env-runner 0.5` puts two
servers on each GPU. On many machines, install the same packages on all, join them with `ray start`, and run this on
one of them with `--address auto`; a clip (--video) has to be under the same path on each.

Writes checkpoint/, metrics.csv (a row an iteration) and TensorBoard's curves where it is installed. Checkpoints are
RLlib's, which are pickles: only resume from a folder that you trust.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # these before ray is imported
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import gymnasium
import numpy as np
import ray
import torch
from gymnasium.vector import VectorWrapper
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.tune.registry import register_env
from torch import Tensor, nn

from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing
from inspatio_sim.kernels import set_num_threads
from inspatio_sim.training.engine.distributed import Ranks
from inspatio_sim.training.engine.metrics import Metrics, read_metrics

ENV_ID = "inspatio_envs:inspatio/PointNav-v0"
STEPS = "env_runners", "num_env_steps_sampled_lifetime"
OBJECT_STORE_BYTES = 200_000_000  # of a cluster on this machine: samples of 20,000 steps
WIDTH = 128


class RunnerEnvs(VectorWrapper):
    """The worlds of one env runner, each with random numbers of its own.

    RLlib's seeds of two runners differ by one, as those of two slots would, so the same episodes would be seen twice.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        seeds = None if seed is None else np.random.SeedSequence(seed).generate_state(self.num_envs).tolist()
        return self.env.reset(seed=seeds, options=options)


def make_envs(context: dict[str, Any]) -> RunnerEnvs:
    """Called in the process of an env runner, wherever that is. Loads clip and weights at once: they may be missing."""
    set_num_threads(1)  # a runner asks Ray for one CPU
    envs = gymnasium.make_vec(ENV_ID, **context)
    envs.reset()
    return RunnerEnvs(envs)


class PointNavModule(TorchRLModule, ValueFunctionAPI):
    """Convolutions for depth and floor plan, the goal beside them; a policy and a value on top."""

    def setup(self) -> None:
        self.pictures = nn.ModuleDict({name: _picture_encoder() for name in ("depth", "grid")})
        self.trunk = nn.Sequential(nn.Linear(2 * WIDTH + 4, WIDTH), nn.ReLU())
        self.policy = nn.Linear(WIDTH, self.action_space.n)
        self.value = nn.Linear(WIDTH, 1)

    def embed(self, seen: dict[str, Tensor]) -> Tensor:
        """Observations of the layout `pictures` to features. [B, WIDTH]"""
        pictures = [encode(seen[name].movedim(-1, 1) / 255) for name, encode in self.pictures.items()]
        return self.trunk(torch.cat([*pictures, seen["goal"].asinh()], dim=1))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        features = self.embed(batch[Columns.OBS])
        return {Columns.EMBEDDINGS: features, Columns.ACTION_DIST_INPUTS: self.policy(features)}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        features = self.embed(batch[Columns.OBS]) if embeddings is None else embeddings
        return self.value(features).squeeze(-1)


def _picture_encoder() -> nn.Module:
    convolutions = nn.Conv2d(1, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU()
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * 16, WIDTH), nn.ReLU())


class Measures(RLlibCallback):
    """How episodes ended, and which runner took how many steps."""

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        metrics_logger.log_value("return", episode.get_return(), reduce="item_series")
        for name in ("success", "spl"):
            metrics_logger.log_value(name, float(episode.get_infos(-1)[name]), reduce="item_series")

    def on_sample_end(self, *, env_runner: Any, metrics_logger: Any, samples: list[Any], **kwargs: Any) -> None:
        num_steps = sum(len(episode) for episode in samples)
        metrics_logger.log_value(("steps_of_runner", str(env_runner.worker_index)), num_steps, reduce="sum")


def env_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the env runners make their envs of; a mistake in it is found here, before any of them starts."""
    env: dict[str, Any] = {
        "video": options.video,
        "generator": options.generator,
        "size_px": (64, 96),
        "observations": ("depth", "grid", "goal"),
        "layout": "pictures",
    }
    gymnasium.make(ENV_ID, **env).close()
    return env


def ppo_config(options: argparse.Namespace, env: dict[str, Any], seed: int) -> PPOConfig:
    """What runs where, and how it learns."""
    register_env("inspatio", make_envs)
    steps_per_learner = -(-options.steps_per_iteration // max(1, options.num_learners))
    return (
        PPOConfig()
        .environment("inspatio", env_config=env)
        .env_runners(
            num_env_runners=options.num_env_runners,
            num_envs_per_env_runner=options.envs_per_env_runner,
            num_cpus_per_env_runner=1,
            num_gpus_per_env_runner=options.gpus_per_env_runner,
            gym_env_vectorize_mode="vector_entry_point",  # the worlds of a runner share each call of the generator
            sample_timeout_s=3600,
        )
        .learners(num_learners=options.num_learners, num_gpus_per_learner=options.gpus_per_learner)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PointNavModule))
        .training(
            train_batch_size_per_learner=steps_per_learner,
            minibatch_size=min(256, steps_per_learner),
            num_epochs=4,
            lr=3e-4,
            gamma=0.99,
            lambda_=0.95,
            entropy_coeff=0.01,
            grad_clip=0.5,
        )
        .callbacks(Measures)
        .debugging(seed=seed, log_level="ERROR")
    )


def join_cluster(options: argparse.Namespace) -> None:
    """Start a cluster for this run alone, or join the one at --address."""
    wanted = {
        "CPU": options.num_env_runners + options.num_learners,
        "GPU": options.num_env_runners * options.gpus_per_env_runner + options.num_learners * options.gpus_per_learner,
    }
    own: dict[str, Any] = {}
    if options.address == "local":
        num_cpus = max(wanted["CPU"], os.cpu_count() or 1)
        own = {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(options.address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"--address {options.address}: {error}") from error
    there = ray.cluster_resources()
    for name, number in wanted.items():
        if there.get(name, 0) < number:
            raise InputError(f"--address {options.address}: {there.get(name, 0):g} {name}s, this run wants {number:g}")


def row_of(result: dict[str, Any], seconds: float) -> dict[str, float]:
    """Numbers of one iteration: rates, means of the episodes that ended in it, losses, steps of each runner."""
    seen, learned = result["env_runners"], result["learners"]["default_policy"]
    row = {"iteration": result["training_iteration"], "steps_per_s": seen["num_env_steps_sampled"] / seconds}
    row["episodes"] = len(seen.get("return", []))
    row |= {name: np.mean(seen[name]) for name in ("return", "success", "spl") if seen.get(name)}
    row |= {name: learned[name] for name in ("policy_loss", "vf_loss", "entropy")}
    runners = sorted(seen["steps_of_runner"].items())  # NaN: one of before --resume
    row |= {f"steps_of_runner_{index}": steps for index, steps in runners if steps > 0}
    return {name: float(value) for name, value in row.items()}


def train(options: argparse.Namespace, env: dict[str, Any]) -> None:
    """Train, with a line, a row of `metrics.csv` and a checkpoint after each iteration."""
    out = Path(options.out).resolve()
    checkpoint, table = out / "checkpoint", out / "metrics.csv"
    rows = read_metrics(table) if options.resume and table.is_file() else []
    seed = np.random.SeedSequence([options.seed, len(rows)]).generate_state(1)[0]  # other episodes after a resume
    algorithm = ppo_config(options, env, int(seed) // 2).build_algo()
    try:
        if options.resume:
            algorithm.restore_from_path(checkpoint)
        metrics = Metrics(out, Ranks())
        metrics.open(int(algorithm.metrics.peek(STEPS, default=0)))
        while algorithm.iteration < options.iterations:
            start = time.perf_counter()
            result = algorithm.train()
            row = row_of(result, time.perf_counter() - start)
            metrics.write(int(algorithm.metrics.peek(STEPS)), row)
            with replacing(checkpoint) as temporary:
                algorithm.save_to_path(temporary)
            numbers = ", ".join(f"{name} {row[name]:.3g}" for name in ("return", "success", "spl") if name in row)
            print(
                f"iteration {algorithm.iteration} of {options.iterations}: {row['steps_per_s']:.0f} steps/s, "
                f"{row['episodes']:.0f} episodes: {numbers or 'none ended'}",
                flush=True,
            )
        metrics.close()
    finally:
        algorithm.stop()
        Path(str(algorithm.logdir)).rmdir()  # RLlib makes an empty one in ~/ray_results
    print(f"{out}: checkpoint, metrics.csv")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--iterations", type=int, default=20, help="in all, also after --resume (default 20)")
    add("--steps-per-iteration", type=int, default=1024, help="of all worlds together (default 1024)")
    add("--num-env-runners", type=int, default=2, help="processes with a world server (default 2)")
    add("--envs-per-env-runner", type=int, default=2, help="worlds of each (default 2)")
    add("--gpus-per-env-runner", type=float, default=0.0, help="1, or a part such as 0.25 (default 0)")
    add("--num-learners", type=int, default=0, help="processes that learn; 0: this one does (default 0)")
    add("--gpus-per-learner", type=float, default=0.0, help="of each of them (default 0)")
    add("--address", default="local", help="local: a cluster for this run; auto: the one this machine has joined")
    add("--generator", default="warp", help="warp, frame or star (default warp)")
    add("--video", help="a clip, at the same path on every machine (default: the demo room)")
    add("--seed", type=int, default=0, help="of weights, actions and episodes (default 0)")
    add("--out", default="outputs/rllib", help="folder for the results (default outputs/rllib)")
    add("--resume", action="store_true", help="go on with the checkpoint in --out")
    options = parser.parse_args(arguments)
    for name in ("iterations", "num_env_runners", "envs_per_env_runner", "steps_per_iteration"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: want 1 or more")
    for name in ("gpus_per_env_runner", "num_learners", "gpus_per_learner", "seed"):
        if not 0 <= getattr(options, name) < 2**32:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: want 0 or more")
    checkpoint = Path(options.out) / "checkpoint"
    if options.resume and not checkpoint.is_dir():
        raise InputError(f"--resume: there is no {checkpoint}: want the --out of an earlier run")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    try:
        options = parse(arguments)
        env = env_options(options)
        join_cluster(options)
        train(options, env)
    except KeyboardInterrupt:
        print("interrupted: --resume goes on after the last iteration", file=sys.stderr)
        return 130
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
