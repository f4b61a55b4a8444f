from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.admission import admit, normalised
from eva_hpc.store.records import Prompt
from eva_hpc.store.seeds import content_id


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


def test_a_prompt_that_is_set_aside_keeps_its_record_and_gets_a_reason():
    base = [prompt("Add 2 and 3.")]
    evolved = [prompt(text) for text in ("Add 4 and 5.", " add  2 and 3.", "ADD 4\nand 5.", " \n", "x" * 31, "Add 6 and 7.")]

    admitted, set_aside = admit(base, evolved, max_chars=30)

    assert admitted == [evolved[0], evolved[5]]
    assert set_aside == [
        {**evolved[1], "reason": "duplicate of a base prompt"},
        {**evolved[2], "reason": "duplicate of an evolved prompt"},
        {**evolved[3], "reason": "empty"},
        {**evolved[4], "reason": "longer than 30 characters"},
    ]


def test_a_prompt_of_exactly_the_longest_length_is_admitted():
    assert admit([], [prompt("x" * 30)], max_chars=30) == ([prompt("x" * 30)], [])


texts = st.lists(st.text(alphabet="aA b\n", max_size=8))


@given(texts, texts, st.integers(1, 8))
def test_no_prompt_is_lost_and_none_is_admitted_twice(base, evolved, max_chars):
    admitted, set_aside = admit(map(prompt, base), map(prompt, evolved), max_chars)

    kept = [normalised(record["prompt"]) for record in admitted]
    outcome = [record["prompt"] for record in admitted] + [record["prompt"] for record in set_aside]
    assert sorted(outcome) == sorted(evolved)
    assert len(set(kept)) == len(kept)
    assert not set(kept) & {normalised(text) for text in base}


@given(texts)
def test_admitting_what_was_admitted_changes_nothing(evolved):
    admitted, _ = admit([], map(prompt, evolved), max_chars=8)

    assert admit([], admitted, max_chars=8) == (admitted, [])
