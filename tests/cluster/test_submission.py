"""What is asked of Slurm for an array. Submission itself: test_self_help.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eva_hpc.cluster.ledger import jobs_in
from eva_hpc.cluster.submission import dependencies, parameters, submission_text, without_others_words
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import Array, Job, Placement, Shape


def array(*names: str, **fields: object) -> Array:
    jobs = tuple(Job(name=name, run=name, tasks=(), after=()) for name in names)
    return Array.model_validate({"name": "runs-2", "shape": Shape(1, 4, 0), "jobs": jobs, "after": (), **fields})


SITE = Site.model_validate(
    {
        "name": "cluster",
        "executor": "slurm",
        "scale": "lab",
        "slurm": {"max_parallel": 3, "setup": ["module load cuda"], "signal_delay_s": 60},
        "environment": {"A": "x y"},
    }
)
PLACE = Placement(
    partition="gpu",
    account="lab",
    qos="high",
    constraint="a100",
    reservation="eva",
    exclude="node[07,09]",
    gpu_type="a100",
    additional=(("exclusive", True), ("licenses", "matlab:1")),
)


def test_everything_that_a_place_names_is_asked_for() -> None:
    shape = Shape(nodes=2, cpus_per_node=16, gpus_per_node=8, mem_gb=1.5, time_minutes=90, placement=PLACE)
    asked = parameters(array("a", "b", shape=shape), SITE, "name", ["afterany:7"], exclude=["node3"])

    assert (asked["partition"], asked["account"], asked["qos"], asked["constraint"]) == ("gpu", "lab", "high", "a100")
    assert asked["exclude"] == "node[07,09],node3"
    assert (asked["nodes"], asked["cpus_per_task"], asked["mem"], asked["time"]) == (2, 16, "1536M", 90)
    assert asked["additional_parameters"] == {
        "requeue": True,
        "exclusive": True,
        "licenses": "matlab:1",
        "reservation": "eva",
        "gres": "gpu:a100:8",
        "dependency": "afterany:7",
    }
    assert asked["setup"] == ["module load cuda", "export A='x y'"]


def test_the_code_of_the_snapshot_comes_after_all_else_that_a_job_sets_up() -> None:
    assert parameters(array("a"), SITE, "name", setup=["cd /snapshot"])["setup"][-1] == "cd /snapshot"


def test_a_dry_run_shows_the_whole_script_and_leaves_nothing(tmp_path: Path) -> None:
    text = submission_text(array("a", "b", after=("shared-1",), along="runs-1"), SITE, tmp_path, "sweep")
    assert "#SBATCH --array=0-1%2" in text
    assert "#SBATCH --dependency='afterany:<shared-1>,aftercorr:<runs-1>'" in text
    assert "#SBATCH --signal=USR2@60" in text
    assert "wckey" not in text
    assert list(tmp_path.rglob("*")) == []


def test_what_was_not_submitted_is_not_waited_for() -> None:
    assert dependencies(array("a", after=("shared-1", "shared-2")), {"shared-2": ["12"]}) == ["afterany:12"]


def test_what_a_canary_goes_ahead_of_waits_for_its_success() -> None:
    waiting = array("b", after=("shared-1", "runs-1"), canary="runs-1")
    assert dependencies(waiting, {"shared-1": ["1"], "runs-1": ["2"]}) == ["afterany:1", "afterok:2"]


def test_the_users_words_to_sbatch_do_not_win_over_the_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SBATCH_JOB_NAME", "SBATCH_TIMELIMIT", "SBATCH_ACCOUNT", "SLURM_CONF"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    without_others_words(SITE)
    assert "SBATCH_JOB_NAME" not in os.environ
    assert "SBATCH_TIMELIMIT" not in os.environ
    assert os.environ["SBATCH_ACCOUNT"] == os.environ["SLURM_CONF"] == "mine", "the site names no account"


def test_jobs_are_known_whichever_launchers_clock_is_ahead(tmp_path: Path) -> None:
    asked = {"event": "submitting", "token": "t", "array": "runs-1", "jobs": [{"name": "a", "tasks": ["x"]}], "shape": {}}
    answered = {"event": "submitted", "token": "t", "job": "7", "count": 1}
    (job,) = jobs_in([{"time": "1", **answered}, {"time": "2", "job_name": "n", "canary": None, **asked}]).values()
    assert (job.id, job.name, job.tasks) == ("7", "a", ("x",))
