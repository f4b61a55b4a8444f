"""A lab sweep through real Slurm: submitit arrays, one job per run, nested steps, training on 2 nodes x 2 ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.store.records import read_jsonl
from tests.cluster.sweeps import CHECKOUT, explain, ledger, results_of, sweep

pytestmark = pytest.mark.slow

SMALL = [
    *("sweeps/evolved_ratio.yaml", "--site", "devcluster", "--quick", "--no-canary"),
    *("--set", "recipe.policy.steps=20", "--set", "recipe.prompts.count=16", "--set", "recipe.benchmarks.lab.prompts=4"),
    *("--set", "sweep.axes.evolved_ratio=[0.8,0.0]"),
]


@pytest.fixture(scope="module")
def results(devcluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slurm")
    result = sweep(*SMALL, "--set", f"site.root={root}", timeout=500)
    assert result.returncode == 0, explain(result, root)
    return results_of(root)


def test_every_run_is_one_job_of_an_array_and_shared_work_has_a_job_before_them(results: Path) -> None:
    submitted = Ledger(results).jobs().values()

    runs = {job.name: job.id for job in submitted if job.array.startswith("runs")}
    assert runs.keys() == {"evolved_ratio=0.8,seed=1", "evolved_ratio=0.0,seed=1"}
    assert len({job.split("_")[0] for job in runs.values()}) == 1, "one array"
    (shared,) = [job for job in submitted if job.array.startswith("shared")]
    assert any(task.startswith("start_policy/") for task in shared.tasks)
    tasks = [task for job in submitted for task in job.tasks]
    assert len(tasks) == len(set(tasks))


def test_the_table_has_all_runs(results: Path) -> None:
    assert {row["run"] for row in read_jsonl(results / "metrics.jsonl")} == {
        "evolved_ratio=0.8,seed=1",
        "evolved_ratio=0.0,seed=1",
    }
    assert "Missing runs" not in (results / "table.md").read_text()


def test_training_ran_on_two_nodes_with_two_ranks_each_and_began_at_log_two(results: Path) -> None:
    manifests = list((results.parent / "store").glob("train/*/manifest.json"))
    assert len(manifests) == 3
    for manifest in manifests:
        assert orjson.loads(manifest.read_bytes())["processes"] == 4
        first = read_jsonl(manifest.parent / "train_log.jsonl")[0]
        assert first["loss"] == pytest.approx(0.693147, abs=1e-4)


def test_the_same_command_submits_nothing_when_all_is_done(results: Path) -> None:
    before = ledger(results)

    result = sweep(*SMALL, "--set", f"site.root={results.parent}", timeout=60)

    assert result.returncode == 0
    assert ", 0 to do" in " ".join(result.stdout.split())
    assert ledger(results) == before


def test_the_dry_run_shows_the_script_that_was_submitted(results: Path, tmp_path: Path) -> None:
    shown = sweep(*SMALL, "--set", f"site.root={tmp_path}", "--dry-run", timeout=60).stdout

    (script,) = [path for path in (results / "slurm").glob("*/*_submission.sh") if "--array=0-1" in path.read_text()]
    lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH") and str(results) not in line]
    missing = [line for line in lines if line not in shown and "--dependency" not in line and "--job-name" not in line]
    assert missing == []
    assert "--dependency='afterany:<shared-1>'" in shown


def test_what_sbatch_refuses_is_told_in_one_message(devcluster: Cluster, tmp_path: Path) -> None:
    result = sweep(*SMALL, "--set", f"site.root={tmp_path}", "--set", "site.slurm.partition=nope", timeout=60)

    assert result.returncode == 2
    assert "invalid partition specified: nope" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_launcher_itself_runs_as_a_small_job(results: Path, tmp_path: Path) -> None:
    log = tmp_path / "sweep.log"
    command = ["sbatch", "--wait", f"--output={log}", "sbatch/sweep.sbatch", *SMALL, "--set", f"site.root={results.parent}"]
    environment = {**os.environ, "EVA_HPC_PYTHON": sys.executable}

    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr + log.read_text()
    assert ", 0 to do" in " ".join(log.read_text().split())
    assert "table.tex" in log.read_text()
