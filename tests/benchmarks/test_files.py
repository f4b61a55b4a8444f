"""Files of the official tools are read as they come, and what is wrong with one is told with its place."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.files import read_csv, read_rows, read_text
from eva_hpc.config.errors import ConfigError

ROWS = [{"id": 1, "text": "a\u2028b"}, {"id": 2, "text": 'quoted "c"\nline'}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.fixture
def file(tmp_path):
    """Writes a file and gives its path."""

    def write(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES + "\n",
        f"\n{LINES}\n\n",
        LINES.replace("\n", "\r\n"),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + LINES,
    ],
    ids=["lines", "newline at the end", "empty lines", "windows", "list", "indented list", "byte order mark"],
)
@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())], ids=["plain", "gzip"])
def test_a_list_and_lines_plain_and_packed_are_the_same_rows(file, content, pack):
    assert read_rows(file(pack(content)), needs=("id", "text")) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file has no rows"),
        ("[]", "the file has no rows"),
        ('{"id": 1}\n{"id": ', r":2: is not JSON"),
        ('{"id": 1}\n\n[3]', r":3: found list; must be a JSON object"),
        ('{"id": 1}\n{"text": 2}', r":2: has no id; must have id"),
        ('[{"id": 1}, {"text": 2}]', r":row 2: has no id; must have id"),
        ("[1]", r":row 1: found int"),
        ('[{"id": 1}', "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ('{"id": ' * 200_000, ":1: is not JSON"),
        (b'{"id": "\xff"}', "found byte 8 that is not UTF-8"),
        (gzip.compress(b'{"id": 1}')[:-9], "the gzip file is damaged"),
        (gzip.compress(b'{"id": 1}')[:10] + b"\xff" * 20, "the gzip file is damaged"),
        (gzip.compress(b'{"id": 1}')[:-8] + bytes(8), "the gzip file is damaged"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(file, content, message):
    with pytest.raises(ConfigError, match=message):
        read_rows(file(content), needs=("id",))


def test_a_missing_file_is_told_with_the_nearest_name(file):
    path = file("[]", "judgments.jsonl")
    with pytest.raises(ConfigError, match=r"there is no such file; did you mean 'judgments\.jsonl'"):
        read_text(path.with_name("judgment.jsonl"))
    with pytest.raises(ConfigError, match=r"there is no such file$"):
        read_text(path.parent / "nowhere" / "file")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        read_text(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(), st.text().map(str.encode), st.binary().map(lambda tail: b"\x1f\x8b\x08\x00" + tail)))
def test_any_file_gives_rows_or_a_plain_error(file, content):
    path = file(content)
    for read in (read_rows, read_csv):
        try:
            problem = None if read(path) else "no rows"
        except ConfigError as error:
            problem = str(error)
        assert problem is None or problem.startswith(str(path))


def test_csv_rows_are_by_heading(file):
    assert read_csv(file('a,b\r\n1,"x, y"\r\n2,\r\n'), needs=("b",)) == [{"a": "1", "b": "x, y"}, {"a": "2", "b": ""}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1: has no column a; found nothing"),
        ("b,c\n1,2\n", ":1: has no column a; found b, c"),
        ("a,b\n", "the file has no rows"),
        ("a,b\n1,2\n3\n", ":3: must have 2 cells"),
        ("a,b\n1,2,3\n", ":2: must have 2 cells"),
        ('a,b\n1,"never closed\n', "is not CSV"),
        ("a\n" + "x" * 200_000 + "\n", "is not CSV: field larger"),
    ],
)
def test_a_damaged_csv_file_is_told_with_its_line(file, content, message):
    with pytest.raises(ConfigError, match=message):
        read_csv(file(content), needs=("a",))


def test_the_real_files_are_read(shared_data):
    assert len(read_rows(shared_data / "alpaca_eval/models/alpaca-7b/annotations.json.gz", needs=("preference",))) == 805
    assert len(read_rows(shared_data / "mt_bench/question.jsonl", needs=("question_id", "turns"))) == 80
    assert len(read_csv(shared_data / "alpaca_eval/reference/df_gamed_reconstructed.csv", needs=("preference",))) == 1610
