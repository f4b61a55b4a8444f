"""The length-controlled fit: published numbers, the conditions of its optimum, and what it does with degenerate rows."""

from __future__ import annotations

import csv
import hashlib
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, length_controlled_arm
from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
from eva_hpc.benchmarks.alpaca_eval.length_control import (
    GAMED_WEIGHT,
    Rows,
    choose_C,
    is_plausible,
    length_controlled,
    published_folds,
    read_gamed,
)
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.alpaca_eval.made_up import difficulties, gamed, sigmoid

MODELS = ["FuseChat-Llama-3.2-1B-Instruct", "claude-2.1", "gpt35_turbo_instruct", "alpaca-7b"]


def published(shared_data, model):
    """The line of a model among the published numbers."""
    with (shared_data / "alpaca_eval/official_numbers.csv").open() as file:
        return next(row for row in csv.DictReader(file) if row["model"] == model)


def control(shared_data, **settings):
    """Difficulties and gamed rows of the official evaluation set."""
    folder = shared_data / "alpaca_eval/reference"
    return LengthControl(
        read_difficulty(folder / "instruction_difficulty_recovered.csv"),
        read_gamed(folder / "df_gamed_reconstructed.csv"),
        **settings,
    )


def arm(shared_data, model, **settings):
    """A model's rows, and what they are fitted with."""
    needed = control(shared_data, **settings)
    rows = read_annotations(shared_data / "alpaca_eval/models" / model / "annotations.json.gz")
    return length_controlled_arm(rows, needed), needed


@pytest.mark.parametrize("model", MODELS)
def test_the_published_number_and_weights_come_out(shared_data, model):
    official = published(shared_data, model)
    ours, needed = arm(shared_data, model, difficulty_by="position", C=float(official["C_identified"]))

    found = ours.fit(needed.gamed)

    assert found.win_rate == pytest.approx(float(official["official_lc"]), abs=0.0005)
    if official["official_lc_se"]:
        assert found.standard_error == pytest.approx(float(official["official_lc_se"]), abs=0.0005)
    assert found.weights == pytest.approx(
        [float(official[f"published_w_{name}"]) for name in ("len", "difficulty", "intercept")], abs=0.001
    )


@pytest.mark.parametrize("model", MODELS)
def test_cross_validation_chooses_the_published_C(shared_data, model):
    ours, _ = arm(shared_data, model, difficulty_by="position")

    assert math.isclose(ours.C, float(published(shared_data, model)["C_identified"]))


def test_joined_by_instruction_a_missing_row_moves_no_other(shared_data):
    ours, needed = arm(shared_data, "gpt35_turbo_instruct", C=2.782559402207126)

    assert ours.win_rate(needed.gamed) == pytest.approx(14.96, abs=0.005)


def made_up_rows(n=60, seed=0):
    """Rows whose preferences follow a known truth."""
    random = np.random.default_rng(seed)
    lengths, noise = random.normal(0, 300, n), random.normal(0, 0.5, n)
    hard = difficulties(n)
    return Rows(lengths, hard, sigmoid(-0.5 - np.tanh(lengths / 300) + 0.4 * hard + noise))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 80), st.sampled_from([0.05, 1.0, 2.78, 21.5]))
def test_at_the_optimum_the_gradient_balances_the_penalty(seed, n, C):
    rows, regulariser = made_up_rows(n, seed), gamed()

    weights = np.array(length_controlled(rows, regulariser, C).weights)

    features = np.concatenate([regulariser.features, rows.features()])
    truth = np.concatenate([regulariser.preferences, rows.preferences])
    counts = np.concatenate([np.full(len(regulariser.preferences), GAMED_WEIGHT), np.ones(n)])
    gradient = C * features.T @ (counts * (sigmoid(features @ weights) - truth))
    off = np.where(weights == 0, np.maximum(np.abs(gradient) - 1, 0), np.abs(gradient + np.sign(weights)))
    assert off.max() < 0.01 * (1 + C * counts.sum())  # the solver's own tolerance, relative to the gradient at 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_mirrored_preferences_mirror_the_result(seed):
    rows, regulariser = made_up_rows(seed=seed), gamed()
    mirrored = Rows(-rows.length_differences, -rows.difficulties, 1 - rows.preferences)
    features = regulariser.features * [-1, -1, 1]
    other = type(regulariser)(features, 1 - regulariser.preferences)

    found, opposite = length_controlled(rows, regulariser, 2.78), length_controlled(mirrored, other, 2.78)

    assert found.win_rate + opposite.win_rate == pytest.approx(100, abs=0.1)


