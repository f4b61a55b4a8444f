"""A cluster that kills what exceeds its memory: the job goes back into the queue and asks for more."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_hpc.cluster.devcluster import down, up
from tests.cluster.sweeps import explain, ledger, results_of, site_file, sweep
from tests.cluster.test_self_help import ONE_RUN

pytestmark = pytest.mark.slow


@pytest.fixture
def strict_about_memory(slurm_installed: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    directory = Path(tempfile.mkdtemp(prefix="devcluster-", dir="/tmp"))
    options = {"JobAcctGatherParams": "OverMemoryKill", "JobAcctGatherFrequency": "task=1"}
    for name, value in up(directory, options=options).environment().items():
        monkeypatch.setenv(name, value)
    yield
    down(directory)
    shutil.rmtree(directory)


def test_a_stage_that_needs_more_memory_gets_twice_as_much(strict_about_memory: None, tmp_path: Path) -> None:
    fault = {"stage": "train", "kind": "hungry", "mb": 1500}
    result = sweep(*ONE_RUN, "--site", site_file(tmp_path, fault=fault, slurm={"mem_gb": 1.5}, stages={}), timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    events = ledger(results_of(tmp_path))
    (retried,) = [event for event in events if event["event"] == "retried"]
    assert (retried["cause"], retried["change"]) == ("host_oom", {"mem_mb": [1536, 3072]})
    assert "exceeded memory limit" in retried["evidence"]
    (restarted,) = [event for event in events if event["event"] == "restarted"]
    assert restarted["cause"] == "host_oom"
    assert sum(event["event"] == "submitted" for event in events) == 1
