"""`inspatio-sim reconstruct`."""

from __future__ import annotations

import time

from inspatio_sim.cli.clip import (
    REPORT,
    check_clip,
    clip_inputs,
    clip_source,
    reconstruction_report,
    since,
    versions,
    write_report,
)
from inspatio_sim.cli.options import Reconstruct
from inspatio_sim.cli.tables import reconstruction_table, two_columns
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.files.folders import staged_folder

REFERENCE = "reference"


def run(options: Reconstruct, terminal: Terminal) -> int:
    """Reconstruct a clip and write the result."""
    check_clip(options.clip, options.geometry)
    with staged_folder(options.out, (REFERENCE, REPORT)) as folder, terminal.progress() as progress:
        started_s = time.perf_counter()
        reference, was_cached = clip_source(options.clip, options.geometry).reference(
            progress, is_cached=not options.geometry.no_cache
        )
        reference.save(folder / REFERENCE)
        report = {
            "command": "reconstruct",
            "inputs": {"clip": [str(path) for path in options.clip], **clip_inputs(options.geometry)},
            "reconstruction": reconstruction_report(reference, was_cached),
            "timings_s": {"all": since(started_s)},
            "versions": versions(),
        }
        write_report(folder, report)
    report["outputs"] = {name: str(options.out / name) for name in (REFERENCE, REPORT)}
    rows = {REFERENCE: "frames, depth, cameras: `Reference.load` reads it", REPORT: "this report, and more"}
    terminal.result(report, reconstruction_table(report), two_columns(f"Written to {options.out}", rows))
    return 0