def test_counting_a_row_twice_is_having_it_twice():
    rows, regulariser = made_up_rows(), gamed()
    counts = np.ones(60)
    counts[:10] = 2
    twice = Rows(
        *(np.concatenate([part[:10], part]) for part in (rows.length_differences, rows.difficulties, rows.preferences))
    )

    assert length_controlled(rows, regulariser, 2.78, counts).win_rate == pytest.approx(
        length_controlled(twice, regulariser, 2.78).win_rate, abs=0.02
    )


def test_a_failed_row_is_predicted_but_not_learned_from():
    rows, regulariser = made_up_rows(), gamed()
    preferences, harder = rows.preferences.copy(), rows.difficulties.copy()
    preferences[3] = math.nan
    harder[3] += 2

    found = length_controlled(Rows(rows.length_differences, rows.difficulties, preferences), regulariser, 2.78)
    other = length_controlled(Rows(rows.length_differences, harder, preferences), regulariser, 2.78)

    assert other.weights == found.weights
    _, slope, base = found.weights
    moved = sigmoid(base + slope * harder[3]) - sigmoid(base + slope * rows.difficulties[3])
    assert other.win_rate - found.win_rate == pytest.approx(100 * moved / 60)


@pytest.mark.parametrize("length", [0.0, 25.0, -25.0])
def test_constant_length_differences(length):
    rows = made_up_rows(40)
    constant = Rows(np.full(40, length), rows.difficulties, rows.preferences)

    found = length_controlled(constant, gamed(), 2.78)

    assert constant.features()[:, 0] == pytest.approx(np.sign(length))
    assert 0 < found.win_rate < 100


@pytest.mark.parametrize("preference", [0.0, 0.5, 1.0])
def test_constant_preferences(preference):
    rows = made_up_rows(40)
    C = choose_C(same := Rows(rows.length_differences, rows.difficulties, np.full(40, preference)), gamed())

    assert length_controlled(same, gamed(), C).win_rate == pytest.approx(100 * preference, abs=7)


@pytest.mark.parametrize("winner", [0.0, 1.0])
def test_one_side_winning_everything_cannot_be_fitted(winner):
    rows, some = made_up_rows(40), gamed()
    one_sided = type(some)(some.features, np.full(len(some.preferences), winner))

    with pytest.raises(ConfigError, match=f"have preference {winner:g}: nothing to fit"):
        choose_C(Rows(rows.length_differences, rows.difficulties, np.full(40, winner)), one_sided)


def test_a_missing_output_leaves_the_fit_but_not_the_mean():
    rows = made_up_rows()
    lengths = rows.length_differences.copy()
    lengths[0] = math.nan

    found = length_controlled(Rows(lengths, rows.difficulties, rows.preferences), gamed(), 2.78)

    assert not math.isnan(found.win_rate)


def test_one_row_has_no_standard_error():
    found = length_controlled(Rows(np.array([5.0]), np.array([0.1]), np.array([0.4])), gamed(), 2.78)

    assert math.isnan(found.standard_error)


def test_the_installed_scikit_learn_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = made_up_rows()
        length_controlled(rows, gamed(), choose_C(rows, gamed()))


def test_folds_are_equal_and_the_same_on_every_machine():
    folds = published_folds(2415)

    assert sorted(np.bincount(folds)) == [483] * 5
    assert hashlib.sha256(folds.astype("<i8").tobytes()).hexdigest()[:16] == "130d0db28d68601b"


def test_too_few_rows_for_the_folds():
    two = gamed(2)

    with pytest.raises(ConfigError, match="found 4 judged and gamed rows"):
        choose_C(made_up_rows(2), two)


@pytest.mark.parametrize(
    ("win_rate", "controlled", "plausible"), [(20, 9, False), (20, 11, True), (50, 63, False), (90, 99, True)]
)
def test_far_from_the_win_rate_is_implausible(win_rate, controlled, plausible):
    assert is_plausible(win_rate, controlled) is plausible


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preference,std_delta_len\n0.5,1\n", "1: has no column instruction_difficulty"),
        ("preference,std_delta_len,instruction_difficulty\n0.5,1,x\n", "2: .* must be numbers"),
        ("preference,std_delta_len,instruction_difficulty\n1.5,1,0\n", "2: found 1.5, 1.0, 0.0"),
        ("preference,std_delta_len,instruction_difficulty\n,1,0\n", "no row has a preference"),
    ],
)
def test_mistakes_in_gamed_rows(tmp_path, text, message):
    file = tmp_path / "gamed.csv"
    file.write_text(text)

    with pytest.raises(ConfigError, match=message):
        read_gamed(file)


def test_gamed_rows_without_a_preference_are_left_out(tmp_path):
    file = tmp_path / "gamed.csv"
    file.write_text("preference,std_delta_len,instruction_difficulty\n0.25,1,2\nnan,1,2\n")

    found = read_gamed(file)

    assert found.preferences.tolist() == [0.25]
    assert found.features == pytest.approx(np.array([[math.tanh(1), 2, 0]]))
