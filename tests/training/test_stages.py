import numpy as np
import pytest
import torch

from inspatio_sim.camera import Intrinsics
from inspatio_sim.codecs import TinyAutoencoder, TinyConfig
from inspatio_sim.errors import InputError
from inspatio_sim.generators.flow import FlowSchedule
from inspatio_sim.generators.star.config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.codec import CodecLossConfig
from inspatio_sim.training.data.sample import Sample
from inspatio_sim.training.metrics import read_metrics
from inspatio_sim.training.sources import EncodedClips, FrameCrops
from inspatio_sim.training.stages import (
    AdamConfig,
    CodecStage,
    DistillConfig,
    DistillStage,
    InitConfig,
    InitStage,
    Task,
    TeacherStage,
)
from inspatio_sim.training.trainer import Trainer, TrainerConfig

CONFIG = StarConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=16)
SCHEDULE = FlowSchedule()
ADAM = AdamConfig(lr=1e-3)
H, W, LATENTS = 4, 6, 6


def network(seed, in_channels=36):
    torch.manual_seed(seed)
    return StarTransformer(StarConfig(**{**vars(CONFIG), "in_channels": in_channels}))


class Encoded:
    """Five encoded clips."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        sizes = {"target": (LATENTS, 16, H, W), "reference": (LATENTS, 16, H, W), "view": (LATENTS, 20, H, W)}
        return {name: torch.randn(size, generator=generator) for name, size in {**sizes, "text": (4, 8)}.items()}


class Filmed:
    """Three clips of moving noise."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        frames = np.random.default_rng(index).integers(0, 255, (13, 24, 32, 3), dtype=np.uint8)
        depth_m, poses = np.ones((13, 24, 32), np.float32), np.repeat(np.eye(4)[None], 13, 0)
        return Sample(
            reference_u8=frames,
            target_u8=frames[:, ::-1].copy(),
            reference_depth_m=depth_m,
            target_depth_m=depth_m,
            intrinsics=Intrinsics(fx_px=30, fy_px=30, cx_px=15.5, cy_px=11.5, width_px=32, height_px=24),
            T_world_reference=poses,
            T_world_target=poses,
            caption="noise",
        )


CLIPS = EncodedClips(Encoded(), seed=0)


def train(stage, out, max_steps=2, **options):
    trainer = Trainer(stage, TrainerConfig(out=out, max_steps=max_steps, batch_size=2, log_every=1, **options))
    trainer.run()
    return trainer, read_metrics(out / "metrics.csv")


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def has_moved(module, before):
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def codec_stage():
    torch.manual_seed(0)
    net = TinyAutoencoder(TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), time_alignment="causal"))
    crops = FrameCrops(Filmed(), num_frames=5, size_px=(16, 24), seed=0)
    return CodecStage(net, crops, adam=ADAM, loss=CodecLossConfig(), shown=crops([0]))


def distill_stage(seed=0, **options):
    tasks = (
        Task(name="v2v", real=network(1), fake=network(1), clips=CLIPS),
        Task(name="t2v", real=network(2, 16), fake=network(2, 16), clips=CLIPS, weight=0.5),
    )
    config = DistillConfig(critic_updates=2, student=ADAM, critic=ADAM, **options)
    return DistillStage(network(seed), tasks, negative_text=torch.zeros(4, 8), schedule=SCHEDULE, config=config)


def test_the_codec_trains_and_shows_what_it_can(tmp_path):
    stage = codec_stage()
    before = weights(stage.network)
    _, rows = train(stage, tmp_path, sample_every=2)
    assert has_moved(stage.network, before)
    assert {"loss", "l1", "ssim", "latent", "psnr_db"} <= set(rows[-1])
    assert list((tmp_path / "samples").rglob("*.png"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_teacher_and_student_train(tmp_path, dtype):
    teacher, student = network(0), network(0)
    stages = {
        "teacher": TeacherStage(teacher, CLIPS, adam=ADAM, schedule=SCHEDULE),
        "init": InitStage(student, CLIPS, adam=ADAM, schedule=SCHEDULE, config=InitConfig(own_history_share=0.5)),
    }
    before = weights(teacher)
    for name, stage in stages.items():
        _, rows = train(stage, tmp_path / name, dtype=dtype)
        assert np.isfinite(rows[-1]["loss"])
    assert has_moved(teacher, before)
    assert has_moved(student, before)


def test_tasks_take_turns_and_count_their_own_steps(tmp_path):
    stage = distill_stage()
    student, frozen = weights(stage.student), [weights(task.real) for task in stage.tasks]
    critics = [weights(task.fake) for task in stage.tasks]
    trainer, rows = train(stage, tmp_path, max_steps=8)
    assert stage.counts == {"v2v": 4, "t2v": 4}
    assert trainer._updates == {"student": 4, "critic_v2v": 4, "critic_t2v": 4}
    assert has_moved(stage.student, student)
    for task, real, fake in zip(stage.tasks, frozen, critics, strict=True):
        assert has_moved(task.fake, fake)
        assert not has_moved(task.real, real)
    with_student = [i for i, row in enumerate(rows) if row.get("gradient_v2v") or row.get("gradient_t2v")]
    assert with_student == [2, 3, 6, 7]  # each task's second and fourth step


def test_distillation_goes_on_as_if_it_had_never_stopped(tmp_path):
    whole = distill_stage()
    train(whole, tmp_path / "whole", max_steps=6)
    train(distill_stage(), tmp_path / "parts", max_steps=3)
    again = distill_stage(seed=5)
    train(again, tmp_path / "parts", max_steps=6, resume=True)
    assert again.counts == whole.counts
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, again.student.state_dict()[name]), name


def test_crops_are_drawn_by_sample():
    crops = FrameCrops(Filmed(), num_frames=5, size_px=(16, 24), seed=0)
    batch = crops([0, 1, 2, 3])
    assert batch.shape == (4, 5, 16, 24, 3)
    assert 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal(batch[2:], crops([2, 3]))
    assert not torch.equal(batch, FrameCrops(Filmed(), num_frames=5, size_px=(16, 24), seed=1)([0, 1, 2, 3]))
    with pytest.raises(InputError, match="want at least"):
        FrameCrops(Filmed(), num_frames=5, size_px=(48, 24), seed=0)([0])
    with pytest.raises(InputError, match="want 4n - 3 frames"):
        FrameCrops(Filmed(), num_frames=6, size_px=(16, 24), seed=0)


def test_an_epoch_has_every_clip_once():
    seen = [CLIPS([i])[0][0, 0, 0, 0, 0].item() for i in range(10)]
    assert len(set(seen[:5])) == 5
    assert sorted(seen[:5]) == sorted(seen[5:])


def test_mistakes_are_named():
    class Partial(Encoded):
        def __getitem__(self, index):
            return {"target": torch.zeros(1)}

    with pytest.raises(InputError, match="want reference too"):
        EncodedClips(Partial(), seed=0)([0])
    with pytest.raises(InputError, match="want at least one, each once"):
        DistillStage(network(0), (), negative_text=torch.zeros(4, 8), schedule=SCHEDULE, config=DistillConfig())
    with pytest.raises(InputError, match="critic_updates=0"):
        DistillConfig(critic_updates=0)
    with pytest.raises(InputError, match="own history 2"):
        InitConfig(own_history_share=2)
