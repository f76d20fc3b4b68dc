import dataclasses
import pickle
from pathlib import Path

import pytest

from inspatio_sim.codecs import TinyConfig
from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.star_config import star_1_3b
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.star.build import STAR
from inspatio_sim.training.star.configs import CONFIGS, DataConfig, fitted


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stage", STAR.stages)
def test_every_stage_of_every_run_has_a_config(name, stage):
    config = run_config(STAR, name, stage)
    assert config.name == name
    assert config.trainer.out == Path("runs") / name / stage
    assert pickle.loads(pickle.dumps(config)) == config  # for worker processes
    assert CONFIGS[name](stage) == CONFIGS[name](stage)


def test_the_command_line_has_the_last_word():
    config = run_config(
        STAR,
        "test",
        "distill",
        settings=["trainer.max_steps=7", "distill.student.lr=0.5", "t2v_weight=0", "data.size_px=64,80"],
        out=Path("elsewhere"),
        resume=True,
    )
    assert (config.trainer.max_steps, config.distill.student.lr, config.t2v_weight) == (7, 0.5, 0)
    assert config.data.size_px == (64, 80)
    assert config.trainer.out == Path("elsewhere/distill")
    assert config.trainer.resume


@pytest.mark.parametrize("setting", ["trainer.out=x", "folder=x", "trainer.resume=true"])
def test_what_has_an_option_of_its_own_is_not_set(setting):
    with pytest.raises(InputError, match="want --out FOLDER and --resume"):
        run_config(STAR, "test", "teacher", settings=[setting])


def test_latents_and_grid_follow_from_the_frames():
    data = DataConfig(num_clips=1, num_frames=45, size_px=(96, 160))
    assert (data.num_latents, data.grid) == (12, (12, 20))


def test_the_published_model_keeps_its_channels():
    config = CONFIGS["wan_1_3b"]("distill")
    assert config.star == star_1_3b()
    assert (config.star.in_channels, config.star.out_channels) == (36, 16)
    assert fitted(star_1_3b(), TinyConfig(latent_channels=24)).in_channels == 52


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.num_frames=44"], "want 12 n - 3"),
        (["data.size_px=40,48"], "want multiples of 16"),
        (["data.seed=900000"], "higher ones are for evaluation"),
        (["data.num_clips=0"], "want at least 1"),
        (["data.crop_frames=25"], "no more than the clips have"),
        (["codec.latent_channels=12"], "want 28 and 12 for this codec"),
        (["t2v_weight=-1"], "want 0 or more"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        run_config(STAR, "test", "teacher", settings=settings)
    with pytest.raises(InputError, match="want one of tiny, test, wan_1_3b"):
        run_config(STAR, "huge", "teacher")


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        run_config(STAR, "test", "codec").name = "other"
