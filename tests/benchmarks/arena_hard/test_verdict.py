"""The official parsers of v0.1 and v2.0."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.benchmarks.arena_hard.judgments import read_judgments, reparse
from eva_hpc.benchmarks.arena_hard.verdict import OUTCOMES, check_version, parse
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.arena_hard.made_up import LABELS


@pytest.mark.parametrize(
    ("text", "v01", "v2"),
    [
        ("My final verdict is tie: [[A=B]].", "A=B", "A=B"),
        ("[[A>B]] … I stay with [[A>B]]", "A>B", "A>B"),
        ("first [[A>B]], no: [[B>A]]", None, "B>A"),
        ("[[a>>b]]", None, "A>>B"),
        ("[A>B]", None, "A>B"),
        ("[[A>B]] then [B>A]", "A>B", "A>B"),  # single brackets only count where there are no double ones
        ("[[B<<A]]", "B<<A", "B<<A"),
        ("[[C>A]] [[]] [[A > B]]", None, None),
        ("", None, None),
        ("[[AB]]", "AB", "AB"),
    ],
)
def test_v01_wants_one_distinct_label_and_v2_takes_the_last(text, v01, v2):
    assert parse(text, "v0.1") == v01
    assert parse(text, "v2.0") == v2


def test_every_real_judgment_parses_as_the_official_parser_did(shared_data):
    path = shared_data / "arena_hard" / "raw_judgments_sample.jsonl.gz"
    with gzip.open(path, "rt") as lines:
        games = [game for line in lines for game in json.loads(line)["games"]]

    assert len(games) == 82
    assert [parse(game["judgment"], "v0.1") for game in games] == [game["score"] for game in games]
    assert reparse(read_judgments([path]), "v0.1")[1] == 0


@given(st.text(alphabet="AB<>=[] ab\nx"))
def test_a_parsed_label_stands_in_the_text(text):
    label = parse(text, "v2.0")
    assert label is None or f"[{label}]" in text.upper()
    strict = parse(text, "v0.1")
    assert strict is None or (f"[[{strict}]]" in text and parse(text, "v2.0") == strict)


def test_a_label_and_the_same_from_the_other_side_are_complements():
    known = OUTCOMES["v2.0"]
    for label, (share, weight) in known.items():
        swapped = label.replace("A", "x").replace("B", "A").replace("x", "B")
        assert known[swapped] == (1 - share, weight)
    assert len(known) == 10
    assert OUTCOMES["v0.1"] == {label: known[label] for label in LABELS}


def test_an_unknown_version_names_those_there_are():
    assert check_version("v2.0") == "v2.0"
    with pytest.raises(ConfigError, match=r"found v1; must be one of v0\.1, v2\.0"):
        check_version("v1")
