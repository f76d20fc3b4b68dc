import numpy as np
import pytest
import torch

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.errors import InputError
from inspatio_sim.generators.blocks.flow import FlowSchedule
from inspatio_sim.generators.presets.star_config import StarConfig
from inspatio_sim.generators.star.model import StarTransformer
from inspatio_sim.training.engine.inputs import recompute_blocks
from inspatio_sim.training.engine.metrics import read_metrics
from inspatio_sim.training.engine.trainer import AdamConfig, Trainer, TrainerConfig
from inspatio_sim.training.star.build import StarInputs
from inspatio_sim.training.star.flows import Conditions, student_flow, teacher_flow
from inspatio_sim.training.star.sources import EncodedClips
from inspatio_sim.training.star.stages import (
    DistillConfig,
    DistillStage,
    InitConfig,
    InitStage,
    Shown,
    Task,
    TeacherStage,
)

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


CLIPS = EncodedClips(Encoded(), seed=0)


def train(stage, out, max_steps=2, **options):
    trainer = Trainer(stage, TrainerConfig(out=out, max_steps=max_steps, batch_size=2, log_every=1, **options))
    trainer.run()
    return trainer, read_metrics(out / "metrics.csv")


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def has_moved(module, before):
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def distill_stage(seed=0, **options):
    tasks = (
        Task(name="v2v", real=network(1), fake=network(1), clips=CLIPS),
        Task(name="t2v", real=network(2, 16), fake=network(2, 16), clips=CLIPS, weight=0.5),
    )
    config = DistillConfig(critic_updates=2, student=ADAM, critic=ADAM, **options)
    return DistillStage(network(seed), tasks, negative_text=torch.zeros(4, 8), schedule=SCHEDULE, config=config)


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


@pytest.mark.parametrize("with_reference", [True, False])
def test_recomputed_blocks_have_the_same_gradients(with_reference):
    target, conditions = CLIPS([0, 1])
    if not with_reference:
        conditions = Conditions(text=conditions.text)
    gradients = []
    for is_recomputed in (False, True):
        net = network(0)
        if is_recomputed:
            recompute_blocks(net, StarInputs.recomputed_calls)
        timestep = torch.tensor([700.0])
        history = target[:, :3]
        streamed = student_flow(net, target[:, 3:], timestep, conditions.chunk(1, 3), history)
        whole = teacher_flow(net, target, timestep, conditions)
        (streamed.square().mean() + whole.square().mean()).backward()
        gradients.append({name: parameter.grad for name, parameter in net.named_parameters()})
    plain, again = gradients
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=0, msg=name)


def test_recomputed_blocks_keep_less():
    target, conditions = CLIPS([0, 1])
    kept = []
    for is_recomputed in (False, True):
        net, storages = network(0), {}
        if is_recomputed:
            recompute_blocks(net, StarInputs.recomputed_calls)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, to=storages: to.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
        ):
            teacher_flow(net, target, torch.tensor([700.0]), conditions)
        kept.append(sum(tensor.numel() for tensor in storages.values()))
    assert kept[1] < 0.6 * kept[0]


def test_pictures_show_truth_view_and_what_was_made(tmp_path):
    torch.manual_seed(0)
    codec = TinyAutoencoder(TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), time_alignment="causal"))
    target, conditions = CLIPS([0])
    shown = Shown(codec=TinyCodec(codec), target=target, conditions=conditions)
    alone = Shown(codec=TinyCodec(codec), target=target, conditions=Conditions(text=conditions.text))
    made = torch.zeros_like(target)
    truth, view, below = np.split(shown.sheet(made)[22 : 22 + 3 * 8 * H, : 8 * W], 3)
    assert np.array_equal(truth, below) is False
    assert np.array_equal(truth, view) is False
    assert np.array_equal(shown.sheet(target)[22 : 22 + 8 * H], shown.sheet(made)[22 : 22 + 8 * H])
    assert len(alone.sheet(made)) < len(shown.sheet(made))
    stages = {
        "teacher": TeacherStage(network(0), CLIPS, adam=ADAM, schedule=SCHEDULE, shown=shown),
        "student": InitStage(network(0), CLIPS, adam=ADAM, schedule=SCHEDULE, config=InitConfig(), shown=alone),
    }
    for name, stage in stages.items():
        train(stage, tmp_path / name, max_steps=1, sample_every=1)
        assert (tmp_path / name / "samples" / f"{name}_00000001.png").is_file()
        assert np.array_equal(stage.sample()[name], stage.sample()[name])


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
