"""``eva-hpc plan``: what lies ahead, in words and as JSON."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.commands.plan import plan
from eva_hpc.config.errors import ConfigError
from eva_hpc.outlook import look_ahead
from eva_hpc.request import Request, open_request

SWEEP = """\
name: small
recipe: {lab: recipe.yaml, full: full.yaml}
axes:
  responses_per_prompt: [2, 4]
seeds: [1, 2]
"""
LAB = "{name: lab, policy: lab, prompts: lab, reward: lab, creator: {evolver: lab}, benchmarks: {lab: lab}}"
FULL = """\
name: full
policy: org/policy-7b
prompts: org/prompts
reward: org/reward-7b
creator: {evolver: policy}
benchmarks: {heldout: {kind: reward, path: held.jsonl}}
"""
SITE = """\
name: cluster-a100
executor: slurm
scale: full
root: ROOT
offline: true
stages:
  train: {nodes: 2, ranks_per_node: 8, gpus_per_rank: 1}
  generate: {ranks_per_node: 8, gpus_per_rank: 1}
  score: {ranks_per_node: 8, gpus_per_rank: 1}
  evolve: {ranks_per_node: 8, gpus_per_rank: 1}
  answer: {ranks_per_node: 8, gpus_per_rank: 1}
  judge: {ranks_per_node: 8, gpus_per_rank: 1}
"""


@pytest.fixture
def files(tmp_path):
    """A folder with a sweep, its recipes and a cluster's site file."""
    contents = {
        "sweep.yaml": SWEEP,
        "recipe.yaml": LAB,
        "full.yaml": FULL,
        "site.yaml": SITE.replace("ROOT", str(tmp_path / "out")),
    }
    contents["held.jsonl"] = '{"prompt": "How many?"}\n'
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_on_a_cluster_it_shows_stages_arrays_cost_disk_and_what_is_missing(files):
    result = run(files / "sweep.yaml", "--site", files / "site.yaml")

    assert result.exit_code == 0, result.output
    for text in (
        "small-full at site cluster-a100: 4 runs",
        "84 stages in all",
        "GPU hours: ",
        "computed: 7B parameters by its name, training at 30% of a100's 312 TFLOP/s",
        "assumed: org/prompts has 10,000 prompts",
        "disk: ",
        "warning: policy: model org/policy-7b: not in the local cache",
    ):
        assert text in result.output
    heading = next(line for line in result.output.splitlines() if "waits for" in line)
    assert heading.split()[:3] == ["array", "jobs", "stages"]
    assert not (files / "out").exists(), "it writes nothing"


def test_on_this_machine_the_cost_is_not_known_before_something_has_run(files):
    result = run(files / "sweep.yaml", "--site", "laptop", "--set", f"site.root={files / 'out'}")

    assert result.exit_code == 0, result.output
    assert "CPU core hours: not known" in result.output
    assert "processes at once" in result.output


def test_as_json_it_has_the_same(files):
    result = run(files / "sweep.yaml", "--site", files / "site.yaml", "--json")

    shown = json.loads(result.output)
    assert shown["stages"]["needed"] == 84
    assert shown["stages"]["to_do"] == shown["stages"]["after_sharing"] < 80
    assert len(shown["runs"]) == 4
    assert sum(array["jobs"] for array in shown["arrays"]) > 4
    assert shown["cost"]["naive"] > shown["cost"]["planned"] > 0
    assert len(shown["missing"]) == 3


def test_without_sharing_everything_is_needed(files):
    shown = json.loads(run(files / "sweep.yaml", "--site", files / "site.yaml", "--json", "--no-sharing").output)

    assert shown["stages"]["after_sharing"] == shown["stages"]["needed"] == 84
    assert shown["cost"]["naive"] == pytest.approx(shown["cost"]["planned"])


def test_a_mistake_is_exit_code_2(files):
    assert run(files / "none.yaml", "--site", "laptop").exit_code == 2


def test_offline_a_sweep_that_lacks_models_is_refused(files):
    outlook = look_ahead(open_request(Request(files / "sweep.yaml", str(files / "site.yaml"))))

    with pytest.raises(ConfigError, match=r"site\.root: the disk has no room|run eva-hpc prefetch"):
        outlook.check()


@pytest.mark.parametrize(
    "asked",
    [
        "recipe.reward={kind: openai, model: rater}",
        "recipe.reward={kind: ensemble, members: [models/reward, {kind: openai, model: rater}]}",
        "recipe.creator.evolver={kind: openai, model: rater}",
        "recipe.rewriter={by: {kind: openai, model: rater}}",
    ],
)
def test_whoever_is_asked_at_openai_needs_a_key_before_anything_starts(files, monkeypatch, asked):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    words = (files / "sweep.yaml", "--site", files / "site.yaml", "--set", asked.replace("models/reward", "org/reward-7b"))

    assert "model rater: the environment has neither OPENAI_API_KEY nor OPENAI_BASE_URL" in run(*words).output

    monkeypatch.setenv("OPENAI_API_KEY", "sk-anything")
    assert "neither OPENAI_API_KEY" not in run(*words).output
