"""What is asked of Slurm for an array, and which jobs are lost without another. Submission itself: test_self_help.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.submission import dependencies, parameters, submission_text
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


@pytest.fixture
def submitted(tmp_path: Path) -> Ledger:
    """shared-1 -> runs a, b, c; d needs nothing of it; a is the canary of the others, and each has its judging."""
    ledger = Ledger(tmp_path, "launcher")

    def submit(token: str, job: str, canary: str | None, **jobs: list[str]) -> None:
        entries = [{"name": name, "tasks": [], "needs": needs} for name, needs in jobs.items()]
        ledger.record("submitting", token=token, array=token, job_name=token, jobs=entries, shape={}, after=[], canary=canary)
        ledger.record("submitted", token=token, job=job, count=len(jobs))

    submit("t1", "1", None, shared=[])
    submit("t2", "2", None, a=["shared"])
    submit("t3", "3", "t2", b=["shared"], c=["shared"], d=[])
    submit("t4", "4", None, judge_a=["a"])
    submit("t5", "5", None, judge_b=["b"], judge_d=["d"])
    return ledger


def test_jobs_that_need_a_failed_one_are_lost_with_all_that_need_them(submitted: Ledger) -> None:
    assert submitted.followers("t1", "shared", canary=False) == ["2", "3_0", "3_1", "4", "5_0"]
    assert submitted.followers("t3", "d", canary=False) == ["5_1"]


def test_a_canary_that_fails_for_all_takes_those_that_it_went_ahead_of(submitted: Ledger) -> None:
    assert submitted.followers("t2", "a", canary=False) == ["4"]
    assert submitted.followers("t2", "a", canary=True) == ["3_0", "3_1", "3_2", "4", "5_0", "5_1"]


def test_jobs_submitted_before_are_none_of_its_business(submitted: Ledger) -> None:
    assert submitted.followers("t5", "judge_b", canary=True) == []
