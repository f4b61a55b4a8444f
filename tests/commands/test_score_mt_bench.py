"""``eva-hpc score mt_bench``: official numbers on stdout, refusals and mistakes by exit code."""

from __future__ import annotations

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.commands.score.mt_bench import mt_bench

APP = typer.Typer()
APP.command()(mt_bench)


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def row(question, turn, value, model="m", judge="judge"):
    return {
        "question_id": question,
        "model": model,
        "judge": [judge, "single-v1"],
        "judgment": f"Rating: [[{value}]]",
        "score": value,
        "turn": turn,
    }


@pytest.fixture
def judgments(tmp_path):
    """Writes judgment rows and gives the file."""

    def write(*rows):
        path = tmp_path / "judge_single.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def real(shared_data):
    return shared_data / "mt_bench" / "judgments"


def test_official_numbers_as_json(real):
    result = run("--judgments", real / "muhan421.gpt-4_single.jsonl.gz", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == ["claude-3-5-sonnet-20240620", "claude-3-opus-20240229"]
    opus = found["claude-3-opus-20240229"]
    assert (opus["turn_1"], opus["turn_2"], opus["average"]) == pytest.approx((9.04375, 8.30625, 8.675), abs=1e-6)
    assert (opus["n"], opus["failed"], opus["duplicates"], opus["coverage"], opus["judge"]) == (160, 0, 0, 1.0, "gpt-4")
    assert opus["average_ci"][0] < 8.675 < opus["average_ci"][1]


def test_numbers_of_a_file_that_mostly_failed_are_refused_unless_forced(real):
    file = real / "instructlab.gpt-4_single.jsonl.gz"
    refused = run("--judgments", file, "--json")
    assert refused.exit_code == 1
    found = json.loads(refused.stdout)["granite-7b-lab"]
    assert (found["turn_1"], found["turn_2"], found["average"], found["average_ci"]) == (None, None, None, None)
    assert (found["n"], found["failed"], found["failures"]) == (40, 120, {"no rating": 110, "API failure": 10})
    assert found["reason"] == "only 40 of 160 turns have a judgment: 25.0%, below 95% (110 no rating, 10 API failure)"
    told = run("--judgments", file)
    assert told.exit_code == 1
    assert f"granite-7b-lab: no number: {found['reason']}" in told.stdout
    for option in (("--force",), ("--min-coverage", 0.03)):
        forced = run("--judgments", file, "--json", *option)
        assert forced.exit_code == 0
        found = json.loads(forced.stdout)["granite-7b-lab"]
        assert (found["turn_1"], found["turn_2"], found["average"]) == pytest.approx((7.621622, 4.666667, 7.4), abs=1e-6)


def test_the_table_has_a_line_for_each_model_and_names_the_judge(judgments):
    rows = [row(name, turn, turn + 4, model) for model in ("one", "two") for name in "ab" for turn in (1, 2)]
    result = run("--judgments", judgments(*rows, row("a", 1, 11, "two")))
    assert result.exit_code == 0
    heading, _, one, two, *notes = result.stdout.splitlines()
    assert re.split(r"  +", heading.strip()) == [
        *("model", "turn 1", "turn 2", "average", "coverage", "n", "failed", "duplicates", "judge")
    ]
    assert one.split() == [
        "one",
        "5.00",
        "[5.00,",
        "5.00]",
        "6.00",
        "[6.00,",
        "6.00]",
        "5.50",
        "[5.50,",
        "5.50]",
        "100.0%",
        "4",
        "0",
        "0",
        "judge",
    ]
    assert two.split()[-4:] == ["5", "0", "1", "judge"]
    assert "two: warning: 1 judgments of turns that were judged before: all count, as in the official script" in notes


def test_a_turn_that_lacks_judgments_is_refused_alone(judgments):
    rows = [row(name, turn, -1 if (name, turn) == ("a", 2) else 5) for name in "abcdefghij" for turn in (1, 2)]
    file = judgments(*rows)
    result = run("--judgments", file, "--json")
    found = json.loads(result.stdout)["m"]
    assert result.exit_code == 1
    assert (found["turn_1"], found["turn_2"], found["average"], found["coverage"]) == (5, None, 5, 0.95)
    assert found["reason"] == "only 9 of 10 second turns have a judgment: 90.0%, below 95% (1 no rating)"
    told = run("--judgments", file).stdout
    assert f"m: no number: {found['reason']}" in told
    assert "95.0% (100.0%, 90.0%)" in told


def test_reparse_and_dedupe_change_the_numbers(judgments):
    file = judgments({**row("a", 1, 5), "score": -1}, row("a", 1, 9), row("b", 1, 7))
    assert json.loads(run("--judgments", file, "--json").stdout)["m"]["average"] == 8
    assert json.loads(run("--judgments", file, "--json", "--reparse").stdout)["m"]["average"] == 7
    assert json.loads(run("--judgments", file, "--json", "--reparse", "--dedupe").stdout)["m"]["average"] == 6


def test_the_question_file_says_what_should_have_been_judged(judgments, tmp_path):
    questions = tmp_path / "question.jsonl"
    questions.write_text(
        "".join(json.dumps({"question_id": name, "category": "own", "turns": ["?"]}) + "\n" for name in ("a", "b", "c", "d"))
    )
    file = judgments(row("a", 1, 5), row("b", 1, 7))
    assert json.loads(run("--judgments", file, "--json").stdout)["m"]["coverage"] == 1
    result = run("--judgments", file, "--json", "--questions", questions)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["m"]["reason"] == "only 2 of 4 turns have a judgment: 50.0%, below 95% (2 not in the file)"


def test_of_several_judges_one_must_be_named(judgments):
    file = judgments(row("a", 1, 5), row("a", 1, 7, judge="other"))
    result = run("--judgments", file)
    assert result.exit_code == 2
    assert f"{file}: found judgments of several judges: judge (1 rows), other (1 rows); name one with --judge" in result.stderr
    found = json.loads(run("--judgments", file, "--json", "--judge", "other").stdout)["m"]
    assert (found["average"], found["judge"]) == (7, "other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file has no rows"),
        ("{", ":1: is not JSON"),
        ('{"question_id": 81, "model": "m", "score": 3}', ": row 1: has no turn; must have question_id, model, turn, score"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path, content, message):
    file = tmp_path / "bad.jsonl"
    file.write_text(content)
    result = run("--judgments", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{file}" in result.stderr
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
