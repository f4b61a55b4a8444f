"""A whole sweep with the three judged benchmarks: real policy, real training, a real HTTP judge, made-up questions."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eva_hpc.store.records import read_jsonl
from tests.benchmarks import made_up
from tests.benchmarks.judge_server import running_judge

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
KEY = secrets.token_hex(16)


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    from tests.tiny_models import tiny_policy, tiny_reward_model

    reward = tiny_reward_model(tmp_path / "reward", "qwen2")
    made_up.write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"Sort the words of line {i}."} for i in range(8)])
    recipe = {
        "name": "tiny",
        "policy": {"kind": "pretrained", "path": str(tiny_policy(tmp_path / "policy", "qwen2")), "dtype": "float32"},
        "prompts": "prompts.jsonl",
        "rounds": 0,
        "warmup": {"responses_per_prompt": 2},
        "generation": {"max_new_tokens": 8},
        "reward": {"kind": "sequence_classification", "path": str(reward), "dtype": "float32"},
        "creator": {"evolver": "policy"},
        "optimiser": {"batch_size": 4, "epochs": 1, "learning_rate": 1e-2, "precision": "fp32", "max_length": 128,
                      "max_prompt_length": 64},
        "judge": {"model": "judge-1", "price": {"input": 1.0, "output": 2.0}},
        "benchmarks": {
            "arena_hard": {"kind": "arena_hard", "files": made_up.arena_hard(tmp_path / "arena", 12), "max_new_tokens": 8},
            "mt_bench": {"kind": "mt_bench", "files": made_up.mt_bench(tmp_path / "mt"), "max_new_tokens": 8},
            "alpaca_eval": {"kind": "alpaca_eval", "files": made_up.alpaca_eval(tmp_path / "alpaca", 12), "max_new_tokens": 8},
        },
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    sweep = {"name": "judged", "recipe": "recipe.yaml", "axes": {"optimiser.beta": [0.05, 5.0]}, "seeds": [1]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return tmp_path / "sweep.yaml"


def run(sweep_file: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The sweep on this machine, with a judge at `url`."""
    root = f"site.root={sweep_file.parent}/logs"
    command = [sys.executable, "-m", "eva_hpc.sweep", str(sweep_file), "--site", "laptop", "--set", root, *words]
    environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540)


def test_a_sweep_is_answered_judged_and_tabulated(sweep_file: Path) -> None:
    results = sweep_file.parent / "logs" / "judged-tiny"
    with running_judge() as server:
        server.rule, server.key = made_up.judge, KEY
        first = run(sweep_file, server.url)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "judge judge-1: about" in first.stdout
        metrics = read_jsonl(results / "metrics.jsonl")
        paid = server.paid.total()
        assert set(server.paid.values()) == {1}, "the two runs share no answer, and nothing is asked twice"

        for folder in (sweep_file.parent / "logs" / "store" / "ask_judge").iterdir():
            (folder / "manifest.json").unlink()  # all judgments are lost, but for what the judge said
        again = run(sweep_file, server.url)
        assert again.returncode == 0, again.stdout + again.stderr
        assert server.paid.total() == paid
        assert read_jsonl(results / "metrics.jsonl") == metrics

    shown = {(row["benchmark"], row["metric"]): row for row in metrics}
    assert all(row["coverage"] == 1.0 for row in metrics)
    assert shown["arena_hard", "win_rate"]["judge"] == "judge-1 in place of gpt-4-1106-preview"
    assert shown["alpaca_eval", "lc_win_rate"]["value"] is None
    assert "difficult" in shown["alpaca_eval", "lc_win_rate"]["reason"]
    table = (results / "table.md").read_text()
    for heading in (
        "Arena-Hard WR",
        "MT-Bench avg.",
        "MT-Bench 1st",
        "MT-Bench 2nd",
        "AlpacaEval 2.0 LC-WR",
        "AlpacaEval 2.0 WR",
    ):
        assert heading in table
    assert "paired test over questions" in table
    compared = read_jsonl(results / "comparisons.jsonl")
    assert {(one["benchmark"], one["metric"]) for one in compared} >= {("arena_hard", "win_rate"), ("mt_bench", "average")}
    everything = [path for path in sweep_file.parent.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert not [path for path in everything if KEY.encode() in path.read_bytes()]


def test_what_judging_lacks_is_said_before_anything_starts(sweep_file: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "mt" / "judge_prompts.jsonl"
    prompts.write_text(json.dumps({"name": "single-v1", "system_prompt": "", "prompt_template": "{question} {answer}"}))
    plan = run(sweep_file, "", "--dry-run", "--set", "recipe.judge.api_key_env=NO_SUCH_KEY")
    assert plan.returncode == 0, plan.stderr
    assert "single-math-v1" in plan.stdout
    started = run(sweep_file, "", "--set", "recipe.judge.api_key_env=NO_SUCH_KEY")
    assert started.returncode == 2
    assert "NO_SUCH_KEY" in started.stderr
    assert str(prompts) in started.stderr
    assert not list((tmp_path / "logs").glob("store/*/*"))
