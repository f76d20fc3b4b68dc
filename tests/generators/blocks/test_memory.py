"""Free memory as the system, or a container, says it; and the order in which settings are suggested."""

from pathlib import Path

import pytest
import torch

from inspatio_sim.errors import NotEnoughMemory
from inspatio_sim.generators.blocks.memory import available_bytes, check_room, fitting_setting, host_available_bytes


def test_free_memory_is_the_systems_or_the_groups(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    inner = groups / "outer" / "inner"
    (proc / "self").mkdir(parents=True)
    inner.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 8000 kB\nMemFree:  100 kB\nMemAvailable:   4000 kB\n")
    assert host_available_bytes(proc, groups) == 4000 * 1024
    (proc / "self" / "cgroup").write_text("9:name=systemd:/\n0::/outer/inner\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1\n")
    assert host_available_bytes(proc, groups) == 4000 * 1024
    (inner.parent / "memory.max").write_text("3000000\n")
    (inner.parent / "memory.current").write_text("2500000\n")
    assert host_available_bytes(proc, groups) == 500_000
    (inner.parent / "memory.stat").write_text("anon 100\ninactive_file 1000000\n")
    assert host_available_bytes(proc, groups) == 1_500_000
    (inner.parent / "memory.current").write_text("9000000\n")
    assert host_available_bytes(proc, groups) == 0


def test_free_memory_here_is_plausible() -> None:
    assert 10e6 < available_bytes(torch.device("cpu")) < 1e14


@pytest.mark.parametrize(
    ("needed", "setting"),
    [
        (8, "dtype=bfloat16"),
        (7, "low_memory=True"),
        (5, "dtype=bfloat16, low_memory=True"),
        (4, "dtype=bfloat16, low_memory=True, batch=2"),
        (3, "dtype=bfloat16, low_memory=True, batch=1"),
        (2, "dtype=bfloat16, low_memory=True, batch=1, size=1"),
        (1, "preset=tiny"),
        (-7, None),
    ],
)
def test_the_first_setting_that_fits_alone_or_with_what_costs_less(needed, setting):
    saved = {"dtype": 2, "low_memory": 3, "batch": 1, "size": 1, "preset": 9}

    def fits(changes):
        times = {name: 3 - value if name == "batch" else 1 for name, value in changes.items()}
        return 10 - sum(saved[name] * times[name] for name in changes) <= needed

    cheap = [("dtype=bfloat16", {"dtype": 1}), ("low_memory=True", {"low_memory": 1})]
    assert fitting_setting(fits, cheap, 3, [("size=1", {"size": 1})], [("preset=tiny", {"preset": 1})]) == setting


def test_a_refusal_says_what_is_needed_and_what_would_fit():
    device, sizes = torch.device("cpu"), {"batch": 2, "size_px": (96, 160), "dtype": torch.float32}
    check_room(1, device, **sizes, setting=lambda free: None)
    for setting, wanted in (("batch=1", "use batch=1"), (None, "no smaller batch, size or preset would fit either")):
        with pytest.raises(NotEnoughMemory) as error:
            check_room(10**18, device, **sizes, setting=lambda free, setting=setting: setting)
        message = str(error.value)
        assert message.startswith("2 worlds of 96x160 px in float32 on cpu: need 1000000000.00 GB, ")
        assert message.endswith(f"GB are free: {wanted}")
