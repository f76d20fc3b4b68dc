"""`python -m inspatio_sim.training STAGE --config NAME`: the command `inspatio-sim train`, for torchrun.

A door like the command line itself, so it may import that; nothing imports this module.
"""

import sys

from inspatio_sim.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
