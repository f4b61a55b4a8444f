"""From judgment rows to MT-Bench's numbers: FastChat's own, and what is said beside them."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.files import read_rows
from eva_hpc.benchmarks.mt_bench.basis import METRICS
from eva_hpc.benchmarks.mt_bench.questions import read_questions
from eva_hpc.benchmarks.mt_bench.score import score
from eva_hpc.config.errors import ConfigError

pytestmark = pytest.mark.slow  # seconds of arithmetic on real data


def row(question, turn, value, model="m", **more):
    text = "$ERROR$" if value == "error" else "none" if value == -1 else f"Rating: [[{value}]]"
    stored = -1 if value == "error" else value
    names = {"question_id": question, "model": model, "judge": ["judge", "single-v1"], "turn": turn}
    return {**names, "score": stored, "judgment": text, **more}


def both_turns(values, model="m"):
    """Rows of questions a, b, … from their two ratings."""
    return [row(chr(97 + n), turn, value, model) for n, pair in enumerate(values) for turn, value in enumerate(pair, start=1)]


def only(rows, **options):
    (found,) = score(rows, **options).values()
    return found


OFFICIAL = {  # of show_result.py on the same files
    "phi-3-dpo": ("Stefanstud", 8.3625, 8.0375, 8.2),
    "claude-3-5-sonnet-20240620": ("muhan421", 9.2375, 9.175, 9.20625),
    "claude-3-opus-20240229": ("muhan421", 9.04375, 8.30625, 8.675),
    "Meta-Llama-3-8B-Instruct-Normal": ("dreaming-panda", 8.383721, 7.2625, 7.843373),
    "Meta-Llama-3-8B-Instruct-Griffin": ("dreaming-panda", 3.1375, 2.2625, 2.7),
    "granite-7b-lab": ("instructlab", 7.621622, 4.666667, 7.4),
}


@pytest.mark.parametrize("reparse", [False, True])
@pytest.mark.parametrize("model", OFFICIAL)
def test_real_judgments_give_the_official_numbers(shared_data, model, reparse):
    file, *official = OFFICIAL[model]
    rows = read_rows(shared_data / f"mt_bench/judgments/{file}.gpt-4_single.jsonl.gz")
    found = score(rows, reparse=reparse, force=True)[model]
    assert [found.numbers[metric] for metric in METRICS] == pytest.approx(official, abs=1e-6)
    assert not [warning for warning in found.warnings if "stored scores" in warning]


def test_a_file_with_most_judgments_failed_is_refused_with_the_reasons(shared_data):
    rows = read_rows(shared_data / "mt_bench/judgments/instructlab.gpt-4_single.jsonl.gz")
    refused = only(rows)
    assert set(refused.numbers.values()) == {None} == set(refused.intervals.values())
    told = "only 40 of 160 turns have a judgment: 25.0%, below 95% (110 no rating, 10 API failure)"
    assert refused.refusal == told
    assert refused.failed == {"no rating": 110, "API failure": 10}
    forced = only(rows, force=True)
    assert forced.refusal is None
    assert told in forced.warnings


def test_real_duplicates_count_and_are_reported(shared_data):
    rows = read_rows(shared_data / "mt_bench/judgments/dreaming-panda.gpt-4_single.jsonl.gz")
    found = score(rows)["Meta-Llama-3-8B-Instruct-Normal"]
    assert (found.n, found.duplicates, sum(found.failed.values()), found.coverage.share) == (166, 10, 4, 1.0)
    once = score(rows, dedupe=True)["Meta-Llama-3-8B-Instruct-Normal"]
    assert (once.n, once.duplicates, sum(once.failed.values()), once.coverage.share) == (160, 10, 0, 1.0)


def test_categories_of_the_official_questions_are_known_without_the_question_file(shared_data):
    rows = read_rows(shared_data / "mt_bench/judgments/Stefanstud.gpt-4_single.jsonl.gz")
    questions = read_questions(shared_data / "mt_bench/question.jsonl")
    known, told = only(rows), only(rows, questions=questions)
    assert known.categories == told.categories
    assert len(known.categories) == 8
    assert fmean(known.categories.values()) == pytest.approx(known.numbers["average"])


def test_the_average_is_over_rows_and_not_over_turns():
    found = only(both_turns([(9, 1), (8, -1), (7, -1)]), force=True)
    assert found.numbers == {"turn_1": 8, "turn_2": 1, "average": pytest.approx(25 / 4)}


def test_duplicates_count_unless_only_the_first_with_a_rating_is_wanted():
    rows = [row("a", 1, "error"), row("a", 1, 4), row("a", 1, 8), row("b", 1, 6)]
    found = only(rows)
    assert (found.numbers["average"], found.n, found.duplicates) == (6, 3, 2)
    assert found.failed == {"API failure": 1}
    assert "2 judgments of turns that were judged before: all count, as in the official script" in found.warnings
    once = only(rows, dedupe=True)
    assert (once.numbers["average"], once.n, once.failed) == (5, 2, {})


def test_repeats_of_the_judge_are_no_duplicates():
    rows = [row("a", 1, 4, repeat=0), row("a", 1, 8, repeat=1), row("b", 1, 6, repeat=0), row("b", 1, 6, repeat=1)]
    found = only(rows, dedupe=True)
    assert (found.numbers["average"], found.n, found.duplicates) == (6, 4, 0)
    assert found.per_question["turn_1"] == {"a": 6, "b": 6}


def test_a_question_has_an_average_only_with_all_its_turns():
    found = only(both_turns([(9, 1), (8, -1)]), force=True)
    assert found.per_question == {"turn_1": {"a": 9, "b": 8}, "turn_2": {"a": 1}, "average": {"a": 5}}


def test_each_number_has_its_own_coverage_and_is_refused_by_it(shared_data):
    rows = read_rows(shared_data / "mt_bench/judgments/Stefanstud.gpt-4_single.jsonl.gz")
    lost = [{**one, "score": -1} if one["turn"] == 2 and one["question_id"] % 10 == 1 else one for one in rows]
    found = only(lost)

    assert (found.n, found.coverage.share) == (152, 0.95)
    assert [(found.bases[metric].n, found.bases[metric].coverage.share) for metric in METRICS] == [
        (80, 1),
        (72, 0.9),
        (152, 0.95),
    ]
    assert found.numbers == {**only(rows).numbers, "turn_2": None, "average": pytest.approx(found.numbers["average"])}
    assert found.intervals["turn_2"] is None
    assert found.refusal == "only 72 of 80 second turns have a judgment: 90.0%, below 95% (8 no rating)"
    assert found.bases["average_math"].n == 19
    assert only(rows).refusals == {}


def test_a_category_that_lacks_judgments_is_refused_alone():
    rows = [row(81 + n, turn, -1 if 91 <= 81 + n < 93 else 5) for n in range(80) for turn in (1, 2)]
    found = only(rows)
    assert (found.refusal, found.numbers["average"]) == (None, 5)
    assert (found.categories["writing"], found.categories["roleplay"]) == (5, None)
    told = "only 16 of 20 turns of roleplay have a judgment: 80.0%, below 95% (4 no rating)"
    assert found.to_json()["by_metric"]["average_roleplay"] == {"n": 16, "coverage": 0.8, "reason": told}


def test_forced_numbers_of_no_judgment_at_all_are_still_none():
    found = only(both_turns([(9, -1), (8, -1)]), force=True)
    assert found.numbers == {"turn_1": 8.5, "turn_2": None, "average": 8.5}
    assert list(found.refusals) == ["turn_2"]
    assert "only 2 of 4 turns have a judgment: 50.0%, below 95% (2 no rating)" in found.warnings


def test_every_repeat_of_the_judge_counts_in_the_coverage():
    rows = [{**one, "repeat": repeat} for repeat in (0, 1) for one in both_turns([(4, 6)] * 10)]
    rows[-1] |= {"score": -1}
    found = only(rows, least=0.9)
    assert (found.n, found.coverage.expected, found.coverage.judged) == (39, 40, 39)
    assert (found.bases["average"].n, found.bases["turn_2"].coverage.share) == (20, 0.95)


def test_rows_that_were_never_judged_lower_the_coverage():
    rows = [row(81, 1, 9), row(81, 2, 9)]
    found = only(rows)
    assert (found.coverage.expected, found.coverage.judged) == (160, 2)
    assert "158 not in the file" in found.refusal


def test_of_several_models_what_one_has_is_expected_of_all():
    rows = [*both_turns([(5, 5), (5, 5)], "whole"), *both_turns([(9, 9)], "half")]
    found = score(rows)
    assert list(found) == ["whole", "half"]
    assert (found["whole"].refusal, found["half"].coverage.share) == (None, 0.5)
    assert found["half"].numbers["average"] is None


def test_the_question_file_decides_what_is_expected():
    one_turn = {"id": "c", "category": "x", "turns": ["?"], "baseline": None, "baseline_model": None, "reference": None}
    questions = [{**one_turn, "id": "a", "category": "y", "turns": ["?", "?"]}, one_turn]
    found = only([*both_turns([(4, 2), (9, 9)]), row("c", 1, 6)], questions=questions)
    assert (found.coverage.expected, found.coverage.judged, found.n) == (3, 3, 3)
    assert found.numbers == {"turn_1": 5, "turn_2": 2, "average": 4}
    assert found.per_question["average"] == {"a": 3, "c": 6}
    assert found.categories == {"y": 3, "x": 6}
    assert found.bases["turn_2"].n == 1
    assert "2 judgments of other questions set aside" in found.warnings


def test_no_row_on_any_of_the_questions_is_a_mistake():
    other = {"id": "z", "category": "x", "turns": ["?"], "baseline": None, "baseline_model": None, "reference": None}
    with pytest.raises(ConfigError, match="no row is on any of the 1 questions"):
        score(both_turns([(1, 1)]), questions=[other])


def test_ratings_off_the_scale_count_and_are_reported():
    found = only([row("a", 1, 15), row("b", 1, 0.5), row("c", 1, 10)])
    assert found.numbers["average"] == pytest.approx(8.5)
    assert found.warnings == (
        "2 ratings outside 1 to 10 count, as in the official script: 15 (question a, turn 1), 0.5 (question b, turn 1)",
    )


def test_reparsing_takes_the_text_and_tells_what_changed():
    rows = [row("a", 1, 7), {**row("b", 1, 3), "score": -1}, {**row("c", 1, -1), "score": 5.0}]
    found = only(rows, reparse=True, force=True)
    assert found.numbers["average"] == 5
    told = "2 stored scores differ from the judgment texts, which count: "
    told += "none -> 3 (question b, turn 1), 5 -> none (question c, turn 1)"
    assert told in found.warnings
    assert only(rows, force=True).numbers["average"] == 6


def test_reparsing_needs_no_stored_score():
    rows = [{key: value for key, value in row(name, 1, 7).items() if key != "score"} for name in "ab"]
    assert only(rows, reparse=True).numbers["average"] == 7


def test_the_reason_of_a_failure_is_that_of_its_row():
    rows = [row("a", 1, -1, status="no_answer"), row("b", 1, -1, status="failed"), row("c", 1, -1), row("d", 1, "error")]
    found = only([*rows, row("e", 1, 5)])
    assert found.failed == {"no answer": 1, "API failure": 2, "no rating": 1}


def test_null_and_nan_scores_are_left_out_as_pandas_does():
    assert only([row("a", 1, 8), row("b", 1, None), row("c", 1, float("nan"))], force=True).numbers["average"] == 8


@pytest.mark.parametrize("ids", [(81, 82.0, "83"), ("81", "82", 83)], ids=str)
def test_question_ids_may_be_numbers_or_text(ids):
    assert list(only([row(name, 1.0, 5.0) for name in ids], force=True).per_question["turn_1"]) == ["81", "82", "83"]


def test_rows_of_several_judges_are_never_mixed():
    rows = [row("a", 1, 9), row("a", 1, 1, judge=["other", "single-v1"]), row("a", 2, 9)]
    with pytest.raises(ConfigError, match=r"several judges: judge \(2 rows\), other \(1 rows\); name one with --judge"):
        score(rows)
    with pytest.raises(ConfigError, match=r"found no judgments of 'othre'; .*did you mean 'other'"):
        score(rows, judge="othre")
    found = only(rows, judge="judge")
    assert (found.numbers["average"], found.judge) == (9, "judge")
    assert "1 judgments of other set aside" in found.warnings


def test_pairwise_rows_are_set_aside():
    pair = {"question_id": 81, "model_1": "m", "model_2": "n", "g1_winner": "tie", "judge": ["judge", "pair-v2"], "turn": 1}
    found = only([row("a", 1, 9), pair])
    assert (found.numbers["average"], found.warnings) == (9, ("1 pairwise judgments set aside",))
    with pytest.raises(ConfigError, match="all 2 rows are pairwise"):
        score([pair, pair])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": None}, "row 2: turn: found None; must be 1 or 2"),
        ({"turn": 3}, "row 2: turn: found 3"),
        ({"turn": True}, "row 2: turn: found True"),
        ({"turn": [1]}, r"row 2: turn: found \[1\]"),
        ({"score": "8"}, "row 2: score: found '8'; must be a number"),
        ({"score": float("inf")}, "row 2: score: found inf; must be a number"),
        ({"score": True}, "row 2: score: found True"),
        ({"score": [8]}, r"row 2: score: found \[8\]"),
        ({"question_id": None}, "row 2: question_id: found None"),
        ({"question_id": 8.5}, "row 2: question_id: found 8.5"),
        ({"judge": {}}, "row 2: judge: found {}"),
        ({"judge": []}, "row 2: judge: found "),
        ({"repeat": "1"}, "row 2: repeat: found '1'"),
    ],
    ids=str,
)
def test_an_impossible_value_is_told_with_its_row(change, message):
    with pytest.raises(ConfigError, match=f"^file: {message}"):
        score([row("a", 1, 5), {**row("b", 1, 5), **change}], source="file")


@pytest.mark.parametrize("key", ["question_id", "model", "turn", "score"])
def test_a_missing_key_is_told_with_its_row(key):
    broken = row("b", 1, 5)
    del broken[key]
    with pytest.raises(ConfigError, match=f"^file: row 2: has no {key}; must have question_id, model, turn, score$"):
        score([row("a", 1, 5), broken], source="file")


def test_rows_without_a_judge_are_one_judge_that_is_not_named():
    rows = [{key: value for key, value in row(name, 1, 7).items() if key not in ("judge", "judgment")} for name in "ab"]
    found = only(rows)
    assert (found.judge, found.warnings) == ("not named", ("the rows do not name their judge",))


def test_wrong_reference_answers_are_told_where_the_judge_saw_them():
    official = {"judge": ["gpt-4", "single-math-v1"]}
    assert "answers; those to questions 111 are known" in " ".join(only([row(111, 1, 5, **official)], force=True).warnings)
    assert "reference" not in " ".join(only([row(112, 1, 5), row(81, 1, 5)], force=True).warnings)
    mine = {"judge": ["other", "single-math-v1"], "reference": "gpt-4"}
    assert "known to be wrong" in " ".join(only([row(111, 1, 5, **mine)], force=True).warnings)
    better = {"judge": ["gpt-4", "single-math-v1"], "reference": "gpt-4-turbo"}
    assert "known to be wrong" not in " ".join(only([row(111, 1, 5, **better)], force=True).warnings)


def test_the_intervals_are_over_questions():
    values = random.Random(1)
    rows = both_turns([(values.randint(1, 10),) * 2 for _ in range(26)])
    found = only(rows)
    assert found.intervals["turn_1"] == found.intervals["turn_2"] == pytest.approx(found.intervals["average"])
    low, high = found.intervals["average"]
    assert low < found.numbers["average"] < high


def test_json_has_every_number_and_what_it_rests_on():
    found = only([*both_turns([(9, 1), (8, 2)]), row("b", 2, -1)]).to_json()
    assert list(found) == [
        *("turn_1", "turn_1_ci", "turn_2", "turn_2_ci", "average", "average_ci"),
        *("n", "failed", "failures", "duplicates", "coverage", "judge", "categories", "by_metric", "warnings", "reason"),
    ]
    assert (found["n"], found["failed"], found["failures"], found["duplicates"]) == (4, 1, {"no rating": 1}, 1)
    assert (found["coverage"], found["judge"], found["reason"]) == (1.0, "judge", None)
    assert found["by_metric"]["turn_2"] == {"n": 2, "coverage": 1.0, "reason": None}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([1, 2]), st.sampled_from([-1, 1, 4.5, 10]), st.sampled_from("mn")),
        min_size=1,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_numbers_are_the_official_means_in_any_order(drawn, shuffler):
    rows = [row(*values) for values in drawn]
    found = score(rows, force=True)
    for model, own in found.items():
        kept = [(turn, value) for _, turn, value, name in drawn if name == model and value != -1]
        for metric, turns in (("turn_1", (1,)), ("turn_2", (2,)), ("average", (1, 2))):
            values = [value for turn, value in kept if turn in turns]
            assert own.numbers[metric] == (pytest.approx(fmean(values)) if values else None)
        assert own.n + sum(own.failed.values()) == sum(name == model for *_, name in drawn)
    shuffler.shuffle(rows)
    again = score(rows, force=True)
    for model, own in found.items():
        assert (again[model].numbers, again[model].intervals) == (own.numbers, own.intervals)
        assert (again[model].failed, again[model].duplicates) == (own.failed, own.duplicates)
