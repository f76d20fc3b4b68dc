"""The codec of `tiny`: how much of a picture is left after encoding and decoding, on clips it was never fitted to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality_cases.held_out import STYLES, held_out, seeds_from
from benchmarks.quality_cases.real_clips import videos_in
from benchmarks.quality_cases.teacher import decoded
from benchmarks.report import Result, median_ms, reported, show
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.clips.video import read_clip
from inspatio_sim.errors import InputError
from inspatio_sim.evaluation.fidelity import psnr_db
from inspatio_sim.generators import generator_by_name
from inspatio_sim.generators.star.generator import StarGenerator
from inspatio_sim.generators.star.reference_latents import encode_frames

SIZE_PX = (96, 160)
NUM_FRAMES = 45


def measure(seeds: Sequence[int], videos: Path | None) -> list[Result]:
    """Mean of the clips' PSNR: a clip's error is that of all its pixels."""
    star = generator_by_name("star")
    assert isinstance(star, StarGenerator)
    with Terminal().progress() as progress:
        places = held_out(seeds, SIZE_PX, NUM_FRAMES, progress)
    through = [_through(star, place.sample.target_u8) for place in places]
    psnrs = {place.name: psnr_db(made, place.sample.target_u8) for place, made in zip(places, through, strict=True)}
    results = [_floor("held-out procedural clips", list(psnrs.values()), 30)]
    for style in STYLES:
        of_style = [value for name, value in psnrs.items() if name.endswith(style)]
        results.append(reported(f"held-out procedural clips, {style}", float(np.mean(of_style)), "dB"))
    if videos:
        by_video = {}
        for path in videos_in(videos):
            frames_u8 = read_clip(path, size_px=SIZE_PX).frames_u8
            frames_u8 = frames_u8[: len(frames_u8) - (len(frames_u8) - 1) % 4]
            by_video[path.stem] = psnr_db(_through(star, frames_u8), frames_u8)
        results.append(_floor("real clips", list(by_video.values()), 27))
        results += [reported(f"real clips: {name}", value, "dB") for name, value in by_video.items()]
    frames_u8 = places[0].sample.target_u8
    per_frame_ms = median_ms(lambda: _through(star, frames_u8)) / len(frames_u8)
    return [*results, reported("there and back, a frame", per_frame_ms, "ms")]


def _through(star: StarGenerator, frames_u8: np.ndarray) -> np.ndarray:
    return decoded(star, encode_frames(frames_u8, np.arange(len(frames_u8)), star.codec)[None])[0]


def _floor(name: str, values_db: list[float], floor: float) -> Result:
    return Result(name=name, value=float(np.mean(values_db)), unit="dB", floor=floor, better="higher")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--seeds", default="900000:900032", metavar="START:END", help="of the places; END is left out")
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="real clips, measured as well")
    parser.add_argument("--json", action="store_true", help="print one json object instead of a table")
    options = parser.parse_args(arguments)
    try:
        results = measure(seeds_from(options.seeds), options.videos)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show("codec", results, as_json=options.json, seeds=options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
