from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.lab.checker import answer, dialogue_answers
from eva_hpc.lab.demonstrations import FLAWS, chance_of_right, demonstration, imperfect
from eva_hpc.lab.tasks import MAX_ANSWER, draw_task, split_of


@given(st.integers(0, 99), st.integers(0, 99_999), st.booleans())
def test_a_demonstration_depends_on_seed_and_index_and_is_of_the_train_split(seed, index, careful):
    turns = demonstration(seed, index, careful)

    assert demonstration(seed, index, careful) == turns
    assert split_of(turns[0][0]) == "train"
    assert len(turns) in (1, 2)


def test_careful_demonstrations_are_all_right_and_the_others_about_half():
    def share_right(careful: bool) -> float:
        shown = [demonstration(0, index, careful) for index in range(2000)]
        return sum(turns[-1][1] == dialogue_answers([prompt for prompt, _ in turns])[-1] for turns in shown) / len(shown)

    assert share_right(True) == 1
    assert 0.4 < share_right(False) < 0.75


def test_the_chance_of_a_right_demonstration_falls_with_length():
    chances = [chance_of_right(length) for length in range(1, 25)]

    assert chances == sorted(chances, reverse=True)
    assert (chances[0], chances[-1]) == (0.75, 0.2)


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_can_spoil_an_answer_and_stays_short(flaw):
    rng = random.Random(0)
    tasks = [draw_task(level, "train", rng) for level in range(1, 10) for _ in range(20)]
    spoilt = [flaw(task.answer, task.content, rng) for task in tasks]

    assert sum(text != task.answer for text, task in zip(spoilt, tasks, strict=True)) > 0.5 * len(tasks)
    assert all(0 < len(text) <= MAX_ANSWER + 10 for text in spoilt)


@given(st.integers(1, 9), st.integers(0, 9999))
def test_an_imperfect_answer_is_never_empty(level, seed):
    rng = random.Random(seed)
    task = draw_task(level, "train", rng)

    assert imperfect(answer(task.prompt), task.content, rng)
