"""The lab really learns: the whole chain lifts the sampled reward on prompts that were never trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eva_hpc.lab.tasks import split_of
from eva_hpc.store.records import read_jsonl

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("learning")
    settings = {"site.root": root, "sweep.axes.evolved_ratio": "[0.8]", "sweep.quick_seeds": len(SEEDS)}
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "eva_hpc.sweep", "sweeps/evolved_ratio.yaml", "--site", "laptop", "--quick", *overrides]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return root


def test_after_the_eva_round_held_out_reward_is_far_above_the_start_policy_in_every_seed(root: Path) -> None:
    rows = [row for path in root.glob("*/metrics.jsonl") for row in read_jsonl(path)]
    gains = {row["seed"]: row["value"] for row in rows if row["metric"] == "gain"}

    assert gains.keys() == set(SEEDS)
    assert min(gains.values()) > 1.5
    assert sum(gains.values()) / len(gains) > 3.0
    assert all(row["value"] > 50 for row in rows if row["metric"] == "win_rate")


def test_no_prompt_that_is_evaluated_was_trained_on(root: Path) -> None:
    store = root / "store"
    trained = {pair["prompt"] for path in store.glob("pair/*/pairs.jsonl") for pair in read_jsonl(path)}
    asked = {
        turn
        for path in store.glob("questions/*/questions.jsonl")
        for question in read_jsonl(path)
        for turn in question["turns"]
    }

    assert trained
    assert not trained & asked
    assert {split_of(prompt) for prompt in trained} == {"train"}
