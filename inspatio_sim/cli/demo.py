"""`inspatio-sim demo`."""

from __future__ import annotations

from inspatio_sim.cli import explore
from inspatio_sim.cli.options import ClipOptions, Demo, Explore
from inspatio_sim.cli.terminal import Terminal
from inspatio_sim.files.folders import staged_folder
from inspatio_sim.scenes.demo import write_demo_clip

DEMO_CLIP, DEMO_RUN = "clip", "run"
DEMO_SIZE_PX = (96, 160)
DEMO_SCRIPT = "forward 0.8; yaw 25; right 0.5; yaw -50; left 0.8; yaw 25; back 0.6"
RGBD_NAMES = ("color", "depth", "camera.json", "poses.json")


def run(options: Demo, terminal: Terminal) -> int:
    """Render a clip of the demo room and walk through it."""
    explore.check_seed(options.seed)
    clip_folder = options.out / DEMO_CLIP
    with staged_folder(clip_folder, RGBD_NAMES) as folder, terminal.progress() as progress:
        progress("filming the demo room", 0.0)
        write_demo_clip(folder, size_px=DEMO_SIZE_PX, seed=options.seed)
        progress("filming the demo room", 1.0)
    exploring = Explore(
        clip=(clip_folder,),
        out=options.out / DEMO_RUN,
        script=DEMO_SCRIPT,
        seed=options.seed,
        geometry=ClipOptions(size="clip"),
        output=options.output,
    )
    return explore.run(exploring, terminal)
