"""How good the students that ship are, on made-up places that they never saw, against what they have to beat.

python -m benchmarks.quality [--seeds 900000:900008] [--json]
python -m benchmarks.quality --videos FOLDER          real clips as well, of which there is no truth
python -m benchmarks.quality --random-weights         tries the machinery where there are no weights

Along the same paths through the same places, in both styles: `tiny` as in any world (with 4, 2 and 1 steps; with
nothing pasted: the network's frames without renders laid over them; and those without a map), its many-step
`teacher`, `frame-tiny` (with 2 steps and 1), `warp` with Telea's inpainting, and `last-frame`, which repeats the
reference's newest frame; beside them the truth through `tiny`'s codec alone. Known pixels are those that the reference
shows now or has shown, the same for all. The teacher gets what `tiny` without a map gets: the reference's frame of
the moment, as the target's camera would see it. Then students and `warp` go the way out and back, turn once around on
the spot and back, and go to and fro for long; and one world of each is timed from action to frames.

Exit code 2: weights are missing, or an argument cannot be. docs/training.md explains the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality_cases.charts import films, save_pictures
from benchmarks.quality_cases.features import load_features
from benchmarks.quality_cases.held_out import seeds_from
from benchmarks.quality_cases.real_clips import measure_clips
from benchmarks.quality_cases.results import results_of
from benchmarks.quality_cases.run import METHODS, NUM_FRAMES, QualityRun, load_players, measure
from benchmarks.report import show, size_from
from benchmarks.star_cases.machine import empty_cache_folder
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.errors import InputError
from inspatio_sim.files.atomic import replacing, writing_to
from inspatio_sim.generators.blocks.loading import RANDOM_NOTICE
from inspatio_sim.pictures import save_png


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run = run_from(options)
        with Terminal().progress() as progress, empty_cache_folder():
            measured = measure(run, progress)
            results = results_of(measured)
            options.out.mkdir(parents=True, exist_ok=True)
            pictures = save_pictures(measured, options.out)
            if options.videos is not None:
                players = load_players(run)
                clips = measure_clips(
                    options.videos,
                    {
                        name: generator
                        for name, generator in {
                            **players.students,
                            **players.frame_students,
                            **players.simple,
                        }.items()
                        if name in run.methods
                    },
                    load_features(),
                    run.size_px,
                    progress,
                )
                results += [result for result in clips.results if math.isfinite(result.value)]
                for sheet in clips.sheets:
                    pictures.append(options.out / f"clip-{sheet.place}.png")
                    save_png(pictures[-1], films(sheet))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    more: dict[str, Any] = {
        "torch": torch.__version__,
        "seeds": options.seeds,
        "weights": RANDOM_NOTICE if run.random_weights else str(run.weights or "shipped"),
        "places": {name: method.rows(measured.places) for name, method in measured.methods.items()},
    }
    _write_report(options.out / "quality.json", {**more, "results": [asdict(result) for result in results]})
    show("quality", results, as_json=options.json, **more, out=str(options.out))
    return 0


def run_from(options: argparse.Namespace) -> QualityRun:
    """Settings from the command line."""
    return QualityRun(
        seeds=seeds_from(options.seeds),
        methods=tuple(name for name in options.generators.split(",") if name),
        weights=options.weights,
        teacher=options.teacher,
        teacher_steps=options.teacher_steps,
        random_weights=options.random_weights,
        revisit_blocks=options.revisit_blocks,
        turn_frames=options.turn_frames,
        latency_steps=options.latency_steps,
        drift_blocks=options.drift_blocks,
        size_px=size_from(options.size, "96x160"),
        num_frames=options.frames,
        device=options.device,
    )


def parser() -> argparse.ArgumentParser:
    """Options; those of `benchmarks.ablations` are a part of them."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="How good the students are.")
    add_options(made)
    made.add_argument("--generators", default=",".join(METHODS), metavar="NAMES", help=f"some of {','.join(METHODS)}")
    made.add_argument("--turn-frames", type=_count, default=72, metavar="N", help="once around; 0: none; default 72")
    made.add_argument("--latency-steps", type=_count, default=40, metavar="N", help="timed; 0: none; default 40")
    made.add_argument("--videos", type=Path, metavar="FOLDER", help="real clips, measured as well")
    made.add_argument("--weights", type=Path, metavar="FOLDER", help="default: those of the package")
    made.add_argument("--teacher", type=Path, metavar="FILE", help="default: tiny_teacher.safetensors by the weights")
    made.add_argument("--random-weights", action="store_true", help="where no trained ones are at hand")
    made.add_argument("--out", type=Path, default=Path("outputs/quality"), metavar="FOLDER", help="of the plots")
    made.add_argument("--json", action="store_true", help="print one json object instead of a table")
    return made


def add_options(made: argparse.ArgumentParser) -> None:
    """Which places, and how much of each."""
    made.add_argument("--seeds", default="900000:900008", metavar="START:END", help="of the places; END is left out")
    made.add_argument("--size", default="96x160", metavar="HxW", help="of the frames; default 96x160")
    made.add_argument("--frames", type=_count, default=NUM_FRAMES, metavar="N", help=f"of a path; default {NUM_FRAMES}")
    made.add_argument("--teacher-steps", type=_count, default=24, metavar="N", help="Euler steps; default 24")
    made.add_argument("--revisit-blocks", type=_count, default=12, metavar="N", help="out; 0: none; default 12")
    made.add_argument("--drift-blocks", type=_count, default=200, metavar="N", help="0: none; default 200")
    made.add_argument("--device", default="auto", help="cpu, cuda or auto")


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError
    return count


def _write_report(path: Path, report: dict[str, Any]) -> None:
    with replacing(path) as temporary, writing_to(path):
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
