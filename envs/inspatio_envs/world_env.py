"""A world without a task: the agent drives, nothing is rewarded, nothing ends."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from inspatio_sim.actions import unicycle
from inspatio_sim.observation import Observation
from inspatio_sim.reconstruct import reconstruct
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world import World

MAX_SPEED_MPS = 1.0
MAX_TURN_RATE_RADPS = 1.5
MAX_DEPTH_M = 100.0  # depth beyond is reported as this
MAX_POSITION_M = 1e6


class WorldEnv(gymnasium.Env):
    """Free control of the camera on a unicycle.

    Action `Box(-1, 1, (2,))`: forward speed in units of 1 m/s, turn rate in units of 1.5 rad/s (positive
    turns left), both held for one block of frames.

    | observation | space | meaning |
    | --- | --- | --- |
    | `rgb` | uint8 (H, W, 3) | the last frame of the block |
    | `depth` | float32 (H, W), 0..100 | z-depth in metres; measured where known > 0, made up elsewhere |
    | `known` | uint8 (H, W), 0..2 | 0 generated, 1 from the map, 2 from the reference |
    | `pose` | float32 (4, 4) | T_world_camera |

    Args:
        video: a clip, as `World.from_video` takes it; None: the procedural demo room.
        size_px: (height, width) of the frames.
        render_mode: None or `rgb_array`.
        **world_options: more options of `World.from_video`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}

    def __init__(
        self,
        video: str | None = None,
        size_px: tuple[int, int] = (96, 160),
        render_mode: str | None = None,
        **world_options: Any,
    ) -> None:
        size_px = (int(size_px[0]), int(size_px[1]))
        if video is None:
            self.world = World(reconstruct(demo_clip(size_px=size_px)), **world_options)
        else:
            self.world = World.from_video(video, size_px=size_px, **world_options)
        self.render_mode = render_mode
        fps = self.world.reference.fps
        self.metadata = {**self.metadata, "render_fps": max(1, round(fps))}
        self._block_s = self.world.generator.frames_per_block / fps
        self._rgb_u8: np.ndarray | None = None
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "rgb": spaces.Box(0, 255, (*size_px, 3), np.uint8),
                "depth": spaces.Box(0, MAX_DEPTH_M, size_px, np.float32),
                "known": spaces.Box(0, 2, size_px, np.uint8),
                "pose": spaces.Box(-MAX_POSITION_M, MAX_POSITION_M, (4, 4), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start over; `options={"pose": T_world_camera}` starts elsewhere."""
        super().reset(seed=seed)
        return self._answer(self.world.reset(seed=seed, T_world_camera=(options or {}).get("pose")))

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Drive for one block of frames."""
        speed, turn = np.clip(np.asarray(action, dtype=np.float64), -1, 1)
        motion = unicycle(speed * MAX_SPEED_MPS, turn * MAX_TURN_RATE_RADPS, self._block_s)
        observation, info = self._answer(self.world.step(motion))
        return observation, 0.0, False, False, info

    def render(self) -> np.ndarray | None:
        """The last frame, in render mode `rgb_array`."""
        return self._rgb_u8 if self.render_mode == "rgb_array" else None

    def _answer(self, observation: Observation) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        rgb_u8 = observation.rgb_u8[-1]
        self._rgb_u8 = rgb_u8.copy()
        answer = {
            "rgb": rgb_u8.copy(),
            "depth": np.minimum(observation.depth_m[-1], np.float32(MAX_DEPTH_M)),
            "known": observation.known[-1].copy(),
            "pose": observation.T_world_camera[-1].astype(np.float32),
        }
        info = {
            "time_s": float(observation.time_s[-1]),
            "hallucinated_fraction": observation.hallucinated_fraction,
            "has_collided": observation.has_collided,
        }
        return answer, info
