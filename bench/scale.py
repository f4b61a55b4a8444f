"""Seconds and peak memory of everything that a sweep does to all its runs at once: for 10, 100, 1,000 and 10,000 runs.

python bench/scale.py

The stores are made up, but real: every stage of every run is committed, with its manifest and, where a table needs it, its
metrics. Submission is to a throwaway Slurm, with every job held. Each number is the best of three, each of a process of its own
and without the time of starting it.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import yaml
from rich.console import Console
from tabulate import tabulate

from eva_hpc.cluster import devcluster, queue
from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.execution import survey, versions
from eva_hpc.cluster.slurm import SlurmSweep
from eva_hpc.cluster.submission import Surroundings
from eva_hpc.cluster.sweep_status import status_of
from eva_hpc.commands.status_screen import screen
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.sweep import Experiment
from eva_hpc.plan.index import write_index
from eva_hpc.plan.jobs import make_arrays, make_jobs, pending_tasks
from eva_hpc.plan.plan import Plan, Task, make_plan
from eva_hpc.report.aggregate import aggregate
from eva_hpc.report.collect import collect
from eva_hpc.report.tables import terminal_table, write_tables
from eva_hpc.stages.policy import write_policy
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import Store
from eva_hpc.store.inventory import Inventory

RUNS = (10, 100, 1_000, 10_000)
REPEATS = 3
SEEDS, RESPONSES = (1, 2, 3, 4, 5), (2, 6)
METRICS = ("win_rate", "gain", "reward", "reward_easy", "reward_medium", "reward_hard", "turn_1", "turn_2")
RECIPE = Path(__file__).parents[1] / "sweeps" / "recipes" / "lab.yaml"
TARGETS = {("plan and submit", 1_000): 10.0, ("status", 10_000): 2.0, ("aggregate", 10_000): 10.0}


@dataclass(frozen=True)
class Sweep:
    """A sweep of so many runs in a folder."""

    folder: Path
    runs: int

    @property
    def store(self) -> Store:
        """Where its artifacts are."""
        return Store(self.folder / "store")

    def write(self) -> None:
        """Write the sweep file."""
        rates = [1e-6 * (1 + number) for number in range(self.runs // len(SEEDS) // len(RESPONSES))]
        axes = {"optimiser.learning_rate": rates, "responses_per_prompt": list(RESPONSES)}
        text = {"name": "scale", "recipe": str(RECIPE), "axes": axes, "seeds": list(SEEDS)}
        self.folder.mkdir()
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(text))

    def experiment(self) -> Experiment:
        """Load and check the sweep file."""
        return load_experiment(self.folder / "sweep.yaml", site=load_site("laptop", known_stages=set(STAGES)))

    def plan(self) -> Plan:
        """Load and plan."""
        planned = make_plan(self.experiment())
        gc.freeze()  # as commands do
        return planned


@dataclass(frozen=True)
class Measured:
    """What one measurement took. `slurm_calls` counts the commands of Slurm that were run."""

    seconds: float
    megabytes: float = 0.0
    slurm_calls: int | None = None

    def __str__(self) -> str:
        calls = "" if self.slurm_calls is None else f", {self.slurm_calls} calls"
        return f"{self.seconds:.3f} s, {self.megabytes:.0f} MB{calls}"


# ---------------------------------------------------------------------------- what is measured: one function for each row


def plan(sweep: Sweep) -> Measured:
    """Load, plan, find out that nothing is done."""
    began = time.perf_counter()
    planned = sweep.plan()
    assert len(pending_tasks(planned, Inventory(sweep.store).holds)) == len(planned.tasks)
    return Measured(time.perf_counter() - began)


def submit(sweep: Sweep) -> Measured:
    """Load, plan, find out that nothing is done, and hand every job to a real Slurm."""
    results = Path(tempfile.mkdtemp(dir=sweep.folder))
    calls = counted_calls(results / "calls")
    site = load_site("devcluster", [f"site.root={results}", "site.slurm.additional.hold=true"], known_stages=set(STAGES))
    began = time.perf_counter()
    planned = sweep.plan()
    pending = pending_tasks(planned, Inventory(sweep.store).holds)
    slurm = SlurmSweep(Board(planned), Surroundings(planned, site, sweep.store.root, results, ()), pending, canary=True)
    slurm.run(wait=False)
    taken = time.perf_counter() - began
    submitted = [job for job in slurm.active if slurm.jobs[job].name in {run.name for run in planned.runs}]
    assert len(submitted) == sweep.runs
    called = len(calls.read_text().splitlines())
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
    return Measured(taken, slurm_calls=called)


def counted_calls(folder: Path) -> Path:
    """Put scripts before Slurm's commands that write a line for each call; returns the file."""
    folder.mkdir()
    calls = folder / "calls"
    for name in ("sbatch", "squeue", "sacct", "scontrol"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} >> {calls}\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    return calls


