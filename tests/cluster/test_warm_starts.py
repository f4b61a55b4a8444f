"""Jobs on the throwaway cluster whose stages are forked from one host per node; what becomes of them when hosts are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.devcluster.faults import processes_of
from eva_hpc.cluster.devcluster.processes import wait_until
from eva_hpc.cluster.ledger import Ledger
from tests.cluster.sweeps import CHECKOUT, explain, results_of, site_file, sweep
from tests.cluster.test_self_help import ONE_PROCESS, ONE_RUN, events
from tests.cluster.test_signals import until

pytestmark = pytest.mark.slow

TWO_NODES = {"train": {"nodes": 2, "ranks_per_node": 1, "threads": 1}, "generate": {"ranks_per_node": 2, "threads": 1}}


def told(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What ranks said of themselves, by stage."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in folder.glob("*.json"):
        found.setdefault(path.name.partition("-")[0], []).append(orjson.loads(path.read_bytes()))
    return found


def tells(folder: Path) -> Mapping[str, Any]:
    folder.mkdir()
    return {"stage": "*", "kind": "tells", "rank": "all", "folder": str(folder)}


def test_ranks_of_all_stages_are_children_of_one_process_on_each_node(devcluster: Cluster, tmp_path: Path) -> None:
    site = site_file(tmp_path, fault=tells(tmp_path / "told"), stages=TWO_NODES)
    result = sweep(*ONE_RUN, "--site", site, timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    stages = told(tmp_path / "told")
    hosts = {rank["node"]: rank["parent"] for rank in stages["train"]}
    assert len(hosts) == 2, "train ran on two nodes"
    assert {rank["parent"] for rank in stages["generate"]} == {hosts[min(hosts)]}
    assert {rank["node"] for rank in stages["generate"]} == {min(hosts)}, "the first node has rank 0"
    assert [len({rank["local_rank"] for rank in stages[stage]}) for stage in ("train", "generate")] == [1, 2]
    for stage in ("score", "pair", "judge"):  # one process each, after the host was up
        assert {rank["parent"] for rank in stages[stage]} == {hosts[min(hosts)]}
    assert not events(tmp_path, "cold_start")


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_stages_that_follow_each_other_with_the_same_policy_share_one_start_of_its_engine(
    devcluster: Cluster, tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(engine)
    site = site_file(tmp_path, fault=tells(tmp_path / "told"), stages={"answer": {"ranks_per_node": 2, "threads": 1}})
    two = ["--set", "recipe.benchmarks={first: {kind: lab, prompts: 4}, second: {kind: lab, prompts: 6}}"]
    result = sweep(*ONE_RUN, *two, "--set", f"recipe.generation.engine={engine}", "--site", site, timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    answers = told(tmp_path / "told")["answer"]
    assert len(answers) == 8, "of two policies, the start's too, two ranks at two benchmarks"
    assert Counter(Counter(rank["pid"] for rank in answers).values()) == {2: 4}
    assert {rank["local_rank"] for rank in answers} == {0, 1}
    for log in tmp_path.glob("*/logs/*/answer-*.log"):
        assert "Traceback" not in log.read_text()


def test_a_site_that_wants_no_warm_starts_gets_none(devcluster: Cluster, tmp_path: Path) -> None:
    site = site_file(tmp_path, fault=tells(tmp_path / "told"), slurm={"warm_start": False}, **ONE_PROCESS)
    result = sweep(*ONE_RUN, "--site", site, timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    ranks = [rank for stage in ("train", "generate", "answer") for rank in told(tmp_path / "told")[stage]]
    assert len({rank["parent"] for rank in ranks}) == len(ranks) > 2
    assert not events(tmp_path, "cold_start")


def test_where_hosts_do_not_come_up_stages_start_without_and_the_ledger_says_so(devcluster: Cluster, tmp_path: Path) -> None:
    site = site_file(tmp_path, fault={"stage": "no hosts"}, **ONE_PROCESS)
    result = sweep(*ONE_RUN, "--site", site, timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    (cold,) = events(tmp_path, "cold_start")
    assert "the hosts are out of order" in cold["reason"]
    assert not events(tmp_path, "retried")


def test_a_host_that_is_killed_is_the_failure_of_its_stage_and_the_next_attempt_has_a_new_one(
    devcluster: Cluster, tmp_path: Path
) -> None:
    fault = {"stage": "train", "kind": "host_killed", "once": str(tmp_path / "happened")}
    result = sweep(*ONE_RUN, "--site", site_file(tmp_path, fault=fault, stages=TWO_NODES), timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    (retried,) = events(tmp_path, "retried")
    assert retried["cause"] == "killed"
    assert "Killed" in retried["evidence"]
    assert len(events(tmp_path, "begun")) == 1
    (log,) = (results_of(tmp_path) / "slurm").glob("*/*_log.err")
    assert log.read_text().count("is ready") == 4, "two nodes, twice"
    assert not events(tmp_path, "cold_start")


def test_ranks_without_a_sign_of_life_are_ended_and_forked_again_from_the_same_host(
    devcluster: Cluster, tmp_path: Path
) -> None:
    fault = {"stage": "generate", "kind": "hung", "once": str(tmp_path / "happened")}
    site = site_file(tmp_path, fault=fault, engine={"hang_minutes": 0.05}, slurm={"signal_delay_s": 16}, stages=TWO_NODES)
    result = sweep(*ONE_RUN, "--site", site, "--set", "recipe.rounds=1", timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    assert [event["cause"] for event in events(tmp_path, "retried")] == ["hung"]
    (log,) = (results_of(tmp_path) / "slurm").glob("*/*_log.err")
    assert log.read_text().count("is ready") == 2


def test_when_the_srun_of_hosts_is_killed_their_ranks_do_not_outlive_the_attempt(devcluster: Cluster, tmp_path: Path) -> None:
    fault = {"stage": "generate", "kind": "hung", "once": str(tmp_path / "happened")}
    command = ["-m", "eva_hpc.sweep", *ONE_RUN, "--site", site_file(tmp_path, fault=fault, **ONE_PROCESS)]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until((tmp_path / "happened").exists, process, tmp_path)
    (job,) = Ledger(results_of(tmp_path)).jobs()
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes_of(devcluster.directory, job=job)}
    (rank,) = [pid for pid, name in names.items() if name == "generate:0"]
    hosts = processes_of(devcluster.directory, job=job, text="eva_hpc.cluster.host")
    for pid in hosts:
        if names[pid] == "srun":
            os.kill(pid, signal.SIGKILL)
    until(lambda: bool(events(tmp_path, "retried")), process, tmp_path)
    assert wait_until(lambda: not Path(f"/proc/{rank}").exists(), 20)
    output, _ = process.communicate(timeout=400)

    assert process.returncode == 0, explain(subprocess.CompletedProcess([], 1, output, ""), tmp_path)
    assert [event["cause"] for event in events(tmp_path, "retried")] == ["killed"]
    assert len(events(tmp_path, "begun")) == 1
