"""The registry, and the files of its models at their true sizes: hollow files with real names and shapes."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inspatio_sim.checkpoints.files import open_checkpoint
from inspatio_sim.checkpoints.tensors import Shape
from inspatio_sim.errors import CheckpointMismatch, InputError
from inspatio_sim.generators.presets import find
from inspatio_sim.generators.presets.find import find_weights
from inspatio_sim.generators.presets.frame_config import frame_tiny, frame_xl
from inspatio_sim.generators.presets.identify import identify, stored_config, stored_frame_config
from inspatio_sim.generators.presets.registry import PRESETS, frame_preset, preset_by_name, star_preset
from inspatio_sim.generators.presets.shapes import expected_shapes
from inspatio_sim.generators.presets.star_config import star_1_3b, star_14b, star_tiny
from tests.checkpoints.small import SMALL, write_hollow

XL = expected_shapes(frame_xl())
WIDE_1_3B = expected_shapes(star_1_3b())
BASE_1_3B = expected_shapes(replace(star_1_3b(), in_channels=16))
V1_5 = "InSpatio-World-1.5-1.3B.safetensors"


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch, tmp_path_factory) -> Path:
    """A package without weights, and no folder named."""
    folder = tmp_path_factory.mktemp("shipped")
    monkeypatch.setattr(find, "SHIPPED", folder)
    monkeypatch.delenv("INSPATIO_WEIGHTS", raising=False)
    return folder


def image_codec(folder: Path) -> Path:
    """A folder vae as diffusers lays it out."""
    weights = {"encoder.conv_in.weight": (128, 3, 3, 3), "quant_conv.weight": (8, 8, 1, 1)}
    write_hollow(folder / "vae" / "diffusion_pytorch_model.safetensors", weights)
    (folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    return folder / "vae"


def write_hollow_pth(path: Path, shapes: dict[str, Shape]) -> Path:
    """A torch file of any size that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.serialization.skip_data():
        torch.save({"state_dict": {name: torch.empty(shape) for name, shape in shapes.items()}}, path)
    return path


def codec(folder: Path) -> Path:
    return write_hollow(folder / "taehv" / "taew2_1.safetensors", {"decoder.1.weight": (256, 16, 3, 3)})


def test_the_registry():
    assert set(PRESETS) == {
        "tiny", "inspatio-1.3b", "inspatio-1.3b-v1.5", "inspatio-14b", "wan-t2v-1.3b", "wan-t2v-14b",
        "frame-tiny", "worldfm-1step", "worldfm-2step",
    }  # fmt: skip
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert {"transformer", "codec"} <= {file.role for file in preset.files if file.is_needed}
        for file in preset.files:
            assert file.licence
            assert file.origin
            assert (
                not file.size_gb or not file.repo or file.download_command("x").startswith(f"hf download {file.repo} ")
            )
    assert star_preset("inspatio-1.3b").star == star_1_3b()
    with pytest.raises(InputError, match="'big': want one of tiny, inspatio-1.3b, "):
        preset_by_name("big")


def test_the_registry_of_frame_models():
    one, two = (frame_preset(f"worldfm-{steps}") for steps in ("1step", "2step"))
    assert one.frame == two.frame == frame_xl()
    assert (one.steps, two.steps) == ((999,), (999, 200))
    assert one.num_parameters == 614_600_864
    assert abs(4 * one.num_parameters / 1e9 - (one.wanted("transformer").size_gb or 0)) < 1e-3
    tiny = frame_preset("frame-tiny")
    assert (tiny.frame, tiny.size_px, tiny.steps) == (frame_tiny(), (96, 160), (999, 200))
    with pytest.raises(InputError, match="'tiny': is for the generator star, not frame: want one of frame-tiny, "):
        frame_preset("tiny")
    with pytest.raises(InputError, match="'frame-tiny': is for the generator frame, not star: want one of tiny, "):
        star_preset("frame-tiny")
    with pytest.raises(InputError, match="'big': want one of frame-tiny, worldfm-1step"):
        frame_preset("big")


