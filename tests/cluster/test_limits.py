"""A cluster with accounting and a limit on submitted jobs: the sweep goes through it in pieces, and is charged by sacct."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster.devcluster import Cluster
from tests.cluster.sweeps import explain, ledger, results_of, site_file, sweep
from tests.cluster.test_self_help import THREE_RUNS

pytestmark = pytest.mark.slow


@pytest.fixture
def at_most_two_jobs(accounting_cluster: Cluster) -> Iterator[None]:
    def limit(number: int) -> None:
        command = ["sacctmgr", "--immediate", "modify", "qos", "normal", "set", f"MaxSubmitJobsPerUser={number}"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    limit(2)
    yield
    limit(-1)


def test_what_exceeds_the_limit_is_submitted_when_there_is_room(at_most_two_jobs: None, tmp_path: Path) -> None:
    stages = {"train": {"gpus_per_rank": 1, "threads": 1}}
    site = site_file(tmp_path, slurm={"gpu_type": "a100", "mem_gb": 2}, stages=stages)
    result = sweep(*THREE_RUNS, "--no-canary", "--site", site, timeout=500)

    assert result.returncode == 0, explain(result, tmp_path)
    events = ledger(results_of(tmp_path))
    refused = [event for event in events if event["event"] == "refused"]
    assert refused
    assert all("QOSMaxSubmitJobPerUserLimit" in event["reason"] for event in refused)
    done = [event["task"] for event in events if event["event"] == "done"]
    assert len(done) == len(set(done))

    attempts = [event for event in events if event["event"] == "attempt"]
    assert {event["source"] for event in attempts} == {"sacct"}
    assert {event["state"] for event in attempts} == {"COMPLETED"}
    spent = sum(event["gpu_seconds"] for event in attempts)
    assert spent > 0
    cost = orjson.loads((results_of(tmp_path) / "cost.json").read_bytes())
    assert cost["unit"] == "GPU hours"
    assert cost["actual"]["total"] == pytest.approx(spent / 3600, rel=0.01)
