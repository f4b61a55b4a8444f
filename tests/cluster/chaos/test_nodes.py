"""Nodes that die."""

from __future__ import annotations

import subprocess

import pytest

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import Cluster, faults
from tests.cluster.chaos.disturb import TWO_NODES, Chaos

pytestmark = pytest.mark.slow


def drain(nodes: list[str], state: str = "drain") -> None:
    command = ["scontrol", "update", f"nodename={','.join(nodes)}", f"state={state}", "reason=chaos"]
    subprocess.run(command, check=True, capture_output=True)


def test_the_node_of_a_partner_dies_while_two_nodes_train(chaos: Chaos, cluster: Cluster) -> None:
    chaos.start(slow={"train": 0.3}, stages=TWO_NODES)
    chaos.until(lambda: chaos.checkpoint() > 0 and chaos.steps() >= chaos.checkpoint() + 5)
    _, second = queue.hostnames(chaos.events("begun")[-1]["nodes"])
    faults.kill_node(cluster.directory, second)
    chaos.finish()

    (restarted,) = chaos.events("restarted")
    assert (restarted["cause"], restarted["nodes"]) == ("node_failure", [second])
    assert second not in queue.hostnames(chaos.events("begun")[-1]["nodes"])
    assert len(chaos.events("submitted")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_the_node_of_the_driver_dies_while_its_job_generates(chaos: Chaos, cluster: Cluster) -> None:
    chaos.start(slow={"generate": 0.4})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    faults.kill_node(cluster.directory, chaos.events("begun")[-1]["nodes"])
    chaos.finish()

    assert [event["cause"] for event in chaos.events("restarted")] == ["node_failure"]
    assert len(chaos.events("submitted")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_a_node_that_dies_twice_is_left(chaos: Chaos, cluster: Cluster) -> None:
    bad, *others = cluster.nodes
    drain(others)
    chaos.start(slow={"generate": 0.5, "train": 0.3}, slurm={"exclude": others[0]})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    faults.kill_node(cluster.directory, bad)
    chaos.until(lambda: "down" in faults_of(cluster, bad))
    faults.start_node(cluster.directory, bad)
    chaos.until(lambda: chaos.checkpoint() > 0)
    faults.kill_node(cluster.directory, bad)
    chaos.until(lambda: "down" in faults_of(cluster, bad))
    faults.start_node(cluster.directory, bad)
    chaos.until(lambda: bool([event for event in chaos.events("decision") if event["decision"] == "exclude"]))
    drain(others, "resume")
    chaos.finish()

    (decision,) = chaos.events("decision")
    assert decision["change"] == {"exclude": [bad]}
    (job,) = chaos.jobs()
    assert set(queue.hostnames(queue.show_job(job)["ExcNodeList"])) == {bad, others[0]}
    assert chaos.events("begun")[-1]["nodes"] in others[1:]
    chaos.verify()


def faults_of(cluster: Cluster, node: str) -> str:
    """Slurm's word for the state of a node."""
    from eva_hpc.cluster.devcluster import status

    return status(cluster.directory).nodes.get(node, "")
