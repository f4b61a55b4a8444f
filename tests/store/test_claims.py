"""Claims: of several that want to make an artifact, one does."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from eva_hpc.cluster.owners import is_alive, this_process
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity

IDENTITY = Identity("pair", "abc")


def test_the_first_gets_the_claim_and_the_others_learn_whose_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)

    assert store.claim(IDENTITY, "slurm 1_0") is None
    assert store.claim(IDENTITY, "slurm 2_0") == "slurm 1_0"
    assert store.claim(IDENTITY, "slurm 1_0") is None, "a requeued job keeps its claim"


def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: store.claim(IDENTITY, f"slurm {number}"), range(16)))

    assert answers.count(None) == 1
    assert set(answers) - {None} == {f"slurm {answers.index(None)}"}


def test_a_dead_owners_claim_is_taken_over_by_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.claim(IDENTITY, "slurm 1")

    assert store.take_over(IDENTITY, "slurm 1", "slurm 2") is None
    assert store.take_over(IDENTITY, "slurm 1", "slurm 3") == "slurm 2", "the new claim is not the dead one"


def test_a_claim_that_is_given_back_is_the_next_ones_and_only_its_owner_can(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.claim(IDENTITY, "slurm 1")
    store.release(IDENTITY, "slurm 2")
    assert store.claim(IDENTITY, "slurm 2") == "slurm 1"
    store.release(IDENTITY, "slurm 1")
    assert store.claim(IDENTITY, "slurm 2") is None


def test_a_claim_is_no_part_of_the_artifact_and_goes_with_the_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.claim(IDENTITY, "slurm 1")
    (store.folder(IDENTITY) / "pairs.jsonl").write_text("{}\n")

    artifact = store.commit(IDENTITY, {})

    assert set(artifact.manifest["files"]) == {"pairs.jsonl"}
    assert not store.work(IDENTITY).exists()


def test_an_owner_is_alive_while_its_process_runs_here_and_in_doubt() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

    assert is_alive(this_process())
    assert not is_alive(f"process {child} (1) on {platform.node()}")
    assert not is_alive(f"process {os.getpid()} (1) on {platform.node()}"), "another process had this id before"
    assert is_alive(f"process {child} (1) on another-node")
    assert not is_alive("")
