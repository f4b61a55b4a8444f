from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.config.reward import LabChecker
from eva_hpc.lab.checker import answer, checker_reward, dialogue_answers, dialogue_rewards, edit_distance, preference, reward
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


def checked(text, finished=True, prompt="Reverse: kapol", **settings):
    return checker_reward(LabChecker(**settings), [prompt], [text], finished)


@given(prompts, texts, st.booleans())
def test_the_checker_of_a_plain_recipe_is_the_exact_one(prompt, response, finished):
    assert checked(response, finished, prompt) == reward(prompt, response, finished)


def test_exact_grading_gives_nothing_for_close_answers():
    assert [checked(text, grading="exact") for text in ("lopak", "lopa", "")] == [1.0, 0.0, 0.0]
    assert checked("lopak", finished=False, grading="exact") == 0.5
    assert checker_reward(LabChecker(grading="exact"), ["Flip: 4 1 7", "Now Largest it"], ["wrong", "7"], True) == 1.0


def test_noise_is_fixed_for_an_answer_differs_between_answers_and_has_its_standard_deviation():
    texts_ = [f"lopa{n}" for n in range(400)]
    errors = [checked(text, noise=0.5) - checked(text) for text in texts_]

    assert errors == [checked(text, noise=0.5) - checked(text) for text in texts_]
    assert errors == pytest.approx([5 * (checked(text, noise=0.1) - checked(text)) for text in texts_])
    assert abs(sum(errors) / 400) < 0.1
    assert 0.4 < (sum(error**2 for error in errors) / 400) ** 0.5 < 0.6
    assert checked("lopak", noise=0.5, prompt="Reverse: kapol") != checked("lopak", noise=0.5, prompt="Copy: lopak")


def test_a_length_bonus_can_be_exploited():
    assert checked("lopak", length_bonus=0.05) == pytest.approx(1.25)
    assert checked("lopak" * 9, length_bonus=0.05) > checked("lopak", length_bonus=0.05)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_preferences_of_two_answers_sum_to_one_and_follow_their_rewards(one, other):
    assert preference(one, other) + preference(other, one) == pytest.approx(1.0)
    assert (preference(one, other) >= 0.5) == (one >= other) or abs(one - other) < 1e-12


def test_a_preference_is_the_sigmoid_of_ten_times_the_difference():
    assert preference(0.7, 0.6) == pytest.approx(0.7310585786)
    assert preference(0.4, 0.4) == 0.5
