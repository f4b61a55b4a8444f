"""A table shows by default what the benchmark computes."""

from __future__ import annotations

from typing import get_args

from eva_hpc.benchmarks.columns import default_columns
from eva_hpc.benchmarks.rewards import summarise
from eva_hpc.config.benchmark import AlpacaEval, ArenaHard, Benchmark, LabBenchmark, MtBench, RewardBenchmark
from eva_hpc.stages.questions import lab_questions

FILE = RewardBenchmark(path="heldout.jsonl")


def kinds():
    """The kinds of benchmark that a recipe may name."""
    union = get_args(Benchmark)[0]
    return {get_args(member)[0].model_fields["kind"].default for member in get_args(union)}


def metrics_of(questions):
    """Names of the metrics of a policy whose answers are all worth 1."""
    judgments = [
        {"question_id": one["id"], "category": one["category"], "greedy": None, "samples": [[1.0] * len(one["turns"])]}
        for one in questions
    ]
    return {metric["metric"] for metric in summarise(questions, judgments, judgments)}


def test_every_kind_of_benchmark_has_default_columns():
    sections = (LabBenchmark(), FILE, AlpacaEval(), ArenaHard(), MtBench())
    assert kinds() == {section.kind for section in sections}
    assert all(default_columns({"x": section}) for section in sections)


def test_the_three_judged_benchmarks_give_the_papers_six_columns():
    columns = default_columns({"a": ArenaHard(), "m": MtBench(), "l": AlpacaEval()})
    assert [(column.group, column.heading) for column in columns] == [
        ("Arena-Hard", "WR"),
        ("MT-Bench", "avg."),
        ("MT-Bench", "1st"),
        ("MT-Bench", "2nd"),
        ("AlpacaEval 2.0", "LC-WR"),
        ("AlpacaEval 2.0", "WR"),
    ]


def test_groups_of_one_heading_carry_the_benchmarks_names():
    groups = {
        column.group for column in default_columns({"old": ArenaHard(), "new": ArenaHard(version="v2.0"), "m": MtBench()})
    }
    assert groups == {"old: Arena-Hard", "new: Arena-Hard", "MT-Bench"}


def test_every_default_column_shows_a_metric_that_is_computed():
    asked = {
        "lab": lab_questions(LabBenchmark(prompts=2)),
        "heldout": [{"id": "a", "category": "all", "turns": ["?"]}],
    }
    for name, benchmark in {"lab": LabBenchmark(), "heldout": FILE}.items():
        shown = [column.metric for column in default_columns({name: benchmark})]
        assert set(shown) - {"pairs"} <= metrics_of(asked[name]), "pairs come from the training, not from a benchmark"
        assert len(set(shown)) == len(shown)


def test_a_single_benchmark_needs_no_name_above_its_columns_and_several_do():
    alone = default_columns({"lab": LabBenchmark()})
    several = default_columns({"a": LabBenchmark(), "b": FILE})
    assert {column.group for column in alone} == {"Against start", "Sampled reward", "Turn", "Trained"}
    assert {column.group.split(":")[0] for column in several} == {"a", "b"}
    assert [column.benchmark for column in several] == ["a"] * 9 + ["b"] * 4
