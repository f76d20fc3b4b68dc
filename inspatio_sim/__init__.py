"""A video goes in; a world an agent can move in comes out (frames, depth, map).

Start at `inspatio_sim.world.world.World.from_video`.
"""

from inspatio_sim.machine import forks as forks  # for what it registers
