"""The metric rows of a sweep: each with its own number of questions, its own coverage, and why it has no value."""

from __future__ import annotations

import csv
import json

import pytest

from eva_hpc.benchmarks.alpaca_eval.questions import read_questions
from eva_hpc.benchmarks.registry import JUDGED, Options
from tests.benchmarks.alpaca_eval.made_up import annotations, difficulties, gamed
from tests.benchmarks.arena_hard.made_up import v01_row, v2_row


def question(name, category, turns=1):
    return {
        "id": name,
        "category": category,
        "turns": ["?"] * turns,
        "baseline": None,
        "baseline_model": None,
        "reference": None,
    }


def metrics(kind, rows, questions, edition="", files=None, **options):
    scored = JUDGED[kind].score(edition, rows, questions, files or {}, Options(0.95, **options))
    return {metric["metric"]: metric for metric in scored.metrics}


def test_mt_bench():
    questions = [question(f"q{i}", "math" if i % 2 else "writing", turns=2) for i in range(40)]
    rows = [
        {
            "question_id": one["id"],
            "model": "m",
            "judge": ["j", "p"],
            "turn": turn,
            "score": -1 if (turn, i % 10) == (2, 1) else 5,
        }
        for i, one in enumerate(questions)
        for turn in (1, 2)
    ]

    found = metrics("mt_bench", rows, questions)

    assert {name: (row["value"], row["n"], row["coverage"]) for name, row in found.items()} == {
        "turn_1": (5, 40, 1),
        "turn_2": (None, 36, 0.9),
        "average": (5, 76, 0.95),
        "average_writing": (5, 40, 1),
        "average_math": (None, 36, 0.9),
    }
    assert found["turn_2"]["reason"].startswith("only 36 of 40 second turns have a judgment: 90.0%, below 95%")
    assert found["average"]["reason"] == ""


def test_arena_hard_counts_questions_and_covers_games():
    questions = [question(f"q{i}", "arena-hard-v0.1") for i in range(20)]
    rows = [v01_row(one["id"], ["A>B", None if i < 1 else "A=B"]) for i, one in enumerate(questions)]

    found = metrics("arena_hard", rows, questions, "v0.1")["win_rate"]

    assert (found["n"], found["coverage"]) == (20, 0.975)
    rows = [v01_row(one["id"], ["A>B", None]) for one in questions]
    assert metrics("arena_hard", rows, questions, "v0.1")["win_rate"]["value"] is None


def test_arena_hard_has_a_row_for_all_own_categories_together_and_one_for_each():
    questions = [question(f"q{i}", "tax" if i < 5 else "law") for i in range(20)]
    rows = [v2_row(one["id"], ["A>B", "A>>B"], category=one["category"], baseline="b") for one in questions]

    found = metrics("arena_hard", rows, questions, "v2.0")

    assert {name: row["n"] for name, row in found.items()} == {"win_rate": 20, "win_rate_law": 15, "win_rate_tax": 5}


@pytest.mark.parametrize("join", ["instruction", "position"])
def test_alpaca_eval_counts_questions_however_often_they_are_judged(tmp_path, join):
    once = annotations()
    asked = [{"instruction": row["instruction"], "output": row["output_1"], "generator": "baseline"} for row in once]
    (tmp_path / "questions.json").write_text(json.dumps(asked))
    with (tmp_path / "difficulty.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index", "instruction_difficulty"), *enumerate(difficulties())])
    with (tmp_path / "gamed.csv").open("w", newline="") as file:
        values = zip(gamed().preferences, gamed().features[:, 0] * 2, gamed().features[:, 1], strict=True)
        csv.writer(file).writerows([("preference", "std_delta_len", "instruction_difficulty"), *values])
    files = {"questions": tmp_path / "questions.json"} | {role: tmp_path / f"{role}.csv" for role in ("difficulty", "gamed")}
    questions = read_questions(files["questions"])

    repeats = [{**row, "repeat": number} for number in (0, 1) for row in once]
    one, two = (metrics("alpaca_eval", rows, questions, files=files, difficulty_by=join) for rows in (once, repeats))

    assert two["lc_win_rate"]["value"] is not None
    assert {name: row["n"] for name, row in two.items()} == {name: row["n"] for name, row in one.items()}
    assert [row["value"] for row in two.values()] == pytest.approx([row["value"] for row in one.values()])
