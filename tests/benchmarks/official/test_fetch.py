"""Fetching from a web server on this machine that misbehaves, and taking copies from folders."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_hpc.benchmarks.official import fetch
from eva_hpc.benchmarks.official.catalogue import files_of
from eva_hpc.benchmarks.official.data_file import DataFile
from eva_hpc.benchmarks.official.fetch import Fetched, download, take
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.file_server import ANCIENT, ODDS, PROMPT, QUESTIONS, STAND_IN, FileServer, made_up, serve


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LONGEST_WAIT_S", 0.0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as files:
        yield files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def quiz(url: str) -> list[DataFile]:
    return [file for file in made_up(url) if file.set == "quiz" and not file.calibration]


def states(results: Iterator[Fetched]) -> list[tuple[str, str | None]]:
    return [(result.found.state, result.how) for result in results]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------------------- from their homes


def test_files_are_downloaded_checked_and_not_fetched_again(server: FileServer, folder: Path) -> None:
    files = made_up(server.url)
    assert states(download(files, folder)) == [("official", "downloaded")] * 5
    assert contents(folder)["old_quiz/old.json"] == ANCIENT, "known by its git blob"
    asked = len(server.asked)
    assert states(download(files, folder)) == [("official", None)] * 5
    assert len(server.asked) == asked
    assert not [name for name in contents(folder) if "partial" in name]


@pytest.mark.parametrize("trouble", [503, 429, ("truncated", QUESTIONS[:50]), QUESTIONS[:50]])
def test_what_may_pass_is_tried_again(server: FileServer, folder: Path, trouble: int | bytes | tuple[str, bytes]) -> None:
    server.answers["/questions"] = [trouble, trouble, QUESTIONS]
    assert states(download(quiz(server.url)[:1], folder)) == [("official", "downloaded")]
    assert server.asked == ["/questions"] * 3


def test_what_does_not_pass_is_given_up_and_the_others_are_fetched(server: FileServer, folder: Path) -> None:
    server.answers["/questions"] = [500]
    server.answers["/prompt"] = [("truncated", b"pro")]
    questions, prompt, odds = download(quiz(server.url), folder)
    assert questions.problem == f"{server.url}/questions: HTTP 500 Internal Server Error"
    assert prompt.problem is not None
    assert f"{server.url}/prompt: RemoteProtocolError" in prompt.problem
    assert odds.problem is None
    assert contents(folder) == {"quiz/odds.csv": ODDS}
    assert server.asked == ["/questions"] * 5 + ["/prompt"] * 5 + ["/odds"]


def test_a_file_that_is_gone_is_asked_for_once(server: FileServer, folder: Path) -> None:
    server.answers["/questions"] = [404]
    (result,) = download(quiz(server.url)[:1], folder)
    assert result.problem == f"{server.url}/questions: HTTP 404 Not Found"
    assert server.asked == ["/questions"]


@pytest.mark.parametrize("wrong", [b"X" * len(QUESTIONS), b"<html>Please log in</html>", QUESTIONS * 3])
def test_a_wrong_content_is_kept_aside_and_never_used(server: FileServer, folder: Path, wrong: bytes) -> None:
    server.answers["/questions"] = [wrong]
    (result,) = download(quiz(server.url)[:1], folder)
    assert result.found.state == "absent"
    assert result.problem is not None
    assert f"{server.url}/questions: found {len(wrong):,} bytes with sha256 " in result.problem
    assert f"; must be {result.found.file.checksum}. Not used, kept as" in result.problem
    assert set(contents(folder)) == {"quiz/questions.json.wrong"}


def test_a_server_that_cannot_be_reached_is_given_up_at_once(server: FileServer, folder: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        nowhere = quiz(f"http://127.0.0.1:{taken.getsockname()[1]}")
        results = list(download([*nowhere, *made_up(server.url)[4:]], folder))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    problems = {result.problem for result in results[:3]}
    assert len(problems) == 1
    assert problems.pop().startswith(f"{host} cannot be reached: ConnectError")  # type: ignore[union-attr]
    assert results[3].how == "downloaded", "other servers are still asked"


def test_the_official_file_takes_the_place_of_a_stand_in(server: FileServer, folder: Path) -> None:
    place = folder / "quiz" / "odds.csv"
    place.parent.mkdir(parents=True)
    place.write_bytes(STAND_IN)
    server.answers["/odds"] = [404]
    (result,) = download(quiz(server.url)[2:], folder)
    assert (result.found.state, result.problem is None) == ("stand-in", False)
    server.answers["/odds"] = [ODDS]
    assert states(download(quiz(server.url)[2:], folder)) == [("official", "downloaded")]
    assert contents(folder) == {"quiz/odds.csv": ODDS}


def test_a_proxy_that_cannot_be_used_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "carrier-pigeon://loft:1")
    with pytest.raises(ConfigError, match=r"the proxy of the environment \(HTTPS_PROXY, ALL_PROXY\) cannot be used"):
        list(download(quiz("http://nowhere.invalid"), folder))


# ---------------------------------------------------------------------------- from a folder


def lay(source: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return source


def test_copies_are_known_by_content_in_any_layout(tmp_path: Path, folder: Path) -> None:
    source = lay(
        tmp_path / "copies",
        {
            "a/b/c.gz": gzip.compress(QUESTIONS),
            "decoy": b"x" * len(QUESTIONS),
            "p": PROMPT,
            "odds.csv": ODDS,
            "old.json.gz": gzip.compress(ANCIENT),
        },
    )
    files = [file for file in made_up("http://nowhere.invalid") if not file.calibration]
    assert states(take(files, source, folder)) == [("official", "copied")] * 4
    assert contents(folder)["quiz/questions.json"] == QUESTIONS
    assert states(take(files, source, folder)) == [("official", None)] * 4


@pytest.mark.parametrize("names", [("a.csv", "odds.csv"), ("z.csv", "odds.csv")])
def test_a_stand_in_is_taken_only_where_there_is_no_official_file(tmp_path: Path, folder: Path, names: tuple[str, str]) -> None:
    source = lay(tmp_path / "copies", {names[0]: STAND_IN})
    odds = quiz("http://nowhere.invalid")[2:]
    (result,) = take(odds, source, folder)
    assert (result.found.state, result.found.note) == ("stand-in", "odds.csv is a stand-in: nearly right")
    lay(source, {names[1]: ODDS})
    assert states(take(odds, source, folder)) == [("official", "copied")]
    (source / names[1]).unlink()
    assert states(take(odds, source, folder)) == [("official", None)], "nothing official makes way for a stand-in"


def test_what_the_folder_lacks_is_said_and_why(tmp_path: Path, folder: Path) -> None:
    whole = gzip.compress(QUESTIONS)
    source = lay(tmp_path / "copies", {"questions.json.gz": whole[:20] + whole[-8:], "odds.csv": b"other odds", "odds": b""})
    questions, prompt, odds = (result.problem or "" for result in take(quiz("http://nowhere.invalid"), source, folder))
    assert questions.startswith(f"{source}/questions.json.gz cannot be read: ")
    assert prompt.startswith(f"no file in {source} has sha256 ")
    assert odds.startswith(f"{source}/odds.csv has its name, but sha256 ")
    assert not folder.exists()


def test_the_source_must_be_a_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        list(take([], tmp_path / "nowhere", folder))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        list(take([], tmp_path / "file", folder))


def test_the_shared_copies_give_the_three_benchmarks_whole(shared_data: Path, folder: Path) -> None:
    results = list(take(files_of(["alpaca_eval", "arena_hard", "mt_bench"]), shared_data, folder))
    assert [result.problem for result in results] == [None] * 10
    stand_ins = {result.found.file.role for result in results if result.found.state == "stand-in"}
    assert stand_ins == {"difficulty", "gamed"}
