"""The catalogue is of one piece, and each file in it can be told from every other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from eva_hpc.benchmarks.official.catalogue import CATALOGUE, files_of, stand_in_of
from eva_hpc.benchmarks.official.data_file import DataFile, git_blob
from eva_hpc.config.errors import ConfigError

by_path = pytest.mark.parametrize("file", CATALOGUE, ids=lambda file: file.path)


@by_path
def test_every_file_is_pinned_to_a_commit_at_its_home(file: DataFile) -> None:
    assert re.match(
        r"https://(raw\.githubusercontent\.com/[^/]+/[^/]+|huggingface\.co/datasets/[^/]+/[^/]+/resolve)/[0-9a-f]{40}/",
        file.url,
    )


@by_path
def test_every_file_has_one_checksum(file: DataFile) -> None:
    assert (file.sha256 is None) != (file.git_blob is None)
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) if file.sha256 else re.fullmatch(r"[0-9a-f]{40}", file.git_blob or "")


@by_path
def test_every_file_lies_in_the_folder_of_its_set(file: DataFile) -> None:
    path = PurePosixPath(file.path)
    assert path.parts[0] == file.set
    assert ".." not in path.parts


def test_no_two_files_share_a_place_a_purpose_a_home_or_a_content() -> None:
    for shared in (
        [file.path for file in CATALOGUE],
        [(file.set, file.role, file.model) for file in CATALOGUE],
        [file.url for file in CATALOGUE],
        [file.checksum for file in CATALOGUE] + [f"sha256 {one.sha256}" for file in CATALOGUE for one in file.stand_ins],
    ):
        assert len(set(shared)) == len(shared)


def test_calibration_files_come_only_when_asked_for() -> None:
    assert not any(file.calibration for file in files_of(["alpaca_eval"]))
    assert {file.role for file in files_of(["arena_hard"], calibration=True)} >= {"leaderboard", "answers"}


def test_versions_of_arena_hard_are_sets_of_their_own() -> None:
    assert {file.set for file in files_of(["arena_hard"])} == {"arena_hard"}
    models = {file.role: file.model for file in files_of(["arena_hard_v2"]) if file.model}
    assert models == {"baseline": "o3-mini-2025-01-31", "creative_baseline": "gemini-2.0-flash-001"}


def test_an_unknown_set_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"alpaca_evil: no such benchmark; must be one of alpaca_eval, .*did you mean 'alpaca_eval'"
    ):
        files_of(["alpaca_evil"])


def test_a_git_blob_id_is_what_git_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some\ncontent\0")
    said = subprocess.run(["git", "hash-object", "file"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert git_blob(b"some\ncontent\0") == said.strip()


def test_stand_ins_are_known_by_content(shared_data: Path) -> None:
    content = (shared_data / "alpaca_eval" / "reference" / "df_gamed_reconstructed.csv").read_bytes()
    stand_in = stand_in_of(content)
    assert stand_in is not None
    assert "preferences reconstructed" in stand_in.note
    assert stand_in_of(content + b"\n") is None


def test_sizes_are_those_of_the_contents(shared_data: Path) -> None:
    sizes = {stand_in.sha256: stand_in.size for file in CATALOGUE for stand_in in file.stand_ins}
    for path in (shared_data / "alpaca_eval" / "reference").glob("*.csv"):
        stand_in = stand_in_of(path.read_bytes())
        assert stand_in is not None
        assert sizes[stand_in.sha256] == path.stat().st_size
