"""From log-probabilities to preferences, by the official draw of the order and the official reading."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
from eva_hpc.benchmarks.alpaca_eval.preference import (
    is_switched,
    label_preference,
    preference,
    recompute,
    recomputed,
    slot_preference,
    stored,
    switch,
)

LOG_PROBS = st.floats(max_value=0, min_value=-1e4)


def completion(**log_probs):
    """A raw completion with these first tokens."""
    return {"logprobs": {"content": [{"top_logprobs": [{"token": t, "logprob": p} for t, p in log_probs.items()]}]}}


@pytest.mark.parametrize("model", ["alpaca-7b", "claude-2.1", "gpt35_turbo_instruct"])
def test_every_official_raw_completion_gives_its_preference(shared_data, model):
    rows = read_annotations(shared_data / "alpaca_eval/models" / model / "annotations.json.gz")

    found = recompute(rows)

    assert found.checked > 800
    assert found.differ == ()
    assert found.largest < 1e-9


def test_a_changed_preference_is_found(shared_data):
    rows = read_annotations(shared_data / "alpaca_eval/models/alpaca-7b/annotations.json.gz")[:3]
    rows[1] = rows[1] | {"preference": 1.5}
    rows[2] = rows[2] | {"preference": None}

    found = recompute(rows)

    assert found.differ == (2, 3)
    assert found.values[1] == pytest.approx(recomputed(rows[1]))


@settings(deadline=None)
@given(LOG_PROBS, LOG_PROBS)
def test_preference_is_the_probability_of_the_second_label_plus_one(first, second):
    value = slot_preference(completion(m=first, M=second, The=-1.0))

    assert 1 <= value <= 2
    if max(first, second) > -700:  # where the probabilities do not underflow
        assert value == pytest.approx(2 - math.exp(first) / (math.exp(first) + math.exp(second)))


@settings(deadline=None)
@given(LOG_PROBS, LOG_PROBS)
def test_trading_the_labels_trades_the_preference(first, second):
    assert slot_preference(completion(m=first, M=second)) == pytest.approx(
        switch(slot_preference(completion(m=second, M=first)))
    )


@settings(deadline=None)
@given(st.text())
def test_a_missing_label_has_probability_zero(instruction):
    only_first = preference(completion(m=-0.5, The=-1.0), instruction)

    assert only_first == (2 if is_switched(instruction) else 1)


def test_about_half_of_the_instructions_are_switched():
    share = sum(is_switched(f"instruction {number}") for number in range(1000)) / 1000

    assert 0.45 < share < 0.55


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["logprobs", "content", "top_logprobs", "token", "logprob"]), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_whatever_a_server_sends_is_read_or_failed(junk):
    value = slot_preference(junk)

    assert math.isnan(value) or 1 <= value <= 2


@pytest.mark.parametrize("junk", [completion(The=-0.1), completion(), {"logprobs": None}, "", " m", completion(m=-math.inf)])
def test_no_label_is_no_preference(junk):
    assert math.isnan(slot_preference(junk))


def test_spellings_of_a_label_are_other_tokens():
    assert math.isnan(slot_preference(completion(**{" m": -0.1, "M\n": -3.0})))


def test_written_labels():
    assert (label_preference("m"), label_preference(" M\n")) == (1, 2)
    assert math.isnan(label_preference("Model M"))
    assert math.isnan(label_preference(None))


@pytest.mark.parametrize(("value", "meaning"), [(1, 1.0), (2.0, 2.0), (1.5, 1.5), (0, 1.5), (0.0, 1.5), (1.25, 1.25)])
def test_stored_preferences(value, meaning):
    assert stored(value) == meaning


@pytest.mark.parametrize("value", [None, math.nan, -1, 2.01, 0.5, math.inf, "1.5", True, [1]])
def test_everything_else_is_a_failed_row(value):
    assert math.isnan(stored(value))
