from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.lab.demonstrations import demonstration
from eva_hpc.lab.families import FAMILIES
from eva_hpc.lab.tasks import (
    LEVELS,
    MAX_ANSWER,
    draw_for,
    draw_task,
    held_out,
    held_out_dialogues,
    make_prompts,
    parse,
    parse_follow_up,
    split_of,
)

levels = st.integers(1, 9)
seeds = st.integers(0, 10_000)


def test_there_are_seventeen_families_and_each_can_be_asked_at_every_level():
    assert len(FAMILIES) == 17
    for family in FAMILIES.values():
        for level in range(1, 10):
            task = draw_for(family, level, random.Random(level))
            assert parse(task.prompt) == task


@given(levels, seeds)
def test_a_prompt_is_read_back_as_the_task_it_was_made_from(level, seed):
    task = draw_task(level, "train", random.Random(seed))

    assert parse(task.prompt) == task
    assert parse(f"  {task.prompt.replace(' ', '  ')}\n") == task
    assert 1 <= len(task.answer) <= MAX_ANSWER


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("What is the capital of France?", "should look like"),
        ("Reverse:", "should look like"),
        ("Dance: kapol", "'Dance' is none of Copy"),
        ("Reverse: 4 1 7", "takes a word"),
        ("Largest then First: 4 1 7", "would get a number"),
        ("Count: banana", "takes one letter"),
        ("Reverse a: banana", "takes no argument"),
        ("Reverse: kapol and more", "should look like"),
    ],
)
def test_what_is_no_lab_task_is_refused_with_the_reason(prompt, reason):
    with pytest.raises(ValueError, match=reason):
        parse(prompt)


def test_a_second_turn_is_refused_if_it_is_none():
    assert parse_follow_up("Now Count a it").solve("banana") == "3"
    with pytest.raises(ValueError, match="no second turn"):
        parse_follow_up("Reverse: kapol")


@given(st.integers(1, 60), st.lists(levels, min_size=1, max_size=9).map(tuple), seeds)
def test_prompts_are_distinct_of_the_train_split_and_fewer_are_a_prefix_of_more(count, chosen, seed):
    prompts = make_prompts(count, chosen, seed)

    assert len(set(prompts)) == count
    assert {split_of(prompt) for prompt in prompts} == {"train"}
    assert make_prompts(count + 5, chosen, seed)[:count] == prompts


def test_other_seeds_give_other_prompts_and_unknown_levels_are_refused():
    assert make_prompts(50, (5,), 0) != make_prompts(50, (5,), 1)
    for wrong in [(0,), (10,), ()]:
        with pytest.raises(ValueError, match="levels are 1 to 9"):
            make_prompts(5, wrong, 0)


@pytest.mark.parametrize("split", ["tune", "test"])
def test_held_out_prompts_are_of_their_split_and_harder_ones_are_longer(split):
    prompts = {difficulty: held_out(split, difficulty, 300) for difficulty in LEVELS}

    for texts in prompts.values():
        assert len(set(texts)) == 300
        assert {split_of(text) for text in texts} == {split}
    lengths = [sum(map(len, texts)) for texts in prompts.values()]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("split", ["tune", "test"])
def test_dialogues_are_of_their_split_and_their_second_turn_can_follow(split):
    dialogues = held_out_dialogues(split, 200)

    assert len(set(dialogues)) == 200
    for first, second in dialogues:
        assert split_of(first) == split
        assert parse_follow_up(second).solve(parse(first).answer)


def test_no_held_out_word_or_list_is_asked_about_in_the_demonstrations():
    contents = {
        parse(prompt).content for split in ("tune", "test") for level in LEVELS for prompt in held_out(split, level, 300)
    }

    shown = {parse(demonstration(seed, index)[0][0]).content for seed in (0, 1) for index in range(3000)}

    assert not contents & shown
