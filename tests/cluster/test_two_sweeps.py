"""Two sweeps started together on one store: what both need is made once, and neither harms the other."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.ledger import Ledger
from tests.cluster.sweeps import CHECKOUT, explain

pytestmark = pytest.mark.slow

SMALL = {
    "recipe.policy.steps": 20,
    "recipe.prompts.count": 16,
    "recipe.warmup": "null",
    "recipe.benchmarks.lab.prompts": 4,
}
SWEEPS = {
    "sweeps/responses_per_prompt.yaml": "sweep.axes.responses_per_prompt=[6]",
    "sweeps/evolved_ratio.yaml": "sweep.axes.evolved_ratio=[0.8]",
}


def test_what_two_sweeps_share_is_done_once_and_both_end_well(devcluster: Cluster, tmp_path: Path) -> None:
    overrides = [part for key, value in {**SMALL, "site.root": tmp_path}.items() for part in ("--set", f"{key}={value}")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "eva_hpc.sweep", sweep, "--site", "devcluster", "--quick", *overrides, "--set", axis],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for sweep, axis in SWEEPS.items()
    ]
    outputs = [process.communicate(timeout=400)[0] for process in processes]

    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, explain(subprocess.CompletedProcess([], 1, output, ""), tmp_path)
    folders = [path.parent for path in tmp_path.glob("*/experiment.json")]
    done = Counter(event["task"] for folder in folders for event in Ledger(folder).events() if event["event"] == "done")
    assert len(folders) == 2
    assert set(done.values()) == {1}, "k = 6 and ratio 0.8 are the same run: everything is shared"
    tables = {(folder / "metrics.jsonl").read_text().count('"win_rate"') for folder in folders}
    assert tables == {1}
