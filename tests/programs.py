"""Python programs that a test runs beside itself, with an end in sight: what hangs fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CALM = {"OMP_WAIT_POLICY": "passive"}  # threads that wait leave the cores to the other processes


def run_program(
    arguments: Sequence[str],
    *,
    timeout_s: float = 600,
    env: dict[str, str] | None = None,
    before: Sequence[str] = (),
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, after the command `before`; all that it started ends with it, or at the timeout.

    Returns:
        Its exit code, and stdout and stderr together.
    """
    process = subprocess.Popen(
        [*before, sys.executable, *arguments],
        env={**os.environ, **CALM, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"still running after {timeout_s:g} s: {output}")
    return subprocess.CompletedProcess(process.args, process.returncode, output)
