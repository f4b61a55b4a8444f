"""Slurm's controller is killed and comes back."""

from __future__ import annotations

import pytest

from eva_hpc.cluster.devcluster import Cluster, faults
from tests.cluster.chaos.disturb import Chaos

pytestmark = pytest.mark.slow


def test_the_controller_is_killed_while_a_job_runs_and_the_launcher_watches(chaos: Chaos, cluster: Cluster) -> None:
    # A step that is to start before the controller knows its nodes again would be told to ask later by Slurm itself.
    chaos.start(slow={"generate": 1.5})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 4)
    faults.stop_controller(cluster.directory, crash=True)
    chaos.until(lambda: len(chaos.chunks("generate")) >= 8)
    faults.start_controller(cluster.directory)
    chaos.finish()

    assert len(chaos.events("submitted")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_the_controller_is_away_when_a_stage_is_to_start(chaos: Chaos, cluster: Cluster) -> None:
    chaos.start(slow={"generate": 0.3})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 10)
    faults.stop_controller(cluster.directory, crash=True)
    # Slurm's clients try for a while by themselves before they give up.
    chaos.until(lambda: bool([event for event in chaos.events("started") if event["task"].startswith("train/")]))
    chaos.until(lambda: bool(chaos.events("retried")) or chaos.steps() > 0)
    faults.start_controller(cluster.directory)
    chaos.finish()

    assert len(chaos.events("submitted")) == 1
    assert {event["cause"] for event in chaos.events("retried")} <= {"launch_failure"}
    chaos.verify()


@pytest.mark.chaos
def test_the_controller_is_away_for_a_while_and_the_command_is_typed_meanwhile(chaos: Chaos, cluster: Cluster) -> None:
    chaos.start(slow={"generate": 1.5})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 4)
    chaos.kill_launcher()
    faults.stop_controller(cluster.directory, crash=True)
    chaos.again()
    chaos.until(lambda: "Slurm does not answer, asking again" in chaos.said())
    faults.start_controller(cluster.directory)
    chaos.finish()

    assert len(chaos.events("submitted")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_the_controller_forgets_a_job_that_it_took(chaos: Chaos, cluster: Cluster) -> None:
    chaos.start(slow={"generate": 1.5})
    chaos.until(lambda: bool(chaos.events("submitted")))
    faults.stop_controller(cluster.directory, crash=True)
    faults.start_controller(cluster.directory)
    chaos.finish()

    chaos.verify(chunks_again=100, steps_again=1000)
