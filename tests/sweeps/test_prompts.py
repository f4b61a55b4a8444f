from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from eva_hpc.method.admission import normalised
from eva_hpc.store.records import read_jsonl

FOLDER = Path(__file__).parents[2] / "sweeps" / "prompts"


def prompts(name: str) -> list[str]:
    records = read_jsonl(FOLDER / f"{name}.jsonl")
    assert all(set(record) == {"prompt"} for record in records)
    return [record["prompt"] for record in records]


@pytest.mark.parametrize(("name", "count"), [("train", 300), ("heldout", 60)])
def test_every_line_is_one_prompt(name, count):
    lines = prompts(name)

    assert len(lines) == count
    assert all(line == line.strip() != "" for line in lines)


def test_no_prompt_is_there_twice_or_in_both_files():
    everything = [normalised(prompt) for prompt in prompts("train") + prompts("heldout")]

    assert len(set(everything)) == len(everything)


def test_no_two_prompts_share_more_than_half_of_their_words():
    words = [frozenset(re.findall(r"\w+", prompt.lower())) for prompt in prompts("train") + prompts("heldout")]

    assert [(a, b) for a, b in combinations(words, 2) if len(a & b) > len(a | b) / 2] == []
