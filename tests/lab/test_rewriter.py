from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.lab.checker import answer
from eva_hpc.lab.rewriter import OPERATOR_FAMILIES, OPERATORS, rewrite
from eva_hpc.lab.tasks import MAX_ANSWER, draw_task, held_out, parse, split_of
from eva_hpc.method import evolving


@given(st.integers(1, 9), st.integers(0, 9999), st.sampled_from(["train", "tune", "test"]))
def test_chained_rewrites_always_give_another_task_of_the_train_split(level, seed, split):
    prompt = draw_task(level, split, random.Random(seed)).prompt

    for step in range(8):
        child, operator = rewrite(prompt, seed + step)
        assert operator in OPERATOR_FAMILIES["evol_instruct"]
        assert child is not None
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
        child, operator = rewrite(parent.prompt, seed, tuple(OPERATORS))
        children.setdefault(operator, parse(child))

    assert children.keys() == OPERATORS.keys()
    assert children["deepen"].steps[:1] == parent.steps
    assert len(children["deepen"].steps) == 2
    assert children["lengthen"].content.startswith(parent.content)
    assert children["switch"].content == parent.content
    assert children["renew"].steps == parent.steps
    assert children["renew"].length == parent.length
    assert abs(len(children["invent"].content) - len(parent.content)) <= 1
    assert len(children["invent"].steps) == 1


def test_the_default_rewrites_stay_as_they_are():
    assert [rewrite("Reverse: kapol", seed) for seed in range(4)] == [
        ("Reverse: kapolz", "lengthen"),
        ("Rotate: kapol", "switch"),
        ("Upper: kapol", "switch"),
        ("Reverse: kapolvi", "lengthen"),
    ]


def operators_of(family, names=()):
    return evolving.operators_of(family, names, OPERATOR_FAMILIES)


def test_the_families_and_names_of_operators():
    assert {family: operators_of(family) for family in OPERATOR_FAMILIES} == {
        "evol_instruct": ("deepen", "lengthen", "switch", "renew"),
        "evol_complexity": ("deepen", "lengthen"),
        "evol_quality": ("switch", "renew"),
        "self_instruct": ("invent",),
    }
    assert operators_of("evol_instruct", ["invent", "deepen"]) == ("deepen", "invent")
    with pytest.raises(ValueError, match="unknown evolving operator 'mix': choose from deepen, lengthen"):
        operators_of("evol_instruct", ["mix"])
    with pytest.raises(ValueError, match="unknown family of evolving operators 'lab': choose from evol_instruct"):
        operators_of("lab")


@settings(max_examples=30)
@given(st.sampled_from(sorted(OPERATOR_FAMILIES)), st.integers(1, 9), st.integers(0, 9999))
def test_every_family_gives_tasks_of_the_train_split_by_its_operators(family, level, seed):
    prompt = draw_task(level, "train", random.Random(seed)).prompt

    child, operator = rewrite(prompt, seed, operators_of(family))

    assert operator in operators_of(family)
    if child is not None:
        assert child != prompt
        assert split_of(child) == "train"
        harder = len(parse(child).steps) > len(parse(prompt).steps) or parse(child).length > parse(prompt).length
        assert harder == (family == "evol_complexity") or family in ("evol_instruct", "self_instruct")
    else:
        assert family == "evol_complexity"


def test_a_task_that_cannot_be_made_harder_gives_none():
    child, operator = rewrite("Reverse then Upper: kapolikapoli", 0, operators_of("evol_complexity"))

    assert child is None
    assert operator in ("deepen", "lengthen")


def test_invented_tasks_are_of_all_kinds_and_as_long_as_the_longest_parents():
    for parent in ("Flip: 4 1", "Reverse then Upper: kapolikapoli", "Flip then First: 1 2 3 4 5 6 7 8"):
        invented = [parse(rewrite(parent, seed, ("invent",))[0]) for seed in range(60)]

        assert len({task.steps[0].family for task in invented}) > 8
        assert all(abs(len(task.content) - len(parse(parent).content)) <= 3 for task in invented)


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
