"""From judgments and battles to numbers, with coverage, refusals and warnings."""

from __future__ import annotations

import numpy as np
import pytest

from eva_hpc.benchmarks.arena_hard.battles import Battle, read_battles
from eva_hpc.benchmarks.arena_hard.judgments import judgments_from, read_judgments, reparse
from eva_hpc.benchmarks.arena_hard.score import Options, score_battles, score_judgments, write_battles
from eva_hpc.benchmarks.arena_hard.style import Style
from eva_hpc.benchmarks.statistics.intervals import interval
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.arena_hard.made_up import LABELS, v01_row, v2_row


def rows(make, seed=0, model="m", questions=30, **more):
    random = np.random.default_rng(seed)
    return [make(f"q{i}", random.choice(LABELS, 2).tolist(), model=model, **more) for i in range(questions)]


def score(found_rows, version=None, **options):
    return score_judgments(judgments_from(found_rows), Options(**options), version)


def test_real_battles_give_the_published_number(shared_data):
    found = score_battles(read_battles(shared_data / "arena_hard" / "battles_gpt-3.5-turbo-0125.jsonl"))
    told = found["gpt-3.5-turbo-0125"].to_json()

    assert told["win_rate"] == pytest.approx(23.338048, abs=1e-6)
    assert told["ci_low"] < told["official_ci_low"] < told["win_rate"] < told["official_ci_high"] < told["ci_high"]
    assert (told["n"], told["coverage"], told["games"], told["n_battles"]) == (500, 1.0, 1000, 1414)
    assert "warnings" not in told


def test_a_real_sample_of_judgments_has_numbers_and_says_what_its_coverage_counts(shared_data):
    found = score_judgments(read_judgments([shared_data / "arena_hard" / "raw_judgments_sample.jsonl.gz"]))
    told = found["Meta-Llama-3.1-8B-Instruct"].to_json()

    assert told["win_rate"] == pytest.approx(32.8125)
    assert (told["judge"], told["baseline"], told["n"], told["coverage"]) == ("gpt-4-1106-preview", "gpt-4-0314", 41, 1.0)
    assert told["warnings"] == [
        "coverage is of the 41 questions in the file; the official set has 500: --questions FILE counts those of a file"
    ]


def test_judgments_and_the_battle_file_made_from_them_agree(tmp_path):
    judged = judgments_from(rows(v01_row) + rows(v01_row, seed=1, model="n"))
    write_battles(tmp_path / "b.jsonl", judged, "v0.1", Options())
    by_judgments, by_battles = score_judgments(judged), score_battles(read_battles(tmp_path / "b.jsonl"))

    for model in ("m", "n"):
        assert by_judgments[model].numbers == by_battles[model].numbers
        assert by_judgments[model].per_question == by_battles[model].per_question
    with pytest.raises(ConfigError, match=r"only v0\.1 has a battle file"):
        write_battles(tmp_path / "b.jsonl", judged, "v2.0", Options())


def test_the_win_rate_is_the_weighted_mean_over_questions_and_the_interval_resamples_them():
    found = score(rows(v01_row))["m"]
    percent, weights = found.per_question["win_rate"], found.weights
    sums = [percent[name] * weights[name] for name in percent]

    assert found.numbers["win_rate"] == pytest.approx(sum(sums) / sum(weights.values()))
    assert (found.numbers["ci_low"], found.numbers["ci_high"]) == pytest.approx(interval(sums, list(weights.values())))


def test_v2_is_the_mean_over_complete_rows():
    judged = [v2_row("q1", ["A>B", "B<<A"]), v2_row("q2", ["A>B", "A>B"]), v2_row("q3", ["B>A", None])]
    found = score(judged, force=True)["m"]

    assert found.numbers["win_rate"] == pytest.approx(100 * 4 / 6)  # lost 1, won 3; lost 1, won 1
    assert (found.n, found.coverage.judged, found.coverage.expected) == (2, 4, 6)
    assert found.coverage.failed == {"left out with the other game of the row": 1, "no verdict": 1}
    assert "1 of 6 games do not count: 1 no verdict" in found.warnings
    assert "1 games are left out because the other game of their row does not count" in found.warnings
    assert score([v01_row("q3", ["B>A", None])], force=True)["m"].numbers["win_rate"] == 100


