"""Calibration of a judge: level, rank, published numbers, and agreement question by question."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from eva_hpc.benchmarks.calibration.agreement import Agreement, agreement
from eva_hpc.benchmarks.calibration.by_question import question_agreement
from eva_hpc.benchmarks.calibration.numbers import How, ModelNumbers, Number, numbers_of
from eva_hpc.benchmarks.calibration.published import published_numbers, read_published
from eva_hpc.benchmarks.files import read_rows
from eva_hpc.config.errors import ConfigError


def model(name: str, value: float | None, **more: object) -> ModelNumbers:
    low, high = (None, None) if value is None else (value - 2, value + 3)
    number = Number(value, low, high, None if value is not None else "too little judged")
    return ModelNumbers(name, "j", 1.0, {"win_rate": number}, (), **more)


def compared(ours: list[float], published: list[float]) -> Agreement:
    names = [f"m{i}" for i in range(len(ours))]
    return agreement(
        "win_rate",
        {name: model(name, value) for name, value in zip(names, ours, strict=True)},
        dict(zip(names, published, strict=True)),
    )


def test_level_is_ours_minus_published():
    level = compared([11.0, 22.0, 36.0], [10.0, 20.0, 30.0]).level
    assert level.mean_difference == pytest.approx(3)
    assert level.mean_absolute_difference == pytest.approx(3)
    assert level.root_mean_square == pytest.approx(math.sqrt((1 + 4 + 36) / 3))
    assert level.low == pytest.approx(1)
    assert level.high == pytest.approx(6)


def test_the_interval_over_models_needs_three():
    level = compared([11.0, 22.0], [10.0, 20.0]).level
    assert (level.low, level.high) == (None, None)


def test_the_same_order_has_tau_1_and_the_p_value_of_all_orders():
    rank = compared([1, 2, 3, 4, 5], [10, 20, 30, 40, 50]).rank
    assert (rank.kendall_tau_b, rank.spearman_rho) == (pytest.approx(1), pytest.approx(1))
    assert (rank.kendall_p, rank.spearman_p) == (pytest.approx(2 / 120), pytest.approx(2 / 120))
    assert rank.kendall_exact
    assert rank.spearman_exact
    assert rank.swapped == ()


def test_pairs_ordered_differently_are_named():
    rank = compared([1, 3.5, 3, 4], [10, 20, 30, 40]).rank
    (swapped,) = rank.swapped
    assert (swapped.higher_published, swapped.higher_here) == ("m2", "m1")
    assert (swapped.apart_published, swapped.apart_here) == (10, 0.5)
    assert rank.kendall_tau_b == pytest.approx((5 - 1) / 6)
    assert rank.pairs == 6


@pytest.mark.parametrize("ours", list(itertools.permutations((1.0, 2.0, 3.0, 4.0)))[::5])
def test_exact_p_values_are_those_of_scipy_without_ties(ours):
    from scipy.stats import kendalltau

    there = [1.0, 2.0, 3.0, 4.0]
    assert compared(list(ours), there).rank.kendall_p == pytest.approx(kendalltau(ours, there, method="exact").pvalue)


def test_ties_are_counted_and_equal_numbers_have_no_coefficient():
    tied = compared([1, 1, 3], [10, 20, 30]).rank
    assert (tied.tied, tied.swapped) == (1, ())
    assert tied.kendall_tau_b == pytest.approx(2 / math.sqrt(2 * 3))
    equal = compared([5, 5, 5], [10, 20, 30]).rank
    assert (equal.kendall_tau_b, equal.kendall_p, equal.spearman_rho) == (None, None, None)


def test_with_many_models_p_values_are_scipys():
    ours = [float((7 * i) % 12) for i in range(12)]
    rank = compared(ours, [float(i) for i in range(12)]).rank
    assert rank.kendall_exact
    assert not rank.spearman_exact
    assert 0 < rank.spearman_p < 1


@pytest.mark.parametrize(
    ("n", "told"),
    [
        (1, "nothing about rank"),
        (2, "almost nothing"),
        (4, "p = 0.083 by chance"),
        (5, "beyond chance (p = 0.017)"),
        (10, "can be told from chance"),
    ],
)
def test_the_conclusion_says_what_so_many_models_permit(n, told):
    numbers = [float(i) for i in range(n)]
    assert told in compared(numbers, numbers).conclusion


def test_refused_numbers_and_the_baseline_itself_are_shown_but_not_counted():
    ours = {"a": model("a", 10.0), "b": model("b", None), "base": model("base", 50.0, by_construction=True)}
    found = agreement("win_rate", ours, {"a": 11.0, "b": 12.0, "base": 50.0, "other": 1.0})
    assert found.n == 1
    assert [(one.model, one.counts) for one in found.models] == [("a", True), ("b", False), ("base", False)]
    assert found.models[1].reason == "too little judged"
    assert found.rank is None
    assert found.level.mean_difference == -1


def test_the_interval_is_of_our_number_unless_official_judgments_pair_it():
    ours = Number(50.0, 40.0, 60.0, None, {"q1": 0.0, "q2": 100.0, "q3": 50.0})
    theirs = Number(45.0, 30.0, 60.0, None, {"q1": 0.0, "q2": 90.0, "q3": 45.0})
    numbers = {"m": ModelNumbers("m", "j", 1.0, {"win_rate": ours}, ())}
    (alone,) = agreement("win_rate", numbers, {"m": 45.0}).models
    assert (alone.low, alone.high, alone.interval_of) == (-5.0, 15.0, "questions")
    official = {"m": ModelNumbers("m", "o", 1.0, {"win_rate": theirs}, ())}
    (paired,) = agreement("win_rate", numbers, {"m": 45.0}, official).models
    assert paired.interval_of == "pairs"
    assert (paired.low, paired.high) == (pytest.approx(0), pytest.approx(10))


# ---------------------------------------------------------------------------- published numbers


def csv(tmp_path: Path, text: str) -> Path:
    (tmp_path / "numbers.csv").write_text(text)
    return tmp_path / "numbers.csv"


@pytest.mark.parametrize(
    ("benchmark", "text", "numbers"),
    [
        (
            "alpaca_eval",
            ",win_rate,length_controlled_winrate\nm,1.5,2.5\n",
            {"win_rate": {"m": 1.5}, "lc_win_rate": {"m": 2.5}},
        ),
        ("alpaca_eval", "model,official_lc,official_win_rate\nm,2.5,\n", {"win_rate": {}, "lc_win_rate": {"m": 2.5}}),
        ("arena_hard", 'model,score,CI\nm,37.9,"(-2, +2)"\n', {"win_rate": {"m": 37.9}}),
        ("mt_bench", "model,average,turn_1,turn_2\nm,7,8,6\n", {"average": {"m": 7}, "turn_1": {"m": 8}, "turn_2": {"m": 6}}),
    ],
)
def test_official_leaderboards_and_plain_files_are_read(tmp_path, benchmark, text, numbers):
    assert read_published(csv(tmp_path, text), benchmark) == numbers


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,score\nm,1\n", ":1: found no column of models among name, score"),
        ("model,elo\nm,1\n", ":1: found no column of numbers among model, elo; must have one of win_rate, score"),
        ("model,score\nm,1\nm,2\n", ":3: model m stands in line 2 too"),
        ("model,score\nm,high\n", ":2: score: found 'high'; must be a number"),
        ("model,score\nm,nan\n", ":2: score: found 'nan'"),
    ],
)
def test_what_is_wrong_with_published_numbers_is_told(tmp_path, text, told):
    with pytest.raises(ConfigError, match=r"numbers\.csv") as error:
        read_published(csv(tmp_path, text), "arena_hard")
    assert told in str(error.value)


def test_without_an_official_leaderboard_a_file_must_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="columns model, average, turn_1, turn_2"):
        published_numbers("mt_bench", "mt_bench")
    with pytest.raises(ConfigError, match="data fetch arena_hard --calibration"):
        published_numbers("arena_hard", "arena_hard")


# ---------------------------------------------------------------------------- numbers of several models


def mt_row(model: str, question: int, score: float, judge: str = "j", **more: object) -> dict[str, object]:
    return {"question_id": question, "model": model, "judge": [judge, "single-v1"], "turn": 1, "score": score, **more}


def test_a_model_in_two_files_and_two_judges_are_mistakes():
    with pytest.raises(ConfigError, match="two: has judgments of m, as one has"):
        numbers_of("mt_bench", [("one", [mt_row("m", 1, 5)]), ("two", [mt_row("m", 2, 5)])], How())
    with pytest.raises(ConfigError, match=r"several judges: j \(one\), k \(two\)"):
        numbers_of("mt_bench", [("one", [mt_row("m", 1, 5)]), ("two", [mt_row("n", 1, 5, "k")])], How())


# ---------------------------------------------------------------------------- question by question


def ae_row(instruction: str, preference: float | None, output: str = "out", judge: str = "j") -> dict[str, object]:
    return {"instruction": instruction, "preference": preference, "generator_2": "m", "output_2": output, "annotator": judge}


def test_preferences_agree_in_winner_and_in_size():
    ours = [ae_row("a", 1.9), ae_row("b", 1.4), ae_row("c", 1.8), ae_row("d", None), ae_row("e", 1.2, "new")]
    official = [ae_row(name, value, judge="o") for name, value in (("a", 1.7), ("b", 1.2), ("c", 1.1), ("d", 1.5), ("e", 1.2))]
    found = question_agreement("alpaca_eval", [("ours", ours)], [("official", official)])
    assert (found["judge"], found["official_judge"]) == ("j", "o")
    assert (found["only_here"], found["only_official"], found["other_answers"]) == (0, 1, 1)
    assert found["all"]["n"] == 3
    assert found["all"]["same_winner"] == pytest.approx(2 / 3)
    assert found["all"]["mean_difference"] == pytest.approx((0.2 + 0.2 + 0.7) / 3)
    assert found["models"]["m"] == found["all"]


def test_repeats_of_a_judge_are_averaged():
    ours = [ae_row("a", 1.9), {**ae_row("a", 1.1), "repeat": 1}]
    found = question_agreement("alpaca_eval", [("ours", ours)], [("official", [ae_row("a", 1.5)])])
    assert (found["all"]["n"], found["all"]["mean_difference"]) == (1, pytest.approx(0))


def ah_row(question: str, first: str | None, second: str | None) -> dict[str, object]:
    games = [{"user_prompt": "…", "judgment": f"[[{score}]]", "score": score} for score in (first, second)]
    return {"question_id": question, "model": "m", "judge": "j", "games": games}


def test_verdicts_are_compared_from_the_models_side():
    ours = [ah_row("q1", "A>>B", "B>A"), ah_row("q2", "A=B", None), ah_row("q3", "B>A", "A>B")]
    official = [ah_row("q1", "A>B", "B>A"), ah_row("q2", "B>A", "A>B"), ah_row("q3", "B>A", "A>B")]
    found = question_agreement("arena_hard", [("ours", ours)], [("official", official)])["all"]
    assert found["n"] == 5
    assert found["labels"] == {"-2 for -1": 1, "-1 for -1": 1, "+0 for +1": 1, "+1 for +1": 2}
    assert found["same_label"] == pytest.approx(3 / 5)
    assert found["same_winner"] == pytest.approx(4 / 5)
    # quadratic: 1 - observed / expected squared distances, from the margins (-2, -1, 0, 1, 1) and (-1, -1, 1, 1, 1)
    ours_values, official_values = [-2, -1, 0, 1, 1], [-1, -1, 1, 1, 1]
    expected = sum((a - b) ** 2 for a in ours_values for b in official_values) / 25
    assert found["weighted_kappa"] == pytest.approx(1 - (2 / 5) / expected)


def test_ratings_are_compared_turn_by_turn():
    ours = [mt_row("m", 1, 8), mt_row("m", 2, 5), mt_row("m", 3, -1)]
    official = [mt_row("m", 1, 8, "o"), mt_row("m", 2, 7, "o"), mt_row("m", 3, 7, "o")]
    found = question_agreement("mt_bench", [("ours", ours)], [("official", official)])
    assert found["all"]["same_rating"] == 0.5
    assert found["all"]["within_1"] == 0.5
    assert found["all"]["mean_difference"] == -1
    assert found["only_official"] == 1


def test_judges_with_nothing_in_common_are_a_mistake():
    with pytest.raises(ConfigError, match="they are about n, these about m"):
        question_agreement("mt_bench", [("ours", [mt_row("m", 1, 8)])], [("official", [mt_row("n", 1, 8)])])


def test_real_judgments_agree_with_themselves(shared_data):
    rows = read_rows(shared_data / "arena_hard" / "raw_judgments_sample.jsonl.gz")
    found = question_agreement("arena_hard", [("a", rows)], [("b", rows)])["all"]
    assert (found["weighted_kappa"], found["same_label"], found["mean_difference"]) == (pytest.approx(1), 1, 0)


def test_official_judgments_that_do_not_give_the_published_number_pair_nothing():
    ours = ModelNumbers("m", "j", 1.0, {"win_rate": Number(50.0, 40.0, 60.0, None, {"q1": 0.0, "q2": 100.0})}, ())
    other = ModelNumbers("m", "o", 1.0, {"win_rate": Number(48.0, 30.0, 60.0, None, {"q1": 0.0, "q2": 96.0})}, ())
    (found,) = agreement("win_rate", {"m": ours}, {"m": 45.0}, {"m": other}).models
    assert found.interval_of == "questions"
