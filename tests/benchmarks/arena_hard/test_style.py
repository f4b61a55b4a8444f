"""Style of answers, and style control against scikit-learn (v0.1) and against torch (v2.0) on the official matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eva_hpc.benchmarks.arena_hard import style_control
from eva_hpc.benchmarks.arena_hard.battles import Battle
from eva_hpc.benchmarks.arena_hard.bradley_terry import Table
from eva_hpc.benchmarks.arena_hard.questions import read_styles
from eva_hpc.benchmarks.arena_hard.style import Style, markdown_counts, style_from, style_of
from eva_hpc.benchmarks.arena_hard.style_control import control, features
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.arena_hard.made_up import write

METADATA = {
    "token_len": 7,
    "header_count": {"h1": 1, "h2": 2},
    "list_count": {"ordered": 3, "unordered": 0},
    "bold_count": {"**": 4},
}


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    monkeypatch.setattr(style_control, "QUESTION_ROUNDS", 50)


def test_markdown_is_counted_by_kind_outside_of_code():
    text = (
        "# One\n## Two\n####### none\n1. first\n 2. second\n- item\n"
        "**bold** and __bold__ ** no\nbold**\n```\n# comment\n- x\n```\n"
    )
    found = markdown_counts(text)
    assert {kind: count for kind, count in found["header_count"].items() if count} == {"h1": 1, "h2": 1}
    assert found["list_count"] == {"ordered": 2, "unordered": 1}
    assert found["bold_count"] == {"**": 1, "__": 1}


def test_what_stands_in_a_code_block_is_left_out_wherever_it_stands():
    assert markdown_counts("**x** ```**x**```")["bold_count"]["**"] == 0
    assert markdown_counts("``` ``` **x**")["bold_count"]["**"] == 1


def test_metadata_are_taken_as_they_are():
    assert style_from(METADATA, "f: row 1") == Style(7, 3, 3, 4)
    with pytest.raises(ConfigError, match=r"f: row 1: list_count: found None; must be a count"):
        style_from({**METADATA, "list_count": None}, "f: row 1")


def test_without_the_encoding_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="TIKTOKEN_CACHE_DIR=FOLDER python -c") as caught:
        style_of("text", "v2.0")
    assert "o200k_base" in str(caught.value)
    assert style_of("**text**", "v2.0", tokens=3) == Style(3, 0, 0, 1)


def test_styles_are_read_from_all_layouts(tmp_path):
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": "- x"}}]
    rows = [
        {"question_id": "1", "model_id": "m", "choices": [{"turns": [{"content": "- x"}]}], "conv_metadata": METADATA},
        {"question_id": "2", "model_id": "m", "choices": [{"turns": [{"content": "- x", "token_len": 2}]}]},
        {"uid": "3", "model": "m", "messages": said, "metadata": METADATA},
    ]
    styles, notes = read_styles([write(tmp_path / "a.jsonl", rows)], "v0.1")
    assert styles == {("m", "1"): Style(7, 3, 3, 4), ("m", "2"): Style(2, 0, 1, 0), ("m", "3"): Style(7, 3, 3, 4)}
    assert notes == []


def test_without_the_encoding_the_tokens_of_all_answers_are_estimated_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": "- eight letters"}}]
    rows = [{"uid": "1", "model": "m", "messages": said, "metadata": METADATA}, {"uid": "2", "model": "m", "messages": said}]
    styles, (note,) = read_styles([write(tmp_path / "a.jsonl", rows)], "v0.1")
    assert styles == {("m", name): Style(4, 0, 1, 0) for name in ("1", "2")}
    assert "estimated" in note
    assert "cl100k_base" in note


def made_up(seed=0, models=("m", "n"), questions=60):
    """Longer answers win more often; each model has its own length."""
    random = np.random.default_rng(seed)
    styles, battles = {}, []
    for number, model in enumerate(("base", *models)):
        for q in range(questions):
            styles[model, f"q{q}"] = Style(
                int(random.integers(50, 200) * (1 + 0.4 * number)), *random.integers(0, 6, 3).tolist()
            )
    for model in models:
        for q in range(questions):
            gap = styles[model, f"q{q}"].tokens - styles["base", f"q{q}"].tokens
            for _ in range(2):
                x = random.normal() + gap / 150
                winner = "tie" if abs(x) < 0.3 else "model_b" if x > 0 else "model_a"
                battles.append(Battle(f"q{q}", "base", model, winner, 3 if abs(x) > 1.5 else 1))
    return battles, styles


def test_v01_is_the_official_regression_with_its_default_penalty():
    from sklearn.linear_model import LogisticRegression

    battles, styles = made_up()
    models = ["base", "m", "n"]
    rows = [battle for battle in battles for _ in range(battle.weight)]
    a, b = (np.array([styles[getattr(row, side), row.question_id] for row in rows], float) for side in ("model_a", "model_b"))
    style = (a - b) / (a + b + 1)
    style = (style - style.mean(axis=0)) / style.std(axis=0)
    x = np.zeros((len(rows), 3))
    x[:, 0] = math.log(10)
    x[np.arange(len(rows)), [models.index(row.model_b) for row in rows]] = -math.log(10)
    x = np.hstack([x, style])
    won, tied = np.array([row.winner == "model_a" for row in rows]), np.array([row.winner == "tie" for row in rows])
    fit = LogisticRegression(fit_intercept=False, tol=1e-12, max_iter=10_000)
    coefficients = fit.fit(np.vstack([x, x]), np.concatenate([won | tied, won])).coef_[0]

    found = control(Table.of(battles, "base"), styles, "v0.1")
    expected = 100 / (1 + 10 ** (coefficients[0] - coefficients[:3]))
    assert found.win_rate == pytest.approx(expected, abs=1e-3)
    assert list(found.coefficients.values()) == pytest.approx(coefficients[3:].tolist(), abs=1e-4)
    assert set(found.coefficients) == {"length", "header", "list", "bold"}


def test_v2_is_the_maximum_of_the_official_likelihood():
    from scipy.optimize import minimize

    battles, styles = made_up(seed=1)
    rows = [battle for battle in battles for _ in range(battle.weight)]
    b, a = (np.array([styles[getattr(row, side), row.question_id] for row in rows], float) for side in ("model_a", "model_b"))
    da, db = a[:, 1:] / (a[:, :1] + 1), b[:, 1:] / (b[:, :1] + 1)
    length = (a[:, :1] - b[:, :1]) / (a[:, :1] + b[:, :1])
    style = np.hstack([length, (da - db) / (da + db + 1)])
    style = (style - style.mean(axis=0)) / style.std(axis=0, ddof=1)
    x = np.hstack([np.array([[row.model_b == name for name in ("m", "n")] for row in rows], float), style])
    y = np.array([row.share_of_b for row in rows])
    best = minimize(
        lambda w: np.sum(np.logaddexp(0, x @ w) - y * (x @ w)),
        np.zeros(6),
        jac=lambda w: x.T @ (1 / (1 + np.exp(-x @ w)) - y),
        options={"gtol": 1e-8},
    ).x

    table = Table.of(battles, "base")
    found = control(table, styles, "v2.0")
    assert features(table.rows(), styles, "v2.0") == pytest.approx(style)
    assert found.win_rate[1:] == pytest.approx(100 / (1 + np.exp(-best[:2])), abs=1e-4)
    assert list(found.coefficients.values()) == pytest.approx(best[2:], abs=1e-5)


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_intervals_contain_the_number_and_are_the_same_every_time(version):
    battles, styles = made_up()
    found, again = (control(Table.of(battles, "base"), styles, version) for _ in range(2))
    assert (found.interval == again.interval).all()
    assert (found.official_interval == again.official_interval).all()
    for rate, interval, official in list(zip(found.win_rate, found.interval, found.official_interval, strict=True))[1:]:
        assert interval[0] < rate < interval[1]
        assert official[0] < rate < official[1]


def test_weights_are_rows_written_several_times():
    battles, styles = made_up()
    for version in ("v0.1", "v2.0"):
        table = Table.of(battles, "base")
        found, written_out = control(table, styles, version), control(table.rows(), styles, version)
        assert found.win_rate == pytest.approx(written_out.win_rate)
        assert found.official_interval == pytest.approx(written_out.official_interval)


def test_a_style_that_is_the_same_everywhere_and_a_model_that_always_wins_do_no_harm():
    battles = [Battle(f"q{i}", "base", "m", "model_b") for i in range(5)]
    styles = {(model, f"q{i}"): Style(0, 0, 0, 0) for model in ("base", "m") for i in range(5)}
    assert control(Table.of(battles, "base"), styles, "v2.0").win_rate[1] == pytest.approx(100)
    assert 50 < control(Table.of(battles, "base"), styles, "v0.1").win_rate[1] < 100


def test_a_missing_answer_names_model_and_question():
    battles, styles = made_up()
    del styles["n", "q3"]
    with pytest.raises(ConfigError, match=r"n has none to 1 questions, such as q3; give --answers FILE"):
        control(Table.of(battles, "base"), styles, "v0.1")
    with pytest.raises(ConfigError, match="every battle to be against the baseline"):
        control(Table.of([*battles, Battle("q1", "m", "n", "tie")], "base"), styles, "v0.1")
