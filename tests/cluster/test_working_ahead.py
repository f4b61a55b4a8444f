"""Sweeps whose rewards a server gives, while responses are still sampled: on this machine and on the throwaway cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.store.records import read_jsonl
from tests.benchmarks.judge_server import JudgeServer, Says, running_judge
from tests.cluster.sweeps import CHECKOUT, FAULTS, explain, site_file, sweep
from tests.cluster.test_self_help import ONE_PROCESS, ONE_RUN, events

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JudgeServer]:
    """Rates every answer, and leaves the file `asked` with the first."""
    with running_judge() as server:

        def rate(call: object) -> Says:
            (tmp_path / "asked").touch()
            return Says(f"<rating>{1 + len(server.calls) % 10}</rating>")

        server.rule = rate
        yield server


def rewarded(server: JudgeServer) -> list[str]:
    scorer = {"kind": "openai", "model": "judge-1", "base_url": server.url, "concurrency": 2}
    return ["--set", f"recipe.reward={orjson.dumps(scorer).decode()}"]


def check(root: Path, server: JudgeServer) -> None:
    """All was rated, and nothing twice; `score` came after `generate` nevertheless."""
    (rewards,) = root.glob("store/score/*/rewards.jsonl")
    assert len(read_jsonl(rewards)) == 16
    assert sum(len(record["rewards"]) for record in read_jsonl(rewards)) >= len(server.calls) > 0
    assert set(server.paid.values()) == {1}
    order = [(event["event"], event["task"].partition("/")[0]) for event in events(root, "started", "done")]
    assert order.index(("done", "generate")) < order.index(("started", "score"))
    assert not list(root.glob("store/score/*/work"))


def lingering(folder: Path) -> dict[str, str]:
    """Generation that cannot end before the server was asked something."""
    return {"stage": "generate", "kind": "lingers", "until": str(folder / "asked")}


def test_on_one_machine_a_server_rates_responses_before_the_last_are_sampled(tmp_path: Path, server: JudgeServer) -> None:
    fault = orjson.dumps(lingering(tmp_path)).decode()
    command = [sys.executable, "-m", "eva_hpc.sweep", *ONE_RUN, "--site", "laptop", "--set", f"site.root={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(FAULTS), "EVA_HPC_TEST_FAULT": fault}
    result = subprocess.run(
        [*command, *rewarded(server)],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, explain(result, tmp_path)
    check(tmp_path, server)


def test_so_it_is_in_a_job(devcluster: Cluster, tmp_path: Path, server: JudgeServer) -> None:
    site = site_file(tmp_path, fault=lingering(tmp_path), **ONE_PROCESS)
    result = sweep(*ONE_RUN, *rewarded(server), "--site", site, timeout=300)

    assert result.returncode == 0, explain(result, tmp_path)
    check(tmp_path, server)
