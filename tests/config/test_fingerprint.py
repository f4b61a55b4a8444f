"""What a fingerprint sees and what it does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from eva_hpc.config import fingerprint as module
from eva_hpc.config.fingerprint import fingerprint


def model(folder: Path, **files: str) -> str:
    folder.mkdir()
    for name, text in {"config.json": "{}", "model.safetensors": "weights", **files}.items():
        (folder / name).write_text(text)
    return fingerprint(str(folder))


def test_a_file_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"content")

    assert fingerprint(str(file)) == f"sha256:{hashlib.sha256(b'content').hexdigest()}"


def test_a_name_on_the_hub_is_its_name() -> None:
    assert fingerprint("org/model") == "hub:org/model"


def test_equal_folders_have_equal_fingerprints(tmp_path: Path) -> None:
    assert model(tmp_path / "a") == model(tmp_path / "b")


def test_weights_tokenizer_and_names_count(tmp_path: Path) -> None:
    changes = [{}, {"model.safetensors": "other"}, {"tokenizer.json": "{}"}, {"vocab.json": "{}"}, {"chat_template.jinja": "x"}]

    assert len({model(tmp_path / str(n), **files) for n, files in enumerate(changes)}) == len(changes)


def test_readme_and_optimiser_state_do_not_count(tmp_path: Path) -> None:
    assert model(tmp_path / "a") == model(tmp_path / "b", **{"README.md": "x", "optimizer.pt": "x"})


def test_a_large_file_is_its_size_its_ends_and_blocks_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE_BELOW", 100)
    monkeypatch.setattr(module, "_PIECE", 10)
    monkeypatch.setattr(module, "_BLOCKS", 3)  # of 200 bytes: those from 47, 95 and 142 on

    def of(content: bytes) -> str:
        (tmp_path / "large").write_bytes(content)
        return fingerprint(str(tmp_path / "large"))

    plain = of(b"a" * 200)
    assert of(b"b" + b"a" * 199) != plain
    assert of(b"a" * 199 + b"b") != plain
    assert of(b"a" * 201) != plain
    for covered in (47, 56, 95, 104, 142, 151):
        assert of(b"a" * covered + b"b" + b"a" * (199 - covered)) != plain
    for between in (46, 57, 94, 105, 141, 152):
        assert of(b"a" * between + b"b" + b"a" * (199 - between)) == plain  # the documented limit
