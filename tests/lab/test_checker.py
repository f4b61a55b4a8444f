from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.lab.checker import answer, dialogue_answers, dialogue_rewards, edit_distance, reward
from eva_hpc.lab.tasks import draw_task

prompts = st.builds(
    lambda level, seed: draw_task(level, "train", random.Random(seed)).prompt, st.integers(1, 9), st.integers(0, 9999)
)
texts = st.text(alphabet="abAB 019!", max_size=12)


@pytest.mark.parametrize(
    ("prompt", "exact"),
    [
        ("Copy: kapol", "kapol"),
        ("Reverse: kapol", "lopak"),
        ("Upper: kapol", "KAPOL"),
        ("Next: kapoz", "lbqpa"),
        ("Stutter: kap", "kkaapp"),
        ("Skip: kapol", "kpl"),
        ("Unvowel: kapol", "kpl"),
        ("Rotate: kapol", "apolk"),
        ("Alphabetise: kapol", "aklop"),
        ("Ascend: 4 1 7", "1 4 7"),
        ("Flip: 4 1 7", "7 1 4"),
        ("Largest: 4 1 7", "7"),
        ("Smallest: 4 1 7", "1"),
        ("First: 4 1 7", "4"),
        ("Last: 4 1 7", "7"),
        ("Length: 4 1 7", "3"),
        ("Count a: banana", "3"),
        ("Reverse then Upper: kapol", "LOPAK"),
        ("Upper then Next: zoo", "APP"),
        ("Upper then Unvowel: kapol", "KPL"),
        ("Upper then Count a: banana", "3"),
        ("Flip then First: 4 1 7", "7"),
    ],
)
def test_every_family_has_the_answer_its_name_says(prompt, exact):
    assert answer(prompt) == exact


@given(prompts, texts, st.booleans())
def test_only_the_exact_answer_earns_one_and_an_unfinished_answer_half(prompt, response, finished):
    value = reward(prompt, response, finished)

    assert reward(prompt, answer(prompt), True) == 1.0
    assert (0 <= value <= 0.7) or response == answer(prompt)
    assert reward(prompt, response, False) == reward(prompt, response, True) / 2


def test_a_closer_answer_earns_more():
    values = [reward("Reverse: kapol", text, True) for text in ("lopak", "lopa", "lop", "Sure! lopak", "")]

    assert values[:3] == [1.0, pytest.approx(0.7 * 4 / 5), pytest.approx(0.7 * 3 / 5)]
    assert values[3] == pytest.approx(0.7 * 5 / 11)
    assert values[4] == 0.0


@given(texts, texts, texts)
def test_edit_distance_is_a_metric_bounded_by_the_longer_text(a, b, c):
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) == edit_distance(b, a)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_the_second_turn_is_judged_by_the_exact_chain_whatever_the_first_answer_was():
    turns = ["Flip: 4 1 7", "Now Largest it"]

    assert dialogue_answers(turns) == ["7 1 4", "7"]
    assert dialogue_rewards(turns, ["7 1 4", "7"], True) == [1.0, 1.0]
    assert dialogue_rewards(turns, ["1", "1"], True)[1] == 0.0
    assert dialogue_rewards(turns, ["7 1 4", "7"], False) == [1.0, 0.5]


def test_one_turn_is_the_plain_reward():
    assert dialogue_rewards(["Reverse: kapol"], ["lopa"], False) == [reward("Reverse: kapol", "lopa", False)]


def test_turns_and_answers_must_match_and_prompts_must_be_tasks():
    with pytest.raises(ValueError, match="2 turns and 1 answers"):
        dialogue_rewards(["Copy: abc", "Now Upper it"], ["abc"], True)
    with pytest.raises(ValueError, match="no lab task"):
        reward("Tell me a story.", "Once upon a time", True)
