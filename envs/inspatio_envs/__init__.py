"""Actions of an agent go in; Gymnasium observations of a world made from a video come out.

`gymnasium.make("inspatio_envs:inspatio/World-v0", video="clip.mp4")` makes one.
"""

from gymnasium.envs.registration import register

register(id="inspatio/World-v0", entry_point="inspatio_envs.world_env:WorldEnv")
