"""The autoencoder of Wan 2.1 as a streaming codec, around the one in diffusers.

Its convolutions are causal in time and keep the last frames they saw. diffusers keeps those frames in the module
for the length of one clip; here they are the caller's state, so any number of streams share one network. A stream
is worked through latent by latent (1 frame, then 4 each), as in diffusers, so chunks give what the whole clip gives.

Frames that one convolution keeps: always two, [B, C, 2, h, w], with zeros for what lies before the stream. So the
states of streams of any age can be joined.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.codecs.checks import check_latents, check_num_frames, check_state, check_video
from inspatio_sim.codecs.diffusers_folder import UNREADABLE, first_line, load_folder
from inspatio_sim.codecs.protocol import CodecState
from inspatio_sim.errors import CheckpointMismatch, InputError

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

KEPT_FRAMES = 2

_SLOT = "conv."  # of the state: then the index of the convolution, in running order


class WanCodec:
    """An AutoencoderKLWan as a `Codec`. Works in the network's dtype and on its device; gives what it was given.

    Encoding takes the mean of the latents' distribution, not a sample.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        config: Any = vae.config
        if config.is_residual or config.patch_size is not None:
            raise InputError("vae: an autoencoder of Wan 2.2 came: want one of Wan 2.1")
        self.vae = vae.eval()
        self.latent_channels: int = config.z_dim
        self.spatial_stride: int = 2 ** (len(config.dim_mult) - 1)
        self.temporal_stride: int = 2 ** sum(config.temperal_downsample)
        self.memory_frames: int = causal_reach(vae.encoder)
        self._mean = torch.tensor(config.latents_mean, dtype=torch.float64).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(config.latents_std, dtype=torch.float64).view(1, -1, 1, 1, 1)

    @classmethod
    def from_folder(
        cls, folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> WanCodec:
        """Load config.json and the safetensors beside it, as diffusers lays them out (`vae/` of a Wan 2.1 model).

        Raises:
            InputError: no such folder, no weights for this network in it, or diffusers is missing.
        """
        network = _diffusers_network()
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder}: has no config.json: want the vae folder of Wan 2.1 in diffusers' format")
        vae = load_folder(network, folder, what="Wan autoencoder", dtype=dtype)
        return cls(vae.to(device))

    @classmethod
    def from_single_file(
        cls, path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> WanCodec:
        """Load the file of the original publisher, `Wan2.1_VAE.pth`, or its tensors as safetensors.

        Raises:
            InputError: no such file, not its weights, or diffusers is missing.
        """
        network = _diffusers_network()
        from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

        with open_checkpoint(path) as checkpoint:
            published = {name: checkpoint.read(name) for name in checkpoint.tensors}
        try:
            base_dim = len(published["encoder.conv1.weight"])
            weights = convert_wan_vae_to_diffusers(published)
        except UNREADABLE as error:
            raise InputError(f"{path}: not the weights of Wan 2.1's autoencoder: {first_line(error)}") from error
        with torch.device("meta"):
            vae = network(base_dim=base_dim)
        try:
            vae.load_state_dict(weights, strict=True, assign=True)
        except RuntimeError as error:
            raise CheckpointMismatch(f"{path}: {' '.join(str(error).split())[:400]}") from error
        return cls(vae.to(device=device, dtype=dtype))

    def encode(self, video: Tensor) -> Tensor:
        """Encode a whole clip of any length; the last frame is repeated until it fills a latent."""
        check_video(video, spatial_stride=self.spatial_stride)
        num_missing = (1 - video.shape[1]) % self.temporal_stride
        return self.encode_chunk(torch.cat([video, video[:, -1:].expand(-1, num_missing, -1, -1, -1)], dim=1))[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode n latents of a whole clip to 4n - 3 frames."""
        return self.decode_chunk(latents)[0]

    @torch.no_grad()
    def encode_chunk(self, video: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Encode the next frames of a stream; None begins one."""
        check_video(video, spatial_stride=self.spatial_stride)
        check_num_frames(video.shape[1], is_first=state is None, temporal_stride=self.temporal_stride)
        caches = self._caches(self.vae.encoder, state, like=video, stride=1)
        x = video.to(device=self.vae.device, dtype=self.vae.dtype).transpose(1, 2)
        begin = [1] if state is None else []
        outputs = []
        for part in x.split(begin + [self.temporal_stride] * (x.shape[2] // self.temporal_stride), dim=2):
            moments = self.vae.quant_conv(self.vae.encoder(part, feat_cache=caches, feat_idx=[0]))
            outputs.append(moments[:, : self.latent_channels])
            caches = _settled(caches)
        mean = torch.cat(outputs, dim=2).to(video.dtype)
        latents = (mean - self._mean.to(mean)) / self._std.to(mean)
        return latents.transpose(1, 2).contiguous(), _as_state(caches)

    def encode_complete(self, video: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """As `encode_chunk`: this codec never looks ahead."""
        return self.encode_chunk(video, state)

    def finish(self, state: CodecState) -> Tensor:
        """No latent is ever held back. [B, 0, C, h, w]"""
        first = state[f"{_SLOT}{0:02}"]  # holds frames themselves
        height_px, width_px = first.shape[-2:]
        size = (height_px // self.spatial_stride, width_px // self.spatial_stride)
        return first.new_empty(first.shape[0], 0, self.latent_channels, *size)

    @torch.no_grad()
    def decode_chunk(self, latents: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """Decode the next latents of a stream; None begins one."""
        check_latents(latents, latent_channels=self.latent_channels)
        caches = self._caches(self.vae.decoder, state, like=latents, stride=self.spatial_stride)
        z = latents.to(self.vae.device).transpose(1, 2)
        z = (z * self._std.to(z) + self._mean.to(z)).to(self.vae.dtype)
        outputs = []
        for i in range(z.shape[2]):
            x = self.vae.post_quant_conv(z[:, :, i : i + 1])
            is_first = state is None and i == 0
            outputs.append(self.vae.decoder(x, feat_cache=caches, feat_idx=[0], first_chunk=is_first))
            caches = _settled(caches)
        video = torch.cat(outputs, dim=2).to(latents.dtype).clamp(-1, 1)
        return video.transpose(1, 2).contiguous(), _as_state(caches)

    def _caches(self, half: nn.Module, state: CodecState | None, *, like: Tensor, stride: int) -> list[Tensor | None]:
        """The list in which diffusers keeps frames: an entry a convolution, None where nothing came before."""
        convs = _causal_convs(half)
        caches: list[Tensor | None] = [None] * len(convs)
        if state is not None:
            batch, _, _, height, width = like.shape
            first = f"{_SLOT}{0:02}"  # sees the inputs themselves
            wanted: dict[str, tuple[int, ...]] = dict.fromkeys(self._slots(half), (batch, -1, KEPT_FRAMES, -1, -1))
            wanted[first] = (batch, convs[0].in_channels, KEPT_FRAMES, height, width)
            check_state(state, wanted)
            for name, kept in state.items():
                caches[int(name.removeprefix(_SLOT))] = kept
        return caches

    def _slots(self, half: nn.Module) -> list[str]:
        """Names in a state: of every convolution over more than one frame."""
        num_kept = sum(conv.kernel_size[0] > 1 for conv in _causal_convs(half))
        return [f"{_SLOT}{i:02}" for i in range(num_kept)]


def causal_reach(encoder: nn.Module) -> int:
    """How many frames before a latent's own four it depends on.

    A convolution over k steps reaches k - 1 steps back; one with stride s takes s finer steps for each of its own.
    """
    steps = 0
    for conv in reversed(_causal_convs(encoder)):
        steps = steps * conv.stride[0] + conv.kernel_size[0] - conv.stride[0]
    return steps


def _causal_convs(half: nn.Module) -> list[nn.Conv3d]:
    """In the order of definition; those over time are then in running order."""
    return [module for module in half.modules() if isinstance(module, nn.Conv3d)]


def _settled(caches: list[Any]) -> list[Tensor | None]:
    """Caches after one latent, each as two frames.

    Right after the first latent some hold less: one frame, or (where the decoder doubles frames) the mark "Rep",
    which stands for no frame yet. Zeros give the same bits as diffusers' own padding. The doubling has the shape
    of what the convolution before it saw.
    """
    frames: list[Tensor | None] = []
    for cache in caches:
        if isinstance(cache, str):
            before = frames[-1]
            assert cache == "Rep", f"diffusers' mark {cache!r} is not known"
            assert before is not None, "no convolution before the doubling of frames"
            frames.append(torch.zeros_like(before))
        elif cache is not None and cache.shape[2] < KEPT_FRAMES:
            frames.append(torch.cat([torch.zeros_like(cache), cache], dim=2))
        else:
            frames.append(cache)
    return frames


def _as_state(caches: list[Tensor | None]) -> CodecState:
    assert all(before is not None or after is None for before, after in pairwise(caches)), "a cache was passed over"
    return {f"{_SLOT}{i:02}": kept for i, kept in enumerate(caches) if kept is not None}


def wan_network() -> AutoencoderKLWan:
    """The network at its published sizes, untrained.

    Raises:
        InputError: diffusers is missing.
    """
    return _diffusers_network()()


def _diffusers_network() -> Any:
    """The class AutoencoderKLWan."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan  # seconds to import
    except ImportError as error:
        raise InputError("codec wan: package diffusers is missing: pip install 'diffusers>=0.33'") from error
    return AutoencoderKLWan
