"""What a cheap camera does to a clean picture: exposure, white balance, slight blur and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One camera model; both cameras of a clip share it, so that what they both see looks alike."""

    gain: tuple[float, float, float]  # exposure and white balance, of each channel
    drift: float  # share by which the exposure swings over the clip
    drift_hz: float
    gamma: float
    blur_px: float  # sigma
    read_noise: float  # grey levels, in the dark
    shot_noise: float  # grey levels, added in the light

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Sensor:
        """Draw a camera model."""
        red, green, blue = rng.uniform(0.8, 1.2) * rng.uniform(0.94, 1.06, 3)
        return cls(
            gain=(float(red), float(green), float(blue)),
            drift=float(rng.uniform(0, 0.03)),
            drift_hz=float(rng.uniform(0.1, 0.5)),
            gamma=float(rng.uniform(0.88, 1.12)),
            blur_px=float(rng.uniform(0.0, 0.6)),
            read_noise=float(rng.uniform(0.3, 1.5)),
            shot_noise=float(rng.uniform(0.3, 2.5)),
        )

    def expose(
        self, frames_u8: NDArray[np.uint8], time_s: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Film clean frames with this camera; `rng` draws the noise. [T, H, W, 3], [T] -> [T, H, W, 3]"""
        level = np.linspace(0, 1, 256)
        noise_of_level = np.hypot(self.read_noise, self.shot_noise * np.sqrt(level)).astype(np.float32)
        exposed = np.empty_like(frames_u8)
        for i, frame_u8 in enumerate(frames_u8):
            exposure = 1 + self.drift * math.sin(2 * math.pi * self.drift_hz * time_s[i])
            curve = np.clip(level[:, None] ** self.gamma * np.array(self.gain) * exposure, 0, 1)  # [256, 3]
            table = (255 * curve).astype(np.float32)
            frame = np.stack([table[frame_u8[..., channel], channel] for channel in range(3)], axis=-1)
            if self.blur_px > 0.2:
                frame = cv2.GaussianBlur(frame, (0, 0), self.blur_px)
            noise = rng.standard_normal(frame.shape, dtype=np.float32) * noise_of_level[frame_u8]
            exposed[i] = np.clip(frame + noise + 0.5, 0, 255).astype(np.uint8)
        return exposed
