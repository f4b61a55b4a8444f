from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.devcluster.processes import wait_until
from eva_hpc.cluster.queue import Attempt, ControllerAway, QueueEntry, QueueError

SQUEUE = """\
12_0|RUNNING|2026-11-23T13:05:56|k:runs-1:5f0c|None
12_[1,3-4%2]|PENDING|N/A|k:runs-1:5f0c|JobArrayTaskLimit
13|PENDING|2026-11-24T01:00:00|a|b|Nodes required for job are DOWN, DRAINED or reserved
14|TIMEOUT|2026-11-23T12:00:00|wrap|TimeLimit
"""

SACCT = """\
1|PREEMPTED|0:0|0:0|None|2026-11-23T11:30:48|2026-11-23T11:30:59|11|billing=8,cpu=8,gres/gpu=4,mem=4G,node=2|node[1-2]|k:runs-1:5f0c
1|TIMEOUT|0:0|0:15|None|2026-11-23T11:33:08|2026-11-23T11:34:22|74|billing=8,cpu=8,gres/gpu=4,mem=4G,node=2|node[1-2]|k:runs-1:5f0c
2_0|CANCELLED by 1000|0:0|0:0|None|2026-11-23T11:40:00|2026-11-23T11:40:05|5|cpu=1,mem=1G,node=1|node3|k:runs-1:5f0c
2_[1-2,7%2]|PENDING|0:0|0:0|Resources|Unknown|Unknown|0||None assigned|k:runs-1:5f0c
3|FAILED|7:0|3:0||None|2026-11-23T11:41:00|0||None assigned|k:runs-1:5f0c
"""


def test_squeue_lines_become_entries_by_job_id() -> None:
    entries = queue.parse_squeue(SQUEUE)
    assert entries["12_0"] == QueueEntry("RUNNING", "None", datetime(2026, 11, 23, 13, 5, 56), "k:runs-1:5f0c")
    waiting = QueueEntry("PENDING", "JobArrayTaskLimit", None, "k:runs-1:5f0c")
    assert [entries[job_id] for job_id in ("12_1", "12_3", "12_4")] == [waiting] * 3
    assert entries["13"].reason == "Nodes required for job are DOWN, DRAINED or reserved"


def test_only_jobs_that_may_still_run_are_active() -> None:
    active = {job_id for job_id, entry in queue.parse_squeue(SQUEUE).items() if entry.active}
    assert active == {"12_0", "12_1", "12_3", "12_4", "13"}
    assert QueueEntry("A_STATE_OF_A_LATER_SLURM", "None", None).active


def test_every_attempt_of_a_job_is_kept_in_order() -> None:
    attempts = queue.parse_sacct(SACCT)
    assert [attempt.state for attempt in attempts["1"]] == ["PREEMPTED", "TIMEOUT"]
    assert attempts["1"][1].derived_exit == (0, 15)
    assert sum(attempt.gpu_hours for attempt in attempts["1"]) == pytest.approx(4 * (11 + 74) / 3600)


def test_who_cancelled_a_job_is_no_part_of_its_state() -> None:
    assert queue.parse_sacct(SACCT)["2_0"][0].state == "CANCELLED"


def test_tasks_that_share_a_line_of_sacct_each_get_it() -> None:
    attempts = queue.parse_sacct(SACCT)
    never = Attempt("PENDING", (0, 0), (0, 0), "Resources", None, None, 0, {}, "None assigned", "k:runs-1:5f0c")
    assert [attempts[job_id] for job_id in ("2_1", "2_2", "2_7")] == [[never]] * 3


def test_a_failed_job_shows_its_own_code_and_that_of_its_steps() -> None:
    (attempt,) = queue.parse_sacct(SACCT)["3"]
    assert (attempt.exit, attempt.derived_exit) == ((7, 0), (3, 0))


@given(st.integers(1, 10**8), st.lists(st.integers(0, 10**6), min_size=1, unique=True))
def test_listed_indices_expand_to_one_id_each(job: int, indices: list[int]) -> None:
    assert queue.expand_array(f"{job}_[{','.join(map(str, indices))}%3]") == [f"{job}_{index}" for index in indices]


@pytest.mark.parametrize(
    ("job_id", "tasks"),
    [("12", ["12"]), ("12_3", ["12_3"]), ("12_[0-8:4]", ["12_0", "12_4", "12_8"]), ("12_[5-5]", ["12_5"])],
)
def test_ranges_expand_and_other_ids_stay(job_id: str, tasks: list[str]) -> None:
    assert queue.expand_array(job_id) == tasks


def test_configuration_lines_become_names_and_values() -> None:
    text = "Configuration data as of 2026-11-23T13:00:00\nMaxArraySize            = 1001\nMpiParams               = (null)\n"
    assert queue.parse_config(text) == {"MaxArraySize": "1001", "MpiParams": "(null)"}


