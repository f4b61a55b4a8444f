"""A cluster whose arrays may have three tasks: a larger sweep is cut, and its pieces take turns. Nothing runs here."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from eva_hpc.cluster.devcluster import down, up
from eva_hpc.cluster.ledger import Ledger
from tests.cluster.sweeps import explain, results_of, site_file, sweep

pytestmark = pytest.mark.slow

EIGHT_RUNS = [
    *("sweeps/evolved_ratio.yaml", "--quick", "--no-wait", "--set", "sweep.axes.evolved_ratio=[0.2,0.8]"),
    *("--set", "sweep.seeds=[1,2,3,4]", "--set", "sweep.quick_seeds=4"),
]


@pytest.fixture
def small_arrays(slurm_installed: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    directory = Path(tempfile.mkdtemp(prefix="devcluster-", dir="/tmp"))
    cluster = up(directory, options={"MaxArraySize": "3"})
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    yield
    down(directory)
    shutil.rmtree(directory)


def dependency(job: str) -> str:
    shown = subprocess.run(["squeue", "-h", "-j", job, "-o", "%E"], capture_output=True, text=True, timeout=20, check=True)
    return shown.stdout


def test_a_sweep_larger_than_an_array_is_cut_into_pieces_that_take_turns(small_arrays: None, tmp_path: Path) -> None:
    site = site_file(tmp_path, slurm={"additional": {"hold": True}}, stages={})
    words = [*EIGHT_RUNS, "--site", site, "--max-parallel", "1"]
    first = sweep(*words, timeout=120)
    again = sweep(*words, timeout=120)

    assert first.returncode == again.returncode == 0, explain(first, tmp_path)
    jobs = Ledger(results_of(tmp_path)).jobs().values()
    runs = [job for job in jobs if job.array.startswith("runs")]
    assert sorted(job.name for job in runs) == sorted(f"evolved_ratio={r},seed={s}" for r in (0.2, 0.8) for s in (1, 2, 3, 4))
    arrays = list(dict.fromkeys(job.array for job in runs))
    sizes = [sum(job.array == name for job in runs) for name in arrays]
    assert sizes == [1, 3, 3, 1], "the canary, then pieces of at most three"
    ids = [next(job.id for job in runs if job.array == name).partition("_")[0] for name in arrays]
    for before, after in pairwise(ids):
        assert f":{before}" in dependency(after)
    assert all(f":{ids[0]}" in dependency(array) for array in ids[1:]), "none goes before the canary"


def test_what_costs_more_than_allowed_is_refused_before_anything_is_submitted(small_arrays: None, tmp_path: Path) -> None:
    stages = {stage: {"gpus_per_rank": 1, "threads": 1} for stage in ("start_policy", "generate", "train", "answer")}
    site = site_file(tmp_path, slurm={"gpu_type": "a100"}, stages=stages)
    refused = sweep(*EIGHT_RUNS, "--site", site, "--max-gpu-hours", "0.001", timeout=60)

    assert refused.returncode == 2
    assert "GPU hours" in refused.stderr
    assert Ledger(results_of(tmp_path)).events() == []
