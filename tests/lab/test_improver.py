from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.lab.checker import answer, edit_distance, reward
from eva_hpc.lab.demonstrations import FLAWS
from eva_hpc.lab.improver import CORRECTED, improve
from eva_hpc.lab.tasks import draw_task


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(0, 9999), st.text(alphabet="abz A4", max_size=20), st.booleans())
def test_an_improved_answer_is_one_edit_nearer_or_the_same(level, seed, given_answer, finished):
    prompt = draw_task(level, "train", random.Random(seed)).prompt

    improved = improve(prompt, given_answer, seed)

    nearer = edit_distance(given_answer, answer(prompt)) - edit_distance(improved, answer(prompt))
    assert nearer == 1 or improved == given_answer
    assert reward(prompt, improved, finished) >= reward(prompt, given_answer, finished)


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_is_mended_again_and_again_until_the_answer_is_exact(flaw):
    rng = random.Random(0)
    task = draw_task(5, "train", rng)
    text = flaw(task.answer, task.content, rng)

    for seed in range(60):
        text = improve(task.prompt, text, seed)

    assert text == task.answer


def test_an_exact_answer_stays_and_a_flawed_one_is_mended_with_the_stated_probability():
    mended = sum(improve("Reverse: kapol", "lopka", seed) != "lopka" for seed in range(1000))

    assert all(improve("Reverse: kapol", "lopak", seed) == "lopak" for seed in range(20))
    assert mended == pytest.approx(1000 * CORRECTED, abs=52)  # four standard errors
    assert improve("Reverse: kapol", "lopka", 3) == improve("Reverse: kapol", "lopka", 3)


def test_a_prompt_that_is_no_task_is_refused():
    with pytest.raises(ValueError, match="no lab task"):
        improve("Now Upper it", "KAPOL", 0)
