from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import submitit

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import Cluster, DevclusterError, down, hosts, leftovers, status, up
from eva_hpc.cluster.devcluster.configuration import Layout, slurm_conf
from eva_hpc.cluster.devcluster.processes import running, start, wait_until

ALL_REDUCE = """
import os
import torch
import torch.distributed
from eva_hpc.cluster.rendezvous import rank_from_environment

ranks = rank_from_environment()
torch.distributed.init_process_group("gloo", rank=ranks.rank, world_size=ranks.world_size)
total = torch.tensor([10.0 ** ranks.rank])
torch.distributed.all_reduce(total)
print(ranks.rank, ranks.local_rank, ranks.node, os.environ["CUDA_VISIBLE_DEVICES"], int(total), flush=True)
torch.distributed.destroy_process_group()
os._exit(0)
"""
"""As workers do, a rank leaves without the interpreter's own end, which threads of torch do not always survive."""


@pytest.fixture
def short_path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="devcluster-", dir="/tmp"))
    yield directory
    down(directory)
    shutil.rmtree(directory)


def submit(*command: str, environment: dict[str, str] | None = None) -> str:
    sbatch = ["sbatch", "--parsable", "--output=/dev/null", *command]
    return subprocess.run(sbatch, check=True, capture_output=True, text=True, timeout=20, env=environment).stdout.strip()


def has_ended(job_id: str) -> bool:
    entry = queue.squeue([job_id], ended=True).get(job_id)
    return entry is not None and not entry.active


def test_a_directory_with_other_files_is_refused(short_path: Path) -> None:
    (short_path / "thesis.tex").touch()
    with pytest.raises(DevclusterError, match="other files"):
        up(short_path)
    assert [path.name for path in short_path.iterdir()] == ["thesis.tex"]


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DevclusterError, match="at most 68 characters"):
        up(tmp_path / ("x" * 70))


def test_where_there_is_no_cluster_status_and_down_say_so(tmp_path: Path) -> None:
    assert not status(tmp_path).running
    assert down(tmp_path) is False


def test_a_daemon_that_fails_to_start_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(DevclusterError, match=r"(?s)code 3.*port is taken"):
        start(["bash", "-c", "echo port is taken; exit 3"], tmp_path / "daemon.log")


def test_a_pid_file_of_a_process_that_is_not_ours_is_not_believed(tmp_path: Path) -> None:
    pid_file = tmp_path / "daemon.pid"
    with subprocess.Popen(["sleep", "305"], env={"SLURM_CONF": f"{tmp_path}/slurm.conf"}) as process:
        pid_file.write_text(str(process.pid))
        assert wait_until(lambda: running(pid_file, "sleep", tmp_path) == process.pid, timeout_s=5)
        assert running(pid_file, "sleep", tmp_path / "other") is None
        assert running(pid_file, "slurmd", tmp_path) is None
        process.kill()
    assert running(pid_file, "sleep", tmp_path) is None


def test_host_lines_are_added_and_removed_without_touching_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost")
    monkeypatch.setattr(hosts, "HOSTS", file)
    assert hosts.add_names(["node1", "node2"], "cluster /a")
    assert hosts.add_names(["node1"], "cluster /b")
    assert hosts.remove_names("cluster /a")
    assert file.read_text() == "127.0.0.1 localhost\n127.0.1.1 node1 # cluster /b\n"


def test_options_replace_lines_of_the_configuration_or_add_to_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "me", 2, 16, 0, 21000, True, True, "", 1, options={"maxarraysize": "11", "InactiveLimit": "60"})
    lines = slurm_conf(layout).splitlines()
    assert [line for line in lines if line.lower().startswith("maxarraysize")] == ["MaxArraySize=11"]
    assert "InactiveLimit=60" in lines


def test_a_layout_written_before_there_was_accounting_is_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "me", 2, 16, 0, 21000, True, True, "", 1)
    values = json.loads(layout.to_json())
    for name in ("accounting", "enforce", "options"):
        del values[name]
    assert Layout.from_json(json.dumps(values)) == layout


def test_limits_without_accounting_are_refused(short_path: Path) -> None:
    with pytest.raises(DevclusterError, match="only be enforced with accounting"):
        up(short_path, enforce=True)


@pytest.mark.slow
def test_all_nodes_are_idle_when_the_cluster_is_up(devcluster: Cluster) -> None:
    now = status(devcluster.directory)
    assert now.running
    assert set(now.nodes) == {"node1", "node2", "node3", "node4"}
    states = subprocess.run(["sinfo", "-h", "-o", "%P %a %D"], capture_output=True, text=True, timeout=10).stdout
    assert states.split("\n")[:2] == ["low* up 4", "high up 4"]


@pytest.mark.slow
def test_bringing_up_a_running_cluster_leaves_it_as_it_is(devcluster: Cluster) -> None:
    before = status(devcluster.directory).daemons
    assert up(devcluster.directory).was_running
    assert status(devcluster.directory).daemons == before
    with pytest.raises(DevclusterError, match="4 nodes with 16 CPUs and 8 GPUs runs in"):
        up(devcluster.directory, nodes=2)
    with pytest.raises(DevclusterError, match="runs in"):
        up(devcluster.directory, options={"MaxArraySize": "11"})


