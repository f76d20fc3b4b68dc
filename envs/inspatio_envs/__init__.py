"""Gymnasium envs in worlds made from a video: actions go in, observations come out.

`gymnasium.make("inspatio_envs:inspatio/PointNav-v0", video="clip.mp4")` makes one env, `gymnasium.make_vec` several
that step together (`vector_env`). `config` has all arguments.
"""

from gymnasium.envs.registration import register

import inspatio_sim as inspatio_sim  # makes forks safe from here on


def _register(name: str, **options: object) -> None:
    register(
        id=f"inspatio/{name}-v0",
        entry_point="inspatio_envs.env:InspatioEnv",
        vector_entry_point="inspatio_envs.vector_env:InspatioVectorEnv",
        kwargs=options,
    )


_register("World", task="free", action="unicycle")
_register("PointNav", task="pointnav", max_steps=500)
_register("ImageNav", task="imagenav", max_steps=500)
_register("Explore", task="explore", max_steps=500)
_register("Follow", task="follow", action="6dof", max_steps=500)
