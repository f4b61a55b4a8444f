"""``eva-hpc score alpaca_eval`` on small files: JSON and text, refusals, and mistakes in what was asked."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.commands.score.alpaca_eval import alpaca_eval
from tests.benchmarks.alpaca_eval.made_up import annotations, difficulties, gamed

APP = typer.Typer()
APP.command()(alpaca_eval)


@pytest.fixture
def folder(tmp_path):
    """A folder with all files of a small evaluation."""
    rows = annotations()
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    outputs = [{"instruction": row["instruction"], "output": row["output_2"], "generator": "policy"} for row in rows]
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    questions = [row | {"output": "b", "generator": "baseline"} for row in outputs]
    (tmp_path / "questions.json.gz").write_bytes(gzip.compress(json.dumps(questions).encode()))
    with (tmp_path / "difficulty.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index", "instruction_difficulty"), *enumerate(difficulties())])
    with (tmp_path / "gamed.csv").open("w", newline="") as file:
        needed = zip(gamed().preferences, gamed().features[:, 0] * 2, gamed().features[:, 1], strict=True)
        csv.writer(file).writerows([("preference", "std_delta_len", "instruction_difficulty"), *needed])
    return tmp_path


def call(folder, *options, **files):
    """The result of a call; files are named as options without their dashes."""
    given = [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
    return CliRunner().invoke(APP, ["--annotations", str(folder / "annotations.json"), *given, *options])


ALL = {"difficulty": "difficulty.csv", "gamed": "gamed.csv", "questions": "questions.json.gz", "outputs": "outputs.json"}


def test_json(folder):
    result = call(folder, "--C", "2.78", "--json", **ALL)

    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["model"] == "policy"
    assert found["judge"] == "a judge"
    assert 0 < found["lc_ci_low"] < found["lc_win_rate"] < found["lc_ci_high"] < 100
    assert (found["n"], found["coverage"], found["C"], found["C_chosen_by"]) == (60, 1.0, 2.78, "user")


def test_text_names_the_judge_and_the_coverage(folder):
    result = call(folder, "--C", "2.78", **ALL)

    assert "policy, judged by a judge" in result.stdout
    assert result.stdout.count("60/60 (100.0%)") == 3


def test_by_position_the_questions_are_not_needed(folder):
    result = call(folder, "--difficulty-by", "position", "--json", difficulty="difficulty.csv", gamed="gamed.csv")

    assert json.loads(result.stdout)["lc_win_rate"] > 0


def test_own_questions_in_unknown_order_are_refused(folder):
    result = call(folder, "--json", difficulty="difficulty.csv", gamed="gamed.csv")

    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert found["lc_win_rate"] is None
    assert "give the question file" in found["lc_reason"]
    assert found["win_rate"] > 0


def test_without_gamed_rows_there_is_a_win_rate_only(folder):
    result = call(folder, "--json")

    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["lc_win_rate"] is None
    assert found["lc_reason"]


def test_too_little_judged(folder):
    rows = annotations()[:50]
    (folder / "annotations.json").write_text(json.dumps(rows))

    refused = call(folder, "--json", outputs="outputs.json")
    forced = call(folder, "--json", "--force", outputs="outputs.json")
    lower = call(folder, "--json", "--min-coverage", "0.8", outputs="outputs.json")

    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["win_rate"] is None
    assert "only 50 of 60 questions" in json.loads(refused.stdout)["reason"]
    assert (forced.exit_code, lower.exit_code) == (0, 0)
    assert any("only 50 of 60" in warning for warning in json.loads(forced.stdout)["warnings"])
    assert not json.loads(lower.stdout)["reason"]
    assert "no number: only 50 of 60" in call(folder, outputs="outputs.json").stdout


def test_recompute_says_what_it_found(folder):
    found = json.loads(call(folder, "--json", "--recompute").stdout)

    assert found["recomputed"] == {"checked": 0, "differ": [], "largest_difference": 0.0}
    assert "60 rows have no raw completion: their preference counts as it is" in found["warnings"]


@pytest.mark.parametrize(
    ("options", "files", "message"),
    [
        ([], {"gamed": "gamed.cs", "difficulty": "difficulty.csv"}, "there is no such file"),
        ([], {"difficulty": "difficulty.csv"}, "also needs --gamed"),
        (["--C", "0"], {"difficulty": "difficulty.csv", "gamed": "gamed.csv"}, "C is 0.0; must be a positive number"),
        ([], {"difficulty": "difficulty.csv", "gamed": "difficulty.csv"}, "has no column preference"),
        (["--difficulty-by", "length"], {}, "Invalid value"),
        ([], {"outputs": "annotations.json"}, "has no output"),
    ],
)
def test_mistakes(folder, options, files, message):
    result = call(folder, *options, **files)

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
