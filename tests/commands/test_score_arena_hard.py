"""``eva-hpc score arena_hard``, from files to text, JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.commands.score.arena_hard import arena_hard
from tests.benchmarks.arena_hard.made_up import v01_row, v2_row, write

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "arena_hard"
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder shared/data beside the checkout")


def run(*arguments):
    app = typer.Typer()
    app.command()(arena_hard)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def judged(tmp_path):
    """A file with v0.1 judgments of two models."""
    return write(
        tmp_path / "judged.jsonl",
        [
            v01_row(f"q{i}", [label, "A=B"], model=model)
            for model in ("m", "n")
            for i, label in enumerate(["A>B", "B>>A", "A=B"])
        ],
    )


@real
def test_real_battles_as_json():
    result = run("--battles", DATA / "battles_gpt-3.5-turbo-0125.jsonl", "--model", "gpt-3.5-turbo-0125", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert round(found["win_rate"], 2) == 23.34
    assert found["ci_low"] < found["win_rate"] < found["ci_high"]
    assert (found["n"], found["coverage"]) == (500, 1.0)


@real
def test_a_real_sample_is_refused_for_the_whole_question_file_unless_forced():
    arguments = (
        "--judgments",
        DATA / "raw_judgments_sample.jsonl.gz",
        "--questions",
        DATA / "question_v0.1.jsonl.gz",
        "--json",
    )
    result = run(*arguments)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["win_rate"], found["coverage"]) == (None, 0.082)
    assert found["reason"].startswith("only 82 of 1000 games have a judgment: 8.2%, below 95%")

    forced = run(*arguments, "--force")
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)["win_rate"] == pytest.approx(32.8125)
    assert json.loads(forced.stdout)["warnings"][0] == found["reason"]


def test_several_models_are_an_object_by_name_and_one_is_flat(judged):
    assert set(json.loads(run("--judgments", judged, "--json").stdout)) == {"m", "n"}
    found = json.loads(run("--judgments", judged, "--model", "n", "--json").stdout)
    assert found["model"] == "n"
    assert found["win_rate"] == pytest.approx(100 * (3 + 0.5 * 4) / 8)


def test_the_text_has_coverage_and_judge_beside_every_number(judged):
    result = run("--judgments", judged)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[-2:] == ["baseline", "judge"]
    assert all("100.0%" in line and "62.50 [" in line and line.rstrip().endswith(" j") for line in lines[2:4])


def test_files_may_be_several_and_battles_saved(judged, tmp_path):
    other = write(tmp_path / "other.jsonl", [v01_row("q0", ["A>>B", None], model="o")])
    result = run("--judgments", judged, "--judgments", other, "--save-battles", tmp_path / "b.jsonl", "--json", "--force")
    assert set(json.loads(result.stdout)) == {"m", "n", "o"}
    again = json.loads(run("--battles", tmp_path / "b.jsonl", "--model", "m", "--json").stdout)
    assert again["win_rate"] == json.loads(result.stdout)["m"]["win_rate"]


def test_battles_are_saved_to_a_new_file_only(judged, tmp_path):
    before = Path(judged).read_bytes()
    for place in (judged, tmp_path / "nowhere" / "b.jsonl"):
        refused = run("--judgments", judged, "--save-battles", place)
        assert refused.exit_code == 2
        assert "--save-battles" in refused.stderr
    assert Path(judged).read_bytes() == before


def test_reparse_tells_what_differs(tmp_path):
    rows = [v01_row("q", ["A>B", "A>B"])]
    rows[0]["games"][0]["score"] = None
    result = run("--judgments", write(tmp_path / "j.jsonl", rows), "--reparse", "--json")
    assert json.loads(result.stdout)["games"] == 2
    assert "verdicts are read from the texts: 1 games differ from the stored score" in result.stdout


def test_v2_has_its_categories(tmp_path):
    rows = [v2_row(f"{c}{i}", ["A>B", "A>B"], category=c) for c in ("hard_prompt", "creative_writing") for i in range(3)]
    file = write(tmp_path / "j.jsonl", rows)
    found = json.loads(run("--judgments", file, "--json").stdout)
    assert (found["version"], found["category"], set(found["categories"])) == (
        "v2.0",
        "hard_prompt",
        {"hard_prompt", "creative_writing"},
    )
    assert (
        json.loads(run("--judgments", file, "--category", "creative_writing", "--json").stdout)["category"]
        == "creative_writing"
    )
    assert len(run("--judgments", file).stdout.splitlines()) == 6


def test_own_categories_are_shown_with_what_they_are_together(tmp_path):
    rows = [v2_row(f"{c}{i}", ["A>B", "A=B"], category=c, baseline="b") for c in ("law", "tax") for i in range(3)]
    file = write(tmp_path / "j.jsonl", rows)
    found = json.loads(run("--judgments", file, "--json").stdout)
    assert (found["category"], found["n"], set(found["categories"])) == ("all categories", 6, {"law", "tax"})
    told = run("--judgments", file).stdout
    assert [line.split()[1] for line in told.splitlines()[2:5]] == ["all", "law", "tax"]


def test_style_control_with_answers_that_have_their_style(judged, tmp_path):
    metadata = {"header_count": 0, "list_count": {"ordered": 1}, "bold_count": 2}
    answers = write(
        tmp_path / "a.jsonl",
        [
            {
                "question_id": f"q{i}",
                "model_id": model,
                "choices": [{"turns": [{"content": "x"}]}],
                "conv_metadata": {"token_len": 9 + i * len(model), **metadata},
            }
            for model in ("gpt-4-0314", "m", "n")
            for i in range(3)
        ],
    )
    result = run("--judgments", judged, "--style-control", "--answers", answers, "--json")
    assert result.exit_code == 0, result.output
    assert 0 < json.loads(result.stdout)["m"]["sc_win_rate"] < 100
    assert "style-controlled" in run("--judgments", judged, "--style-control", "--answers", answers).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --battles FILE or --judgments FILE"),
        (("--battles", "FILE", "--judgments", "FILE"), "give either"),
        (("--battles", "FILE", "--reparse"), "need --judgments"),
        (("--judgments", "FILE", "--style-control"), "--style-control and --answers FILE go together"),
        (("--judgments", "FILE", "--answers", "FILE"), "go together"),
        (("--judgments", "FILE", "--version", "v3"), "found v3; must be one of v0.1, v2.0"),
        (("--judgments", "FILE", "--model", "x"), "--model: found x; must be one of m, n"),
        (("--judgments", "nowhere.jsonl"), "nowhere.jsonl: there is no such file"),
        (("--battles", "FILE"), "has no model_a, model_b, winner"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(judged, arguments, message):
    result = run(*(judged if argument == "FILE" else argument for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
