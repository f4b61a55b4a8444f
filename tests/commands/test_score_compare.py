"""``eva-hpc score compare``: the paired difference of two models, for each of the benchmarks."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.commands.score.compare import compare

pytestmark = pytest.mark.slow  # seconds of arithmetic on real data

APP = typer.Typer()
APP.command()(compare)

SONNET, OPUS = "claude-3-5-sonnet-20240620", "claude-3-opus-20240229"


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def found(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def write(tmp_path):
    """Writes JSON lines and gives the file."""

    def write(name, *rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def rated(question, value, model="m", judge="judge", turn=1):
    names = {"question_id": question, "model": model, "judge": [judge, "single-v1"]}
    return {**names, "judgment": f"[[{value}]]", "score": value, "turn": turn}


def test_two_models_of_one_mt_bench_file(shared_data):
    file = shared_data / "mt_bench/judgments/muhan421.gpt-4_single.jsonl.gz"
    result = found("mt_bench", file, file, "--model-a", SONNET, "--model-b", OPUS)
    assert (result["model_a"], result["model_b"], result["judge"]) == (SONNET, OPUS, "gpt-4")
    assert list(result["metrics"]) == ["turn_1", "turn_2", "average"]
    for metric in result["metrics"].values():
        assert metric["difference"] == pytest.approx(metric["a"] - metric["b"])
        assert metric["ci"][0] < metric["difference"] < metric["ci"][1]
        assert (metric["n"], metric["unmatched"]) == (80, 0)
    assert [metric["beyond_noise"] for metric in result["metrics"].values()] == [False, True, True]
    back = found("mt_bench", file, file, "--model-a", OPUS, "--model-b", SONNET)
    for name, metric in back["metrics"].items():
        assert (metric["difference"], metric["p_value"]) == (
            -result["metrics"][name]["difference"],
            result["metrics"][name]["p_value"],
        )


def test_a_model_does_not_differ_from_itself(shared_data):
    file = shared_data / "mt_bench/judgments/Stefanstud.gpt-4_single.jsonl.gz"
    for metric in found("mt_bench", file, file)["metrics"].values():
        assert (metric["difference"], metric["ci"], metric["p_value"], metric["beyond_noise"]) == (0, [0, 0], 1, False)


def test_the_table_says_which_is_which(write):
    a, b = write("a", *(rated(n, 5 + n % 3) for n in range(20))), write("b", *(rated(n, 2 + n % 2, "k") for n in range(20)))
    result = run("mt_bench", a, b)
    assert result.exit_code == 0
    title, heading, _, turn, average = result.stdout.splitlines()
    assert title == "mt_bench, judged by judge: A is m, B is k"
    assert heading.split("  ")[0] == "metric"
    assert turn.split()[:4] == ["turn_1", "5.95", "2.50", "3.45"]
    assert turn.split()[-3:] == average.split()[-3:] == ["yes", "20", "0"]


def test_questions_judged_for_one_model_only_are_counted(write):
    a = write("a", *(rated(n, 5) for n in range(20)))
    b = write("b", *(rated(n, 3 + n % 2, "k") for n in range(1, 21)))
    metric = found("mt_bench", a, b)["metrics"]["turn_1"]
    assert (metric["n"], metric["unmatched"]) == (19, 2)
    assert (metric["a"], metric["b"]) == (5, 3.5)
    assert metric["difference"] == pytest.approx(5 - (3 * 9 + 4 * 10) / 19)


def test_nothing_in_common_is_told(write):
    result = run("mt_bench", write("a", rated(1, 5), rated(2, 5)), write("b", rated(3, 5, "k"), rated(4, 5, "k")), "--json")
    assert result.exit_code == 1
    metric = json.loads(result.stdout)["metrics"]["turn_1"]
    assert (metric["difference"], metric["ci"], metric["p_value"], metric["beyond_noise"]) == (None, None, None, None)
    assert metric["reason"] == "fewer than 2 questions are judged in both arms: 0"


def test_too_little_coverage_refuses_unless_forced(shared_data):
    folder = shared_data / "mt_bench/judgments"
    files = folder / "instructlab.gpt-4_single.jsonl.gz", folder / "Stefanstud.gpt-4_single.jsonl.gz"
    result = run("mt_bench", *files, "--json")
    assert result.exit_code == 1
    metric = json.loads(result.stdout)["metrics"]["average"]
    assert (metric["a"], metric["b"], metric["difference"], metric["beyond_noise"]) == (None, pytest.approx(8.2), None, None)
    assert metric["reason"].startswith("granite-7b-lab: only 40 of 160 turns have a judgment")
    assert "average: no number: granite-7b-lab: only 40" in run("mt_bench", *files).stdout
    forced = found("mt_bench", *files, "--force")
    assert forced["metrics"]["turn_1"]["n"] == 37
    assert any(text.startswith("granite-7b-lab: only 40 of 160") for text in forced["warnings"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "has several models: m, k; name one with --model-a"),
        (("--model-a", "m"), "has several models: m, k; name one with --model-b"),
        (("--model-a", "n", "--model-b", "k"), "--model-a: found n; "),
        (("--model-a", "m", "--model-b", "k", "--C", "1"), "--C: is for alpaca_eval only; found benchmark mt_bench"),
        (("--gamed", "x"), "--difficulty and --gamed: the length-controlled win rate needs both"),
    ],
)
def test_mistakes_are_told(write, arguments, message):
    file = write("both", rated(1, 5), rated(1, 6, "k"))
    result = run("mt_bench", file, file, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_models_of_different_judges_are_not_compared_unless_forced(write):
    a, b = write("a", rated(1, 5), rated(2, 6)), write("b", rated(1, 5, judge="other"), rated(2, 6, judge="other"))
    result = run("mt_bench", a, b)
    assert result.exit_code == 2
    assert "judges differ: m has judge, m has other; the numbers are not comparable" in result.stderr
    assert "judges differ: m has judge, m has other" in found("mt_bench", a, b, "--force")["warnings"]


def test_a_turn_that_only_one_of_the_two_has_is_told(write):
    a = write("a", rated(1, 5), rated(2, 6), rated(1, 5, turn=2), rated(2, 5, turn=2))
    result = found("mt_bench", a, write("b", rated(1, 5, "k"), rated(2, 6, "k")))
    assert "turn_2" not in result["metrics"]
    assert "only one of the two has turn_2" in result["warnings"]


def test_a_model_without_any_rating_is_refused(write):
    a, b = write("a", rated(1, -1), rated(2, -1)), write("b", rated(1, 5, "k"), rated(2, 6, "k"))
    result = run("mt_bench", a, b, "--json", "--force")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["metrics"]["average"]["reason"] == "m: only 0 of 2 turns have a judgment (2 no rating)"


def game(question, *labels, model="m", judge="judge"):
    games = [{"user_prompt": "?", "judgment": f"[[{label}]]", "score": label} for label in labels]
    return {"question_id": question, "model": model, "judge": judge, "games": games}


def test_arena_hard_judgments_are_compared_with_their_weights(write):
    better = write("better", *(game(str(n), "B>>A", "A=B") for n in range(12)))
    worse = write("worse", *(game(str(n), "A>B" if n % 2 else "A>>B", "A=B", model="k") for n in range(12)))
    result = found("arena_hard", better, worse)
    metric = result["metrics"]["win_rate"]
    assert metric["a"] == pytest.approx(100 * 3.5 / 4)
    assert metric["b"] == pytest.approx(100 * 0.5 * 12 / (6 * 2 + 6 * 4))
    assert metric["difference"] == pytest.approx(metric["a"] - metric["b"])
    assert (metric["n"], metric["unmatched"], metric["beyond_noise"]) == (12, 0, True)


def test_arena_hard_battles_are_compared(shared_data, write):
    file = shared_data / "arena_hard/battles_gpt-3.5-turbo-0125.jsonl"
    metric = found("arena_hard", file, file)["metrics"]["win_rate"]
    assert (round(metric["a"], 2), metric["difference"], metric["p_value"], metric["n"]) == (23.34, 0, 1, 500)


def test_arena_hard_judgments_against_different_baselines_are_not_compared(write):
    battle = {"question_id": "1", "model_a": "base", "model_b": "m", "winner": "model_b"}
    a = write("a", battle, {**battle, "question_id": "2"})
    b = write("b", {**battle, "model_a": "other"}, {**battle, "model_a": "other", "question_id": "2"})
    result = run("arena_hard", a, b)
    assert result.exit_code == 2
    assert "baselines differ: m has base, m has other" in result.stderr


def annotations(shared_data, name):
    return shared_data / "alpaca_eval/models" / name / "annotations.json.gz"


def test_alpaca_eval_win_rates_are_compared_in_percent(shared_data):
    result = found("alpaca_eval", annotations(shared_data, "claude-2.1"), annotations(shared_data, "alpaca-7b"))
    metric = result["metrics"]["win_rate"]
    assert metric["difference"] == pytest.approx(metric["a"] - metric["b"])
    assert metric["ci"][0] > 5
    assert (metric["n"], metric["unmatched"], metric["beyond_noise"]) == (805, 0, True)
    assert list(result["metrics"]) == ["win_rate"]


@pytest.mark.slow
def test_length_controlled_win_rates_are_compared_by_refitting(shared_data):
    folder = shared_data / "alpaca_eval/reference"
    support = [
        "--difficulty",
        folder / "instruction_difficulty_recovered.csv",
        "--gamed",
        folder / "df_gamed_reconstructed.csv",
    ]
    files = annotations(shared_data, "claude-2.1"), annotations(shared_data, "alpaca-7b")
    metric = found("alpaca_eval", *files, *support)["metrics"]["lc_win_rate"]
    assert metric["difference"] == pytest.approx(metric["a"] - metric["b"])
    assert metric["ci"][0] < metric["difference"] < metric["ci"][1]
    assert (metric["n"], metric["unmatched"], metric["beyond_noise"]) == (805, 0, True)
