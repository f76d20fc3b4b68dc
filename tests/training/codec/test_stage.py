import torch

from inspatio_sim.codecs import TinyAutoencoder, TinyConfig
from inspatio_sim.training.codec.crops import FrameCrops, film_clips
from inspatio_sim.training.codec.losses import CodecLossConfig
from inspatio_sim.training.codec.stage import CodecStage
from inspatio_sim.training.engine.metrics import read_metrics
from inspatio_sim.training.engine.trainer import AdamConfig, Trainer, TrainerConfig
from tests.training.codec.test_crops import Filmed


def codec_stage():
    torch.manual_seed(0)
    net = TinyAutoencoder(TinyConfig(encoder_width=8, decoder_widths=(16, 8, 8, 8), time_alignment="causal"))
    crops = FrameCrops(film_clips(Filmed, 3), num_frames=5, size_px=(16, 24), seed=0)
    return CodecStage(net, crops, adam=AdamConfig(lr=1e-3), loss=CodecLossConfig(), shown=crops([0]))


def test_the_codec_trains_and_shows_what_it_can(tmp_path):
    stage = codec_stage()
    before = {name: tensor.clone() for name, tensor in stage.network.state_dict().items()}
    Trainer(stage, TrainerConfig(out=tmp_path, max_steps=2, batch_size=2, log_every=1, sample_every=2)).run()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in stage.network.state_dict().items())
    rows = read_metrics(tmp_path / "metrics.csv")
    assert {"loss", "l1", "ssim", "latent", "psnr_db"} <= set(rows[-1])
    assert list((tmp_path / "samples").rglob("*.png"))
