"""``eva-hpc curriculum``: the files it writes, and what it says when there is little or nothing."""

from __future__ import annotations

import csv
import json

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.benchmarks.judging import servers
from eva_hpc.commands.curriculum import curriculum
from eva_hpc.inference.openai_client import RetryPolicy
from eva_hpc.report.curriculum import write
from eva_hpc.request import Request, open_request
from eva_hpc.store.records import read_jsonl
from tests.benchmarks.judge_server import Says, running_judge
from tests.report.curriculum.made_up import fill

SWEEP = """\
name: small
recipe: recipe.yaml
axes: {evolved_ratio: [0.5]}
seeds: [1, 2]
"""
RECIPE = "{name: lab, policy: lab, prompts: lab, reward: lab, creator: {evolver: lab}, benchmarks: {lab: lab}}"
DATA = {"prompts.jsonl", "summary.jsonl", "summary.csv", "admission.csv", "about.json"}
SETS = (("warm-up", "base"), ("round 1", "base"), ("round 1", "evolved"))
APP = typer.Typer()
APP.command()(curriculum)


@pytest.fixture
def words(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "site.yaml").write_text(f"{{name: here, executor: local, scale: lab, root: {tmp_path / 'out'}}}")
    return [str(tmp_path / "sweep.yaml"), "--site", str(tmp_path / "site.yaml")]


def opened(words):
    return open_request(Request(words[0], words[2]))


def run(words, code=0):
    result = CliRunner().invoke(APP, words)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which take long and have their own tests."""
    monkeypatch.setattr(write, "_draw", lambda *_: ({}, []))


def test_all_files_and_figures_are_written(words):
    sweep = opened(words)
    for planned in sweep.plan.runs:
        fill(sweep.store, sweep.plan, planned)

    said = run(words)

    folder = sweep.results / "curriculum"
    assert "2 figures, each as PDF and PNG" in said
    assert "not there yet" not in said
    drawn = {f"{kind}.{suffix}" for kind in ("rounds", "distributions") for suffix in ("pdf", "png")}
    assert {path.name for path in folder.iterdir()} == DATA | drawn
    about = json.loads((folder / "about.json").read_bytes())
    assert "no judge was asked" in about["judged"]
    assert "evolved ratio 0.5; 2 seeds" in about["figures"]["rounds"]


def test_the_data_files_have_a_line_for_each_set_and_are_the_same_the_next_time(words, undrawn):
    sweep = opened(words)
    for planned in sweep.plan.runs:
        fill(sweep.store, sweep.plan, planned)

    run(words)

    folder = sweep.results / "curriculum"
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    sets = [(row["evolved_ratio"], row["seed"], row["part"], row["set"]) for row in rows]
    assert sets == [("0.5", seed, *one) for seed in "12" for one in SETS]
    assert rows[2]["steps"] == "2.0"
    assert rows[2]["judged_quality"] == ""
    assert len(read_jsonl(folder / "prompts.jsonl")) == 4 * len(rows)
    assert [row["n"] for row in read_jsonl(folder / "summary.jsonl")] == [4] * len(rows)
    with (folder / "admission.csv").open() as file:
        reasons = {row["reason"]: row["count"] for row in csv.DictReader(file)}
    assert reasons == {"kept": "4", "empty": "2", "duplicate of a base prompt": "1"}

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run(words)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_half_a_sweep_gives_half_a_curriculum_and_says_what_is_missing(words, undrawn):
    sweep = opened(words)
    fill(sweep.store, sweep.plan, sweep.plan.runs[0])

    said = run(words)

    assert "not there yet, among them" in said
    assert "round 1 of evolved_ratio=0.5,seed=2" in said
    assert json.loads((sweep.results / "curriculum" / "about.json").read_bytes())["missing"]


def test_nothing_is_written_where_nothing_is(words):
    assert "There are no prompts yet" in run(words, code=1)
    assert not opened(words).results.exists()


@pytest.mark.slow
def test_a_judge_rates_a_sample_of_each_set_once(words, undrawn, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "RetryPolicy", lambda **_: RetryPolicy(attempts=1, timeout_s=20.0, give_up_after=3))
    sweep = opened(words)
    for planned in sweep.plan.runs:
        fill(sweep.store, sweep.plan, planned)
    with running_judge() as judge:
        judge.rule = lambda call: Says("Fine.\nComplexity: [[4]]\nQuality: [[8]]")
        asked = [*words, "--judge", "judge-1", "--judged", "3", "--base-url", judge.url, "--cache", str(tmp_path / "cache")]
        assert "the judge answered 6 requests" in run(asked)
        assert "6 answers were in the cache" in run(asked)
    rows = read_jsonl(sweep.results / "curriculum" / "summary.jsonl")
    assert {(row["n_judged"], row["judged_complexity"], row["judged_quality"]) for row in rows} == {(3, 4.0, 8.0)}
