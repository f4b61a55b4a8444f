from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from eva_hpc.cluster.devcluster import Cluster, status
from eva_hpc.cluster.devcluster.processes import wait_until

pytestmark = pytest.mark.slow


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("sbatch", "--parsable", "--output=/dev/null", "--mem=1G", *arguments)


def accounted(job: str) -> list[str]:
    """The job's attempts; accounting lags behind what the controller knows."""
    fields = "State,ExitCode,AllocTRES"
    return run("sacct", "-n", "-P", "-X", "-D", "-j", job, "-o", fields).stdout.split()


@pytest.fixture
def two_jobs_at_most(accounting_cluster: Cluster) -> Iterator[None]:
    limit = ["sacctmgr", "-i", "modify", "qos", "normal", "set"]
    run(*limit, "MaxSubmitJobsPerUser=2").check_returncode()
    yield
    run(*limit, "MaxSubmitJobsPerUser=-1").check_returncode()


def test_the_database_and_its_daemon_run_and_the_users_jobs_have_an_account(accounting_cluster: Cluster) -> None:
    daemons = status(accounting_cluster.directory).daemons
    assert daemons["mariadbd"]
    assert daemons["slurmdbd"]
    job = submit("--wrap", "true").stdout.strip()
    account = ["sacct", "-n", "-P", "-X", "-j", job, "-o", "Account"]
    assert wait_until(lambda: run(*account).stdout == "devcluster\n", timeout_s=20, interval_s=0.2)


def test_a_finished_job_is_recorded_with_its_state_exit_code_and_gpus_on_all_nodes(accounting_cluster: Cluster) -> None:
    job = submit("--nodes=2", "--gres=gpu:a100:2", "--wrap", "exit 3").stdout.strip()
    row = "FAILED|3:0|billing=2,cpu=2,gres/gpu=4,mem=2G,node=2"
    assert wait_until(lambda: accounted(job) == [row], timeout_s=20, interval_s=0.2), accounted(job)


def test_every_attempt_of_a_requeued_job_is_recorded(accounting_cluster: Cluster) -> None:
    job = submit("--requeue", "--gres=gpu:a100:1", "--wrap", "exec sleep 306").stdout.strip()
    assert wait_until(lambda: accounted(job)[:1] != [] and accounted(job)[0].startswith("RUNNING"), 20, interval_s=0.2)
    run("scontrol", "requeue", job).check_returncode()
    assert wait_until(lambda: [row.split("|")[0] for row in accounted(job)] == ["REQUEUED", "RUNNING"], 30, interval_s=0.2)
    assert all("gres/gpu=1" in row for row in accounted(job))
    run("scancel", job)


def test_a_user_over_the_submit_limit_is_refused(accounting_cluster: Cluster, two_jobs_at_most: None) -> None:
    refused: list[subprocess.CompletedProcess[str]] = []

    def refusal() -> bool:  # the limit reaches the controller a moment after it was set
        refused.append(submit("--array=0-2", "--wrap", "true"))
        return refused[-1].returncode != 0

    assert wait_until(refusal, timeout_s=10)
    assert refused[-1].stderr == (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
        "(job submit limit, user's size and/or time limits)\n"
    )


def test_an_account_that_does_not_exist_is_refused(accounting_cluster: Cluster) -> None:
    refused = submit("--account=nobodys", "--wrap", "true")
    assert refused.returncode == 1
    assert "Invalid account or account/partition combination specified" in refused.stderr
