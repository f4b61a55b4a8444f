"""``eva-hpc doctor`` on a real Slurm: a sound site passes, and each thing that is wrong with a site is found."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.devcluster.processes import wait_until
from eva_hpc.cluster.doctor.probing import JOB_NAME
from tests.cluster.sweeps import CHECKOUT

pytestmark = pytest.mark.slow

RUN = "import typer; from eva_hpc.commands.doctor import doctor; app = typer.Typer(); app.command()(doctor); app()"


@pytest.fixture(autouse=True)
def no_internet(devcluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")


def doctor(root: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    settings = [*arguments, "--set", f"site.root={root}"]
    command = [*prefix, sys.executable, "-c", RUN, "--json", "--site", "devcluster", *settings]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, orjson.loads(done.stdout)


def problems(report: dict[str, Any]) -> dict[str, str]:
    return {one["check"]: one["found"] for one in report["findings"] if one["level"] == "problem"}


@contextmanager
def drained() -> Iterator[None]:
    """Leave one node: jobs of two have to wait."""
    subprocess.run(["scontrol", "update", "NodeName=node[2-4]", "State=DRAIN", "Reason=test"], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["scontrol", "update", "NodeName=node[2-4]", "State=RESUME"], check=True, timeout=20)


def jobs_named_doctor() -> list[str]:
    asked = subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True, timeout=20, check=True)
    return [name for name in asked.stdout.split() if name.startswith(JOB_NAME)]


def test_a_sound_site_has_no_problem(tmp_path: Path) -> None:
    code, report = doctor(tmp_path)

    assert (code, problems(report)) == (0, {})
    found = {one["check"]: one["found"] for one in report["findings"]}
    assert "a file is seen on the other side after" in found["shared file system"]
    assert "works on node1, node2" in found["nested steps"]
    assert found["signals"] == "USR2 reaches the driver and all ranks of a nested step"
    assert "torch" in next(text for check, text in found.items() if check.startswith("software"))
    assert "do not reach the hub" in found["internet on the nodes"]
    assert report["degrades"] == ["causes of failures and GPU hours come from the ledger only"]
    assert not (tmp_path / ".doctor").exists()
    assert jobs_named_doctor() == []


def test_the_jobs_of_a_sweep_are_checked_and_shown_to_the_user(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "sweeps/evolved_ratio.yaml", "--quick", "--site", "devcluster", "--no-probe"]
    done = subprocess.run(
        [*command, "--set", f"site.root={tmp_path}"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "start_policy" in done.stdout
    assert "would start at" in done.stdout
    assert "What degrades here:" in done.stdout


@pytest.mark.parametrize(
    ("setting", "check", "found"),
    [
        ("site.slurm.partition=lo", "partition lo", "there is none of this name"),
        ("site.slurm.constraint=xyz", "constraint xyz", "no node of low has xyz"),
        ("site.slurm.exclude=node9", "exclude node9", "no such node: node9"),
        ("site.slurm.reservation=ours", "reservation ours", "there is none of this name; there is: none"),
        ("site.slurm.mem_gb=64", "jobs of start_policy, generate, train in low", "0 of 4 nodes have that"),
        ("site.stages.train.nodes=9", "jobs of start_policy, generate, train in low", "4 of 4 nodes have that"),
        ("site.stages.train.gpus_per_rank=5", "jobs of start_policy, generate, train in low", "10 GPUs"),
    ],
)
def test_what_the_cluster_does_not_have_is_found_without_a_job(tmp_path: Path, setting: str, check: str, found: str) -> None:
    code, report = doctor(tmp_path, "--no-probe", "--set", setting)

    assert code == 1
    assert found in problems(report)[check]
    (refusal,) = [text for name, text in problems(report).items() if name.startswith("sbatch")]
    assert refusal.startswith("refuses ")


def test_a_time_limit_that_slurm_would_accept_but_never_run_is_found(tmp_path: Path) -> None:
    update = ["scontrol", "update", "PartitionName=high"]
    subprocess.run([*update, "MaxTime=10"], check=True, timeout=20)
    try:
        code, report = doctor(tmp_path, "--no-probe", "--set", "site.slurm.partition=high")
    finally:
        subprocess.run([*update, "MaxTime=UNLIMITED"], check=True, timeout=20)

    assert code == 1
    assert problems(report)["jobs of start_policy, generate, train in high"] == "ask for 30 min, allowed are 10"


def test_a_root_that_only_this_machine_sees_is_found(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    # Doctor gets a file system of its own there, which the daemons, and so the job, do not see.
    alone = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {mine} && exec "$@"', "sh")
    if subprocess.run([*alone, "true"], capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("this user may not mount")

    code, report = doctor(mine, prefix=alone)

    assert code == 1
    assert "nothing that it wrote below" in problems(report)["probe job"]
    assert list(mine.iterdir()) == []


def test_an_environment_without_torch_is_found(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)

    code, report = doctor(tmp_path, "--set", f"site.software.python={bare}/bin/python")

    assert code == 1
    assert "torch (ModuleNotFoundError" in problems(report)[f"software, {bare}/bin/python"]


def test_an_environment_that_does_not_start_is_found(tmp_path: Path) -> None:
    code, report = doctor(tmp_path, "--set", "site.software.python=/no/such/python")

    assert code == 1
    assert "Python does not start" in problems(report)["software, /no/such/python"]


def test_nodes_that_are_away_for_now_are_no_problem(tmp_path: Path) -> None:
    with drained():
        code, report = doctor(tmp_path, "--no-probe")

    assert (code, problems(report)) == (0, {})
    warnings = [one["found"] for one in report["findings"] if one["level"] == "warning"]
    assert "2 nodes are asked for; of 4 that fit, 1 are in service" in warnings


def test_a_probe_that_is_interrupted_leaves_no_job_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "--site", "devcluster", "--set", f"site.root={tmp_path}"]
    with drained():
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert wait_until(lambda: bool(jobs_named_doctor()), timeout_s=120)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)

    assert process.returncode == 130
    assert jobs_named_doctor() == []
    assert not (tmp_path / ".doctor").exists()
