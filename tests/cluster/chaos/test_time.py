"""Jobs that run into their time limit, and jobs that make way for others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import Cluster
from tests.cluster.chaos.disturb import Chaos
from tests.cluster.sweeps import explain, ledger, results_of, site_file, sweep
from tests.cluster.test_self_help import ONE_RUN

pytestmark = pytest.mark.slow

SHORT = {"time_minutes": 2, "signal_delay_s": 45}
"""Slurm looks at the clock twice a minute: the signal comes 45 to 75 s after the start of a job."""
URGENT = ["sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap", "sleep 3"]


def start_with_little_time(chaos: Chaos, stage: str, seconds: float) -> None:
    """Let a sweep get to a stage, end it there, and type the command again with a site of another time limit."""
    chaos.start(slow={stage: seconds})
    chaos.until(lambda: bool(chaos.ranks(stage)))
    chaos.kill_launcher()
    chaos.end_jobs()
    chaos.write_site(slow={stage: seconds}, slurm=SHORT)
    chaos.again()


@pytest.mark.chaos
def test_the_time_limit_is_hit_again_and_again_while_it_generates(chaos: Chaos) -> None:
    start_with_little_time(chaos, "generate", 20)
    chaos.finish()

    requeued = [event for event in chaos.events("requeued") if event["task"].startswith("generate/")]
    assert len(requeued) >= 2
    assert {event["cause"] for event in requeued} == {"timeout"}
    assert len(chaos.events("submitted")) == 2
    chaos.verify()


@pytest.mark.chaos
def test_the_time_limit_is_hit_again_and_again_while_it_trains(chaos: Chaos) -> None:
    start_with_little_time(chaos, "train", 3)
    chaos.finish()

    requeued = [event for event in chaos.events("requeued") if event["task"].startswith("train/")]
    assert len(requeued) >= 2
    assert {event["cause"] for event in requeued} == {"timeout"}
    assert len(chaos.events("submitted")) == 2
    chaos.verify(steps_again=0)


@pytest.mark.chaos
def test_a_stage_that_saves_nothing_within_its_time_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    stuck = {"stage": "questions", "kind": "stuck"}
    site = site_file(tmp_path, fault=stuck, slurm={"time_minutes": 1, "signal_delay_s": 45, "mem_gb": 2}, stages={})
    result = sweep(*ONE_RUN, "--site", site, timeout=600)

    assert result.returncode == 1, explain(result, tmp_path)
    events = ledger(results_of(tmp_path))
    assert [event["cause"] for event in events if event["event"] == "requeued"] == ["timeout"]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert (failed["cause"], failed["reason"]) == ("timeout", "2 attempts in a row saved nothing new in 1 min")


@pytest.mark.chaos
def test_the_job_makes_way_for_one_of_higher_priority_and_goes_on_after_it(chaos: Chaos) -> None:
    chaos.start(slow={"train": 0.4})
    chaos.until(lambda: chaos.steps() >= 10)
    subprocess.run(URGENT, check=True, capture_output=True, text=True)
    chaos.finish()

    assert {event["cause"] for event in chaos.events("requeued", "restarted")} == {"preempted"}
    assert len(chaos.events("begun")) == 2
    assert len(chaos.events("submitted")) == 1
    chaos.verify(steps_again=0)


@pytest.mark.chaos
def test_the_job_makes_way_while_it_generates(chaos: Chaos) -> None:
    chaos.start(slow={"generate": 0.5})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 4)
    job = subprocess.run(URGENT, check=True, capture_output=True, text=True).stdout.strip()
    chaos.until(lambda: job not in queue.squeue([job]))
    chaos.finish()

    assert len(chaos.events("submitted")) == 1
    chaos.verify()
