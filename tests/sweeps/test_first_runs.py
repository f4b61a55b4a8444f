"""Every sweep that comes with the project runs at lab scale: its first run, and the last of those whose last takes another way.

All share one store, so that what they have in common is done once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eva_hpc.store.records import read_jsonl
from tests.sweeps.shipped import ROOT, SWEEPS, only

pytestmark = pytest.mark.slow
ANOTHER_WAY = ("evolvers", "informativeness", "main_table", "reward_models", "rewriter", "sample_then_evolve")
RUNS = [(sweep, 0) for sweep in SWEEPS] + [(sweep, -1) for sweep in SWEEPS if sweep.stem in ANOTHER_WAY]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.mark.parametrize(
    ("sweep", "number"), RUNS, ids=[f"{sweep.stem}, {'last' if last else 'first'}" for sweep, last in RUNS]
)
def test_the_first_and_the_last_run_of_a_sweep_give_a_table(sweep: Path, number: int, root: Path) -> None:
    words = [str(sweep), "--site", "laptop", "--quick", "--set", f"site.root={root}", *only(sweep, number)]
    before = set(root.glob("*/metrics.jsonl"))

    result = subprocess.run(
        [sys.executable, "-m", "eva_hpc.sweep", *words], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr
    (metrics,) = set(root.glob("*/metrics.jsonl")) - before
    values = {row["metric"]: row["value"] for row in read_jsonl(metrics)}
    assert values["win_rate"] > 50, "one round at least was trained, and beats the start policy"
    assert values["pairs"] > 10
    table = (metrics.parent / "table.md").read_text()
    assert f"{values['win_rate']:.1f}" in table
    assert "Missing runs" not in table
    assert ("In the paper" in table) == ("paper:" in sweep.read_text())
