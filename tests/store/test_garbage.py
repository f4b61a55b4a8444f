"""Garbage is what no recorded plan needs, and never anything else."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.plan.plan import make_plan
from eva_hpc.store.artifacts import CLAIM, Store
from eva_hpc.store.garbage import LOCK, UnreadablePlans, garbage, needed, plans_held, remove
from eva_hpc.store.keys import Identity
from tests.recipes import LAB

PLAIN = st.builds(Identity, st.sampled_from(["pair", "train"]), st.sampled_from(["aa", "bb", "cc", "dd"]))
NESTED = st.builds(
    lambda stage, family, fraction, responses: Identity(stage, family, (("fraction", fraction), ("responses", responses))),
    st.sampled_from(["generate", "score"]),
    st.sampled_from(["aa", "bb"]),
    st.sampled_from([0.2, 0.8, 1.0]),
    st.integers(2, 4),
)
IDENTITIES = st.sets(PLAIN | NESTED, min_size=1, max_size=6)
STATES = st.dictionaries(
    PLAIN | NESTED, st.sampled_from(["committed", "damaged", "unfinished", "claimed", "left"]), max_size=14
)


def is_alive(owner):
    return owner == "alive"


def commit(store, identity, text="content"):
    store.work(identity).mkdir(parents=True, exist_ok=True)
    (store.folder(identity) / "data.txt").write_text(text)
    store.commit(identity, {"inputs": {}})


def put(store, identity, state):
    """Bring an artifact into a state."""
    if state in ("committed", "damaged"):
        commit(store, identity)
        if state == "damaged":
            (store.folder(identity) / "data.txt").write_text("cut")
        return
    store.work(identity).mkdir(parents=True, exist_ok=True)
    (store.work(identity) / "chunk").write_text("some")
    if state != "unfinished":
        (store.work(identity) / CLAIM).write_text("alive" if state == "claimed" else "dead")


def record(root, name, identities):
    """Record a plan that has these tasks."""
    folder = root / name / "plans"
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [{"identity": {"stage": one.stage, "family": one.family, "nested": one.nested}} for one in identities]
    (folder / f"{len(list(folder.iterdir()))}.json").write_bytes(orjson.dumps({"name": name, "tasks": tasks}))


def look(root):
    return garbage(root, needed(root), is_alive)


def clean(root):
    return remove(root, look(root), is_alive)


@given(st.lists(IDENTITIES, min_size=1, max_size=3), STATES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_plan_needs_is_found_afterwards_as_before(plans, states):
    with tempfile.TemporaryDirectory() as folder:
        root, store = Path(folder), Store(Path(folder) / "store")
        for number, identities in enumerate(plans):
            record(root, f"sweep-{number % 2}", identities)
        for identity, state in states.items():
            put(store, identity, state)
        wanted = set().union(*plans)
        before = {identity: store.find(identity) for identity in wanted}

        gone, problems = clean(root)

        assert problems == []
        for identity, artifact in before.items():
            after = store.find(identity)
            assert (artifact and artifact.folder) == (after and after.folder)
            if identity in states:
                assert store.folder(identity).is_dir(), "unfinished work of a recorded plan stays, too"
        for identity, state in states.items():
            if state == "claimed":
                assert (store.work(identity) / CLAIM).exists()
        providers = {artifact.folder for artifact in before.values() if artifact}
        expected = {
            store.folder(identity)
            for identity, state in states.items()
            if identity not in wanted and state != "claimed" and store.folder(identity) not in providers
        }
        assert {one.path for one in gone} == expected
        assert not any(path.exists() for path in expected)
        assert look(root) == []


def test_a_real_plan_keeps_all_its_tasks(tmp_path):
    points = [({"responses_per_prompt": k}, Recipe.model_validate(LAB | {"responses_per_prompt": k})) for k in (2, 6)]
    sweep = Sweep(name="test", recipe="recipe.yaml", axes={"responses_per_prompt": [2, 6]}, seeds=(1,))
    plan = make_plan(Experiment(sweep=sweep, recipe=Recipe.model_validate(LAB), points=tuple(points)))
    store = Store(tmp_path / "store")
    for task in plan.tasks:
        commit(store, task.identity)
    (tmp_path / "test" / "plans").mkdir(parents=True)
    (tmp_path / "test" / "plans" / "one.json").write_text(plan.model_dump_json())

    assert {task.identity for task in plan.tasks} <= needed(tmp_path).artifacts
    assert look(tmp_path) == []
    shutil.rmtree(tmp_path / "test")
    assert len(look(tmp_path)) == len(plan.tasks)


def test_a_larger_artifact_that_stands_in_for_one_of_a_plan_stays_and_a_second_one_goes(tmp_path):
    store = Store(tmp_path / "store")
    sizes = {k: Identity("generate", "aa", (("fraction", 1.0), ("responses", k))) for k in (2, 6, 10)}
    record(tmp_path, "sweep", [sizes[2]])
    commit(store, sizes[6])
    commit(store, sizes[10])

    gone, _ = clean(tmp_path)

    assert [one.path for one in gone] == [store.folder(sizes[10])]
    assert store.find(sizes[2]).folder == store.folder(sizes[6])


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"{}", b'{"stage": 1, "family": 2, "nested": 3}', b"\xff"])
def test_a_plan_that_cannot_be_read_stops_everything(tmp_path, content):
    store = Store(tmp_path / "store")
    record(tmp_path, "sweep", [Identity("pair", "aa")])
    commit(store, Identity("pair", "bb"))
    found = look(tmp_path)
    assert len(found) == 1
    (tmp_path / "sweep" / "plans" / "other.json").write_bytes(content)

    with pytest.raises(UnreadablePlans, match=r"other\.json"):
        look(tmp_path)
    with pytest.raises(UnreadablePlans):
        remove(tmp_path, found, is_alive)
    assert store.find(Identity("pair", "bb")) is not None


def test_a_sweep_without_a_recorded_plan_stops_everything(tmp_path):
    commit(Store(tmp_path / "store"), Identity("pair", "bb"))
    (tmp_path / "sweep").mkdir()
    assert len(look(tmp_path)) == 1
    (tmp_path / "sweep" / "experiment.json").write_text("{}")

    with pytest.raises(UnreadablePlans, match="has no recorded plan"):
        look(tmp_path)


def test_what_became_needed_after_it_was_shown_stays(tmp_path):
    store = Store(tmp_path / "store")
    record(tmp_path, "sweep", [Identity("pair", "aa")])
    for family in ("bb", "cc"):
        commit(store, Identity("pair", family))
    shown = look(tmp_path)
    record(tmp_path, "another", [Identity("pair", "bb")])

    gone, _ = remove(tmp_path, shown, is_alive)

    assert [one.path.name for one in gone] == ["cc"]
    assert store.find(Identity("pair", "bb")) is not None


def test_what_became_garbage_after_it_was_shown_stays(tmp_path):
    store = Store(tmp_path / "store")
    record(tmp_path, "sweep", [Identity("pair", "aa")])
    commit(store, Identity("pair", "bb"))
    shown = look(tmp_path)
    commit(store, Identity("pair", "new"))

    remove(tmp_path, shown, is_alive)

    assert store.find(Identity("pair", "new")) is not None


def test_corrupt_artifacts_and_what_an_earlier_removal_left_go(tmp_path):
    store = Store(tmp_path / "store")
    identity = Identity("pair", "aa")
    record(tmp_path, "sweep", [identity])
    commit(store, identity)
    store.set_aside(store.find(identity))
    commit(store, identity)
    (tmp_path / "store" / "pair" / "trash-1234").mkdir()

    assert [(one.path.name, one.why) for one in look(tmp_path)] == [
        ("corrupt-1-aa", "corrupt"),
        ("trash-1234", "removed before"),
    ]
    clean(tmp_path)
    assert [path.name for path in (tmp_path / "store" / "pair").iterdir()] == ["aa"]


def test_caches_stay_while_there_is_work_to_do(tmp_path):
    store = Store(tmp_path / "store")
    record(tmp_path, "sweep", [Identity("train", "aa"), Identity("generate", "bb", (("responses", 2),))])
    store.cache("reference", "one.safetensors").write_bytes(bytes(100))
    commit(store, Identity("train", "aa"))
    assert look(tmp_path) == []
    commit(store, Identity("generate", "bb", (("responses", 3),)))

    (found,) = look(tmp_path)
    assert (found.path.name, found.why, found.bytes) == ("one.safetensors", "cache", 100)
    clean(tmp_path)
    assert look(tmp_path) == []


def test_snapshots_stay_while_a_ledger_names_them_or_they_are_young(tmp_path):
    record(tmp_path, "sweep", [Identity("pair", "aa")])
    (tmp_path / "store").mkdir()
    for name in ("named", "old", "young"):
        (tmp_path / "code" / name / "eva_hpc").mkdir(parents=True)
        (tmp_path / "code" / name / "eva_hpc" / "__init__.py").write_text("pass\n")
        if name != "young":
            os.utime(tmp_path / "code" / name, (0, 0))
    (tmp_path / "sweep" / "ledger").mkdir()
    events = [{"event": "launched", "snapshot": "named"}, {"event": "launched", "snapshot": None}]
    lines = b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events)
    (tmp_path / "sweep" / "ledger" / "launcher.jsonl").write_bytes(lines + b'{"event":"launched","snap')

    assert [(one.path.name, one.why, one.bytes) for one in look(tmp_path)] == [("old", "code", 5)]
    clean(tmp_path)
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == ["named", "young"]


def test_plans_are_recorded_together_and_removal_is_alone(tmp_path):
    store = Store(tmp_path / "store")
    with plans_held(store), (store.root / LOCK).open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with plans_held(store, alone=True), (store.root / LOCK).open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_what_cannot_be_removed_is_reported_and_stays(tmp_path, monkeypatch):
    record(tmp_path, "sweep", [Identity("pair", "aa")])
    store = Store(tmp_path / "store")
    for family in ("bb", "cc"):
        commit(store, Identity("pair", family))
    rename = Path.rename

    def refused(self, target):
        if self.name == "bb":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    gone, problems = clean(tmp_path)

    assert [one.path.name for one in gone] == ["cc"]
    assert problems == [f"{store.folder(Identity('pair', 'bb'))}: Permission denied"]
