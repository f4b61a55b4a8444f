"""Real jobs on the throwaway cluster that fail in one way each, and what becomes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.store.records import read_jsonl
from tests.cluster.sweeps import explain, ledger, results_of, site_file, sweep

pytestmark = pytest.mark.slow

RECIPE = [
    *("--set", "recipe.policy.steps=10", "--set", "recipe.prompts.count=16", "--set", "recipe.warmup=null"),
    *("--set", "recipe.benchmarks.lab.prompts=4", "--set", "recipe.benchmarks.lab.greedy=false"),
]
ONE_RUN = ["sweeps/evolved_ratio.yaml", "--quick", *RECIPE, "--set", "sweep.axes.evolved_ratio=[0.0]"]
THREE_RUNS = ["sweeps/evolved_ratio.yaml", "--quick", *RECIPE, "--set", "sweep.axes.evolved_ratio=[0.2,0.5,0.8]"]
ONE_PROCESS: dict[str, Any] = {"stages": {}}


def events(root: Path, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in ledger(results_of(root)) if event["event"] in kinds]


def test_a_killed_rank_is_tried_again_in_the_same_job(devcluster: Cluster, tmp_path: Path) -> None:
    fault = {"stage": "train", "kind": "killed", "rank": 1, "once": str(tmp_path / "happened")}
    two_ranks = {"train": {"nodes": 2, "ranks_per_node": 1, "threads": 1}}
    result = sweep(*ONE_RUN, "--site", site_file(tmp_path, fault=fault, stages=two_ranks), timeout=300)

    assert result.returncode == 0, explain(result, tmp_path)
    (retried,) = events(tmp_path, "retried")
    assert retried["cause"] == "killed"
    assert "Killed" in retried["evidence"]
    assert len(events(tmp_path, "submitted")) == 1


def test_out_of_memory_on_the_gpu_halves_the_micro_batch_once(devcluster: Cluster, tmp_path: Path) -> None:
    fault = {"stage": "train", "kind": "cuda_oom", "above": 2048}
    result = sweep(*ONE_RUN, "--site", site_file(tmp_path, fault=fault, **ONE_PROCESS), timeout=300)

    assert result.returncode == 0, explain(result, tmp_path)
    (retried,) = events(tmp_path, "retried")
    assert (retried["cause"], retried["change"]) == ("cuda_oom", {"micro_batch_tokens": [4096, 2048]})

    again = sweep(
        *ONE_RUN, "--set", "recipe.optimiser.beta=0.2",
        *("--site", site_file(tmp_path, fault=fault | {"above": 1024}, **ONE_PROCESS)), timeout=300,
    )  # fmt: skip
    assert again.returncode == 1
    assert "CUDA out of memory" in again.stdout


def test_a_mistake_costs_one_run_and_the_others_are_held_until_it_is_mended(devcluster: Cluster, tmp_path: Path) -> None:
    fault = {"stage": "select", "kind": "mistake"}
    result = sweep(*THREE_RUNS, "--site", site_file(tmp_path, fault=fault, **ONE_PROCESS), timeout=300)

    assert result.returncode == 1, explain(result, tmp_path)
    assert "KeyError: 'no such column'" in result.stdout
    failed = {event["task"]: event["cause"] for event in events(tmp_path, "failed")}
    assert list(failed.values()) == ["code_or_data", "missing_input"], "and the first run"
    assert "are held in Slurm's queue" in result.stdout
    waiting = [job.id for job in Ledger(results_of(tmp_path)).jobs().values() if job.canary]
    assert len(waiting) == 2
    assert {entry.reason for entry in queue.squeue(waiting).values()} == {"DependencyNeverSatisfied"}
    assert not events(tmp_path, "retried")

    mended = sweep(*THREE_RUNS, "--site", site_file(tmp_path, **ONE_PROCESS), timeout=400)

    assert mended.returncode == 0, explain(mended, tmp_path)
    assert queue.squeue(waiting) == {}
    tasks = [event["task"] for event in events(tmp_path, "done")]
    assert len(tasks) == len(set(tasks))


def test_a_benchmark_that_fails_takes_no_other_with_it(devcluster: Cluster, tmp_path: Path) -> None:
    fault = {"stage": "judge", "kind": "mistake", "once": str(tmp_path / "happened")}
    other = ("recipe.benchmarks.other.kind=lab", "recipe.benchmarks.other.prompts=3", "recipe.rounds=1")
    two = [word for value in other for word in ("--set", value)]
    result = sweep(*ONE_RUN, *two, "--site", site_file(tmp_path, fault=fault, **ONE_PROCESS), timeout=300)

    assert result.returncode == 1, explain(result, tmp_path)
    assert len({event["task"] for event in events(tmp_path, "failed")}) == 1
    assert [event["task"].partition("/")[0] for event in events(tmp_path, "done")].count("evaluate") == 1
    assert len(events(tmp_path, "submitted")) == 1, "nothing is left that could be done"


def test_a_stage_without_a_sign_of_life_is_ended_and_tried_again(devcluster: Cluster, tmp_path: Path) -> None:
    fault = {"stage": "questions", "kind": "hung", "once": str(tmp_path / "happened")}
    site = site_file(tmp_path, fault=fault, engine={"hang_minutes": 0.05}, **ONE_PROCESS)
    result = sweep(*ONE_RUN, "--site", site, "--set", "recipe.rounds=1", timeout=300)

    (retried,) = events(tmp_path, "retried")
    assert retried["cause"] == "hung"
    assert result.returncode == 0, explain(result, tmp_path)


def sbatch_that(folder: Path, script: str) -> dict[str, str]:
    """An environment whose sbatch is a script that knows the real one as $REAL."""
    folder.mkdir()
    path = folder / "sbatch"
    path.write_text(f"#!/bin/bash\nREAL={shutil.which('sbatch')}\n{script}\n")
    path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_an_array_whose_answer_was_lost_is_found_again_and_not_submitted_twice(
    devcluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    script = (
        f'[ -e {tmp_path}/asked ] && exec $REAL "$@"; touch {tmp_path}/asked; $REAL "$@" >/dev/null; echo "{lost}" >&2; exit 1'
    )
    monkeypatch.setenv("PATH", sbatch_that(tmp_path / "bin", script)["PATH"])
    site = site_file(tmp_path, **ONE_PROCESS)

    result = sweep(*ONE_RUN, "--site", site, timeout=300)

    assert result.returncode == 0, explain(result, tmp_path)
    assert len(events(tmp_path, "submitting")) == len(events(tmp_path, "submitted")) == len(events(tmp_path, "begun")) == 1


def test_an_array_that_slurm_never_took_is_submitted_again(
    devcluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    script = f'[ -e {tmp_path}/asked ] && exec $REAL "$@"; touch {tmp_path}/asked; echo "{lost}" >&2; exit 1'
    monkeypatch.setenv("PATH", sbatch_that(tmp_path / "bin", script)["PATH"])
    monkeypatch.setattr("eva_hpc.cluster.slurm._FORGET_S", 3.0)  # of this process; the command below waits for its own

    result = sweep(*ONE_RUN, "--site", site_file(tmp_path, **ONE_PROCESS), timeout=300)

    assert result.returncode == 0, explain(result, tmp_path)
    assert [event["event"] for event in events(tmp_path, "submitted", "refused")] == ["refused", "submitted"]


def test_a_cancelled_job_is_not_resurrected_while_its_launcher_watches(devcluster: Cluster, tmp_path: Path) -> None:
    site = site_file(tmp_path, fault={"stage": "questions", "kind": "stuck"}, **ONE_PROCESS)
    assert sweep(*ONE_RUN, "--site", site, "--no-wait", timeout=60).returncode == 0
    (submitted,) = events(tmp_path, "submitted")
    queue.cancel([submitted["job"]])

    status = sweep(*ONE_RUN, "--site", site, "--no-wait", timeout=60)

    assert status.returncode == 0
    assert len(events(tmp_path, "submitted")) == 2, "typing the command again is the user's will"
    queue.cancel([events(tmp_path, "submitted")[-1]["job"]])


def test_judging_runs_in_jobs_without_gpus_each_after_its_own_run(devcluster: Cluster, tmp_path: Path) -> None:
    stages = {stage: {"gpus_per_rank": 1, "threads": 1} for stage in ("start_policy", "generate", "train", "answer")}
    site = site_file(tmp_path, slurm={"gpu_type": "a100"}, stages=stages)
    result = sweep(*THREE_RUNS, "--no-canary", "--site", site, timeout=400)

    assert result.returncode == 0, explain(result, tmp_path)
    arrays = {event["token"]: event for event in events(tmp_path, "submitting")}
    judging = [
        array for array in arrays.values()
        if {task.partition("/")[0] for job in array["jobs"] for task in job["tasks"]} <= {"judge", "evaluate"}
    ]  # fmt: skip
    assert {array["shape"]["gpus_per_node"] for array in judging} == {0}
    assert any(value.startswith("aftercorr:") for array in judging for value in array["after"])
    done = {event["task"].partition("/")[0]: event["gpus"] for event in events(tmp_path, "done")}
    assert (done["train"], done["judge"]) == (1, 0)
    metrics = read_jsonl(results_of(tmp_path) / "metrics.jsonl")
    assert {row["run"] for row in metrics} == {f"evolved_ratio={ratio},seed=1" for ratio in (0.2, 0.5, 0.8)}


def test_jobs_run_the_code_of_their_submission_in_the_software_that_the_site_names(devcluster: Cluster, tmp_path: Path) -> None:
    told = tmp_path / "told"
    software = {"setup": [f"echo $PWD ${{PYTHONPATH%%:*}} >> {told}"]}
    result = sweep(*ONE_RUN, "--site", site_file(tmp_path, software=software, **ONE_PROCESS), timeout=300)

    assert result.returncode == 0, explain(result, tmp_path)
    (snapshot,) = (tmp_path / "code").iterdir()
    assert set(told.read_text().splitlines()) == {f"{snapshot} {snapshot}"}
    (launched,) = events(tmp_path, "launched")
    assert launched["snapshot"] == snapshot.name
    assert subprocess.run(["test", "-f", str(snapshot / "eva_hpc" / "launch.py")]).returncode == 0
