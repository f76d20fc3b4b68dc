"""The command line `inspatio-sim`. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Sequence

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from inspatio_sim.cli.options import (
    EXIT_USER_ERROR,
    AnyCommand,
    Bags,
    Command,
    Demo,
    Doctor,
    Explore,
    Reconstruct,
    Scenario,
    Train,
    Weights,
)
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.machine.interrupts import stop_signals

EXIT_INTERRUPTED = 130
OWN_PACKAGES = ("inspatio_sim", "inspatio_envs", "inspatio_ros")
MODULES: dict[type, str] = {
    Explore: "explore",
    Reconstruct: "reconstruct",
    Demo: "demo",
    Doctor: "doctor",
    Weights: "weights",
    Train: "train",
    Scenario: "scenario",
    Bags: "bag",
}
"""The module of each command, imported on demand (torch and numba take seconds), so that --help is fast."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    for number in stop_signals():
        signal.signal(number, signal.default_int_handler)  # clean up as for Ctrl-C
    try:
        return _run(_parse(arguments))
    except KeyboardInterrupt as interrupt:
        print(f"inspatio-sim: interrupted: {str(interrupt) or 'nothing half-written is left'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        return _say(str(error))
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OWN_PACKAGES:  # our bug, not a broken installation
            raise
        return _say(f"{error} (run inspatio-sim doctor to see what is missing)")
    except MemoryError:
        return _say("out of memory: take fewer frames (--max-frames, --every) or smaller ones (--size)")


def _say(error: str) -> int:
    print(f"inspatio-sim: error: {' '.join(error.split())}", file=sys.stderr)
    return EXIT_USER_ERROR


def _parse(arguments: Sequence[str] | None) -> AnyCommand:
    """Parse options; invalid ones raise InputError with one line instead of tyro's box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,  # pyright: ignore[reportArgumentType]  # tyro takes unions
                prog="inspatio-sim",
                description="Turns a video into a world that an agent can move in.",
                args=arguments,
                config=(OmitArgPrefixes, FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code != EXIT_USER_ERROR:  # --help
            raise
        boxed = [line.strip("│ ") for line in said.getvalue().splitlines() if line.startswith("│")]
        message = itertools.takewhile(lambda line: not line.startswith("──"), boxed)
        line, _, _ = " ".join(message).partition(" Got errors:")
        raise InputError(f"{line} (see inspatio-sim --help)") from stop


def _run(command: AnyCommand) -> int:
    terminal = Terminal(json=command.output.json, quiet=command.output.quiet)
    module = importlib.import_module(f"inspatio_sim.cli.{MODULES[type(command)]}")
    return module.run(getattr(command, "action", command), terminal)


if __name__ == "__main__":
    sys.exit(main())
