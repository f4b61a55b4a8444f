from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.method import evolving
from eva_hpc.method.admission import admit, leaked, normalised, shingles
from eva_hpc.store.records import Prompt, read_jsonl
from eva_hpc.store.seeds import content_id


@dataclass(frozen=True)
class Rules:
    refusals: bool = False
    leaked_instructions: bool = False
    min_chars: int = 0
    max_chars: int = sys.maxsize
    duplicates: bool = False
    near_duplicates: float | None = None
    contamination: float | None = None


OFF = Rules()
ON = Rules(True, True, 10, 8000, True, 0.8, 0.5)

PARENT = "Write a short story about a lighthouse keeper who finds a letter in a bottle on the morning of the storm."
QUESTION = "Which three inventions of the nineteenth century changed the daily life of farmers most?"


def prompt(text: str) -> Prompt:
    record: Prompt = {
        "id": content_id(text),
        "prompt": text,
        "source": "file",
        "parent": "0",
        "operator": "mix",
        "depth": 1,
        "round": 1,
    }
    return record


def outcome(
    rules: Rules, text: str, base: tuple[str, ...] = (), questions: tuple[str, ...] = ()
) -> tuple[str, str | None] | None:
    """The reason for which a single evolved prompt is set aside and what it repeats, or None if it is admitted."""
    admitted, set_aside = admit(map(prompt, base), [prompt(text)], rules, questions)
    assert len(admitted) + len(set_aside) == 1
    return (set_aside[0]["reason"], set_aside[0]["of"]) if set_aside else None


def test_a_prompt_that_is_set_aside_keeps_its_record_and_gets_a_reason():
    base = [prompt("Add 2 and 3.")]
    evolved = [prompt(text) for text in ("Add 4 and 5.", " add  2 and 3.", "ADD 4\nand 5.", " \n", "x" * 31, "Add 6 and 7.")]

    admitted, set_aside = admit(base, evolved, replace(OFF, max_chars=30, duplicates=True))

    assert admitted == [evolved[0], evolved[5]]
    assert set_aside == [
        {**evolved[1], "reason": "duplicate of a base prompt", "of": base[0]["id"]},
        {**evolved[2], "reason": "duplicate of an evolved prompt", "of": evolved[0]["id"]},
        {**evolved[3], "reason": "empty", "of": None},
        {**evolved[4], "reason": "longer than 30 characters", "of": None},
    ]


@pytest.mark.parametrize(
    ("rules", "text", "reason", "of"),
    [
        (replace(OFF, refusals=True), "I’m sorry, but I can’t assist with that request.", "refusal", None),
        (replace(OFF, leaked_instructions=True), "Rewritten prompt: why is it red?", "leaked instruction", "Rewritten prompt"),
        (replace(OFF, min_chars=10), " Why red? ", "shorter than 10 characters", None),
        (replace(OFF, max_chars=8), "Why red??", "longer than 8 characters", None),
        (replace(OFF, duplicates=True), PARENT.upper(), "duplicate of a base prompt", content_id(PARENT)),
        (replace(OFF, near_duplicates=0.8), PARENT + " Please.", "near-duplicate of a base prompt", content_id(PARENT)),
        (
            replace(OFF, contamination=0.5),
            f"My teacher asked: {QUESTION} Help me.",
            "contains an evaluation question",
            "Which three inventions of the nineteenth century changed …",
        ),
    ],
)
def test_each_rule_works_by_itself_and_can_be_off(rules, text, reason, of):
    assert outcome(rules, text, (PARENT,), (QUESTION,)) == (reason, of)
    assert outcome(OFF, text, (PARENT,), (QUESTION,)) is None


def test_only_an_empty_prompt_and_one_that_is_there_already_are_set_aside_with_all_rules_off():
    assert outcome(OFF, " \n") == ("empty", None)
    assert outcome(OFF, PARENT, (PARENT,)) == ("duplicate of a base prompt", content_id(PARENT))