@pytest.mark.slow
def test_srun_reaches_two_nodes_with_their_own_gpus(devcluster: Cluster) -> None:
    command = ["srun", "--nodes=2", "--ntasks-per-node=1", "--gres=gpu:a100:2", "bash", "-c"]
    step = [*command, "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"]
    result = subprocess.run(step, capture_output=True, text=True, timeout=30)
    nodes, gpus = zip(*(line.split() for line in result.stdout.splitlines()), strict=True)
    assert len(set(nodes)) == 2
    assert set(gpus) == {"0,1"}


@pytest.mark.slow
def test_a_submitit_driver_runs_all_reduce_over_two_nodes_in_a_nested_step(devcluster: Cluster, tmp_path: Path) -> None:
    def drive(script: str) -> tuple[int, str]:
        from eva_hpc.cluster.node_local import free_port
        from eva_hpc.cluster.rendezvous import clean_environment, master_address, nested_step

        rank = [sys.executable, "-c", script]
        step = nested_step(rank, nodes=2, ranks_per_node=2, gpus_per_node=2, cpus_per_rank=2, gpu_type="a100")
        meeting = {"MASTER_ADDR": master_address(), "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(step, env=clean_environment(os.environ) | meeting, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm", slurm_python=sys.executable)
    executor.update_parameters(nodes=2, tasks_per_node=1, cpus_per_task=4, mem_gb=2, slurm_gres="gpu:a100:2")
    executor.update_parameters(slurm_srun_args=["--overlap", "--nodes=1", "--ntasks=1"])
    job = executor.submit(drive, ALL_REDUCE)
    assert wait_until(lambda: has_ended(job.job_id), timeout_s=60, interval_s=0.3)
    code, output = job.task(0).result()

    assert code == 0, output
    labels, ranks, local_ranks, nodes, gpus, totals = zip(*sorted(line.split() for line in output.splitlines()), strict=True)
    assert labels == ("0:", "1:", "2:", "3:")
    assert ranks == ("0", "1", "2", "3")
    assert local_ranks == ("0", "1", "0", "1")
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert set(gpus) == {"0,1"}
    assert set(totals) == {"1111"}


@pytest.mark.slow
def test_cancelling_a_job_ends_the_processes_of_its_nested_step(devcluster: Cluster) -> None:
    job_id = submit("--nodes=2", "--wrap", "srun --overlap --nodes=2 sleep 301")
    assert wait_until(lambda: len(sleepers(devcluster.directory, "301")) == 2, timeout_s=20)
    queue.cancel([job_id])
    assert wait_until(lambda: has_ended(job_id), timeout_s=20)
    assert wait_until(lambda: not sleepers(devcluster.directory, "301"), timeout_s=5)


@pytest.mark.slow
def test_a_requeued_job_starts_again_soon_under_its_own_id(devcluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "starts"
    job_id = submit("--requeue", "--wrap", f"echo start $SLURM_RESTART_COUNT >> {log}; exec sleep 302")
    assert wait_until(log.exists, timeout_s=20)
    subprocess.run(["scontrol", "requeue", job_id], check=True, timeout=20)
    assert wait_until(lambda: log.read_text() == "start\nstart 1\n", timeout_s=30, interval_s=0.2)
    queue.cancel([job_id])


@pytest.mark.slow
def test_down_ends_stubborn_jobs_and_a_later_cluster_gives_other_job_ids(short_path: Path, slurm_installed: None) -> None:
    first = up(short_path, nodes=1, gpus_per_node=0)
    environment = os.environ | first.environment()
    stubborn = "trap '' TERM; setsid sleep 303 & sleep 304"
    assert submit("--wrap", f'srun bash -c "{stubborn}"', environment=environment) == "1"
    assert wait_until(lambda: bool(sleepers(short_path, "304")), timeout_s=20)

    assert down(short_path) is True
    assert leftovers(short_path) == []
    assert str(short_path) not in Path("/etc/hosts").read_text()
    assert not status(short_path).running
    assert down(short_path) is False

    up(short_path, nodes=1)
    assert submit("--wrap", "true", environment=environment) == "100001"


@pytest.mark.slow
def test_a_cluster_that_lost_a_daemon_is_started_anew(short_path: Path, slurm_installed: None) -> None:
    up(short_path, nodes=2)
    os.kill(status(short_path).daemons["slurmd node2"] or 0, 9)
    assert wait_until(lambda: not status(short_path).running, timeout_s=5)
    assert not up(short_path, nodes=2).was_running
    assert status(short_path).nodes == {"node1": "idle", "node2": "idle"}


def sleepers(directory: Path, seconds: str) -> list[int]:
    """Processes `sleep SECONDS` of the cluster's jobs; srun replaces the name by the program's path."""
    found = []
    for pid in leftovers(directory):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [pid] if words[0].endswith(b"sleep") and words[1] == seconds.encode() else []
    return found
