"""`eva-hpc data`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eva_hpc.benchmarks.official import catalogue, fetch
from eva_hpc.commands import data
from tests.benchmarks.file_server import PROMPT, QUESTIONS, STAND_IN, FileServer, made_up, serve


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(fetch, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(data, "DEFAULT", ("quiz",))
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path / "data"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve() as files:
        monkeypatch.setattr(catalogue, "CATALOGUE", made_up(files.url))
        yield files


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(data.app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def test_fetch_brings_the_files_and_says_so(server: FileServer, tmp_path: Path) -> None:
    said = run("fetch")
    assert f"quiz/questions.json: downloaded from {server.url}/questions\n" in said
    assert said.endswith(f"3 of 3 files in {tmp_path}/data\n")
    assert run("fetch").startswith("quiz/questions.json: there\n")


def test_fetch_with_calibration_brings_more(server: FileServer) -> None:
    assert "4 of 4 files" in run("fetch", "quiz", "--calibration")


def test_fetch_to_another_folder_says_how_it_is_found(server: FileServer, tmp_path: Path) -> None:
    said = run("fetch", "old_quiz", "--to", str(tmp_path / "elsewhere"))
    assert f"they are found there with EVA_HPC_DATA={tmp_path}/elsewhere\n" in said
    assert (tmp_path / "elsewhere" / "old_quiz" / "old.json").is_file()


def test_fetch_that_fails_names_what_is_missing_and_the_way_out(server: FileServer) -> None:
    server.answers["/questions"] = [404]
    said = run("fetch", code=1)
    assert f"quiz/questions.json: MISSING: {server.url}/questions: HTTP 404 Not Found\n" in said
    assert "2 of 3 files in " in said
    assert "could not be had: quiz/questions.json\n" in said
    assert "eva-hpc data fetch quiz --from DIR" in said


def test_without_network_there_is_one_message(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr(catalogue, "CATALOGUE", made_up("http://files.invalid"))
    said = run("fetch", code=1)
    assert said.count("files.invalid cannot be reached") == 1
    assert "eva-hpc data fetch quiz --from DIR" in said


def test_fetch_from_a_folder_takes_stand_ins_and_says_so(server: FileServer, tmp_path: Path) -> None:
    for name, content in {"q": QUESTIONS, "p": PROMPT, "o": STAND_IN}.items():
        (tmp_path / name).write_bytes(content)
    said = run("fetch", "--from", str(tmp_path))
    assert "  odds.csv is a stand-in: nearly right\n" in said
    assert ", 1 of them stand-ins\n" in said
    assert not server.asked
    assert "without --from they are downloaded: eva-hpc data fetch quiz --calibration" in run(
        "fetch", "--from", str(tmp_path), "--calibration", code=1
    )


def test_json_has_every_file_with_its_state(server: FileServer, tmp_path: Path) -> None:
    server.answers["/odds"] = [404]
    said = json.loads(run("fetch", "--json", code=1))
    assert (said["folder"], said["complete"]) == (f"{tmp_path}/data", False)
    assert [(file["role"], file["state"], file["how"]) for file in said["files"]] == [
        ("questions", "official", "downloaded"),
        ("prompt", "official", "downloaded"),
        ("odds", "absent", None),
    ]
    assert said["files"][2]["problem"].endswith("HTTP 404 Not Found")


@pytest.mark.parametrize(
    ("words", "said"), [(["quizz"], "did you mean 'quiz'?"), (["--from", "/nowhere"], "/nowhere: there is no such folder")]
)
def test_a_mistake_in_the_words_is_told_plainly(server: FileServer, words: list[str], said: str) -> None:
    assert said in run("fetch", *words, code=2)


def test_list_shows_the_whole_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path))
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_text("mine")
    said = run("list")
    assert all(file.path in said for file in catalogue.CATALOGUE)
    assert "https://github.com/lm-sys/FastChat at 0e6d3e4" in said
    assert "https://huggingface.co/datasets/tatsu-lab/alpaca_eval at 2edc6fa" in said
    assert f"{tmp_path}/mt_bench/question.jsonl: found sha256 " in said
    states = {file["file"]: file["state"] for file in json.loads(run("list", "--json"))["files"]}
    assert states.pop("mt_bench/question.jsonl") == "other"
    assert set(states.values()) == {"absent"}


def test_the_shared_copies_are_enough_for_the_three_benchmarks(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path))
    assert f"10 of 10 files in {tmp_path}, 2 of them stand-ins" in run("fetch", "--from", str(shared_data))
