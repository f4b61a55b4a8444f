from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.method.contamination import Index, words
from eva_hpc.store.records import read_jsonl

LONG = "Which three inventions of the nineteenth century changed the daily life of farmers in Europe the most, and why?"
SHORT = "Who painted the ceiling?"
INDEX = Index([LONG, SHORT, "你能解释一下为什么天空是蓝色的吗？", "!?", ""])


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        (LONG, "Which three inventions of the nineteenth century changed …"),
        (LONG.upper().replace(",", "").replace(" CENTURY", "\n\nCENTURY,"), "Which three"),
        (f"Answer in one word. {LONG} Do not guess.", "Which three"),
        ("Ｗhich three inventions of the nineteenth century changed the daily life of fish?", "Which three"),
        ("Tell me who painted the ceiling!", None),
        ("*who* painted the ceiling", SHORT),
        ("你能解释一下为什么天空是蓝色的吗", "你能解释一下为什么天空是蓝色的吗？"),
        ("孩子问：你能解释一下为什么天空是蓝色的吗？请回答。", "你能解释一下为什么天空是蓝色的吗？"),
        ("Which three inventions of the nineteenth century are forgotten?", None),
        ("Which three animals changed the daily life of farmers?", None),
        ("!?", None),
        ("", None),
    ],
)
def test_what_counts_as_containing_a_question(text, opening):
    found = INDEX.match(text, 0.5)

    assert found is None if opening is None else found is not None and found.startswith(opening)


def test_the_share_is_of_the_questions_words_in_common_runs():
    question = " ".join(f"w{n}" for n in range(20))
    kept = " ".join(f"w{n}" for n in range(10))  # the words of three runs of 8
    index = Index([question])

    assert index.match(f"before {kept} after", 0.5) == "w0 w1 w2 w3 w4 w5 w6 w7 …"
    assert index.match(f"before {kept} after", 0.51) is None
    assert index.match(" ".join(f"w{n} x" for n in range(20)), 0.01) is None


def test_the_question_of_which_most_is_there_is_named():
    first, second = " ".join(f"a{n}" for n in range(10)), " ".join(f"b{n}" for n in range(10))

    assert Index([first, second]).match(f"{first[:-3]} {second}", 0.5) == "b0 b1 b2 b3 b4 b5 b6 b7 …"


def test_questions_that_share_their_beginning_are_told_apart():
    stem = "Write a program in the language of your choice that"
    index = Index([f"{stem} prints the first hundred primes, one in each line, without any library and without recursion"])

    assert index.match(f"{stem} reads a file, counts its words and draws a histogram of them", 0.5) is None


def test_the_real_prompts_that_stand_in_alpaca_eval_are_found(shared_data):
    prompts = [record["prompt"] for record in read_jsonl(shared_data / "prompts" / "real_prompts.jsonl")]
    with gzip.open(shared_data / "alpaca_eval" / "models" / "gpt4_1106_preview" / "model_outputs.json.gz") as file:
        questions = [record["instruction"] for record in json.load(file)]
    copies = {prompt for prompt in prompts if prompt in set(questions)}
    index = Index(questions)

    found = {share: [prompt for prompt in prompts if index.match(prompt, share)] for share in (0.3, 0.5, 1.0)}

    assert len(copies) == 253
    assert copies <= set(found[1.0])
    # One of the others quotes a question after a preface, one asks a question in nearly the same words.
    assert sorted(prompt.split()[1] for prompt in found[0.5] if prompt not in copies) == ["a", "use"]
    assert found[0.3] == found[0.5]
    assert len(found[1.0]) == 254


def test_no_real_prompt_stands_in_the_other_benchmarks(shared_data):
    questions = [turn for record in read_jsonl(shared_data / "mt_bench" / "question.jsonl") for turn in record["turns"]]
    for version in ("v0.1", "v2.0"):
        with gzip.open(shared_data / "arena_hard" / f"question_{version}.jsonl.gz") as file:
            questions += [json.loads(line)["prompt"] for line in file]
    index = Index(questions)

    prompts = [record["prompt"] for record in read_jsonl(shared_data / "prompts" / "real_prompts.jsonl")]

    assert len(questions) == 160 + 500 + 750
    assert all(index.match(question, 1.0) for question in questions[::20] if words(question))
    assert [prompt for prompt in prompts if index.match(prompt, 0.3)] == []


some_words = st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=14)


@settings(max_examples=50)
@given(some_words, some_words, some_words, st.floats(0.01, 1))
def test_a_question_of_8_words_is_found_wherever_it_stands(before, question, after, share):
    index = Index([" ".join(question)])

    assert index.match(" ".join(question).upper() + "?", share) is not None
    if len(question) >= 8:
        assert index.match(", ".join([*before, *question, *after]), share) is not None


@settings(max_examples=30)
@given(some_words, some_words, st.floats(0.01, 0.9))
def test_a_larger_share_finds_no_more(question, prompt, share):
    index = Index([" ".join(question)])

    assert not (index.match(" ".join(prompt), share + 0.1) and not index.match(" ".join(prompt), share))


def test_ten_thousand_words_of_one_kind_are_no_problem():
    index = Index(["no " * 10_000])

    assert index.match("no " * 9_000, 0.5) is not None
    assert Index([]).match("no " * 9_000, 0.5) is None


def test_the_order_of_the_questions_decides_nothing_but_ties():
    questions = [LONG, SHORT, LONG.replace("why", "how")]
    prompts = [LONG, f"Say: {LONG}", SHORT, "Why?"]
    shuffled = random.Random(1).sample(questions, 3)

    assert [Index(questions).match(text, 0.5) for text in prompts] == [Index(shuffled).match(text, 0.5) for text in prompts]
