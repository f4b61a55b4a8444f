"""A job that is told to save goes back into the queue and on from its checkpoint; one that the user cancels stays cancelled."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.store.records import read_jsonl
from tests.cluster.sweeps import CHECKOUT, explain, results_of

pytestmark = pytest.mark.slow

EPOCHS = 40
SETTINGS = {
    "recipe.policy.steps": 10,
    "recipe.prompts.count": 32,
    "recipe.warmup": "null",
    "recipe.optimiser.epochs": EPOCHS,
    "recipe.benchmarks.lab.prompts": 4,
    "sweep.axes.evolved_ratio": "[0.0]",
}


def start(root: Path) -> subprocess.Popen[str]:
    """The command, while it watches its one job."""
    overrides = [part for key, value in {**SETTINGS, "site.root": root}.items() for part in ("--set", f"{key}={value}")]
    command = ["-m", "eva_hpc.sweep", "sweeps/evolved_ratio.yaml", "--site", "devcluster", "--quick", *overrides]
    return subprocess.Popen(
        [sys.executable, *command], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until(condition: Callable[[], bool], process: subprocess.Popen[str], root: Path) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not get that far in time"
        time.sleep(0.1)


def steps_done(root: Path) -> int:
    for path in (root / "store").glob("train/*/*/progress-0.json"):
        done: int = orjson.loads(path.read_bytes())[0]
        return done
    return 0


def test_told_to_save_a_job_is_requeued_and_training_goes_on_where_it_was(devcluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path)
    until(lambda: steps_done(tmp_path) >= 5, process, tmp_path)
    (job,) = {event["job"] for event in Ledger(results_of(tmp_path)).events() if event["event"] == "submitted"}

    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, explain(subprocess.CompletedProcess([], 1, output, ""), tmp_path)
    events = Ledger(results_of(tmp_path)).events()
    assert [event["event"] for event in events].count("requeued") == 1
    started = [event["task"] for event in events if event["event"] == "started"]
    assert [task.split("/")[0] for task in started if started.count(task) > 1] == ["train", "train"]
    (log,) = [read_jsonl(path) for path in (tmp_path / "store").glob("train/*/train_log.jsonl")]
    assert [row["step"] for row in log] == list(range(1, len(log) + 1))
    (text,) = [path.read_text() for path in results_of(tmp_path).glob("logs/*/train-????????.log")]
    assert "stopped; what was done is saved" in text


def test_a_job_that_the_user_cancels_stays_cancelled_and_the_command_says_so(devcluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path)
    until(lambda: steps_done(tmp_path) >= 2, process, tmp_path)
    (job,) = {event["job"] for event in Ledger(results_of(tmp_path)).events() if event["event"] == "submitted"}

    queue.cancel([job])
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "failed: train" in output
    assert "Missing runs, 1 of 1" in output
    assert queue.squeue([job]) == {}
    assert "requeued" not in {event["event"] for event in Ledger(results_of(tmp_path)).events()}
