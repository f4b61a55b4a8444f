"""An artifact is done if and only if its manifest is there and its files are what the manifest says."""

from __future__ import annotations

import orjson
import pytest

from eva_hpc.store.artifacts import MANIFEST, CorruptArtifact, Store, write_atomically
from eva_hpc.store.keys import Identity

PLAIN = Identity("pair", "ab12")


def nested(fraction: float, responses: int) -> Identity:
    return Identity("generate", "cd34", (("fraction", fraction), ("responses", responses)))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def commit(store, identity, files=None, **description):
    for name, content in (files or {"data.jsonl": b'{"a": 1}\n'}).items():
        path = store.folder(identity) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return store.commit(identity, description)


def test_what_was_committed_is_found_and_verifies(store):
    commit(store, PLAIN, {"data.jsonl": b"x", "model/weights.bin": b"\0" * 3_000_000}, seconds=1.5)
    artifact = store.find(PLAIN)
    artifact.verify()
    assert set(artifact.manifest["files"]) == {"data.jsonl", "model/weights.bin"}
    assert artifact.manifest["seconds"] == 1.5
    assert artifact.manifest["key"] == PLAIN.key


def test_the_returned_artifact_is_the_one_found_later(store):
    made = commit(store, PLAIN)
    found = store.find(PLAIN)
    assert (made.folder, dict(made.manifest)) == (found.folder, dict(found.manifest))


def test_nothing_is_found_in_an_empty_store(store):
    assert store.find(PLAIN) is None
    assert store.find(nested(1.0, 4)) is None


def test_data_without_a_manifest_is_not_done(store):
    """So a stage that is killed before the rename, which is the last thing that commit does, runs again."""
    folder = store.folder(PLAIN)
    folder.mkdir(parents=True)
    (folder / "data.jsonl").write_bytes(b"x")
    (folder / f"{MANIFEST}.123.partial").write_bytes(b'{"files": {}}')
    assert store.find(PLAIN) is None


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b'{"identity": ', b"[]", b"{}", b'{"identity": 3, "files": {}}'])
def test_an_unreadable_manifest_is_not_done(store, content):
    commit(store, PLAIN)
    (store.folder(PLAIN) / MANIFEST).write_bytes(content)
    assert store.find(PLAIN) is None


def test_a_cut_file_is_not_done(store):
    commit(store, PLAIN, {"data.jsonl": b"0123456789"})
    (store.folder(PLAIN) / "data.jsonl").write_bytes(b"01234")
    assert store.find(PLAIN) is None


def test_a_missing_file_is_not_done(store):
    artifact = commit(store, PLAIN, {"a": b"1", "b": b"2"})
    (store.folder(PLAIN) / "b").unlink()
    assert store.find(PLAIN) is None
    with pytest.raises(CorruptArtifact, match="b is missing"):
        artifact.verify()


def test_a_flipped_byte_is_found_by_verify_and_named(store):
    commit(store, PLAIN, {"a": b"good", "model/b": b"0123456789"})
    (store.folder(PLAIN) / "model/b").write_bytes(b"0123x56789")
    with pytest.raises(CorruptArtifact, match="model/b is not the file"):
        store.find(PLAIN).verify()


def test_a_manifest_of_another_identity_is_not_taken(store):
    commit(store, PLAIN)
    manifest = store.folder(PLAIN) / MANIFEST
    wrong = orjson.loads(manifest.read_bytes())
    wrong["identity"]["family"] = "ab13"
    manifest.write_bytes(orjson.dumps(wrong))
    assert store.find(PLAIN) is None


def test_work_and_partial_files_never_become_part_of_an_artifact(store):
    files = {"data": b"1", "work/chunk": b"2", "work/deep/log": b"3", "late.partial": b"4", "model/late.partial": b"5"}
    artifact = commit(store, PLAIN, files | {"model/work/kept": b"6"})
    assert set(artifact.manifest["files"]) == {"data", "model/work/kept"}
    assert not store.work(PLAIN).exists()


def test_committing_again_describes_the_files_as_they_are_now(store):
    commit(store, PLAIN, {"a": b"1"})
    commit(store, PLAIN, {"a": b"22", "b": b"3"})
    assert set(store.find(PLAIN).manifest["files"]) == {"a", "b"}
    store.find(PLAIN).verify()


def test_a_corrupt_artifact_is_kept_aside_under_a_name_of_its_own_each_time(store):
    kept = []
    for content in (b"first", b"second"):
        artifact = commit(store, PLAIN, {"data": content})
        kept.append(store.set_aside(artifact))
        assert store.find(PLAIN) is None
    assert [(folder / "data").read_bytes() for folder in kept] == [b"first", b"second"]


def test_a_nested_artifact_that_was_set_aside_is_not_found_for_a_smaller_slice(store):
    store.set_aside(commit(store, nested(1.0, 10)))
    assert store.find(nested(1.0, 10)) is None
    assert store.find(nested(0.5, 2)) is None


def test_the_smallest_nested_artifact_that_contains_the_slice_is_found(store):
    for values in ((1.0, 10), (1.0, 6), (1.0, 8), (0.5, 6)):
        commit(store, nested(*values))
    assert store.find(nested(1.0, 6)).folder == store.folder(nested(1.0, 6))
    assert store.find(nested(1.0, 7)).folder == store.folder(nested(1.0, 8))
    assert store.find(nested(0.8, 2)).folder == store.folder(nested(1.0, 6))
    assert store.find(nested(0.5, 2)).folder == store.folder(nested(0.5, 6))
    assert store.find(nested(1.0, 12)) is None


def test_ten_responses_are_more_than_nine(store):
    """Folder names sort as text; sizes must not."""
    for responses in (10, 9):
        commit(store, nested(1.0, responses))
    assert store.find(nested(1.0, 8)).folder.name.endswith("responses=9")


def test_a_cut_nested_artifact_is_passed_over_for_a_larger_one(store):
    for responses in (4, 6):
        commit(store, nested(1.0, responses), {"data": b"0123"})
    (store.folder(nested(1.0, 4)) / "data").write_bytes(b"")
    assert store.find(nested(1.0, 4)).folder.name.endswith("responses=6")


def test_another_family_is_never_found(store):
    commit(store, Identity("generate", "cd345", (("fraction", 1.0), ("responses", 10))))
    commit(store, Identity("score", "cd34", (("fraction", 1.0), ("responses", 10))))
    assert store.find(nested(1.0, 2)) is None


def test_an_atomic_write_replaces_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_cache_gives_the_same_file_for_the_same_name(store):
    store.cache("reference", "k").write_bytes(b"1")
    assert store.cache("reference", "k").read_bytes() == b"1"
    assert store.cache("other", "k") != store.cache("reference", "k")
