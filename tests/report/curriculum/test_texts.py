"""Counts of a prompt's text, on prompts where they can be counted by hand."""

from __future__ import annotations

import pytest

from eva_hpc.report.curriculum.lab import lab_measures
from eva_hpc.report.curriculum.texts import clauses, constraints, distinct, list_items, numbers, sentences, text_measures, words

ASKED = "Name three rivers, and for each give its length. Use at most 50 words."


def test_the_example_of_the_module_is_what_it_says():
    assert text_measures(ASKED) == {
        "words": 14,
        "characters": len(ASKED),
        "sentences": 2,
        "clauses": 3,
        "constraints": 2,
        "list_items": 0,
        "numbers": 1,
    }


@pytest.mark.parametrize(
    ("measure", "text", "count"),
    [
        (words, "Don't re-use it — ever.", ["don't", "re-use", "it", "ever"]),
        (words, "", []),
        (sentences, "Pi is 3.14. Is it? Yes!\nGood", 4),
        (sentences, "...", 0),
        (sentences, "解释一下。举个例子！", 2),
        (clauses, "Sort the list; print it, then stop if it is empty", 4),
        (clauses, "Bread, butter and jam", 1),
        (constraints, "You must not use loops. Do not sort, never print, no more than 5 lines.", 4),
        (constraints, "A mustard recipe for the onlyfool", 0),
        (list_items, "Do:\n- one\n* two\n 3. three\nb) four\n-no space", 4),
        (numbers, "1,000.5 apples, 7 pears and three plums in 2024", 3),
    ],
)
def test_counts(measure, text, count):
    assert measure(text) == count


def test_distinct_n_is_the_share_of_different_n_grams_and_none_crosses_two_texts():
    texts = [["a", "b", "a"], ["a", "b"]]
    assert distinct(texts, 1) == 2 / 5
    assert distinct(texts, 2) == 2 / 3, "ab, ba, ab"
    assert distinct(texts, 1, limit=2) == 1.0
    assert distinct([["a"]], 2) is None


def test_a_lab_prompt_has_exact_measures_and_anything_else_is_not_sensible():
    assert lab_measures("Reverse then Upper: kapol") == {"steps": 2, "content_length": 5, "sensible": True}
    assert lab_measures("Flip: 4 1 7")["content_length"] == 3
    assert lab_measures("Copy then Copy: kapol") == {"steps": 2, "content_length": 5, "sensible": False}
    assert lab_measures("Please reverse kapol") == {"steps": None, "content_length": None, "sensible": False}
