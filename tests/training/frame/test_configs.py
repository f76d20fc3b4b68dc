import pickle
from pathlib import Path

import pytest

from inspatio_sim.errors import InputError
from inspatio_sim.generators.presets.registry import preset_by_name
from inspatio_sim.training.engine.family import run_config
from inspatio_sim.training.frame.build import FRAME


@pytest.mark.parametrize(
    ("name", "called"), [("tiny", "frame-tiny"), ("test", "frame-test"), ("worldfm-xl", "worldfm-xl")]
)
@pytest.mark.parametrize("stage", FRAME.stages)
def test_every_stage_of_every_run_has_a_config(name, called, stage):
    config = run_config(FRAME, name, stage)
    assert config.name == called
    assert config.trainer.out == Path("runs") / called / stage
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.distill.steps == ((999,) if stage == "distill-one" else (999, 200))


def test_what_is_trained_is_what_the_registry_loads():
    config, preset = run_config(FRAME, "tiny", "control"), preset_by_name("frame-tiny")
    assert (config.frame, config.latent_scale) == (preset.frame, preset.latent_scale)
    assert (config.diffusion.steps, config.data.size_px) == (preset.steps, preset.size_px)


def test_the_command_line_has_the_last_word():
    settings = ["trainer.max_steps=7", "distill.critic_updates=2", "diffusion.cond_noise=0", "data.augment.holes=0.5"]
    config = run_config(FRAME, "test", "distill", settings=settings, out=Path("elsewhere"), resume=True)
    assert (config.trainer.max_steps, config.distill.critic_updates) == (7, 2)
    assert (config.diffusion.cond_noise, config.data.augment.holes) == (0, 0.5)
    assert config.trainer.out == Path("elsewhere/distill")
    assert config.trainer.resume


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.out=x", "want --out FOLDER and --resume"),
        ("data.size_px=96,100", "want multiples of 8"),
        ("frame.in_channels=4", "want 8 for this codec"),
        ("frame.mask_channels=0", "want 1"),
        ("latent_scale=0", "want more than 0"),
        ("diffusion.few_step_share=1.5", "want 0 to 1"),
        ("diffusion.high_noise_share=0.8", "no more than 1 together"),
        ("diffusion.cond_noise=-1", "want 0 or more"),
        ("diffusion.min_snr_gamma=0", "want more than 0, or none"),
        ("diffusion.steps=500,200", "falling from 999"),
        ("distill.steps=999,999", "falling from 999"),
        ("distill.critic_updates=0", "want 1 or more"),
        ("distill.regression_weight=-1", "want 0 or more"),
    ],
)
def test_mistakes_are_named(setting, message):
    with pytest.raises(InputError, match=message):
        run_config(FRAME, "test", "control", settings=[setting])