def test_the_reason_is_the_first_rule_that_is_broken():
    text = f"I cannot comply. The given prompt: {PARENT}"
    rules = replace(ON, min_chars=1000, max_chars=20)
    for reason, off in {
        "refusal": {"refusals": False},
        "leaked instruction": {"leaked_instructions": False},
        "shorter than 1000 characters": {"min_chars": 0},
        "longer than 20 characters": {"max_chars": 8000},
        "duplicate of a base prompt": {"duplicates": False},
        "near-duplicate of a base prompt": {"near_duplicates": None},
        "contains an evaluation question": {"contamination": None},
    }.items():
        found = outcome(rules, text, (text.upper(),), (PARENT,))
        assert found is not None
        assert found[0] == reason
        rules = replace(rules, **off)
    assert outcome(rules, text, (text.upper(),), (PARENT,)) is None


def test_lengths_at_the_limits_are_admitted():
    assert outcome(replace(OFF, min_chars=30, max_chars=30), " " + "x" * 30 + "\n") is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry letter: write one to a neighbour whose window I broke.",
        "I can't help my daughter with fractions. Explain them in a way that she will like.",
        "I have to decline a job offer. Write the message.",
        "Unfortunately I do not have the manual any more. How do I reset the clock of an oven?",
        "As an AI assistant of a small bank, explain to a customer what an overdraft costs.",
        "Sorry seems to be the hardest word to say: why is that?",
        "Explain how a new prompt appears in a shell after a command has ended.",
        "Why do people answer 'I cannot help with that' when they could?",
    ],
)
def test_an_ordinary_prompt_is_neither_a_refusal_nor_a_leak(text):
    assert outcome(ON, text) is None


@pytest.mark.parametrize("operator", evolving.OPERATORS)
def test_any_operators_wording_and_any_message_is_a_leak(operator):
    message = evolving.instruction(operator, PARENT)

    assert leaked(message.replace("<", "").replace("_", " "))
    assert leaked("Please. " + message.split(":\n")[-1][:160])
    assert not leaked(PARENT)


def test_no_real_prompt_is_a_refusal_and_few_speak_of_a_given_prompt(shared_data):
    texts = [record["prompt"] for record in read_jsonl(shared_data / "prompts" / "real_prompts.jsonl")]

    reasons = Counter(found[0] for text in texts if (found := outcome(replace(ON, near_duplicates=None, min_chars=0), text)))

    assert reasons == {"leaked instruction": 1}


# ---------------------------------------------------------------------------- near-duplicates


def test_the_similarity_that_decides_is_exact():
    base = "one two three four five six"
    same = "one two three four five six seven"  # 4 of 5 shingles

    assert outcome(replace(OFF, near_duplicates=0.8), same, (base,)) == ("near-duplicate of a base prompt", content_id(base))
    assert outcome(replace(OFF, near_duplicates=0.81), same, (base,)) is None


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("请写一首关于春天的雨的短诗，不要使用雨字。", "请写一首关于春天的雨的短诗，不要使用雨字吧。", True),
        ("请写一首关于春天的雨的短诗，不要使用雨字。", "请解释为什么天空在黄昏时会变成红色。", False),
        ("Schreibe ein Gedicht über die Straße", "SCHREIBE EIN GEDICHT ÜBER DIE STRASSE!", True),
        ("What is 2 + 3 * 4?", "What is 2 - 3 / 4?", False),
        ("Why? Why?", "Why?", True),
        ("Sing", "Sing a song", False),
        ("...", "???", False),
        ("Draw 🙂", "Draw 🙃", True),
    ],
)
def test_near_duplicates_in_any_script_and_of_any_length(one, other, near):
    assert (outcome(replace(OFF, near_duplicates=0.8), one, (other,)) is not None) == near


def test_a_base_prompt_and_then_the_most_similar_one_is_named():
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]
    text, closer, close = " ".join(words), " ".join([*words, "q"]), " ".join([*words, "q", "r"])
    rules = replace(OFF, near_duplicates=0.5)

    assert outcome(rules, text, (close, closer)) == ("near-duplicate of a base prompt", content_id(closer))
    admitted, (set_aside,) = admit([prompt(close)], [prompt("z y x"), prompt(text)], rules)
    assert (len(admitted), set_aside["of"]) == (1, content_id(close))
    _, (set_aside,) = admit([], [prompt(close), prompt(text)], rules)
    assert (set_aside["reason"], set_aside["of"]) == ("near-duplicate of an evolved prompt", content_id(close))


