"""What lies in the data folder is used only when its content is right, and messages say how to make it so."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from eva_hpc.benchmarks.official import catalogue
from eva_hpc.benchmarks.official.data_folder import (
    answers,
    data_folder,
    look,
    notes_on,
    official,
    official_or_none,
    place,
    put,
    stand_in_at,
)
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.file_server import ANSWERS, ODDS, QUESTIONS, STAND_IN, made_up


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "CATALOGUE", made_up("http://nowhere.invalid"))
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_folder_is_that_of_the_environment_else_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("EVA_HPC_DATA", raising=False)
    assert data_folder() == tmp_path / ".cache" / "eva_hpc" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert data_folder() == tmp_path / ".cache" / "eva_hpc" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert data_folder() == Path("/scratch/cache/eva_hpc/data")
    monkeypatch.setenv("EVA_HPC_DATA", "~/here")
    assert data_folder() == tmp_path / "here"
    monkeypatch.setenv("EVA_HPC_DATA", "")
    assert data_folder() == Path("/scratch/cache/eva_hpc/data")


def test_an_official_file_is_found_by_what_it_is_for(folder: Path) -> None:
    path = write(folder / "quiz" / "questions.json", QUESTIONS)
    assert official("quiz", "questions") == official_or_none("quiz", "questions") == place("quiz", "questions") == path


def test_what_is_missing_is_said_with_the_way_to_get_it(folder: Path) -> None:
    assert official_or_none("quiz", "questions") is None
    said = (
        rf"quiz: questions.json is not in {folder}/quiz; eva-hpc data fetch quiz gets it \(or --from DIR takes a local copy\)"
    )
    with pytest.raises(ConfigError, match=said):
        official("quiz", "questions")
    with pytest.raises(ConfigError, match="eva-hpc data fetch quiz --calibration gets it"):
        official("quiz", "answers")


@pytest.mark.parametrize("content", [b"", QUESTIONS[:-1], b"X" + QUESTIONS[1:]])
def test_another_content_is_never_used(folder: Path, content: bytes) -> None:
    write(folder / "quiz" / "questions.json", content)
    assert official_or_none("quiz", "questions") is None
    with pytest.raises(ConfigError, match=r"questions\.json: found sha256 \w+; must be sha256 \w+; eva-hpc data fetch quiz"):
        official("quiz", "questions")


def test_a_stand_in_is_used_and_tells_what_it_is(folder: Path, tmp_path: Path) -> None:
    path = write(folder / "quiz" / "odds.csv", STAND_IN)
    assert official("quiz", "odds") == path
    stand_in = stand_in_at(path)
    assert stand_in is not None
    assert stand_in.note == "odds.csv is a stand-in: nearly right"
    assert stand_in_at(write(tmp_path / "elsewhere.gz", gzip.compress(STAND_IN))) == stand_in
    assert stand_in_at(write(path, ODDS)) is None
    assert stand_in_at(tmp_path / "nothing here") is None


def test_answers_at_hand_are_listed_by_model(folder: Path) -> None:
    assert answers("quiz") == {}
    path = write(folder / "quiz" / "answers" / "expert.json", ANSWERS)
    assert answers("quiz") == {"expert": path}


@pytest.mark.parametrize("wanted", [("quiz", "riddles", None), ("quiz", "answers", "layman")])
def test_asking_for_a_file_that_no_catalogue_has_is_a_mistake_of_the_caller(
    folder: Path, wanted: tuple[str, str, str | None]
) -> None:
    with pytest.raises(LookupError, match="it has questions, prompt, odds, answers expert"):
        official(*wanted)


def test_several_files_for_one_purpose_are_told_apart_by_model() -> None:
    assert place("arena_hard", "answers", "gpt-4-0613").name == "gpt-4-0613.jsonl"
    with pytest.raises(LookupError, match="2 files"):
        place("arena_hard", "answers")


def test_a_file_is_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = catalogue.CATALOGUE[0]

    def dies(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            put(file, QUESTIONS, folder)
    assert look(file).state == "absent"
    assert put(file, QUESTIONS, folder) is None
    assert look(file).state == "official"


def test_another_content_at_the_place_of_a_file_is_kept(folder: Path) -> None:
    path = write(folder / "quiz" / "questions.json", b"my own questions")
    kept = put(catalogue.CATALOGUE[0], QUESTIONS, folder)
    assert path.read_bytes() == QUESTIONS
    assert kept is not None
    assert kept.read_bytes() == b"my own questions"


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    write(folder, b"a file where the folder should be")
    with pytest.raises(ConfigError, match="--to DIR or EVA_HPC_DATA names another data folder"):
        put(catalogue.CATALOGUE[0], QUESTIONS, folder)


def test_what_belongs_beside_numbers_that_rest_on_another_file(tmp_path: Path, shared_data: Path) -> None:
    reference = shared_data / "alpaca_eval" / "reference"
    (stand_in,) = notes_on("alpaca_eval", gamed=reference / "df_gamed_reconstructed.csv", difficulty=None)
    assert "stand-in" in stand_in
    cut = tmp_path / "gamed.csv"
    cut.write_bytes((reference / "df_gamed_reconstructed.csv").read_bytes()[:1000])
    assert notes_on("alpaca_eval", gamed=cut) == ["gamed.csv is not the official df_gamed.csv"]
    assert notes_on("arena_hard", questions=shared_data / "arena_hard" / "question_v0.1.jsonl.gz") == []
