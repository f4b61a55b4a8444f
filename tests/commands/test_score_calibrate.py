"""`eva-hpc score calibrate`: real judgments against published numbers, and a substitute judge asked over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.benchmarks.official import data_folder
from eva_hpc.commands.score.calibrate import calibrate
from tests.benchmarks import made_up
from tests.benchmarks.judge_server import JudgeServer, running_judge

pytestmark = pytest.mark.slow  # seconds of arithmetic on real data

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the folder shared/data beside the checkout")
ALPACA = SHARED_DATA / "alpaca_eval"
MODELS = ("FuseChat-Llama-3.2-1B-Instruct", "alpaca-7b", "claude-2.1", "gpt35_turbo_instruct", "gpt4_1106_preview")
MT = SHARED_DATA / "mt_bench" / "judgments"
MT_NUMBERS = """model,average,turn_1,turn_2
claude-3-5-sonnet-20240620,9.20625,9.2375,9.175
claude-3-opus-20240229,8.675,9.04375,8.30625
granite-7b-lab,7.4,7.621622,4.666667
"""
APP = typer.Typer()
APP.command()(calibrate)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path / "home" / "data"))
    return tmp_path / "home"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with running_judge() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        judge.rule = made_up.judge
        yield judge


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(APP, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def alpaca_words(*more: object) -> list[object]:
    files = [word for model in MODELS for word in ("--judgments", ALPACA / "models" / model / "annotations.json.gz")]
    return ["alpaca_eval", *files, "--published", ALPACA / "official_numbers.csv", *more]


@needs_shared_data
@pytest.mark.slow
def test_the_official_judge_differs_from_its_own_win_rates_by_nothing():
    told = json.loads(run(*alpaca_words("--json")).stdout)
    assert (told["judge"], told["published_judge"]) == ("weighted_alpaca_eval_gpt4_turbo", "gpt-4-1106-preview")
    found = told["metrics"]["win_rate"]
    assert [one["model"] for one in found["models"]] == list(MODELS)
    assert all(one["difference"] == pytest.approx(0, abs=1e-9) for one in found["models"])
    assert [one["model"] for one in found["models"] if not one["counts"]] == ["gpt4_1106_preview"]
    assert (found["rank"]["kendall_tau_b"], found["rank"]["spearman_rho"]) == (pytest.approx(1), pytest.approx(1))
    assert found["level"]["root_mean_square"] == pytest.approx(0, abs=1e-9)
    assert "lc_win_rate" not in told["metrics"]
    assert any("no length-controlled win rate" in text for text in told["warnings"])


@needs_shared_data
@pytest.mark.slow
def test_length_controlled_win_rates_are_made_as_published_ones():
    reference = ALPACA / "reference"
    support = [
        *("--difficulty", reference / "instruction_difficulty_recovered.csv"),
        *("--gamed", reference / "df_gamed_reconstructed.csv"),
    ]
    told = json.loads(run(*alpaca_words(*support, "--json")).stdout)
    found = told["metrics"]["lc_win_rate"]
    assert all(one["difference"] == pytest.approx(0, abs=0.02) for one in found["models"])
    assert found["rank"]["kendall_tau_b"] == pytest.approx(1)
    by_instruction = json.loads(run(*alpaca_words(*support, "--difficulty-by", "instruction", "--json")).stdout)
    other = {one["model"]: one["ours"] for one in by_instruction["metrics"]["lc_win_rate"]["models"]}
    assert other["gpt35_turbo_instruct"] == pytest.approx(14.96, abs=0.1)  # 17.73 by position


@needs_shared_data
def test_mt_bench_against_a_file_of_numbers(tmp_path):
    (tmp_path / "numbers.csv").write_text(MT_NUMBERS)
    words = ["mt_bench", "--judgments", MT / "muhan421.gpt-4_single.jsonl.gz", "--published", tmp_path / "numbers.csv"]
    told = json.loads(run(*words, "--json").stdout)
    assert list(told["metrics"]) == ["average", "turn_1", "turn_2"]
    for found in told["metrics"].values():
        assert [one["difference"] for one in found["models"]] == [pytest.approx(0, abs=1e-6)] * 2
    assert told["published_only"] == ["granite-7b-lab"]
    said = run(*words).output
    assert "2 models: rank agreement says almost nothing" in said
    assert "models with published numbers, but without judgments here: 1" in said


@needs_shared_data
def test_a_model_with_too_few_judgments_is_refused_and_not_counted(tmp_path):
    (tmp_path / "numbers.csv").write_text(MT_NUMBERS)
    files = ["--judgments", MT / "muhan421.gpt-4_single.jsonl.gz", "--judgments", MT / "instructlab.gpt-4_single.jsonl.gz"]
    words = ["mt_bench", *files, "--published", tmp_path / "numbers.csv"]
    assert "granite-7b-lab: not counted below: only 40 of 160 turns" in run(*words, code=1).output
    forced = json.loads(run(*words, "--force", "--json").stdout)
    assert forced["metrics"]["average"]["n"] == 3


@needs_shared_data
def test_official_judgments_pair_every_question(tmp_path):
    (tmp_path / "numbers.csv").write_text(MT_NUMBERS)
    file = MT / "muhan421.gpt-4_single.jsonl.gz"
    words = ["mt_bench", "--judgments", file, "--official-judgments", file, "--published", tmp_path / "numbers.csv"]
    told = json.loads(run(*words, "--json").stdout)
    assert {one["interval_of"] for one in told["metrics"]["average"]["models"]} == {"pairs"}
    assert told["questions"]["all"]["n"] == 320
    assert told["questions"]["all"]["same_rating"] == 1
    assert "question by question: gpt-4 with gpt-4" in run(*words).output


def arena_row(model: str, question: str, first: str, second: str, judge: str = "substitute") -> dict[str, Any]:
    games = [{"user_prompt": "…", "judgment": f"[[{score}]]", "score": score} for score in (first, second)]
    return {"question_id": question, "model": model, "judge": judge, "games": games}


def arena_files(folder: Path) -> list[object]:
    """A model that won every game, one that drew them, and one without a published number."""
    rows = [arena_row("strong", f"q{i}", "B>>A", "A>>B") for i in range(4)]
    rows += [arena_row("even", f"q{i}", "A=B", "A=B") for i in range(4)]
    rows += [arena_row("evne", f"q{i}", "A=B", "A>B") for i in range(4)]
    (folder / "numbers.csv").write_text("model,score,CI\nstrong,40.0,x\neven,45.5,x\nother,1,x\n")
    judgments = made_up.write_rows(folder / "judgments.jsonl", rows)
    return ["arena_hard", "--judgments", judgments, "--published", folder / "numbers.csv"]


def test_swapped_pairs_and_unmatched_names_are_told(tmp_path):
    words = arena_files(tmp_path)
    told = json.loads(run(*words, "--json").stdout)
    found = told["metrics"]["win_rate"]
    assert [(one["model"], one["ours"], one["difference"]) for one in found["models"]] == [
        ("strong", 100.0, 60.0), ("even", 50.0, 4.5)
    ]  # fmt: skip
    assert found["rank"]["swapped"] == [
        {"higher_published": "even", "higher_here": "strong", "apart_published": 5.5, "apart_here": 50.0}
    ]
    assert (told["unmatched"], told["published_only"]) == (["evne"], ["other"])
    said = run(*words).output
    assert "arena_hard: judged by substitute; published numbers by gpt-4-1106-preview" in said
    assert "even is 5.50 above strong in the published numbers, here 50.00 below" in said
    assert "without a published number, not compared: evne; did you mean 'even'?" in said


def test_official_judgments_that_are_not_the_published_ones_are_told(tmp_path):
    official = [arena_row("strong", f"q{i}", "A=B", "A=B", "gpt-4-1106-preview") for i in range(4)]
    words = [*arena_files(tmp_path), "--official-judgments", made_up.write_rows(tmp_path / "official.jsonl", official)]
    told = json.loads(run(*words, "--json").stdout)
    assert "strong: the official judgments give win_rate 50.00, published is 40.00" in told["warnings"]
    assert told["questions"]["all"]["same_winner"] == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--judge", "j"), "one of the two"),
        (("--limit", "3", "--price", "1,2"), "--limit, --price: only with --judge"),
        (("--difficulty", "d.csv"), "are for alpaca_eval only"),
        (("--version", "v2.0"), "--version: found v2.0; the judgments are of v0.1"),
        (("--published", "gone.csv"), "gone.csv: there is no such file"),
    ],
)
def test_mistakes_are_told(tmp_path, more, told):
    assert told in run(*arena_files(tmp_path), *more, code=2).output


def test_models_without_any_published_number_are_a_mistake(tmp_path):
    words = arena_files(tmp_path)
    (tmp_path / "numbers.csv").write_text("model,score\nsturdy,1\n")
    assert "has no even" in run(*words, code=2).output


def outputs(folder: Path, model: str, word: str, count: int = 6) -> Path:
    rows = [
        {"instruction": f"Name fruit number {i}.", "output": f"{word} " * (i + 2), "generator": model} for i in range(count)
    ]
    path = folder / f"{model}.json"
    path.write_text(json.dumps(rows))
    return path


def judging_words(folder: Path) -> list[object]:
    """Two models to be judged by a substitute judge."""
    files = made_up.alpaca_eval(folder / "ae", 6)
    (folder / "numbers.csv").write_text(",win_rate\none,20\ntwo,30.5\n")
    answers = [word for model in ("one", "two") for word in ("--answers", outputs(folder, model, model))]
    own = ["--questions", files["questions"], "--prompt", files["prompt"], "--published", folder / "numbers.csv"]
    return ["alpaca_eval", "--judge", "judge-1", *answers, *own]


def test_answers_are_judged_first_and_then_compared(server, tmp_path, home):
    words = judging_words(tmp_path)
    told = json.loads(run(*words, "--json", "--price", "1,1").stdout)
    assert [one["model"] for one in told["metrics"]["win_rate"]["models"]] == ["one", "two"]
    assert told["judging"]["asked"]["calls"] == 12
    assert told["judge"] == "judge-1"
    assert (home / "judge_cache").is_dir()
    again = json.loads(run(*words, "--json").stdout)
    assert again["metrics"] == told["metrics"]
    assert again["judging"]["from_cache"]["calls"] == 12
    assert sum(server.paid.values()) == 12


def test_a_dry_run_only_estimates(server, tmp_path):
    words = judging_words(tmp_path)
    assert json.loads(run(*words, "--dry-run", "--json").stdout)["estimate"]["calls"] == 12
    assert "judging: 12 requests" in run(*words, "--dry-run").output
    assert not server.calls


def test_answers_without_a_published_number_are_not_paid_for(server, tmp_path):
    words = [*judging_words(tmp_path), "--answers", outputs(tmp_path, "onee", "x")]
    assert "did you mean 'one'?" in run(*words, code=2).output
    assert not server.calls


def test_a_limit_is_told(server, tmp_path):
    told = json.loads(run(*judging_words(tmp_path), "--limit", 4, "--json").stdout)
    assert sum(server.paid.values()) == 8
    assert "published numbers are of all questions, these of the first 4" in told["warnings"]


def test_without_answers_at_hand_the_way_to_get_them_is_told(server, tmp_path):
    words = judging_words(tmp_path)
    alone = [word for place, word in enumerate(words) if word != "--answers" and words[place - 1] != "--answers"]
    assert "eva-hpc data fetch alpaca_eval --calibration" in run(*alone, code=2).output


def test_answers_of_the_data_folder_are_the_default(server, tmp_path, monkeypatch):
    words = judging_words(tmp_path)
    alone = [word for place, word in enumerate(words) if word != "--answers" and words[place - 1] != "--answers"]
    monkeypatch.setattr(data_folder, "answers", lambda set_: {"two": tmp_path / "two.json", "three": tmp_path / "3.json"})
    told = json.loads(run(*alone, "--json").stdout)
    assert [one["model"] for one in told["metrics"]["win_rate"]["models"]] == ["two"]
    assert told["published_only"] == ["one"]
    assert any("not judged" in text and text.endswith("three") for text in told["warnings"])
