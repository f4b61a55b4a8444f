"""What the YAML reader refuses and what it remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.yaml_file import MAX_VALUES, dotted, read_value, read_yaml

MISTAKES = {
    "a key given twice": ("a: 1\nb: 2\na: 3\n", "file.yaml:3: a: given twice, first on line 1"),
    "an inner key given twice": ("a:\n  x: 1\n  x: 2\n", "file.yaml:3: a.x: given twice, first on line 2"),
    "an empty file": ("", "file.yaml: the file is empty; it must be a mapping of keys to values"),
    "only comments": ("# nothing\n", "file.yaml: the file is empty; it must be a mapping of keys to values"),
    "a list": ("- 1\n- 2\n", "file.yaml:1: found a list; the file must be a mapping of keys to values"),
    "a word": ("\nlab\n", "file.yaml:2: found 'lab'; the file must be a mapping of keys to values"),
    "a tab": ("a:\n\tb: 1\n", "file.yaml:2: not valid YAML: a tab; YAML is indented with spaces"),
    "a colon too many": ("a: 1\nb: c: 2\n", "file.yaml:2: not valid YAML: mapping values are not allowed here"),
    "an open bracket": ("a: [1, 2\nb: 3\n", "file.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
    "two documents": ("a: 1\n---\nb: 2\n", "file.yaml:2: not valid YAML: but found another document"),
    "a number as key": ("a:\n  1: x\n", "file.yaml:2: a.1: keys must be text; put quotes around it"),
    "on as key": ("on: x\n", "file.yaml:1: on: keys must be text; put quotes around it"),
    "a Python tag": (
        "a: !!python/object/apply:os.getcwd []\n",
        "file.yaml:1: a: the tag tag:yaml.org,2002:python/object/apply:os.getcwd is not allowed; write a plain value",
    ),
    "an unknown alias": ("a: *b\n", "file.yaml:1: not valid YAML: found undefined alias 'b'"),
    "a section that contains itself": ("a: &x\n  b: *x\n", "file.yaml:1: a.b: an alias to a section that it is part of"),
    "an impossible date": (
        "a: 2024-99-01\n",
        "file.yaml:1: a: found '2024-99-01'; it is not a valid value, put quotes around it if it is text",
    ),
    "a control character": ("a: 1\nb: \x01\n", "file.yaml:2: not valid YAML: a character that text may not contain"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("file.yaml")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line(name: str, here: Path) -> None:
    text, message = MISTAKES[name]
    here.write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_yaml(here)

    assert str(caught.value) == message


def test_all_mistakes_of_a_file_are_named(here: Path) -> None:
    here.write_text("a: 1\na: 2\nb: {x: 1, x: 2}\n")

    with pytest.raises(ConfigError) as caught:
        read_yaml(here)

    assert caught.value.problems == (
        "file.yaml:2: a: given twice, first on line 1",
        "file.yaml:3: b.x: given twice, first on line 3",
    )


def test_bytes_that_are_not_utf_8_are_named_with_their_line(here: Path) -> None:
    here.write_bytes(b"a: 1\nb: \xff\n")

    with pytest.raises(ConfigError, match=r"^file.yaml:2: not UTF-8 text; save the file as UTF-8$"):
        read_yaml(here)


def test_a_missing_file_names_the_nearest_one(here: Path) -> None:
    Path("evolved_ratio.yaml").write_text("a: 1\n")

    with pytest.raises(ConfigError, match=r"^evolved_ration.yaml: no such file; did you mean 'evolved_ratio.yaml'\?$"):
        read_yaml(Path("evolved_ration.yaml"))


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_aliases_cannot_fill_the_memory(here: Path) -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    here.write_text("\n".join(levels))

    with pytest.raises(ConfigError, match=f"more than {MAX_VALUES} values"):
        read_yaml(here)


def test_merging_a_section_into_itself_is_an_error(here: Path) -> None:
    here.write_text("a: &a\n  <<: *a\nb:\n  <<: *a\n")

    with pytest.raises(ConfigError):
        read_yaml(here)


def test_every_key_and_value_remembers_its_line(here: Path) -> None:
    here.write_text("# comment\na:\n  b: 1\n  c:\n    - x\n    - y\nd: >\n  text\n")

    document = read_yaml(here)

    lines = {dotted(path): (origin.key_line, origin.line) for path, origin in document.origins.items() if path}
    assert lines == {"a": (2, 3), "a.b": (3, 3), "a.c": (4, 5), "a.c[0]": (5, 5), "a.c[1]": (6, 6), "d": (7, 7)}


def test_anchors_and_merged_keys_are_read_as_yaml_says(here: Path) -> None:
    here.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\n")

    document = read_yaml(here)

    assert document.data == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
    assert document.data == yaml.safe_load(here.read_text())


@pytest.mark.parametrize("text", ["1e-4", "5e-7", "1E5", "-2e+3", "1.5e3", "1.e2", ".5e1"])
def test_a_number_with_an_exponent_is_a_number(text: str) -> None:
    value = read_value(text, "here")

    assert isinstance(value, float)
    assert value == float(text)


@pytest.mark.parametrize("text", ["e5", "1e", "1e5x", "a1e5", "e-4"])
def test_what_only_looks_like_an_exponent_stays_text(text: str) -> None:
    assert read_value(text, "here") == text


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN |= st.text(st.characters(min_codepoint=32, max_codepoint=126))
KEYS = st.text("abcxyz", min_size=1, max_size=3)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)


@given(JSON)
def test_json_is_read_as_the_value_it_is(value: object) -> None:
    assert read_value(json.dumps(value), "here") == value
