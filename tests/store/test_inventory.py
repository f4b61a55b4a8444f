"""The inventory gives the answers of the store, from few looks at it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.store.artifacts import MANIFEST, Store
from eva_hpc.store.inventory import Inventory
from eva_hpc.store.keys import Identity

PLAIN = [Identity("pair", f"ab{number}") for number in range(4)]
SLICES = st.tuples(st.sampled_from(["cd3", "cd34"]), st.sampled_from([0.5, 1.0]), st.integers(1, 11))


class CountingStore(Store):
    """Counts how often folders are listed and manifests looked for."""

    def __init__(self, root):
        super().__init__(root)
        self.looks = Counter()

    def listing(self, stage):
        self.looks["listing"] += 1
        return super().listing(stage)

    def at(self, folder):
        self.looks["manifest"] += 1
        return super().at(folder)


@pytest.fixture
def store(tmp_path):
    return CountingStore(tmp_path / "store")


def slice_of(family, fraction, responses):
    return Identity("generate", family, (("fraction", fraction), ("responses", responses)))


def commit(store, identity):
    store.folder(identity).mkdir(parents=True)
    (store.folder(identity) / "data").write_bytes(b"0123")
    return store.commit(identity, {})


@given(there=st.sets(SLICES, max_size=6), cut=st.sets(SLICES, max_size=3), asked=st.lists(SLICES, min_size=1, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_it_finds_what_the_store_finds(tmp_path_factory, there, cut, asked):
    store = Store(tmp_path_factory.mktemp("store"))
    for one in there:
        commit(store, slice_of(*one))
    for one in there & cut:
        (store.folder(slice_of(*one)) / "data").write_bytes(b"")
    inventory = Inventory(store)
    for one in asked:
        found, expected = inventory.find(slice_of(*one)), store.find(slice_of(*one))
        assert (found and found.folder) == (expected and expected.folder)
        assert inventory.holds(slice_of(*one)) == (expected is not None)


def test_nothing_is_held_by_a_store_that_is_not_there_yet(store):
    assert not Inventory(store).holds(PLAIN[0])
    assert Inventory(store).find(slice_of("cd34", 1.0, 4)) is None


def test_each_stage_is_listed_once_and_each_manifest_read_once_however_often_it_is_asked(store):
    for identity in PLAIN[:2]:
        commit(store, identity)
    inventory = Inventory(store)
    for _ in range(5):
        assert [inventory.holds(identity) for identity in PLAIN] == [True, True, False, False]
    assert store.looks == {"listing": 1, "manifest": 2}


def test_after_a_refresh_only_new_folders_are_looked_into(store):
    inventory = Inventory(store)
    commit(store, PLAIN[0])
    assert inventory.holds(PLAIN[0])
    commit(store, PLAIN[1])
    assert not inventory.holds(PLAIN[1]), "what came since the last refresh is not seen"
    store.looks.clear()

    inventory.refresh()

    assert [inventory.holds(identity) for identity in PLAIN] == [True, True, False, False]
    assert store.looks == {"listing": 1, "manifest": 1}


def test_a_folder_without_a_manifest_is_asked_again_until_it_is_committed(store):
    store.work(PLAIN[0]).mkdir(parents=True)
    inventory = Inventory(store)
    assert not inventory.holds(PLAIN[0])
    (store.folder(PLAIN[0]) / "data").write_bytes(b"0123")
    store.commit(PLAIN[0], {})
    assert inventory.holds(PLAIN[0])


def test_an_artifact_that_was_set_aside_and_is_being_made_again_is_not_held(store):
    inventory = Inventory(store)
    artifact = commit(store, PLAIN[0])
    assert inventory.holds(PLAIN[0])

    store.set_aside(artifact)
    store.work(PLAIN[0]).mkdir(parents=True)
    inventory.refresh()

    assert not inventory.holds(PLAIN[0])


def test_a_manifest_of_another_artifact_is_not_taken(store):
    commit(store, PLAIN[0])
    commit(store, PLAIN[1])
    (store.folder(PLAIN[0]) / MANIFEST).write_bytes((store.folder(PLAIN[1]) / MANIFEST).read_bytes())
    assert not Inventory(store).holds(PLAIN[0])