def test_categories_of_v2_are_scored_apart_against_their_own_baselines():
    judged = rows(v2_row, category="creative_writing") + rows(v2_row, seed=1, category="hard_prompt")
    found = score(judged)["m"]

    assert (found.category, found.baseline) == ("hard_prompt", "o3-mini-2025-01-31")
    assert list(found.categories) == ["hard_prompt", "creative_writing"]
    assert found.categories["creative_writing"].baseline == "gemini-2.0-flash-001"
    assert found.to_json()["categories"]["hard_prompt"]["win_rate"] == found.to_json()["win_rate"]
    alone = score(judged, category="creative_writing")["m"]
    assert alone.numbers == found.categories["creative_writing"].numbers
    assert not alone.categories


def test_below_the_least_coverage_there_is_a_reason_instead_of_numbers():
    judged = [*rows(v01_row, questions=18), v01_row("bad", [None, None]), v01_row("worse", [None, None])]
    found = score(judged)["m"]

    assert set(found.numbers.values()) == {None}
    assert found.to_json()["reason"] == "only 36 of 40 games have a judgment: 90.0%, below 95% (4 no verdict)"
    assert found.refused
    forced = score(judged, force=True)["m"]
    assert forced.numbers["win_rate"] is not None
    assert forced.warnings[0] == found.refusal
    assert score(judged, least=0.9)["m"].refusal is None


def test_nothing_judged_is_refused_even_by_force():
    found = score([v01_row("q", [None, None])], force=True, styles={})["m"]
    assert found.refused
    assert set(found.numbers.values()) == {None}
    assert found.to_json()["n"] == 0


def test_expected_questions_count_and_others_are_left_out():
    judged = rows(v01_row, questions=10)
    expected = {f"q{i}": "arena-hard-v0.1" for i in range(1, 12)}
    found = score(judged, expected=expected, least=0.5)["m"]

    assert (found.n, found.coverage.judged, found.coverage.expected) == (9, 18, 22)
    assert found.coverage.failed == {"no judgment row": 4}
    assert "1 rows are on questions that are not in the --questions file: left out" in found.warnings
    assert found.numbers == score(judged[1:])["m"].numbers
    with pytest.raises(ConfigError, match="none of the judgments is on a question"):
        score(judged, expected={"other": "arena-hard-v0.1"})


def test_repeats_are_all_used_and_other_duplicates_told():
    once = rows(v01_row, questions=5)
    found = score(once + [{**row, "repeat": 1} for row in once])["m"]
    assert (found.n, found.games, found.coverage.judged, found.coverage.expected) == (5, 20, 20, 20)
    assert not [text for text in found.warnings if "again" in text]
    assert "5 rows judge a question again without another repeat number: all are counted" in score(once + once)["m"].warnings


