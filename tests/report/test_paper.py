"""The paper's numbers stand beside ours: in rows beneath where the columns are the same, else in a table of their own."""

from __future__ import annotations

import io
from typing import get_args

import pytest

from eva_hpc.config.sweep import Paper
from eva_hpc.report.aggregate import aggregate
from eva_hpc.report.latex import render
from eva_hpc.report.layout import lay_out
from eva_hpc.report.paper import FILE, RECALLED, find_row, paper_tables
from eva_hpc.report.tables import markdown, terminal_table

AXES = {"optimiser": {"DPO": "dpo", "SPPO": "sppo"}, "training": {"base": {"rounds": 0}, "+ eva": {"rounds": 1}}}
TABLE = {"caption": "Ours", "paper": {"table": "main", "names": {"base": ""}}}


@pytest.fixture
def judged(full_recipe):
    """A recipe with the paper's benchmarks."""
    names = ("arena_hard", "mt_bench", "alpaca_eval")
    return full_recipe | {"judge": {"model": "judge-1"}, "benchmarks": {name: {"kind": name} for name in names}}


@pytest.fixture
def ours(experiment_of, row, judged):
    """Our two columns of the paper's six, for two optimisers with and without eva."""

    def make(axes=AXES, table=TABLE, recipe=judged, **other):
        experiment = experiment_of(axes, seeds=(1,), recipe=recipe, table=table)
        rows = [
            row(point, 1, value, benchmark, metric, **other)
            for point, _ in experiment.points
            for benchmark, metric, value in (("arena_hard", "win_rate", 30.0), ("alpaca_eval", "lc_win_rate", 20.0))
        ]
        return aggregate(rows, experiment), experiment

    return make


def test_the_tables_are_those_that_a_sweep_may_name():
    assert set(get_args(Paper.model_fields["table"].annotation)) == set(paper_tables())
    assert [len(rows) for rows in paper_tables().values()] == [13, 8, 4, 4]


def test_the_numbers_are_the_facts_with_their_status(shared_data):
    assert FILE.read_text() == (shared_data / "eva_paper_tables.csv").read_text()


def test_a_number_without_a_second_source_is_marked():
    row = find_row("main", ["DPO", "+ eva"], {})

    assert row is not None
    assert [row.numbers[name] for name in (("arena_hard", "win_rate"), ("mt_bench", "average"), ("mt_bench", "turn_1"))] == [
        "60.1", "8.90", "9.04†",
    ]  # fmt: skip
    assert not any(cell.endswith(RECALLED) for cell in find_row("main", ["SFT"], {}).numbers.values())


def test_a_row_is_found_by_the_papers_words_for_the_values():
    assert find_row("main", ["DPO", "base"], {}) is None
    assert find_row("main", ["DPO", "base"], {"base": ""}).name == "DPO"
    assert find_row("sample_then_evolve", ["no evolve", "greedy"], {}).name == "no evolve greedy"
    assert find_row("evolvers", ["evol_quality"], {"evol_quality": "EvolQuality"}).name == "EvolQuality"


def test_the_papers_row_stands_beneath_ours_in_the_columns_that_are_the_same(ours):
    layout = lay_out(*ours())

    assert layout.body[1] == ("DPO", "+ eva", "30.0", "20.0")
    assert layout.paper == {
        0: ("", "paper", "51.6", "55.01†"),
        1: ("", "paper", "60.1", "55.35†"),
        2: ("", "paper", "55.7", "51.58"),
        3: ("", "paper", "58.9", "51.86"),
    }
    assert layout.beside is None
    assert layout.notes[-2:] == (
        "Rows named paper: arXiv 2411.00062, judged by GPT-4 models that are retired by now: compare differences, not numbers.",
        "† recalled from the paper, not confirmed by a second source.",
    )


def test_markdown_and_the_terminal_show_the_papers_rows_too(ours):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(terminal_table(*ours()))

    for text in (markdown(lay_out(*ours())), console.file.getvalue()):
        lines = [line for line in text.splitlines() if "55.35†" in line]
        assert len(lines) == 1
        assert "paper" in lines[0]


def test_in_latex_the_papers_rows_are_grey_and_stand_with_their_group(ours):
    lines = [" ".join(line.split()) for line in render(lay_out(*ours()), "tab:main").splitlines()]

    start = lines.index("DPO & + eva & 30.0 & 20.0 \\\\")
    assert lines[start + 1 : start + 4] == [
        r"& \textcolor{gray}{paper} & \textcolor{gray}{60.1} & \textcolor{gray}{55.35\dag{}} \\",
        r"\addlinespace",
        r"SPPO & base & 30.0 & 20.0 \\",
    ]


def test_a_column_that_the_paper_lacks_is_empty(ours):
    columns = [{"benchmark": "arena_hard", "metric": metric, "heading": metric} for metric in ("win_rate", "pairs")]

    assert lay_out(*ours(table=TABLE | {"columns": columns})).paper[1] == ("", "paper", "60.1", "")


def test_another_version_of_a_benchmark_or_own_questions_are_not_compared(ours, judged):
    other = judged | {"benchmarks": {"arena_hard": {"kind": "arena_hard", "version": "v2.0"}}}
    own = {"kind": "arena_hard", "files": {"questions": "q.jsonl", "baseline": "a.jsonl"}}
    for recipe in (other, judged | {"benchmarks": {"arena_hard": own}}):
        layout = lay_out(*ours(recipe=recipe))
        assert layout.paper == {}
        assert layout.beside is not None


def test_without_a_column_or_a_row_in_common_the_papers_table_stands_by_itself(ours, experiment_of, row):
    unknown = {"optimiser": {"KTO": "kto"}}
    lab = experiment_of(AXES, seeds=(1,), table=TABLE)
    at_lab = aggregate([row(point, 1, 61.2) for point, _ in lab.points], lab), lab

    for made in (ours(axes=unknown), at_lab):
        layout = lay_out(*made)
        assert layout.paper == {}
        assert layout.beside.body[:2] == (
            ("SFT", "41.3", "8.57", "8.81", "8.32", "47.11", "38.39"),
            ("DPO", "51.6", "8.66", "9.01†", "8.32†", "55.01†", "51.68"),
        )
        assert "only the order of rows can be compared" in layout.beside.caption
        text = markdown(layout)
        assert text.index("| KTO" if made is not at_lab else "61.2") < text.index("| SFT") < text.index("- † recalled")
        assert r"\textcolor{gray}{51.68}" in render(layout, "tab:t")


def test_who_does_not_ask_for_the_paper_sees_nothing_of_it(ours):
    layout = lay_out(*ours(table={"caption": "Ours"}))

    assert (layout.paper, layout.beside) == ({}, None)
    assert "textcolor" not in render(layout, "tab:t")
    assert not any("paper" in note for note in layout.notes)
