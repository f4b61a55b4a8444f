from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.training.speed_log import SpeedLog, peak_tflops, rows


def alone() -> Any:
    import torch

    from eva_hpc.training.distributed import Ranks

    return Ranks(0, 1, torch.device("cpu"))


def test_a_row_says_how_fast_and_how_full_a_step_was(tmp_path: Path) -> None:
    log = SpeedLog(tmp_path / "speed.jsonl", alone())
    log.step(step=1, pairs=4, tokens=75, computed_tokens=100, flops=3e12)
    (row,) = rows(tmp_path / "speed.jsonl")

    assert (row["step"], row["pairs"], row["tokens"], row["padded"]) == (1, 4, 75, 0.25)
    assert row["tokens_per_second"] == pytest.approx(75 / row["seconds"], rel=0.05)
    assert row["pairs_per_second"] == pytest.approx(4 / row["seconds"], rel=0.05)
    assert row["model_tflops"] == pytest.approx(3 / row["seconds"], rel=0.05)
    assert row["mfu"] is None, "nobody knows the peak of this CPU"
    assert 0.05 < row["peak_memory_gb"] < 100


def test_what_comes_before_a_restart_of_the_clock_is_not_counted(tmp_path: Path) -> None:
    log = SpeedLog(tmp_path / "speed.jsonl", alone())
    for step, restart in ((1, False), (2, True)):
        time.sleep(0.2)
        if restart:
            log.restart()
        log.step(step=step, pairs=1, tokens=1, computed_tokens=1, flops=None)
    counted, left_out = rows(tmp_path / "speed.jsonl")

    assert counted["seconds"] >= 0.2 > left_out["seconds"]


def test_a_step_done_again_replaces_its_row_and_a_torn_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    log = SpeedLog(path, alone())
    for step in (1, 2, 3):
        log.step(step=step, pairs=step, tokens=1, computed_tokens=1, flops=None)
    with path.open("a") as file:
        file.write('{"step": 4, "sec')
    log = SpeedLog(path, alone(), done=2)
    log.step(step=3, pairs=30, tokens=1, computed_tokens=1, flops=None)

    assert [(row["step"], row["pairs"]) for row in rows(path)] == [(1, 1), (2, 2), (3, 30)]
    assert path.read_bytes().count(b"\n") == 3
    SpeedLog(path, alone())
    assert rows(path) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_are_added_up_and_the_first_writes(engine_runs: Path) -> None:
    first, second = rows(engine_runs / "speed.jsonl")

    assert (first["pairs"], first["tokens"]) == (5, 100)
    assert first["padded"] == pytest.approx(1 - 100 / 120, abs=1e-6)
    assert first["model_tflops"] == pytest.approx(1e-3 / first["seconds"], rel=0.1)
    assert (second["pairs"], second["tokens"], second["padded"]) == (2, 30, 0.5)
    assert second["model_tflops"] is None, "one rank does not know"


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 836),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak
