"""A sweep of two grid points and two seeds whose results are written by hand: artifacts, ledger, and what Slurm says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from eva_hpc.cluster import queue
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.plan.index import write_index
from eva_hpc.plan.plan import Plan, Task, make_plan
from eva_hpc.store.artifacts import Store
from tests.recipes import LAB

RUNS = [f"responses_per_prompt={k},seed={seed}" for k in (2, 6) for seed in (1, 2)]


def plan(
    axis: str = "responses_per_prompt", values: tuple[Any, ...] = (2, 6), seeds: tuple[int, ...] = (1, 2), **recipe: Any
) -> Plan:
    """The plan of a lab sweep; `recipe` has other top-level keys of the recipe."""
    points = tuple(({axis: value}, Recipe.model_validate({**LAB, **recipe, axis: value})) for value in values)
    sweep = Sweep(name="test", recipe="recipe.yaml", axes={axis: values}, seeds=seeds)
    return make_plan(Experiment(sweep=sweep, recipe=Recipe.model_validate({**LAB, **recipe}), points=points))


class HandMade:
    """Results of a plan below a root. Every event is a second later than the one before."""

    def __init__(self, root: Path, planned: Plan) -> None:
        self.plan = planned
        self.results = root / planned.name
        self.store = Store(root / "store")
        self.slurm: dict[str, queue.QueueEntry] = {}
        self.accounts: dict[str, list[queue.Attempt]] | None = {}
        self.away = False
        self.calls: list[str] = []
        (self.results / "ledger").mkdir(parents=True)
        write_index(planned, self.results)
        self._clock = 0

    def event(self, event: str, **fields: Any) -> None:
        self._clock += 1
        time = f"2026-01-31T12:{self._clock // 60:02}:{self._clock % 60:02}.000+00:00"
        with (self.results / "ledger" / "hand.jsonl").open("ab") as file:
            file.write(orjson.dumps({"time": time, "event": event, **fields}, option=orjson.OPT_APPEND_NEWLINE))

    def submit(self, array: str, jobs: dict[str, list[Task]], gpus: int = 0) -> list[str]:
        """An array of jobs by name, taken by sbatch; returns their ids."""
        listed = [{"name": name, "tasks": [task.id for task in tasks]} for name, tasks in jobs.items()]
        shape = {"nodes": 1, "cpus_per_node": 2, "gpus_per_node": gpus, "mem_gb": None, "time_minutes": 60}
        asked = {"array": f"runs-{array}", "job_name": f"test:{array}", "jobs": listed, "shape": shape, "after": []}
        self.event("submitting", token=array, **asked, canary=None)
        self.event("submitted", token=array, job=array, count=len(jobs))
        return [f"{array}_{index}" for index in range(len(jobs))] if len(jobs) > 1 else [array]

    def submit_all(self, gpus: int = 0) -> dict[str, str]:
        """What all runs share as job 10 ("shared"), the rest of each as 20_0 to 20_3; returns ids by name."""
        shared = [task for task in self.plan.tasks if len(task.runs) > 1]
        own = {run: [task for task in self.plan.tasks if task.runs == (run,)] for run in RUNS}
        ids = self.submit("10", {"shared-1": shared}, gpus) + self.submit("20", own, gpus)
        return dict(zip(["shared", *RUNS], ids, strict=True))

    def do(self, task: Task, job: str | None = None, seconds: float = 10.0, gpus: int = 0) -> None:
        """A task started, committed and done."""
        fields = {"job": job} if job else {}
        self.event("started", task=task.id, **fields)
        self.commit(task)
        self.event("done", task=task.id, seconds=seconds, gpus=gpus, **fields)

    def commit(self, task: Task) -> None:
        folder = self.store.folder(task.identity)
        folder.mkdir(parents=True)
        manifest = {"identity": task.identity.to_json(), "seconds": 10.0, "files": {}, "inputs": {}}
        (folder / "manifest.json").write_bytes(orjson.dumps(manifest))

    def shared(self) -> list[Task]:
        return [task for task in self.plan.tasks if len(task.runs) > 1]

    def own(self, run: str) -> list[Task]:
        return [task for task in self.plan.tasks if task.runs == (run,)]

    def in_queue(self, job: str, state: str, reason: str = "None") -> None:
        self.slurm[job] = queue.QueueEntry(state, reason, None, "")

    def answer(self, monkeypatch: pytest.MonkeyPatch) -> HandMade:
        """Let Slurm say what was given by hand."""

        def squeue(jobs: Any, **_: Any) -> dict[str, queue.QueueEntry]:
            if not jobs:
                return {}
            self.calls.append("squeue")
            if self.away:
                raise queue.ControllerAway("Unable to contact slurm controller")
            return {job: entry for job, entry in self.slurm.items() if job in set(jobs)}

        def sacct(jobs: Any, *_: Any, **__: Any) -> dict[str, list[queue.Attempt]] | None:
            if not jobs:
                return {}
            self.calls.append("sacct")
            return None if self.accounts is None else {job: self.accounts[job] for job in jobs if job in self.accounts}

        monkeypatch.setattr(queue, "squeue", squeue)
        monkeypatch.setattr(queue, "sacct", sacct)
        return self


def attempt(state: str, elapsed_s: int = 3600, gpus: int = 0, nodes: str = "node1") -> queue.Attempt:
    """A row of accounting."""
    return queue.Attempt(state, (0, 0), (0, 0), "None", None, None, elapsed_s, {"gres/gpu": str(gpus)}, nodes)