def test_fields_of_a_node_become_names_and_values() -> None:
    node = queue.parse_fields("NodeName=node1 Gres=gpu:a100:8 NodeAddr=127.0.0.1 OS=Linux 6.1 #1 SMP State=IDLE")
    assert (node["NodeAddr"], node["State"]) == ("127.0.0.1", "IDLE")


def test_no_jobs_are_no_question() -> None:
    assert queue.squeue([]) == {}
    assert queue.sacct([]) == {}
    queue.cancel([])


def test_without_slurm_the_controller_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not queue.available()
    with pytest.raises(ControllerAway, match="squeue is not installed"):
        queue.squeue(["1"])


@pytest.mark.slow
def test_an_array_is_seen_task_by_task_whatever_the_user_likes_to_see(
    devcluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SQUEUE_STATES", "SUSPENDED")
    sbatch = ["sbatch", "--parsable", "--output=/dev/null", "--array=0-2%2", "--wrap", "sleep 305"]
    array = subprocess.run(sbatch, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    tasks = [f"{array}_{index}" for index in range(3)]

    def states() -> list[str]:
        return [entry.state for _, entry in sorted(queue.squeue([*tasks, "99999999"]).items())]

    assert wait_until(lambda: states() == ["RUNNING", "RUNNING", "PENDING"], timeout_s=20)
    assert isinstance(queue.squeue(tasks)[tasks[0]].start, datetime)
    queue.cancel([*tasks, "99999999"])
    assert wait_until(lambda: queue.squeue(tasks) == {}, timeout_s=20)
    assert {entry.state for entry in queue.squeue(tasks, ended=True).values()} == {"CANCELLED"}


@pytest.mark.slow
def test_a_job_that_slurm_does_not_know_is_left_out(devcluster: Cluster) -> None:
    assert queue.squeue(["99999999"]) == {}


@pytest.mark.slow
def test_without_accounting_sacct_is_none(devcluster: Cluster) -> None:
    assert queue.sacct(["1"]) is None


@pytest.mark.slow
def test_the_controller_tells_its_limits_and_nodes(devcluster: Cluster) -> None:
    assert queue.available()
    assert queue.max_array_size() == 1001
    assert queue.hostnames("node[1-2,4]") == ["node1", "node2", "node4"]
    assert queue.show_node("node2")["NodeAddr"] == "127.0.0.1"
    with pytest.raises(QueueError, match="node9 not found"):
        queue.show_node("node9")


@pytest.mark.slow
def test_a_controller_that_does_not_answer_is_away(
    devcluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = (devcluster.directory / "slurm.conf").read_text().splitlines()
    elsewhere = tmp_path / "slurm.conf"
    elsewhere.write_text("\n".join("SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line for line in lines))
    monkeypatch.setenv("SLURM_CONF", str(elsewhere))
    assert not queue.available()
    with pytest.raises(ControllerAway, match="did not answer within 1 s"):
        queue.squeue(["1"], timeout_s=1)
    with pytest.raises(ControllerAway):
        queue.cancel(["1"], timeout_s=1)


@pytest.mark.slow
def test_a_job_is_found_by_its_name_too(devcluster: Cluster) -> None:
    sbatch = ["sbatch", "--parsable", "--output=/dev/null", "--hold", "--job-name=k:runs-1:5f0c", "--wrap", "true"]
    job = subprocess.run(sbatch, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    assert list(queue.squeue([], names=["k:runs-1:5f0c"])) == [job]
    assert queue.squeue([], names=["k:runs-1:0000"]) == {}
    queue.cancel([job])


@pytest.mark.slow
def test_a_waiting_job_can_be_held_and_told_which_node_to_avoid(devcluster: Cluster) -> None:
    sbatch = ["sbatch", "--parsable", "--output=/dev/null", "--begin=now+1hour", "--wrap", "true"]
    job = subprocess.run(sbatch, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    queue.update(job, {"ExcNodeList": "node1"})
    subprocess.run(["scontrol", "hold", job], check=True, timeout=20)
    assert queue.show_job(job)["ExcNodeList"] == "node1"
    assert queue.squeue([job])[job].reason.startswith("JobHeld")
    queue.cancel([job])


@pytest.mark.slow
def test_nodes_that_work_are_not_down(devcluster: Cluster) -> None:
    assert queue.down_nodes("node[1-4]") == []


@pytest.mark.slow
def test_tasks_of_an_array_that_wait_for_different_things_are_told_apart(devcluster: Cluster) -> None:
    sbatch = ["sbatch", "--parsable", "--output=/dev/null", "--array=0-5", "--begin=now+1hour", "--wrap", "true"]
    array = subprocess.run(sbatch, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    subprocess.run(["scontrol", "hold", f"{array}_1,{array}_3"], check=True, timeout=20)
    entries = queue.squeue([f"{array}_{index}" for index in range(6)])
    assert [job for job, entry in sorted(entries.items()) if entry.reason.startswith("JobHeld")] == [f"{array}_1", f"{array}_3"]
    queue.cancel([array])
