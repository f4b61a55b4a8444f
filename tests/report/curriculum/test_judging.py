"""What a judge is asked about a prompt, and what is read from its reply."""

from __future__ import annotations

import pytest

from eva_hpc.benchmarks.judging.protocol import Reply
from eva_hpc.report.curriculum.judging import PromptRating, Rating, items_of, rating, ratings_of, sample
from tests.report.curriculum.made_up import prompt


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Clear.\nComplexity: [[3]]\nQuality: [[10]]", Rating(3, 10)),
        ("**Complexity:** [[ 4 ]]\n**Quality:** [[5]]", Rating(4, 5)),
        ("Complexity: [[2]] at first. complexity: [[6]]\nquality: [[7]]", Rating(6, 7)),
        ("Complexity: [[0]]\nQuality: [[5]]", None),
        ("Complexity: [[11]]\nQuality: [[5]]", None),
        ("Complexity: [[3]]", None),
        ("Complexity: 3\nQuality: 5", None),
        ("", None),
    ],
)
def test_the_last_number_in_brackets_on_each_scale_counts(text, found):
    assert rating(text) == found


def test_the_sample_does_not_depend_on_order_or_on_the_other_prompts():
    prompts = [prompt(f"Prompt {number}") for number in range(30)]
    chosen = sample(prompts, 10)
    assert sample(reversed(prompts), 10) == chosen
    assert [one for one in sample(prompts[:15], 10) if one in chosen] == [one for one in chosen if one in prompts[:15]]


def test_a_prompt_is_shown_as_it_is_and_its_row_has_both_numbers_or_says_what_is_wrong():
    ((question, answer),) = items_of([prompt("Say {hello} 100%")])
    benchmark = PromptRating()
    (ask,) = benchmark.asks(question, answer)
    assert "Say {hello} 100%" in ask.messages[-1]["content"]
    replies = [Reply("Complexity: [[1]] Quality: [[9]]"), Reply("no idea"), Reply(failure="timeout: …")]
    rows = [row for reply in replies for row in benchmark.rows(question, answer, [reply], "judge")]
    assert [row["status"] for row in rows] == ["judged", "unparsed", "failed"]
    assert ratings_of(rows) == {question["id"]: Rating(1, 9)}
    assert benchmark.problem(replies[1])
    assert not benchmark.problem(replies[0])
