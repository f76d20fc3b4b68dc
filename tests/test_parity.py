import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from benchmarks import parity
from benchmarks.golden import max_error

REPOSITORY = Path(__file__).parents[1]


def copy_case(source, target, name, change):
    """Copy one golden case with `change(tensors)` applied."""
    tensors = load_file(source / f"{name}.safetensors")
    change(tensors)
    save_file(tensors, target / f"{name}.safetensors")
    shutil.copyfile(source / f"{name}.json", target / f"{name}.json")


def add(key, amount):
    def change(tensors):
        tensors[key] = tensors[key] + np.asarray(amount, dtype=tensors[key].dtype)

    return change


def run(folder, capsys):
    code = parity.main([str(folder), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else None, captured.err


def test_everything_agrees(test_data):
    command = [sys.executable, "-m", "benchmarks.parity", str(test_data / "golden"), "--json"]
    completed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    result = json.loads(completed.stdout)
    assert result["benchmark"] == "parity"
    assert result["passed"]
    measured = {row["name"].split("/")[0] for row in result["results"]}
    assert {parity._kind_of(name) for name in measured} == set(parity.CASES)
    assert measured >= {"star_dit_b2", "taehv_full_width"}  # variants have rows of their own
    assert all(0 <= row["value"] <= row["floor"] and row["better"] == "lower" for row in result["results"])
    assert {row["name"].split("/")[0] for row in result["skipped"]} == {"warp"}


@pytest.mark.parametrize(
    ("name", "key", "amount"),
    [
        ("trajectory", "out.zoom_out_in.n45.full.c2w", 1e-5),
        ("trajectory", "out.mixed_keys.gen.target_c2w.relative.full", 1e-5),
        ("trajectory", "in.up_only.x_up", 0.1),
        ("trajectory", "out.bounce.5_13", 1),
        ("trajectory", "out.scale_K.832x480", 0.1),
        ("mask_latent", "out.soft.t21", 1e-5),
        ("star_dit", "out.a.cache.k.0", 1e-4),
        ("star_dit", "out.a.context_head_output", 1e-4),
        ("star_dit", "out.c.flow", 1e-4),
        ("star_dit_b2", "in.t", 10),
        ("star_dit_b2", "weights.blocks.0.modulation", 1e-2),
        ("star_rollout", "in.renoise", 1e-2),
        ("star_rollout", "in.denoising_step_list", -1),
        ("star_rollout", "out.latents", 1e-4),
        ("star_rollout", "sched.sigmas", 1e-5),
        ("star_rollout", "ex.table_index", 1),
        ("taehv", "out.encode.parallel", 1e-4),
        ("taehv", "out.decode.streaming", 1e-4),
        ("taehv", "weights.decoder.1.bias", 1e-2),
        ("warp", "out.single.image", 1e-3),
        ("warp", "in.w2c_target", 1e-3),
        ("worldfm_dit", "out.rect.eps", 1e-4),
        ("worldfm_dit", "out.sq.sigma", 1e-4),
        ("worldfm_dit", "in.batch.t", 10),
        ("worldfm_dit", "in.sq.cond2", 0.1),
        ("worldfm_dit", "weights.blocks.0.scale_shift_table", 1e-2),
        ("worldfm_dit", "weights.pos_embed", 1e-5),
        ("worldfm_dit", "out.rect.pos_embed", 1e-5),
        ("worldfm_dit", "in.sample.noise_mid", 1e-2),
        ("worldfm_dit", "out.sample1.latent", 2e-4),
        ("worldfm_dit", "sched.alphas_cumprod_f64", 1e-5),
        ("worldfm_render", "out.fast_fp16.1.rgb_u8", 1),
        ("worldfm_render", "out.db.depth", 1e-4),
        ("worldfm_render", "out.softmin.0.depth", np.nan),
        ("worldfm_render", "out.db.P", 1e-2),
        ("worldfm_render", "out.db_scaled.angle30.best_hits_samples_perview", 2),
        ("worldfm_render", "out.db_scaled.yaml.best_hits_samples_perview", [1] + 12 * [0]),
        ("worldfm_render", "in.db_scaled.depth", 0.2),
        ("worldfm_render", "out.pre.pil.72", 1e-3),
        ("worldfm_render", "out.to_u8", 1),
    ],
)
def test_a_wrong_number_fails(test_data, tmp_path, capsys, name, key, amount):
    copy_case(test_data / "golden", tmp_path, name, add(key, amount))
    code, result, _ = run(tmp_path, capsys)
    assert code == 1
    assert result is not None
    assert not result["passed"]
    assert any(not row["passed"] for row in result["results"])


def test_other_sizes_and_names_are_read_from_the_files(test_data, tmp_path, capsys):
    """A case under another name, with fewer frames and other orbit names, as another seed would have."""
    tensors = load_file(test_data / "golden" / "trajectory.safetensors")
    renamed = {key.replace("mixed_keys", "my.orbit"): value for key, value in tensors.items() if "mixed_keys" in key}
    save_file(renamed, tmp_path / "trajectory_b2.safetensors")
    card = json.loads((test_data / "golden" / "trajectory.json").read_text())
    (tmp_path / "trajectory_b2.json").write_text(json.dumps({**card, "case": "trajectory_b2"}))
    code, result, _ = run(tmp_path, capsys)
    assert code == 0
    assert result is not None
    assert sum(row["tensors"] for row in result["results"]) == sum(key.startswith("out.") for key in renamed)
    assert any("my.orbit" in row["worst"] for row in result["results"])


def test_configuration_may_come_from_the_metadata(test_data, tmp_path, capsys):
    config = json.loads((test_data / "golden" / "trajectory.json").read_text())["config"]
    tensors = load_file(test_data / "golden" / "trajectory.safetensors")
    save_file(tensors, tmp_path / "trajectory.safetensors", metadata={"config": json.dumps(config)})
    assert run(tmp_path, capsys)[0] == 0


def test_unusable_folders_exit_with_2(tmp_path, capsys):
    zeros = np.zeros((1, 4, 4))

    def expect(folder, message):
        code, result, error = run(folder, capsys)
        assert (code, result) == (2, None)
        assert message in error
        assert error.count("\n") == 1

    expect(tmp_path / "nowhere", "does not exist")
    expect(tmp_path, "has no .safetensors file")
    save_file({"out.a": zeros}, tmp_path / "another_model.safetensors")
    expect(tmp_path, "no case with a counterpart")
    save_file({"out.a": zeros}, tmp_path / "trajectory.safetensors")
    expect(tmp_path, "trajectory.safetensors: has no tensor that")
    save_file({"out.a.n1.full.c2w": zeros}, tmp_path / "trajectory.safetensors")
    expect(tmp_path, "has no tensor in.a.x_up")
    (tmp_path / "trajectory.json").write_text("[")
    expect(tmp_path, "trajectory.json: is not a json object")
    (tmp_path / "trajectory.safetensors").write_bytes(b"no tensors at all")
    expect(tmp_path, "trajectory.safetensors: cannot be read")


def test_errors_of_shape_and_nan_are_infinite():
    assert max_error(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert max_error(torch.tensor([0.0, np.nan]), torch.zeros(2)) == float("inf")
    assert max_error(torch.tensor([0.0, 5.0]), torch.zeros(2), where=torch.tensor([True, False])) == 0.0
