"""Bradley-Terry against scikit-learn's logistic regression, set up as the official script does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.arena_hard import bradley_terry
from eva_hpc.benchmarks.arena_hard.battles import Battle, read_battles
from eva_hpc.benchmarks.arena_hard.bradley_terry import (
    Table,
    log_odds,
    official_interval_v01,
    official_interval_v2,
    question_interval,
    win_rates,
)

WINNERS = ("model_a", "model_b", "tie")


def rates(battles, baseline="base"):
    table = Table.of(battles, baseline)
    return dict(zip(table.models, win_rates(log_odds(table.wins())), strict=True))


def by_sklearn(battles, baseline):
    """Each battle twice, X = ±ln 10, a tie won once and lost once; no penalty, no intercept."""
    from sklearn.linear_model import LogisticRegression

    models = sorted({name for battle in battles for name in (battle.model_a, battle.model_b)})
    rows, won = [], []
    for copy in (0, 1):
        for battle in battles:
            row = np.zeros(len(models))
            row[models.index(battle.model_a)], row[models.index(battle.model_b)] = math.log(10), -math.log(10)
            rows += [row] * battle.weight
            won += [battle.winner == "model_a" or (battle.winner == "tie" and copy == 0)] * battle.weight
    fit = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-10, max_iter=10_000).fit(np.array(rows), np.array(won))
    scores = dict(zip(models, 400 * fit.coef_[0], strict=True))
    return {name: 100 / (1 + 10 ** ((scores[baseline] - scores[name]) / 400)) for name in models}


def played(pairs, seed, games=40):
    random = np.random.default_rng(seed)
    return [
        Battle(f"q{i % 10}", a, b, str(random.choice(WINNERS, p=[0.35, 0.4, 0.25])), int(random.choice([1, 3])))
        for a, b in pairs
        for i in range(games)
    ]


@pytest.mark.parametrize(
    "pairs",
    [
        [("base", "m")],
        [("base", "m"), ("base", "n")],
        [("base", "m"), ("m", "n"), ("base", "n"), ("n", "o")],
    ],
)
def test_the_fit_is_that_of_the_official_regression(pairs):
    battles = played(pairs, seed=3)
    assert rates(battles) == pytest.approx(by_sklearn(battles, "base"), abs=2e-3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(WINNERS), st.sampled_from([1, 3])), min_size=1, max_size=30))
def test_against_one_baseline_the_closed_form_is_the_general_fit(games):
    battles = [Battle("q", "base", "m", winner, weight) for winner, weight in games]
    wins = Table.of(battles, "base").wins()
    total = sum(weight for _, weight in games)
    won = sum(weight * {"model_a": 0.0, "tie": 0.5, "model_b": 1.0}[winner] for winner, weight in games)

    assert rates(battles)["m"] == pytest.approx(100 * won / total)
    assert win_rates(bradley_terry._general(wins))[1] == pytest.approx(100 * won / total)


def test_models_that_no_chain_of_wins_connects_have_infinite_or_no_strength():
    battles = [
        *played([("base", "m")], seed=1),
        Battle("q", "m", "loser", "model_a"),
        Battle("q", "winner", "base", "model_a"),
        Battle("q", "far", "away", "tie"),
    ]
    found = rates(battles)
    assert found["m"] == pytest.approx(by_sklearn(battles[:40], "base")["m"], abs=1e-3)
    assert found["loser"] == 0
    assert found["winner"] == 100
    assert math.isnan(found["far"])
    assert math.isnan(found["away"])


def test_real_battles_give_the_published_score(shared_data):
    battles = read_battles(shared_data / "arena_hard" / "battles_gpt-3.5-turbo-0125.jsonl")
    assert rates(battles, "gpt-4-0314")["gpt-3.5-turbo-0125"] == pytest.approx(23.338048, abs=1e-6)


def test_the_v01_interval_has_the_draws_of_the_official_seed():
    battles = played([("base", "m"), ("base", "n")], seed=2)
    rows = [(battle.model_b, battle.share_of_b) for battle in battles for _ in range(battle.weight)]
    np.random.seed(42)
    drawn = []
    for _ in range(100):
        sample = [rows[i] for i in np.random.choice(len(rows), size=len(rows), replace=True)]
        share = np.mean([s for model, s in sample if model == "m"])
        drawn.append(math.log(share / (1 - share)))
    expected = [100 / (1 + math.exp(-np.percentile(drawn, q))) for q in (2.5, 97.5)]

    table = Table.of(battles, "base")
    assert official_interval_v01(table)[table.models.index("m")] == pytest.approx(expected)


def test_the_v2_interval_is_that_of_many_resampled_means():
    battles = played([("base", "m")], seed=5)
    rows = Table.of(battles, "base").rows().share_of_b
    random = np.random.default_rng(9)
    means = [random.choice(rows, size=len(rows)).mean() for _ in range(4000)]

    assert official_interval_v2(Table.of(battles, "base"))[1] == pytest.approx(100 * np.quantile(means, [0.05, 0.95]), abs=0.7)


def test_the_interval_over_questions_contains_the_score_where_models_also_met_each_other(monkeypatch):
    monkeypatch.setattr(bradley_terry, "_GENERAL_ROUNDS", 100)
    battles = played([("base", "m"), ("m", "n"), ("base", "n")], seed=4)
    table = Table.of(battles, "base")
    for model, (low, high) in list(zip(table.models, question_interval(table), strict=True))[1:]:
        assert low < rates(battles)[model] < high


def test_a_model_against_itself_says_nothing():
    battles = played([("base", "m")], seed=1)
    assert rates([*battles, Battle("q", "base", "base", "model_a")]) == rates(battles)
