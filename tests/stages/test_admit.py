"""Which evolved prompts enter: every rule counts and keeps what it sets aside, and can be turned off."""

from __future__ import annotations

import random
from collections import Counter

import orjson
import pytest

from eva_hpc.config.benchmark import LabBenchmark
from eva_hpc.config.creator import Admission
from eva_hpc.method.evolving import child, instruction
from eva_hpc.method.mixing import shuffled
from eva_hpc.plan.graph import Node
from eva_hpc.stages import questions
from eva_hpc.stages.contract import StageFailed
from eva_hpc.stages.mix import mixing_seed
from eva_hpc.store.records import read_jsonl
from tests.stages.conftest import LAB_ADMISSION

OFF = {
    "refusals": False,
    "leaked_instructions": False,
    "min_chars": 0,
    "max_chars": 10**6,
    "duplicates": False,
    "near_duplicates": None,
    "contamination": None,
}
QUESTION = "Which three rivers of northern Europe flow into the Baltic Sea and freeze over in a hard winter?"
USUAL = "Describe the work of a lighthouse keeper on a small island in the last century."


@pytest.fixture
def evolved(bench, lab_round):
    """Admits these texts as the children of the base prompts, one chain for each text, all of them of several texts."""

    def make(*texts, rules=None, order=None, **compared):
        lab = lab_round(count=8)
        base = bench.read(lab.prompts, "prompts.jsonl")
        chains = []
        for parent, some in zip(base, texts, strict=False):
            chain = {"root": parent["id"], "children": [], "failed": []}
            for text in [some] if isinstance(some, str) else some:
                chain["children"].append(child((chain["children"] or [parent])[-1], text, "deepen", 1))
            chains.append(chain)
        if order is not None:
            order.shuffle(chains)
        bench.put(lab.rewrites, "rewrites.jsonl", chains)
        return lab.admitted(lab.rewrites, Admission.model_validate({**OFF, **(rules or {})}), **compared)

    return make


def texts_of(bench, node, name="prompts.jsonl"):
    return [prompt["prompt"] for prompt in bench.read(node, name)]


@pytest.fixture
def held_out(bench):
    """Evaluation questions, one of them the second turn of a dialogue."""
    node = Node(questions.Spec(benchmark=LabBenchmark()), "start")
    bench.put(node, "questions.jsonl", [{"id": "1", "category": "all", "turns": ["Name a colour.", QUESTION]}])
    return node


