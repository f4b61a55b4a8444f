"""The cache of completions: what was written is found, by any process, whatever else lies in the files."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.inference.completion_cache import CompletionCache, Record, completion_key, json_sha256

MESSAGES = [{"role": "user", "content": "Which is better?"}]
PARAMETERS = {"temperature": 0.0, "max_tokens": 1}


def record(repeat: int = 0, text: str = "m", time: float = 1.0) -> Record:
    return Record(
        key=completion_key("judge", MESSAGES, PARAMETERS, repeat),
        model="judge",
        parameters=PARAMETERS,
        repeat=repeat,
        messages_sha256=json_sha256(MESSAGES),
        served_model="judge-0613",
        system_fingerprint=None,
        usage={"prompt_tokens": 3},
        choice={"message": {"content": text}, "logprobs": {"content": [{"token": "m", "logprob": -0.1}]}},
        time=time,
    )


def keys(count: int) -> list[str]:
    return [record(repeat).key for repeat in range(count)]


@pytest.fixture
def cache(tmp_path: Path) -> CompletionCache:
    return CompletionCache(tmp_path / "cache", writer="one")


# ---------------------------------------------------------------------------- keys


def test_a_key_is_what_decides_the_completion() -> None:
    key = completion_key("judge", MESSAGES, PARAMETERS, 0)
    assert len(key) == 64
    others = [
        completion_key("other", MESSAGES, PARAMETERS, 0),
        completion_key("judge", [*MESSAGES, MESSAGES[0]], PARAMETERS, 0),
        completion_key("judge", MESSAGES, {**PARAMETERS, "seed": 1}, 0),
        completion_key("judge", MESSAGES, {**PARAMETERS, "temperature": 0.1}, 0),
        completion_key("judge", MESSAGES, {**PARAMETERS, "logprobs": True}, 0),
        completion_key("judge", MESSAGES, {**PARAMETERS, "logprobs": 1}, 0),
        completion_key("judge", MESSAGES, PARAMETERS, 1),
    ]
    assert len({key, *others}) == 8


def test_the_order_of_parameters_and_how_a_whole_number_is_written_change_nothing() -> None:
    assert completion_key("j", MESSAGES, {"max_tokens": 1, "temperature": 0}, 0) == completion_key("j", MESSAGES, PARAMETERS, 0)


def test_a_key_stays_what_it_is_from_version_to_version() -> None:
    assert completion_key("judge", MESSAGES, PARAMETERS, 0).startswith("4799879ed056e237")


# ---------------------------------------------------------------------------- records


def test_what_was_added_is_found_and_nothing_else(cache: CompletionCache) -> None:
    for repeat in range(4):
        cache.add(record(repeat))
    assert cache.find(keys(6)[2:]) == {record(repeat).key: record(repeat) for repeat in (2, 3)}
    assert cache.damaged == 0


def test_an_empty_cache_has_nothing_and_makes_no_folder(cache: CompletionCache) -> None:
    assert cache.find(keys(1)) == {}
    assert not cache.folder.exists()


@given(text=st.text(st.characters(codec=None, exclude_categories=())))
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    cache = CompletionCache(tmp_path_factory.mktemp("cache"))
    cache.add(record(text=text))
    cache.add(record(1))
    assert cache.find(keys(2)) == {record().key: record(text=text), record(1).key: record(1)}


def test_of_several_with_one_key_the_first_to_arrive_wins_whoever_wrote_it(tmp_path: Path) -> None:
    for writer, time in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        CompletionCache(tmp_path, writer).add(record(text=writer, time=time))
    CompletionCache(tmp_path, "b").add(record(text="later", time=1.0))
    assert CompletionCache(tmp_path, "d").find(keys(1))[keys(1)[0]].choice["message"]["content"] == "b"


def test_half_a_line_is_left_in_place_and_what_follows_is_found(cache: CompletionCache) -> None:
    cache.add(record(0))
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole + whole[:50])
    assert cache.find(keys(1)) == {record(0).key: record(0)}
    assert cache.damaged == 0  # it may be one that is just being written

    CompletionCache(cache.folder, "one").add(record(1))
    assert set(cache.find(keys(2))) == set(keys(2))
    assert cache.path.read_bytes().startswith(whole + whole[:50] + b"\n")
    assert cache.find(keys(2))
    assert cache.damaged == 1


def test_a_line_cut_anywhere_never_breaks_the_cache(cache: CompletionCache) -> None:
    cache.add(record(0))
    whole = cache.path.read_bytes()
    for cut in range(len(whole)):
        cache.path.write_bytes(whole[:cut])
        assert cache.find(keys(2)) == {}
        cache.add(record(1))
        assert set(cache.find(keys(2))) <= {record(1).key, record(0).key}
        assert cache.find(keys(2))[record(1).key] == record(1)


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 40,
        b"not json",
        b"[]",
        b'{"key":"' + keys(1)[0].encode() + b'"}',
        b'{"key":"' + keys(1)[0].encode() + b'", "choice": ',
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_is_counted_and_passed_over(cache: CompletionCache, line: bytes) -> None:
    cache.add(record(1))
    cache.path.write_bytes(line + b"\n" + cache.path.read_bytes())
    assert cache.find(keys(2)) == {record(1).key: record(1)}
    assert cache.damaged == 1


@given(st.data())
def test_overwritten_bytes_never_break_the_cache(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    cache = CompletionCache(tmp_path_factory.mktemp("cache"))
    for repeat in range(2):
        cache.add(record(repeat))
    content = bytearray(cache.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cache.path.write_bytes(bytes(content))
    for key, found in cache.find(keys(2)).items():
        assert found.key == key
        assert isinstance(found.choice["message"], dict)


def test_a_full_disk_is_an_error_and_the_rest_stays_readable(cache: CompletionCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.add(record(0))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            cache.add(record(1))
    cache.path.write_bytes(cache.path.read_bytes()[:-20])
    cache.add(record(2))
    assert set(cache.find(keys(3))) == {record(0).key, record(2).key}


def _write(folder: Path, writer: int, count: int) -> None:
    cache = CompletionCache(folder, str(writer))
    for repeat in range(writer, count, 3):
        cache.add(record(repeat))
        assert cache.find([record(repeat).key])


def test_several_processes_write_and_read_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, writer, 60)) for writer in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0, 0]
    cache = CompletionCache(tmp_path)
    assert cache.find(keys(60)) == {record(repeat).key: record(repeat) for repeat in range(60)}
    assert cache.damaged == 0


def test_only_lines_that_are_asked_for_are_parsed(cache: CompletionCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for repeat in range(20):
        cache.add(record(repeat))
    parsed: list[bytes] = []
    loads = json.loads

    def counted(line: bytes) -> Any:
        parsed.append(line)
        return loads(line)

    monkeypatch.setattr(json, "loads", counted)
    cache.find(keys(2))
    assert len(parsed) == 2


def test_what_is_forgotten_is_as_if_it_had_never_been_said_until_it_is_said_again(cache: CompletionCache) -> None:
    (key,) = keys(1)
    cache.add(record(text="no use", time=1.0))
    cache.forget([key])
    assert cache.find([key]) == {}
    assert cache.damaged == 0
    later = record(text="m", time=2e9 * 2)
    CompletionCache(cache.folder, writer="another").add(later)
    assert cache.find([key]) == {key: later}
