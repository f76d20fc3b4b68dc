"""The command line `inspatio-sim`. Results go to stdout, all else to stderr."""

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
"""Where each command lives; imported when asked for (torch and numba take seconds), so that --help answers at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    for number in stop_signals():
        signal.signal(number, signal.default_int_handler)  # what was begun is cleaned up, as for Ctrl-C
    try:
        return _run(_parse(arguments))
    except KeyboardInterrupt as interrupt:
        print(f"inspatio-sim: interrupted: {str(interrupt) or 'nothing half-written is left'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        return _say(str(error))
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OWN_PACKAGES:  # our mistake, not that of an installation
            raise
        return _say(f"{error} (inspatio-sim doctor says what is missing here)")
    except MemoryError:
        return _say("out of memory: take fewer frames (--max-frames, --every) or smaller ones (--size)")


def _say(error: str) -> int:
    print(f"inspatio-sim: error: {' '.join(error.split())}", file=sys.stderr)
    return EXIT_USER_ERROR


def _parse(arguments: Sequence[str] | None) -> AnyCommand:
    """Options that cannot be are an InputError: one line in place of the box that tyro draws."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,  # pyright: ignore[reportArgumentType]  # tyro takes unions
                prog="inspatio-sim",
                description="A video goes in; a world comes out that an agent can move in.",
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
