"""The rating is read from a judgment as FastChat reads it."""

from __future__ import annotations

import ast
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eva_hpc.benchmarks.files import read_rows
from eva_hpc.benchmarks.mt_bench.rating import rating, why_none


@pytest.mark.parametrize(
    ("judgment", "found"),
    [
        ("Good. Rating: [[7]]", 7),
        ("Rating: [[7.5]] or rather [[3]]", 7.5),
        ("Rating: [[7.]]", 7.0),
        ("As [1] says, [[9]]", 9),
        ("Rating: [8]", 8),
        ("[12] of the answer, see [3]", 12),
        ("[[15]] and [[0.5]]", 15),
        ("[[7/10]] [[ 7 ]] [[seven]] Rating: 7", None),
        ("[[-1]]", None),
        ("[[7]", 7),
        ("", None),
        ("$ERROR$", None),
        ("[[08]]", None),
        ("[[٧]]", None),
        (f"[[{'9' * 400}.0]]", None),
        (f"[[{'9' * 400}]]", None),
        (f"[[{'9' * 5000}]]", None),
    ],
)
def test_the_first_number_in_brackets_is_the_rating(judgment, found):
    assert rating(judgment) == found
    assert type(rating(judgment)) is type(found)


def test_a_failed_call_is_told_from_a_judgment_without_rating():
    assert why_none("$ERROR$") == "API failure"
    assert why_none("I cannot rate this.") == why_none("") == "no rating"


PIECES = st.lists(st.one_of(st.sampled_from(["[", "[[", "]", "]]", ".", "7", "10", "0", "Rating: "]), st.text(max_size=3)))


@given(PIECES.map("".join))
@example("[[1]][[")
def test_any_text_has_a_rating_or_none(judgment):
    found = rating(judgment)
    if found is None:
        return
    assert found >= 0
    inner = re.search(r"\[\[([\d.]+)\]\]", judgment) or re.search(r"\[([\d.]+)\]", judgment)
    assert inner is not None


@given(st.one_of(st.integers(0, 10**6), st.floats(0, 1e6)), st.text(st.characters(exclude_characters="[]")))
def test_a_written_rating_is_read_back(value, text):
    written = f"{value:.4f}" if isinstance(value, float) else str(value)
    assert rating(f"{text}[[{written}]]{text}") == rating(f"{text}[{written}]") == ast.literal_eval(written)


@pytest.mark.parametrize("name", ["Stefanstud", "dreaming-panda", "instructlab", "muhan421"])
def test_every_real_judgment_is_read_as_the_official_script_did(shared_data, name):
    for row in read_rows(shared_data / f"mt_bench/judgments/{name}.gpt-4_single.jsonl.gz"):
        found = rating(row["judgment"])
        assert (-1 if found is None else found) == row["score"]
