"""The autoencoder of Stable Diffusion XL as an image codec, around the one in diffusers.

The published frame models come with one, as a folder in diffusers' layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspatio_sim.checkpoints.wanted import UNSTATED_LICENCE, WantedFile
from inspatio_sim.codecs.checks import check_latents, check_video
from inspatio_sim.codecs.diffusers_folder import load_folder
from inspatio_sim.errors import InputError

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

LATENT_SCALE = 0.13025  # of SDXL's latents, where a config.json does not say

SD_VAE = WantedFile(
    role="codec",
    names=("vae",),
    holds=("config.json", "diffusion_pytorch_model.safetensors"),
    model_class="AutoencoderKL",
    repo="inspatio/worldfm",
    published=("vae/*",),
    licence=UNSTATED_LICENCE,
    size_gb=0.335,
    note="size computed for float32",
)


class SdVae:
    """An AutoencoderKL as an `ImageCodec`. Works in the network's dtype and on its device; gives what it was given.

    Encoding takes the mean of the latents' distribution, not a sample: the same image gives the same latents.
    """

    def __init__(self, vae: AutoencoderKL, latent_scale: float = LATENT_SCALE) -> None:
        """Wrap a network of diffusers, whose latents are multiplied by `latent_scale`."""
        self.vae: Any = vae.eval().requires_grad_(False)
        self.latent_scale = latent_scale
        self.latent_channels: int = self.vae.config.latent_channels
        self.spatial_stride: int = 2 ** (len(self.vae.config.block_out_channels) - 1)

    @classmethod
    def from_folder(
        cls, folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> SdVae:
        """Load config.json and the safetensors beside it, as diffusers lays them out.

        Raises:
            InputError: the folder or files in it are missing (names each one), they are damaged or of another
                kind, or diffusers is missing.
            CheckpointMismatch: the weights are not those that config.json describes.
        """
        missing = SD_VAE.missing_in(folder)
        if missing:
            command = SD_VAE.download_command("weights")
            raise InputError(f"{folder}: lacks {' and '.join(missing)}: want the folder vae that comes by {command}")
        network = _diffusers_network()
        latent_scale = _stated_scale(folder / SD_VAE.holds[0])
        vae = load_folder(network, folder, what="image autoencoder", dtype=dtype)
        return cls(vae.to(device), latent_scale)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] [B, 3, H, W] to latents [B, latent_channels, h, w]."""
        check_video(images[:, None], spatial_stride=self.spatial_stride)
        distribution = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist
        return distribution.mode().to(images.dtype) * self.latent_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The inverse: images in [-1, 1], [B, 3, H, W]."""
        check_latents(latents[:, None], latent_channels=self.latent_channels)
        z = (latents / self.latent_scale).to(self.vae.device, self.vae.dtype)
        return self.vae.decode(z).sample.to(latents.dtype).clamp(-1, 1)


def sdxl_network() -> AutoencoderKL:
    """The network at its published sizes, untrained.

    Raises:
        InputError: diffusers is missing.
    """
    return _diffusers_network()(
        down_block_types=4 * ("DownEncoderBlock2D",),
        up_block_types=4 * ("UpDecoderBlock2D",),
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )


def _stated_scale(path: Path) -> float:
    """What a config.json says that latents are multiplied by, and that nothing else is done to them."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    kind = config.get("_class_name", SD_VAE.model_class) if isinstance(config, dict) else "no mapping"
    if kind != SD_VAE.model_class:
        raise InputError(f"{path}: describes {str(kind)[:40]!r}: want {SD_VAE.model_class}")
    if config.get("shift_factor"):
        raise InputError(f"{path}: its latents are shifted (shift_factor): want the autoencoder of Stable Diffusion XL")
    scale = config.get("scaling_factor", LATENT_SCALE)
    if not isinstance(scale, (int, float)) or not scale > 0:
        raise InputError(f"{path}: scaling_factor={str(scale)[:40]}: want a number above 0")
    return scale


def _diffusers_network() -> Any:
    """The class AutoencoderKL."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # seconds to import
    except ImportError as error:
        raise InputError("codec sd_vae: package diffusers is missing: pip install 'inspatio-sim[wan]'") from error
    return AutoencoderKL
