from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from eva_hpc.cluster.devcluster import DevclusterError, down, leftovers, status, up
from eva_hpc.cluster.devcluster.faults import kill_node, processes_of, start_controller, start_node, stop_controller
from eva_hpc.cluster.devcluster.processes import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fragile(accounting_installed: None) -> Iterator[Path]:
    """A cluster of two nodes that soon notices when one is gone. Not through the environment: commands name it."""
    directory = Path(tempfile.mkdtemp(prefix="fragile-", dir="/tmp"))
    # A dead node is asked once more before it counts as down: that takes as long as a message may.
    up(directory, nodes=2, accounting=True, options={"SlurmdTimeout": "6", "MessageTimeout": "3"})
    yield directory
    down(directory)
    shutil.rmtree(directory)


def run(directory: Path, *command: str) -> str:
    environment = os.environ | {"SLURM_CONF": f"{directory}/slurm.conf"}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment).stdout.strip()


def submit(directory: Path, *arguments: str) -> str:
    return run(directory, "sbatch", "--parsable", "--output=/dev/null", "--mem=1G", *arguments)


def attempts(directory: Path, job: str) -> list[str]:
    return run(directory, "sacct", "-n", "-P", "-X", "-D", "-j", job, "-o", "State").split()


def state(directory: Path, job: str) -> str:
    return run(directory, "squeue", "-h", "--states=all", "-o", "%T", "-j", job)


def sleeps(directory: Path, seconds: str, job: str | None = None) -> list[int]:
    """Processes that sleep so long, without the shells and sruns that wait for them."""
    names = {pid: Path(f"/proc/{pid}/comm") for pid in processes_of(directory, job=job, text=f"sleep {seconds}")}
    return [pid for pid, name in names.items() if name.exists() and name.read_text() == "sleep\n"]


def test_a_killed_node_fails_its_jobs_and_comes_back(fragile: Path) -> None:
    again = submit(fragile, "--requeue", "--nodelist=node2", "--wrap", "srun --overlap sleep 311")
    once = submit(fragile, "--no-requeue", "--nodelist=node2", "--wrap", "sleep 312")
    elsewhere = submit(fragile, "--nodelist=node1", "--wrap", "sleep 313")
    assert wait_until(lambda: len([each for n in ("311", "312", "313") for each in sleeps(fragile, n)]) == 3, 30)
    assert len(processes_of(fragile, node="node2")) > 3

    kill_node(fragile, "node2")
    assert processes_of(fragile, node="node2") == []
    assert sleeps(fragile, "313", job=elsewhere)

    assert wait_until(lambda: "down" in status(fragile).nodes["node2"], timeout_s=60, interval_s=0.2)
    assert wait_until(lambda: attempts(fragile, once) == ["NODE_FAIL"], timeout_s=20, interval_s=0.2)
    assert attempts(fragile, again)[0] == "NODE_FAIL"
    start_node(fragile, "node2")
    assert wait_until(lambda: attempts(fragile, again) == ["NODE_FAIL", "RUNNING"], timeout_s=30, interval_s=0.2)
    assert attempts(fragile, elsewhere) == ["RUNNING"]
    run(fragile, "scancel", again, elsewhere)


@pytest.mark.parametrize("crash", [False, True])
def test_a_running_job_outlives_its_controller(fragile: Path, tmp_path: Path, crash: bool) -> None:
    job = submit(fragile, "--wrap", f"until [ -e {tmp_path}/end ]; do sleep 0.1; done; exit 4")
    assert wait_until(lambda: state(fragile, job) == "RUNNING" and _is_saved(fragile, job), timeout_s=30)
    stop_controller(fragile, crash=crash)
    assert status(fragile).daemons["slurmctld"] is None
    assert processes_of(fragile, job=job)
    start_controller(fragile)
    assert state(fragile, job) == "RUNNING"
    (tmp_path / "end").touch()
    assert wait_until(lambda: attempts(fragile, job) == ["FAILED"], timeout_s=30, interval_s=0.2)


def test_processes_are_found_by_job_array_task_and_text(fragile: Path) -> None:
    array = submit(fragile, "--array=0-1", "--wrap", "sleep 32$SLURM_ARRAY_TASK_ID")
    assert wait_until(lambda: bool(sleeps(fragile, "320") and sleeps(fragile, "321")), timeout_s=30)
    assert sleeps(fragile, "320", job=f"{array}_0")
    assert not sleeps(fragile, "320", job=f"{array}_1")
    assert sleeps(fragile, "320", job=array)
    assert not processes_of(fragile, job="99")
    run(fragile, "scancel", array)


def test_down_cleans_up_after_faults(accounting_installed: None) -> None:
    directory = Path(tempfile.mkdtemp(prefix="fragile-", dir="/tmp"))
    up(directory, nodes=2, accounting=True)
    submit(directory, "--nodes=2", "--wrap", "srun --overlap sleep 331")
    assert wait_until(lambda: len(sleeps(directory, "331")) == 2, timeout_s=30)
    kill_node(directory, "node2")
    stop_controller(directory, crash=True)
    down(directory)
    assert leftovers(directory) == []
    assert not any(status(directory).daemons.values())
    shutil.rmtree(directory)


def test_faults_of_what_is_not_there_are_told(tmp_path: Path, fragile: Path) -> None:
    with pytest.raises(DevclusterError, match="no cluster in"):
        stop_controller(tmp_path)
    with pytest.raises(DevclusterError, match="no node node9; there are node1, node2"):
        kill_node(fragile, "node9")


def _is_saved(directory: Path, job: str) -> bool:
    """Whether the controller's saved state is newer than the start of the job."""
    start = run(directory, "squeue", "-h", "-o", "%S", "-j", job)
    saved = directory / "state" / "job_state"
    return saved.exists() and bool(start) and saved.stat().st_mtime > datetime.fromisoformat(start).timestamp() + 1
