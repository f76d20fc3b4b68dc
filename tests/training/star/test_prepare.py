"""Clips that are read, from the files of each layout to a trained teacher."""

import pytest
import torch

from inspatio_sim.cli.main import main
from inspatio_sim.generators.presets import find
from inspatio_sim.training.data.procedural import ProceduralClips, ProceduralConfig
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.engine.results import found_result, steps_of
from inspatio_sim.training.star.build import STAR
from inspatio_sim.training.star.networks import codec_from
from inspatio_sim.training.star.prepare import clips_of, open_latents
from tests.training.data.layouts import write_clip_folder, write_multicam, write_re10k


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A made-up clip in each layout; of the folder of clips it has two."""
    folder = tmp_path_factory.mktemp("layouts")
    sample = ProceduralClips(ProceduralConfig(num_frames=21, size_px=(48, 48)))[0]
    write_re10k(sample, folder / "re10k")
    write_multicam(sample, folder / "multicam")
    for name in ("one", "two"):
        write_clip_folder(sample, folder / "folder" / name)
    return folder


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch, tmp_path_factory):
    """A package without weights."""
    monkeypatch.setattr(find, "SHIPPED", tmp_path_factory.mktemp("shipped"))


@pytest.mark.parametrize("kind", ["re10k", "multicam", "folder"])
def test_codec_and_teacher_learn_from_clips_that_are_read(kind, folders, tmp_path):
    settings = [f"data.kind={kind}", f"data.folder={folders / kind}", "augment.unknown_view=0"]
    arguments = ["--config", "test", "--out", str(tmp_path), "--quiet", "--set", *settings, "trainer.sample_every=0"]
    for stage in ("codec/train", "star/teacher"):
        assert main(["train", stage, *arguments]) == 0
    assert steps_of(tmp_path / "teacher" / "test_teacher.safetensors") == 2

    config = run_config(STAR, "test", "teacher", out=tmp_path, settings=settings)
    codec = codec_from(config, found_result(STAR, config, "codec"))
    rows = open_latents(config, "synthetic", codec, num_clips=2)
    for index in range(2):
        assert torch.isfinite(rows[index]["target"]).all()
        assert rows[index]["view"][:, :4].max() == 1  # depth and poses of the files say what is seen of the reference
    clip = clips_of(config.data, "synthetic", num_clips=2)[0]
    assert (clip.target_u8.shape, clip.target_u8.std() > 5) == ((21, 32, 48, 3), True)


def test_too_few_clips_and_other_mistakes_are_one_line(folders, tmp_path, capsys):
    folder = f"data.folder={folders / 'folder'}"
    wanted = [
        (["data.kind=folder", folder, "trainer.max_steps=3"], "2 clips, 3 asked for: want data.num_clips=2"),
        (["data.kind=re10k", folder], "no camera files"),
        ([folder], "want data.folder=FOLDER with data.kind=re10k, multicam, folder"),
        (["data.kind=multicam"], "data.kind=multicam data.folder=None: want data.folder=FOLDER"),
    ]
    for settings, message in wanted:
        assert main(["train", "star/teacher", "--config", "test", "--out", str(tmp_path), "--set", *settings]) == 2
        said = capsys.readouterr().err.splitlines()
        assert message in said[-1]
        assert not any("Traceback" in line for line in said)