def status(sweep: Sweep) -> Measured:
    """`eva-hpc status`: index, ledger, store, one squeue and one sacct, whose answers are made up, to a screen."""
    results = sweep.folder / "results"
    if not results.exists():
        submitted(sweep, results)
    calls: list[str] = []
    text = {name: (sweep.folder / f"{name}.txt").read_text() for name in ("squeue", "sacct")}

    def answer(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        calls.append(command[0])
        return subprocess.CompletedProcess(list(command), 0, text[command[0]], "")

    queue._run = answer
    began = time.perf_counter()
    found = status_of(results)
    assert found is not None
    Console(file=io.StringIO(), width=160).print(screen(found, "h100"))
    taken = time.perf_counter() - began
    assert len(found.runs) == sweep.runs
    return Measured(taken, slurm_calls=len(calls))


def what_is_done(sweep: Sweep) -> Measured:
    """A command's first look at the store: set aside what cannot be built on, find what is still to be done."""
    planned = sweep.plan()
    began = time.perf_counter()
    assert survey(planned, sweep.store) == []
    pending_tasks(planned, Inventory(sweep.store).holds)
    return Measured(time.perf_counter() - began)


def next_look(sweep: Sweep) -> Measured:
    """The same question again, as it is asked every few seconds while jobs are running."""
    planned, inventory = sweep.plan(), Inventory(sweep.store)
    pending_tasks(planned, inventory.holds)
    began = time.perf_counter()
    inventory.refresh()
    pending_tasks(planned, inventory.holds)
    return Measured(time.perf_counter() - began)


def board(sweep: Sweep) -> Measured:
    """Make the board and put every task through it; the first one fails and blocks all others."""
    planned = sweep.plan()
    began = time.perf_counter()
    states = Board(planned)
    for task in planned.tasks:
        states.started(task, sweep.folder, sweep.folder)
        states.finished(task, 1.0)
    states = Board(planned)
    states.failed(planned.tasks[0], "why")
    assert states.count(State.PENDING) < len(planned.tasks)
    return Measured(time.perf_counter() - began)


def aggregation(sweep: Sweep) -> Measured:
    """Rows from the store, statistics, tables in all forms."""
    experiment = sweep.experiment()
    planned = make_plan(experiment)
    began = time.perf_counter()
    rows = collect(planned, sweep.store)
    summary = aggregate(rows, experiment)
    write_tables(summary, experiment, sweep.folder)
    Console(file=io.StringIO(), width=160).print(terminal_table(summary, experiment))
    assert not summary.missing_runs
    return Measured(time.perf_counter() - began)


@dataclass(frozen=True)
class Row:
    """A line of the table, and how much of the sweep is done when it is measured: none, half or all of its runs."""

    name: str
    done: float
    measure: Callable[[Sweep], Measured]


ROWS = (
    Row("plan", 0.0, plan),
    Row("board", 0.0, board),
    Row("plan and submit", 0.0, submit),
    Row("status", 0.5, status),
    Row("what is done of a half-finished sweep", 0.5, what_is_done),
    Row("… asked again", 0.5, next_look),
    Row("what is done of a finished sweep", 1.0, what_is_done),
    Row("… asked again", 1.0, next_look),
    Row("aggregate", 1.0, aggregation),
)


# ---------------------------------------------------------------------------- the made-up store


def fill(sweep: Sweep, share: float) -> None:
    """Commit all that the first so many runs need and that is not there yet."""
    os.fsync = lambda fd: None  # nothing here has to outlive the machine
    planned, store = sweep.plan(), sweep.store
    first = {run.name for run in planned.runs[: round(share * sweep.runs)]}
    contents: dict[str, str] = {}
    for task in planned.tasks:
        if first.isdisjoint(task.runs):
            continue
        artifact = store.at(store.folder(task.identity)) or store.commit(task.identity, _made_up(task, store, contents))
        contents[task.id] = artifact.content


def _made_up(task: Task, store: Store, contents: dict[str, str]) -> dict[str, object]:
    """Write the files of a task; returns what its manifest says of it."""
    folder = store.folder(task.identity)
    store.work(task.identity).mkdir(parents=True)
    number = int(task.identity.family[:6], 16)
    if task.stage == "evaluate":
        rows = [{"metric": name, "value": number % 9973 / 100, "n": 320, "coverage": 1.0} for name in METRICS]
        (folder / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    else:
        (folder / f"{task.stage}.jsonl").write_bytes(orjson.dumps({"id": task.id}))
    if task.stage == "start_policy":
        write_policy(folder, "org/name", revision=None, dtype="float32", attention="sdpa", trust_remote_code=False)
    inputs = {}
    for role, source in task.inputs.items():
        name = f"{source.stage}/{source.name}"
        inputs[role] = {"key": source.key, "artifact": name, "content": contents[name]}
    records = {"in": 320, "out": 100 + number % 200, "set_aside": {}}
    described = {"stage": task.stage, "version": 1, "spec": task.spec, "inputs": inputs, "records": records}
    return {**described, "seconds": 1.0, "processes": 1, **versions()}


def submitted(sweep: Sweep, results: Path) -> None:
    """The ledger of a sweep whose jobs were all submitted, and Slurm's answers: what is not done is at work or waits."""
    planned, store = sweep.plan(), Inventory(sweep.store)
    site = load_site("h100", [f"site.root={sweep.folder}"], known_stages=set(STAGES))
    (results / "ledger").mkdir(parents=True)
    write_index(planned, results)
    now = "2026-01-31T12:00:00.000+00:00"
    launcher, queued, accounted = [], [], []
    for number, array in enumerate(make_arrays(planned, make_jobs(planned, planned.tasks, site), site), start=100):
        shape = {"nodes": array.shape.nodes, "gpus_per_node": array.shape.gpus_per_node}
        jobs = [{"name": job.name, "tasks": list(job.tasks)} for job in array.jobs]
        asked = {
            "token": f"{number}",
            "array": array.name,
            "job_name": array.name,
            "jobs": jobs,
            "shape": shape,
            "canary": None,
        }
        launcher.append({"time": now, "event": "submitting", **asked})
        launcher.append({"time": now, "event": "submitted", "token": f"{number}", "job": f"{number}", "count": len(jobs)})
        for index, job in enumerate(array.jobs):
            name = f"{number}_{index}" if len(jobs) > 1 else f"{number}"
            own: list[dict[str, Any]] = [{"time": now, "event": "begun", "job": name, "nodes": "node1", "restart": 0}]
            done = True
            for task in job.tasks:
                done = done and store.holds(planned.by_id[task].identity)
                own.append({"time": now, "event": "started", "task": task, "job": name, "nodes": "node1", "restart": 0})
                if not done:
                    break
                own.append({"time": now, "event": "done", "task": task, "job": name, "seconds": 1.0, "gpus": 8})
            (results / "ledger" / f"job-{name}.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in own))
            state = "COMPLETED" if done else "RUNNING"
            accounted.append(f"{name}|{state}|0:0|0:0|None|{now[:19]}|Unknown|600|cpu=8,gres/gpu=8,node=1|node1|{array.name}")
            if not done:
                queued.append(f"{name}|RUNNING|{now[:19]}|{array.name}|None")
    (results / "ledger" / "launcher.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in launcher))
    (sweep.folder / "squeue.txt").write_text("\n".join(queued))
    (sweep.folder / "sacct.txt").write_text("\n".join(accounted))


# ---------------------------------------------------------------------------- the table


def in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function returns in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def throwaway_slurm() -> Iterator[None]:
    """A Slurm for these measurements alone."""
    with tempfile.TemporaryDirectory(prefix="devcluster-", dir="/tmp") as folder:
        os.environ |= devcluster.up(Path(folder) / "slurm", options={"MaxJobCount": "50000"}).environment()
        try:
            yield
        finally:
            devcluster.down(Path(folder) / "slurm")


def with_memory(measure: Callable[[Sweep], Measured], sweep: Sweep) -> Measured:
    """A measurement and the peak memory of this process, in MB."""
    taken = measure(sweep)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(taken.seconds, peak, taken.slurm_calls)


def main(counts: Sequence[int] = RUNS) -> None:
    taken: dict[tuple[int, int], Measured] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, throwaway_slurm():
        for runs in counts:
            sweep = Sweep(Path(folder) / str(runs), runs)
            sweep.write()
            done = 0.0
            for number, row in enumerate(ROWS):
                if row.done > done:
                    in_a_process(fill, sweep, row.done)
                    done = row.done
                measured = [in_a_process(with_memory, row.measure, sweep) for _ in range(REPEATS)]
                taken[number, runs] = min(measured, key=lambda one: one.seconds)
                print(f"{runs} runs, {row.name}: {taken[number, runs]}", file=sys.stderr)
    table = []
    for number, row in enumerate(ROWS):
        seconds = [taken[number, runs].seconds for runs in counts]
        growth = ", ".join(f"{later / before:.1f}" for before, later in pairwise(seconds))
        table.append([row.name, *(taken[number, runs] for runs in counts), growth])
    print(tabulate(table, ["", *(f"{runs:,} runs" for runs in counts), "growth at ten times the runs"]))
    for number, row in enumerate(ROWS):
        for runs in counts:
            if (limit := TARGETS.get((row.name, runs))) is not None:
                took = taken[number, runs].seconds
                print(f"\n{row.name}, {runs:,} runs: {took:.2f} s, limit {limit:g} s: {'within' if took < limit else 'ABOVE'}")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or RUNS)