@pytest.mark.parametrize("name", PRESETS)
def test_missing_files_come_with_all_that_is_needed_to_get_them(tmp_path, name):
    with pytest.raises(InputError) as caught:
        find_weights(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for wanted in PRESETS[name].files:
        if wanted.is_needed:
            for part in (wanted.label, wanted.origin, wanted.licence, wanted.download_command(str(tmp_path))):
                assert part in message
        else:
            assert wanted.label not in message
    assert ("no 14B weights are published" in message) == (name == "inspatio-14b")


def test_commands_survive_a_folder_with_spaces(tmp_path):
    folder = tmp_path / "my weights"
    folder.mkdir()
    with pytest.raises(InputError) as caught:
        find_weights("inspatio-1.3b", folder)
    command = str(caught.value).partition("run ")[2].partition(";")[0]
    assert shlex.split(command)[-2:] == ["--local-dir", f"{folder}/world"]


@pytest.mark.parametrize("inner", ["", "InSpatio-World-1.3B", "checkpoints/InSpatio-World-1.3B"])
def test_files_are_found_as_publishers_lay_them_out(tmp_path, inner):
    prefixed = {f"model.{name}": shape for name, shape in WIDE_1_3B.items()}
    transformer = write_hollow(tmp_path / inner / V1_5, prefixed)
    small_codec = codec(tmp_path)
    assert find_weights("inspatio-1.3b-v1.5", tmp_path) == {"transformer": transformer, "codec": small_codec}
    with pytest.raises(InputError, match=r"1 files are not in .*InSpatio-World-1.3B.safetensors"):
        find_weights("inspatio-1.3b", tmp_path)
    vae = tmp_path / "Wan2.1-T2V-1.3B" / "Wan2.1_VAE.pth"
    vae.parent.mkdir()
    vae.write_text("")
    text = tmp_path / "Wan2.1-T2V-1.3B-Diffusers" / "text_encoder"
    text.mkdir(parents=True)
    (text / "config.json").write_text("{}")
    found = find_weights(PRESETS["inspatio-1.3b-v1.5"], tmp_path)
    assert found == {"transformer": transformer, "codec": small_codec, "wan_codec": vae, "text_encoder": text}


def test_the_two_bases_have_one_file_name_and_are_told_apart(tmp_path):
    codec(tmp_path)
    small = write_hollow(tmp_path / "Wan2.1-T2V-1.3B" / "diffusion_pytorch_model.safetensors", BASE_1_3B)
    shapes = expected_shapes(replace(star_14b(), in_channels=16))
    names = sorted(shapes)
    for number in range(6):
        file = tmp_path / "Wan2.1-T2V-14B" / f"diffusion_pytorch_model-{number + 1:05d}-of-00006.safetensors"
        write_hollow(file, {name: shapes[name] for name in names[number::6]})
    assert find_weights("wan-t2v-1.3b", tmp_path)["transformer"] == small
    large = find_weights("wan-t2v-14b", tmp_path)["transformer"]
    assert large.name == "diffusion_pytorch_model-00001-of-00006.safetensors"
    write_hollow(tmp_path / "a" / "diffusion_pytorch_model.safetensors", {"x": (1,)})  # an autoencoder, say
    assert find_weights("wan-t2v-1.3b", tmp_path)["transformer"] == small


def test_another_model_by_that_name_is_told_what_it_is(tmp_path):
    codec(tmp_path)
    write_hollow(tmp_path / V1_5, expected_shapes(star_14b()))
    with pytest.raises(CheckpointMismatch, match="not the transformer of inspatio-1.3b-v1.5.*fits inspatio-14b"):
        find_weights("inspatio-1.3b-v1.5", tmp_path)
    write_hollow(tmp_path / V1_5, BASE_1_3B)
    with pytest.raises(CheckpointMismatch, match="text-to-video transformer of Wan2.1.*fits wan-t2v-1.3b"):
        find_weights("inspatio-1.3b-v1.5", tmp_path)
    (tmp_path / V1_5).write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        find_weights("inspatio-1.3b-v1.5", tmp_path)


def test_where_weights_are_looked_for(tmp_path, monkeypatch, nothing_shipped):
    shapes = expected_shapes(star_tiny())
    shipped = write_hollow(nothing_shipped / "tiny.safetensors", shapes)
    write_hollow(nothing_shipped / "tiny_codec.safetensors", {"x": (1,)})
    assert find_weights("tiny")["transformer"] == shipped
    monkeypatch.setenv("INSPATIO_WEIGHTS", str(tmp_path))
    assert find_weights("tiny")["transformer"] == shipped  # also where another folder is named
    own = write_hollow(tmp_path / "tiny.safetensors", shapes)
    assert find_weights("tiny")["transformer"] == own
    other = tmp_path / "other"
    other.mkdir()
    assert find_weights("tiny", other)["transformer"] == shipped
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_weights("tiny", tmp_path / "nowhere")
    monkeypatch.setenv("INSPATIO_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="INSPATIO_WEIGHTS .*gone: no such folder"):
        find_weights("tiny")


def test_names_and_notes_tell_models_of_one_shape_apart(tmp_path):
    with open_checkpoint(write_hollow(tmp_path / V1_5, WIDE_1_3B)) as checkpoint:
        identity = identify(checkpoint)
        assert identity.presets == ("inspatio-1.3b-v1.5", "inspatio-1.3b", "wan-t2v-1.3b")
        assert identity.publication == f"{V1_5} of huggingface.co/inspatio/world-1.5 (arXiv:2604.07209)"
        assert stored_config(checkpoint) == star_1_3b()
    with open_checkpoint(write_hollow(tmp_path / "mine.safetensors", WIDE_1_3B)) as checkpoint:
        assert identify(checkpoint).publication == ""
    noted = write_hollow(tmp_path / "noted.safetensors", WIDE_1_3B, {"preset": "inspatio-1.3b", "licence": "mine"})
    with open_checkpoint(noted) as checkpoint:
        assert identify(checkpoint).presets[0] == "inspatio-1.3b"
        assert identify(checkpoint).licence == "mine"


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ({"decoder.1.weight": (256, 16, 3, 3), "decoder.22.weight": (3, 64, 3, 3)}, "TAEHV autoencoder"),
        ({"decoder.upsamples.0.residual.0.gamma": (384, 1, 1, 1)}, "video autoencoder of Wan2.1"),
        ({"token_embedding.weight": (9, 4), "blocks.0.attn.q.weight": (4, 4)}, "UMT5 text encoder in Wan's form"),
        ({"shared.weight": (9, 4), "encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}, "transformers' form"),
        ({"patch_embedding.weight": (4, 16, 1, 2, 2), "head.head.weight": (64, 4)}, "part of a video transformer"),
        ({"x": (1,)}, "no model that this package knows"),
        (
            {"encoder.conv_in.weight": (128, 3, 3, 3), "quant_conv.weight": (8, 8, 1, 1)},
            "image autoencoder of diffusers (AutoencoderKL): 4 latent channels",
        ),
        ({"adaln_single.linear.weight": (6, 1)}, "a PixArt transformer with diffusers' names"),
        ({"x_embedder.proj.weight": (), "final_layer.linear.weight": ()}, "part of a frame transformer"),
        ({"decoder.1.weight": (), "decoder.22.weight": ()}, "no model that this package knows"),
        ({"patch_embedding.weight": (), "head.head.weight": ()}, "part of a video transformer"),
        (
            {"patch_embedding.weight": (0, 0, 0), f"blocks.{'9' * 5000}.x": (), "head.head.weight": (1,)},
            "part of a video",
        ),
    ],
)
def test_other_models_are_recognised(tmp_path, shapes, what):
    with open_checkpoint(write_hollow(tmp_path / "a.safetensors", shapes)) as checkpoint:
        assert what in identify(checkpoint).what
        assert identify(checkpoint).presets == ()


def test_a_transformer_of_other_sizes_is_described(tmp_path):
    with open_checkpoint(write_hollow(tmp_path / "a.safetensors", expected_shapes(SMALL))) as checkpoint:
        assert identify(checkpoint).what == "a STAR transformer: width 96, 2 layers, feed-forward 192, 36 channels in"
        assert stored_config(checkpoint) is None


def test_published_frame_models_are_found_as_they_are_laid_out(tmp_path):
    folder = tmp_path / "worldfm"
    two = write_hollow_pth(folder / "worldfm_2-step.pth", XL)
    assert abs(two.stat().st_size / 2_458_577_701 - 1) < 1e-4  # what the published file is said to have
    vae = image_codec(folder)
    assert find_weights("worldfm-2step", tmp_path) == {"transformer": two, "codec": vae}
    with pytest.raises(InputError, match=r"worldfm-1step: 1 files are not in .*: transformer worldfm_1-step.pth"):
        find_weights("worldfm-1step", tmp_path)
    with open_checkpoint(two) as checkpoint:
        identity = identify(checkpoint)
        assert identity.what == "a frame transformer of WorldFM: width 1152, 28 layers, 4 channels in"
        assert identity.presets == ("worldfm-2step", "worldfm-1step")
        assert identity.publication == "worldfm_2-step.pth of huggingface.co/inspatio/worldfm (arXiv:2603.11911)"
        assert stored_frame_config(checkpoint) == frame_xl()
        assert stored_config(checkpoint) is None
    with open_checkpoint(vae) as checkpoint:
        assert identify(checkpoint).publication == "vae/* of huggingface.co/inspatio/worldfm"


@pytest.mark.parametrize("positions", [None, (1, 256, 1152)])
def test_a_table_of_positions_may_be_missing_or_of_another_size(tmp_path, positions):
    shapes = {name: shape for name, shape in XL.items() if name != "pos_embed"}
    path = write_hollow(
        tmp_path / "worldfm_1-step.safetensors", shapes | ({"pos_embed": positions} if positions else {})
    )
    with open_checkpoint(path) as checkpoint:
        assert "worldfm-1step" in identify(checkpoint).presets
        assert stored_frame_config(checkpoint) == frame_xl()


def test_an_image_codec_that_lacks_files_names_each(tmp_path):
    write_hollow(tmp_path / "worldfm-1step.safetensors", XL)
    vae = image_codec(tmp_path)
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        find_weights("worldfm-1step", tmp_path)
    message = str(caught.value)
    assert f"{vae} lacks diffusion_pytorch_model.safetensors, of codec vae/*" in message
    assert f"run hf download inspatio/worldfm --include 'vae/*' --local-dir {tmp_path}/worldfm" in message
    (vae / "config.json").unlink()
    with pytest.raises(InputError, match=r"vae lacks config.json and diffusion_pytorch_model.safetensors, of codec"):
        find_weights("worldfm-1step", tmp_path)
    vae.rmdir()
    with pytest.raises(
        InputError, match=r"in .*: codec vae/\* with config.json and diffusion_pytorch_model.safetensors"
    ):
        find_weights("worldfm-1step", tmp_path)


def test_folders_by_that_name_with_another_model_are_passed_over(tmp_path):
    write_hollow(tmp_path / "worldfm-1step.safetensors", XL)
    wan = image_codec(tmp_path / "a")
    (wan / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(InputError, match=r"1 files are not in .*: codec vae"):
        find_weights("worldfm-1step", tmp_path)
    vae = image_codec(tmp_path / "b")
    (vae / "config.json").write_text("{not json")  # said where it is loaded
    assert find_weights("worldfm-1step", tmp_path)["codec"] == vae


def test_a_wrong_frame_model_is_told_what_it_is(tmp_path):
    image_codec(tmp_path)
    path = tmp_path / "worldfm_2-step.safetensors"
    write_hollow(path, expected_shapes(frame_tiny()))
    with pytest.raises(
        CheckpointMismatch, match=r"not the transformer of worldfm-2step: .*width 256, 5.*fits frame-ti"
    ):
        find_weights("worldfm-2step", tmp_path)
    write_hollow(path, {name: shape for name, shape in XL.items() if not name.startswith("plucker")})
    with pytest.raises(CheckpointMismatch, match="it is a text-to-image transformer of PixArt: width 1152, 28 layers"):
        find_weights("worldfm-2step", tmp_path)
    write_hollow(path, WIDE_1_3B)
    with pytest.raises(CheckpointMismatch, match="not the transformer of worldfm-2step: it is a STAR transformer"):
        find_weights("worldfm-2step", tmp_path)