def test_judges_are_never_mixed():
    judged = rows(v01_row) + rows(v01_row, judge="k")
    with pytest.raises(ConfigError, match=r"several judges: j \(30 rows\), k \(30 rows\); give --judge"):
        score(judged)
    assert score(judged, judge="k")["m"].judge == "k"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mm"}, "--model: found mm; must be one of m; did you mean 'm'?"),
        ({"category": "x"}, "--category: found x; must be one of arena-hard-v0.1"),
        ({"judge": "x"}, "--judge: found x; must be one of j"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(options, message):
    with pytest.raises(ConfigError) as caught:
        score(rows(v01_row), **options)
    assert str(caught.value) == message


def test_a_baseline_that_cannot_be_told_must_be_given():
    judged = [v2_row("q", ["A>B", "A>B"], category="own")]
    with pytest.raises(ConfigError, match="baseline of category own cannot be told"):
        score(judged)
    assert score(judged, baseline="b")["m"].baseline == "b"
    assert score([{**row, "baseline": "c"} for row in judged])["m"].baseline == "c"
    with pytest.raises(ConfigError, match="several baselines: c, d"):
        score([{**judged[0], "baseline": "c"}, {**judged[0], "baseline": "d"}])


def test_reparsing_tells_how_many_stored_scores_differ():
    row = v01_row("q", ["A>B", "A>B"])
    row["games"][0]["score"] = "B>A"
    fresh, changed = reparse(judgments_from([row]), "v0.1")
    assert (changed, fresh[0].games[0].label) == (1, "A>B")
    del row["games"][0]["judgment"]
    with pytest.raises(ConfigError, match="game 1: has no judgment text"):
        reparse(judgments_from([row]), "v0.1")


def test_style_control_adds_numbers_and_says_that_it_is_joint(monkeypatch):
    monkeypatch.setattr("eva_hpc.benchmarks.arena_hard.style_control.QUESTION_ROUNDS", 20)
    random = np.random.default_rng(0)
    styles = {
        (model, f"q{i}"): Style(*random.integers(1, 99, 4).tolist()) for model in ("gpt-4-0314", "m", "n") for i in range(30)
    }
    judged = rows(v01_row) + rows(v01_row, seed=1, model="n")
    found = score(judged, styles=styles, model="m")

    assert list(found) == ["m"]
    numbers = found["m"].numbers
    assert numbers["sc_ci_low"] < numbers["sc_win_rate"] < numbers["sc_ci_high"]
    assert numbers["win_rate"] == score(judged)["m"].numbers["win_rate"]
    assert any("one fit over all models judged here, 2 in all" in text for text in found["m"].warnings)
    assert set(found["m"].to_json()["style_coefficients"]) == {"length", "header", "list", "bold"}


def test_games_missing_in_a_battle_file_are_told():
    battles = [Battle("q1", "base", "m", "model_a"), Battle("q2", "base", "m", "tie"), Battle("q2", "base", "m", "model_b")]
    found = score_battles(battles)["m"]
    assert found.games == 3
    assert "1 of 4 games do not count: 1 not in the battle file" in found.warnings
    assert found.refusal == "only 3 of 4 games have a judgment: 75.0%, below 95% (1 not in the battle file)"


def test_a_question_with_one_of_its_two_games_is_half_covered():
    judged = [v01_row(f"q{i}", ["B>A", None]) for i in range(20)]
    found = score(judged)["m"]

    assert found.refusal == "only 20 of 40 games have a judgment: 50.0%, below 95% (20 no verdict)"
    told = score(judged, force=True)["m"].to_json()
    assert (told["win_rate"], told["n"], told["games"], told["coverage"]) == (100, 20, 20, 0.5)


def test_every_repeat_of_the_judge_counts_in_the_coverage():
    judged = [{**v01_row(f"q{i}", ["B>A", "A>B"]), "repeat": repeat} for i in range(10) for repeat in (0, 1)]
    judged[1] = {**v01_row("q0", [None, None]), "repeat": 1}
    found = score(judged, least=0.5)["m"]

    assert (found.n, found.coverage.judged, found.coverage.expected) == (10, 38, 40)
    assert found.coverage.failed == {"no verdict": 2}
    del judged[1]
    assert score(judged, least=0.5)["m"].coverage.failed == {"no judgment row": 2}


def test_own_categories_against_one_baseline_have_a_win_rate_together():
    law, tax = (rows(v2_row, seed=i, category=name, baseline="b") for i, name in enumerate(("law", "tax")))
    tax = [{**row, "uid": f"tax {row['uid']}"} for row in tax]
    found = score(tax + law)["m"]

    assert (found.category, found.n, list(found.categories)) == ("all categories", 60, ["law", "tax"])
    together = score([{**row, "category": "own"} for row in tax + law])["m"]
    assert found.numbers["win_rate"] == together.numbers["win_rate"]
    assert found.per_question == together.per_question
    assert found.warnings == ("the win rate is of the categories law, tax together; each one's own is under categories",)
    expected = {row["uid"]: row["category"] for row in tax + law} | {"more": "law"}
    assert score(tax + law, expected=expected)["m"].coverage.expected == 122


def test_own_categories_against_several_baselines_have_none_together():
    judged = rows(v2_row, category="law", baseline="b") + [
        {**row, "uid": f"tax {row['uid']}"} for row in rows(v2_row, category="tax", baseline="c")
    ]
    found = score(judged)["m"]

    assert found.numbers["win_rate"] is None
    assert found.refusal == (
        "the categories have different baselines, and so no win rate together: law against b, tax against c"
    )
    assert (found.n, found.coverage.share) == (60, 1.0)
    assert found.categories["law"].numbers["win_rate"] is not None


@pytest.mark.parametrize("make", [v01_row, v2_row])
def test_a_judged_model_is_not_the_baseline_by_its_name(make, tmp_path):
    judged = rows(make, model="policy", baseline="policy")
    found = score(judged)["policy"]

    assert found.numbers == score(rows(make, model="m", baseline="policy"))["m"].numbers
    assert (found.baseline, found.games) == ("policy", 60)
    if make is v01_row:
        write_battles(tmp_path / "b.jsonl", judgments_from(judged), "v0.1", Options())
        assert score_battles(read_battles(tmp_path / "b.jsonl"))["policy"].numbers == found.numbers


def test_a_model_that_no_chain_of_battles_connects_has_no_number():
    battles = [Battle("q", "base", "m", "tie"), Battle("q", "x", "y", "tie")] * 2
    found = score_battles(battles, Options(baseline="base"))
    assert found["x"].refusal == "no chain of battles connects x with base"
    assert found["m"].numbers["win_rate"] == 50