RULES = {
    "refusals": (True, "I'm sorry, but I can't rewrite this prompt for you.", "refusal"),
    "leaked_instructions": (True, instruction("deepening", "Why is the sky blue?"), "leaked instruction"),
    "min_chars": (10, "Add 1.", "shorter than 10 characters"),
    "max_chars": (40, USUAL, "longer than 40 characters"),
    "contamination": (0.5, f"Please answer: {QUESTION}", "contains an evaluation question"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_sets_aside_what_breaks_it_and_can_be_turned_off(bench, evolved, held_out, rule):
    value, text, reason = RULES[rule]
    strict = evolved(text, "Explain why tides come twice a day.", rules={rule: value}, questions_0=held_out)
    assert bench.make(strict).manifest["records"] == {"in": 2, "out": 1, "set_aside": {reason: 1}}
    (kept,) = bench.read(strict, "set_aside.jsonl")
    assert (kept["reason"], kept["prompt"]) == (reason, text)
    lenient = evolved(text, "Explain why tides come twice a day.", questions_0=held_out)
    assert bench.make(lenient).manifest["records"] == {"in": 2, "out": 2, "set_aside": {}}


@pytest.mark.parametrize(
    ("rule", "value", "reason"),
    [("duplicates", True, "duplicate of an evolved prompt"), ("near_duplicates", 0.5, "near-duplicate of an evolved prompt")],
)
def test_a_repeated_prompt_enters_once(bench, evolved, rule, value, reason):
    texts = (USUAL, USUAL.upper()) if rule == "duplicates" else (USUAL, f"{USUAL} Be brief.")
    assert bench.make(evolved(*texts, rules={rule: value})).manifest["records"]["set_aside"] == {reason: 1}
    assert bench.make(evolved(*texts)).manifest["records"]["out"] == 2


def test_no_two_prompts_have_the_same_id_even_with_all_rules_off(bench, evolved, lab_round):
    """The mixture knows prompts by their ids."""
    base = bench.read(lab_round(count=8).prompts, "prompts.jsonl")
    node = evolved(USUAL, USUAL, base[5]["prompt"], "Something else altogether.")
    records = bench.make(node).manifest["records"]
    assert records["set_aside"] == {"duplicate of an evolved prompt": 1, "duplicate of a base prompt": 1}
    ids = [prompt["id"] for prompt in bench.read(node, "prompts.jsonl")] + [prompt["id"] for prompt in base]
    assert len(set(ids)) == len(ids)


def test_all_that_is_read_is_written_or_kept_with_its_reason(bench, evolved, held_out):
    texts = [[text for _, text, _ in RULES.values()], [USUAL, USUAL.upper(), "Count to ten in Finnish."], "Name two birds."]
    rules = {rule: value for rule, (value, _, _) in RULES.items()} | {"duplicates": True, "max_chars": 100}
    node = evolved(*texts, rules=rules, questions_0=held_out)
    records = bench.make(node).manifest["records"]
    aside = bench.read(node, "set_aside.jsonl")
    assert records["in"] == 9 == records["out"] + len(aside)
    assert dict(Counter(record["reason"] for record in aside)) == records["set_aside"]
    both = {*texts_of(bench, node), *texts_of(bench, node, "set_aside.jsonl")}
    assert both == {text for some in texts for text in ([some] if isinstance(some, str) else some)}


def test_the_second_turn_of_a_question_counts_and_so_do_all_sets_of_questions(bench, evolved, held_out):
    other = Node(questions.Spec(benchmark=LabBenchmark(prompts=3)), "start")
    bench.put(other, "questions.jsonl", [{"id": "2", "category": "all", "turns": [USUAL]}])
    node = evolved(QUESTION, USUAL, "Name two birds.", rules={"contamination": 0.5}, questions_0=held_out, questions_1=other)
    bench.make(node)
    assert texts_of(bench, node) == ["Name two birds."]
    assert {record["of"][:9] for record in bench.read(node, "set_aside.jsonl")} == {QUESTION[:9], USUAL[:9]}


def test_nothing_admitted_is_a_failure_that_says_why_and_keeps_what_there_was(bench, evolved):
    node = evolved("One.", "Two.", rules={"min_chars": 10})
    with pytest.raises(StageFailed, match="none of the 2 evolved prompts can be used: 2 shorter than 10 characters"):
        bench.make(node)
    assert len(read_jsonl(bench.store.folder(node.identity) / "set_aside.jsonl")) == 2


def test_they_stand_in_the_seeded_order_and_the_whole_is_the_number_of_base_prompts(bench, lab_round):
    lab = lab_round(count=24)
    folder = bench.make(lab.evolved).folder
    ids = [prompt["id"] for prompt in bench.read(lab.evolved, "prompts.jsonl")]
    assert ids == shuffled(ids, mixing_seed(1, 1)) != sorted(ids)
    assert orjson.loads((folder / "whole.json").read_bytes()) == {"whole": 24}


@pytest.mark.parametrize("seed", range(3))
def test_who_of_two_duplicates_enters_does_not_depend_on_the_order_of_the_base_prompts(bench, evolved, seed):
    texts = (USUAL, [USUAL.upper(), "Name two birds."], f"  {USUAL}", USUAL.lower())
    found = []
    for order in (None, random.Random(seed)):
        node = evolved(*texts, rules={"duplicates": True}, order=order)
        bench.make(node)
        found.append(bench.read(node, "prompts.jsonl"))
        bench.again(node)
    assert found[0] == found[1]


def test_what_the_lab_evolves_is_admitted_by_the_rules_for_lab_prompts(bench, lab_round):
    lab = lab_round(count=24)
    records = bench.make(lab.evolved).manifest["records"]
    assert records["out"] > 0.8 * records["in"]
    assert LAB_ADMISSION.contamination is not None, "without questions there is nothing to compare with"
