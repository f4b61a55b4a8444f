from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.lab.checker import answer
from eva_hpc.lab.rewriter import OPERATORS, rewrite
from eva_hpc.lab.tasks import MAX_ANSWER, draw_task, held_out, parse, split_of


@given(st.integers(1, 9), st.integers(0, 9999), st.sampled_from(["train", "tune", "test"]))
def test_chained_rewrites_always_give_another_task_of_the_train_split(level, seed, split):
    prompt = draw_task(level, split, random.Random(seed)).prompt

    for step in range(8):
        child, operator = rewrite(prompt, seed + step)
        assert operator in OPERATORS
        assert child != prompt
        assert split_of(child) == "train"
        assert 1 <= len(answer(child)) <= MAX_ANSWER
        prompt = child


def test_a_rewrite_depends_on_prompt_and_seed_only():
    assert rewrite("Reverse: kapol", 3) == rewrite("Reverse: kapol", 3)
    assert len({rewrite("Reverse: kapol", seed) for seed in range(20)}) > 5


def test_each_operator_does_what_its_name_says():
    parent = parse("Reverse: kapolo")
    children = {}
    for seed in range(200):
        child, operator = rewrite(parent.prompt, seed)
        children.setdefault(operator, parse(child))

    assert children.keys() == OPERATORS.keys()
    assert children["deepen"].steps[:1] == parent.steps
    assert len(children["deepen"].steps) == 2
    assert children["lengthen"].content.startswith(parent.content)
    assert children["switch"].content == parent.content
    assert children["renew"].steps == parent.steps
    assert children["renew"].length == parent.length


def test_chained_rewrites_make_easy_prompts_harder():
    prompts = held_out("tune", "easy", 100)
    evolved = prompts
    for step in range(4):
        evolved = [rewrite(prompt, step)[0] for prompt in evolved]

    assert sum(len(parse(prompt).steps) for prompt in evolved) > 1.2 * sum(len(parse(prompt).steps) for prompt in prompts)
    assert sum(parse(prompt).length for prompt in evolved) > 1.2 * sum(parse(prompt).length for prompt in prompts)


def test_a_prompt_that_is_no_lab_task_is_refused():
    with pytest.raises(ValueError, match="no lab task"):
        rewrite("Write a poem.", 0)
