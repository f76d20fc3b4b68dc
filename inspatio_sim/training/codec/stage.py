"""The codec as the trainer sees it: crops of clips go in, reconstructions of them come out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspatio_sim.codecs.tiny_network import TinyAutoencoder
from inspatio_sim.latents import SPATIAL_STRIDE, num_latents_of
from inspatio_sim.pictures import contact_sheet
from inspatio_sim.training.codec.losses import CodecLossConfig, codec_loss, reconstruct
from inspatio_sim.training.engine.iteration import Iteration, Source
from inspatio_sim.training.engine.trainer import AdamConfig, StageDefaults, Trained

SHEET_FRAMES = 8


class CodecStage(StageDefaults):
    """The narrow codec learns to reconstruct clips."""

    def __init__(
        self, network: TinyAutoencoder, crops: Source[Tensor], *, adam: AdamConfig, loss: CodecLossConfig, shown: Tensor
    ) -> None:
        """`shown` are frames for the pictures, [B, T, H, W, 3] in [0, 1]."""
        self.network, self.crops, self.adam, self.loss, self.shown = network, crops, adam, loss, shown

    def modules(self) -> Mapping[str, Trained]:
        return {"codec": Trained(module=self.network, entry_points=("encode", "decode"), is_averaged=True)}

    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self.adam.make(self.network)}

    def step(self, step: Iteration) -> None:
        for batch in step.update("adam", self.crops):
            frames = batch.data.to(step.device)
            _, num_frames, height_px, width_px, _ = frames.shape
            grid = (height_px // SPATIAL_STRIDE, width_px // SPATIAL_STRIDE)
            size = (num_latents_of(num_frames), *grid, self.network.config.latent_channels)
            decoded, latents = reconstruct(self.network, frames, self.loss.latent_noise * batch.random.normal(*size))
            parts = codec_loss(decoded.float(), frames, latents.float(), self.loss)
            step.backward(parts.total)
            error = (decoded.detach().float().clamp(0, 1) - frames).square().mean()
            step.log(
                loss=parts.total, l1=parts.l1, ssim=1 - parts.ssim, latent=parts.latent, psnr_db=-10 * error.log10()
            )

    @torch.no_grad()
    def sample(self) -> Mapping[str, NDArray[np.uint8]]:
        shown = self.shown.to(next(self.network.parameters()).device)
        decoded, _ = reconstruct(self.network, shown)
        pairs = torch.cat([shown, decoded.float().clamp(0, 1)], dim=2)[0]  # truth above reconstruction
        return {"codec": contact_sheet((255 * pairs).round().byte().cpu().numpy(), max_frames=SHEET_FRAMES)}
