"""Records survive the file, and a file has all of its records or does not change."""

from __future__ import annotations

import jsonlines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.store.records import read_jsonl, write_jsonl

UTF8 = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | UTF8,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(UTF8, inner, max_size=3),
    max_leaves=8,
)


@given(records=st.lists(st.dictionaries(UTF8, JSON, max_size=4), max_size=4))
@settings(max_examples=60)
def test_any_json_object_survives(records, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    assert write_jsonl(path, records) == len(records)
    assert read_jsonl(path) == records


@pytest.mark.parametrize(
    "text", ["line\nline\r\n\r", "\u2028 \u2029 \x85 \x1e \x0b", "naïve 日本語 🙂", "\ufeffmark", "\0", '"\\']
)
def test_characters_that_end_lines_elsewhere_end_none_here(tmp_path, text):
    write_jsonl(tmp_path / "x.jsonl", [{"prompt": text}, {"prompt": "next"}])
    assert read_jsonl(tmp_path / "x.jsonl") == [{"prompt": text}, {"prompt": "next"}]
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 2


def test_a_large_file_survives(tmp_path):
    records = [{"id": index, "tokens": list(range(200)), "text": "x" * 1000} for index in range(2000)]
    assert write_jsonl(tmp_path / "x.jsonl", iter(records)) == 2000
    assert read_jsonl(tmp_path / "x.jsonl") == records


def test_no_records_make_an_empty_file(tmp_path):
    assert write_jsonl(tmp_path / "x.jsonl", []) == 0
    assert read_jsonl(tmp_path / "x.jsonl") == []


def test_a_failing_iterator_changes_nothing(tmp_path):
    def failing():
        yield {"a": 2}
        raise RuntimeError("half way")

    write_jsonl(tmp_path / "old.jsonl", [{"a": 1}])
    for name in ("old.jsonl", "new.jsonl"):
        with pytest.raises(RuntimeError, match="half way"):
            write_jsonl(tmp_path / name, failing())
    assert read_jsonl(tmp_path / "old.jsonl") == [{"a": 1}]
    assert not (tmp_path / "new.jsonl").exists()


def test_a_record_that_json_cannot_hold_changes_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_jsonl(tmp_path / "x.jsonl", [{"a": 1}, {"a": object()}])
    assert not (tmp_path / "x.jsonl").exists()


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    import numpy as np

    write_jsonl(tmp_path / "x.jsonl", [{"a": np.arange(3), "b": np.float64(0.5)}])
    assert read_jsonl(tmp_path / "x.jsonl") == [{"a": [0, 1, 2], "b": 0.5}]


def test_a_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"a": \n')
    with pytest.raises(jsonlines.InvalidLineError, match="line 2"):
        read_jsonl(tmp_path / "x.jsonl")