def test_what_is_set_aside_does_not_keep_others_out():
    contaminated = f"{QUESTION} One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen."
    fine = contaminated.replace("century", "hundred years").replace("inventions", "machines").replace("daily", "whole")
    rules = replace(OFF, contamination=0.5, near_duplicates=0.3)

    admitted, set_aside = admit([], [prompt(contaminated), prompt(fine)], rules, [QUESTION])

    assert [record["prompt"] for record in admitted] == [fine]
    assert [record["reason"] for record in set_aside] == ["contains an evaluation question"]


@pytest.mark.parametrize("least", [0.3, 0.8])
def test_minhash_finds_the_same_near_duplicates_as_all_comparisons(least):
    rng = random.Random(0)
    vocabulary = [f"word{n}" for n in range(60)]
    texts = [" ".join(rng.choices(vocabulary, k=60)) for _ in range(40)]
    for _ in range(80):
        words = rng.choice(texts).split()
        for _ in range(rng.randint(1, 4)):
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        texts.append(" ".join(words))
    texts = list(dict.fromkeys(texts))

    admitted, set_aside = admit([], map(prompt, texts), replace(OFF, near_duplicates=least))

    kept: list[frozenset[str]] = []
    for text in texts:
        own = shingles(text)
        if all(len(own & other) / len(own | other) < least for other in kept):
            kept.append(own)
    assert 20 < len(set_aside) < 100
    assert [shingles(record["prompt"]) for record in admitted] == kept


def test_an_enormous_prompt_is_no_problem():
    text = " ".join(str(number) for number in range(20_000))

    assert outcome(ON, text) == ("longer than 8000 characters", None)
    assert outcome(replace(ON, max_chars=10**9), text + " and so on", (text,), (text[:500],)) is not None


# ---------------------------------------------------------------------------- invariants

texts = st.lists(st.text(alphabet="aA b\n雨", max_size=8), max_size=8)
rules = st.builds(
    Rules,
    duplicates=st.booleans(),
    min_chars=st.integers(0, 3),
    max_chars=st.integers(3, 8),
    near_duplicates=st.sampled_from([None, 0.1, 0.5, 1.0]),
    contamination=st.sampled_from([None, 0.5]),
)


@settings(max_examples=50)
@given(texts, texts, rules)
def test_no_prompt_is_lost_and_none_is_admitted_twice(base, evolved, rules):
    records = [prompt(text) for text in evolved]

    admitted, set_aside = admit(map(prompt, base), records, rules, ["a b"])

    as_before = [{name: record[name] for name in prompt("")} for record in set_aside]
    in_order = iter(records)
    assert all(record in in_order for record in admitted)
    in_order = iter(records)
    assert all(record in in_order for record in as_before)
    assert sorted(record["prompt"] for record in [*admitted, *as_before]) == sorted(evolved)
    kept = [normalised(record["prompt"]) if rules.duplicates else record["prompt"] for record in admitted]
    assert len(set(kept)) == len(kept)
    assert not set(kept) & {normalised(text) if rules.duplicates else text for text in base}


@settings(max_examples=30)
@given(texts, rules)
def test_admitting_what_was_admitted_changes_nothing(evolved, rules):
    admitted, _ = admit([], map(prompt, evolved), rules, ["a b"])

    assert admit([], admitted, rules, ["a b"]) == (admitted, [])


@settings(max_examples=30)
@given(texts, texts, rules, st.randoms())
def test_the_order_of_the_base_prompts_does_not_matter(base, evolved, rules, rng):
    base = list({normalised(text): text for text in base}.values())
    other = rng.sample(base, len(base))

    assert admit(map(prompt, base), map(prompt, evolved), rules) == admit(map(prompt, other), map(prompt, evolved), rules)
