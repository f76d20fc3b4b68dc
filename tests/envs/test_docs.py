"""Every Python block of docs/envs.md runs, with small frames and few steps."""

import re
from pathlib import Path
from typing import get_args

import gymnasium
import pytest
from inspatio_envs.config import EnvConfig
from inspatio_envs.spaces import ObservationName

from inspatio_sim.scenes.demo import write_demo_clip
from tests.envs.conftest import IDS, make

PAGE = (Path(__file__).parents[2] / "docs" / "envs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SMALLER = {
    'generator="warp"': 'generator="warp", size_px=(48, 80)',
    "n_steps=256": "n_steps=4, batch_size=8",
    "learn(100_000)": "learn(8)",
}
PACKAGES = ("stable_baselines3", "moviepy")
USES = {"RecordVideo": "moviepy"}


def title(block):
    """The heading that it stands under."""
    before = PAGE[: PAGE.index(block)]
    return re.findall(r"^#+ (.*)$", before, re.MULTILINE)[-1]


@pytest.mark.parametrize("block", BLOCKS, ids=[title(block) for block in BLOCKS])
def test_the_block_runs(block, tmp_path, monkeypatch):
    for package in [name for name in PACKAGES if name in block] + [USES[word] for word in USES if word in block]:
        pytest.importorskip(package)
    for large, small in SMALLER.items():
        block = block.replace(large, small)
    if "clip.mp4" in block:
        write_demo_clip(tmp_path / "clip.mp4", num_frames=6, size_px=(96, 160))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/envs.md", "exec"), {"gymnasium": gymnasium})  # noqa: S102 - our own page


def test_it_names_every_id_observation_and_measure():
    assert len(BLOCKS) >= 8
    for name in (*IDS, *get_args(ObservationName)):
        assert f"`{name}`" in PAGE or f"/{name}-v0`" in PAGE, name
    for name in IDS:
        for key in make(name).reset(seed=0)[1]:
            assert f"`{key.removesuffix('_observed')}`" in PAGE, key


def test_what_it_says_of_arguments_is_so():
    known = set(EnvConfig.__dataclass_fields__) | {"num_envs", "slots", "autoreset_mode", "vectorization_mode"}
    for call in re.findall(r"gymnasium\.make(?:_vec)?\(([^()]*)\)", "".join(BLOCKS)):
        assert set(re.findall(r"(\w+)=", call)) <= known | {"vidoe", "render_mode"}, call
    config = EnvConfig()
    assert (config.size_px, config.grid_cells, config.grid_cell_m) == ((96, 160), 48, 0.1)
