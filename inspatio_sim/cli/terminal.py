"""Output at the terminal: progress bars and notes on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from inspatio_sim.errors import InputError
from inspatio_sim.progress import Progress


class Terminal:
    """stdout carries only the result, so that `--json` can be piped."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.wants_json = json
        self.is_quiet = quiet
        # File names and user input are printed verbatim: "[depth]" and ":x:" are not markup.
        self.out = Console(markup=False, emoji=False)
        self.err = Console(stderr=True, markup=False, emoji=False)
        handler = RichHandler(console=self.err, show_time=False, show_path=False, markup=False)
        logging.basicConfig(level=logging.ERROR if quiet else logging.WARNING, format="%(message)s", handlers=[handler])

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress bars while the block runs; none when quiet, or if stderr is not a terminal."""
        described = TextColumn("{task.description:<28}", markup=False)
        columns = (described, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with RichProgress(*columns, console=self.err, disable=self.is_quiet or not self.err.is_terminal) as bars:
            tasks: dict[str, Any] = {}

            def report(what: str, share_done: float) -> None:
                if what not in tasks:
                    for task in tasks.values():
                        bars.update(task, completed=1.0)  # the previous task is done
                    tasks[what] = bars.add_task(what, total=1.0)
                bars.update(tasks[what], completed=share_done)

            try:
                yield report
            except BaseException:  # show only the error
                bars.live.transient = True
                raise

    def result(self, report: dict[str, Any], *tables: Table | str) -> None:
        """Print the report, as JSON if requested, otherwise as tables."""
        if sys.stdout is None:  # closed by the parent process
            return
        try:
            if self.wants_json:
                json.dump(report, sys.stdout)
                sys.stdout.write("\n")
            elif not self.is_quiet:
                for table in tables:
                    self.out.print(table, highlight=False)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"cannot write the report to stdout: {error.strerror}") from error
