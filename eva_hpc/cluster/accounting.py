"""What work has cost: means of finished stages, for estimates; and what a sweep took in the end, from its ledger.

Every attempt of a job is charged for its whole allocation, by Slurm's accounting where the ledger has it, else from the first
to the last word of its driver. It is divided among the stages by the time that each was at work; what is left is start-up and
waiting. Where there are no GPUs, CPU cores are counted instead; on this machine without Slurm, processes.

    committed   stages whose artifact was committed
    saved       stages that were told to stop, saved what they had and went on later
    wasted      stages and attempts that ended without a result; at most, for what they had saved before was not lost
    waiting     the rest
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from tabulate import tabulate

from eva_hpc.cluster.attempts import Event, Outcome, attempts_in
from eva_hpc.cluster.ledger import Ledger, jobs_in
from eva_hpc.config.model_size import Sizes
from eva_hpc.plan.cost import CORE_HOURS, GPU_HOURS, Measured, Rate, hours
from eva_hpc.plan.plan import Plan
from eva_hpc.plan.work import Workload, amount, kind_of_work
from eva_hpc.store.artifacts import Artifact, Store, write_atomically

SHARED = "shared"
OVERHEAD = "start-up and waiting"
_SAMPLES = 50
"""Artifacts of a stage that are looked at for a mean."""


@dataclass
class Hours:
    """Hours by what became of them; see the head of this module."""

    committed: float = 0.0
    saved: float = 0.0
    wasted: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.committed + self.saved + self.wasted + self.waiting

    def add(self, outcome: Outcome, value: float) -> None:
        """Add hours of one outcome."""
        setattr(self, outcome, getattr(self, outcome) + value)


@dataclass
class Account:
    """What a sweep has cost so far, in `unit`.

    `planned` and `naive` are what was estimated when it was launched first. `runs` has the stages that several runs need as
    "shared"; `with_shares` gives each run its even part of them. `saved_by_sharing` is what the shared stages would have cost
    in addition if every run had done them for itself, as far as it needs them.
    """

    unit: str
    planned: float | None = None
    naive: float | None = None
    saved_by_sharing: float = 0.0
    attempts: int = 0
    stages: dict[str, Hours] = field(default_factory=lambda: defaultdict(Hours))
    runs: dict[str, Hours] = field(default_factory=lambda: defaultdict(Hours))
    jobs: dict[str, Hours] = field(default_factory=lambda: defaultdict(Hours))
    with_shares: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total(self) -> Hours:
        """Of all stages."""
        return Hours(*(sum(getattr(one, name) for one in self.stages.values()) for name in Hours.__dataclass_fields__))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        parts = {
            name: {key: {**asdict(value), "total": value.total} for key, value in getattr(self, name).items()}
            for name in ("stages", "runs", "jobs")
        }
        return {
            "unit": self.unit,
            "planned": self.planned,
            "naive": self.naive,
            "actual": {**asdict(self.total), "total": self.total.total},
            "saved_by_sharing": self.saved_by_sharing,
            "attempts": self.attempts,
            **parts,
            "runs_with_their_share": dict(self.with_shares),
        }


# ---------------------------------------------------------------------------- before: what such work took


def measured(store: Store, plan: Plan) -> Measured:
    """Mean times of stages like those of a plan, from a sample of what the store has; and the prompts that are there."""
    sums: dict[tuple[str, bool], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    origins: dict[str, Mapping[str, Any] | None] = {}
    names: dict[str, list[str]] = defaultdict(list)
    for task in plan.tasks:
        names[task.stage].append(task.identity.name)
    for stage, own in names.items():
        there = {name for family in store.listing(stage).values() for name in family}
        first = [name for name in own if name in there]
        for name in [*_spread(first), *_spread(sorted(there.difference(own)))][:_SAMPLES]:
            artifact = store.at(store.root / stage / name)
            if artifact is None or "seconds" not in artifact.manifest:
                continue
            manifest = artifact.manifest
            gpus, records = manifest.get("gpus", 0), manifest["records"]
            kind = kind_of_work(stage, manifest["spec"], _start_policy(store, artifact, origins))
            entry = sums[kind, gpus > 0]
            entry[0] += manifest["seconds"] * (gpus or manifest["processes"])
            entry[1] += amount(stage, manifest["spec"], records["in"], records["out"])
            entry[2] += 1
    rates = {key: Rate(seconds / work, int(count)) for key, (seconds, work, count) in sums.items() if work}
    written = {}
    for task in plan.tasks:
        if task.stage in ("prompts", "questions") and (artifact := store.find(task.identity)) is not None:
            written[task.id] = int(artifact.manifest["records"]["out"])
    return Measured(rates, written)


def _spread(names: Sequence[str]) -> list[str]:
    """At most so many of them as are looked at, evenly spaced."""
    step = max(1, -(-len(names) // _SAMPLES))
    return list(names[::step])


def _start_policy(store: Store, artifact: Artifact, known: dict[str, Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """The spec of the start policy that an artifact's policy descends from; None if it reads none or the chain is broken."""
    if artifact.manifest["stage"] == "start_policy":
        spec: Mapping[str, Any] = artifact.manifest["spec"]
        return spec
    source = artifact.manifest["inputs"].get("policy", {}).get("artifact")
    if source is None:
        return None
    if source not in known:
        policy = store.at(store.root / source)
        known[source] = _start_policy(store, policy, known) if policy is not None else None
    return known[source]


# ---------------------------------------------------------------------------- after: what a sweep took


def account(results: Path) -> Account:
    """What a sweep has cost so far, from its ledger and its plans."""
    events = Ledger(results).events()
    jobs = jobs_in(events)
    plans = [Plan.model_validate_json(path.read_bytes()) for path in sorted((results / "plans").glob("*.json"))]
    runs_of = {task.id: task.runs for plan in plans for task in plan.tasks}
    extra = {name: factor for plan in plans for name, factor in _naive_factors(plan).items()}
    on_gpus = any(_gpus(event) for event in events) or any(job.shape.get("gpus_per_node") for job in jobs.values())
    launched = (event["estimate"] for event in events if event["event"] == "launched" and event.get("estimate"))
    estimate: Mapping[str, Any] = next(launched, {})
    cost = Account(GPU_HOURS if on_gpus else CORE_HOURS, estimate.get("planned"), estimate.get("naive"))
    for attempt in attempts_in(events):
        job = jobs.get(attempt.job)
        width = attempt.width(job, on_gpus)
        cost.attempts += 1
        for task, outcome, seconds in attempt.steps():
            if not (value := seconds * width / 3600):
                continue
            runs = runs_of.get(task or (job.tasks[0] if job else ""), ())
            cost.stages[task.partition("/")[0] or OVERHEAD].add(outcome, value)
            cost.runs[runs[0] if len(runs) == 1 else SHARED].add(outcome, value)
            if attempt.job:
                cost.jobs[attempt.job].add(outcome, value)
            for run in runs:
                cost.with_shares[run] += value / len(runs)
            if outcome == "committed":
                cost.saved_by_sharing += value * (extra.get(task, 1.0) - 1.0)
    if OVERHEAD in cost.stages:
        cost.stages[OVERHEAD] = cost.stages.pop(OVERHEAD)  # last
    return cost


def write_account(results: Path, cost: Account) -> tuple[Path, Path]:
    """Write ``cost.json`` and ``cost.md``; returns where they are."""
    paths = results / "cost.json", results / "cost.md"
    write_atomically(paths[0], orjson.dumps(cost.to_json(), option=orjson.OPT_INDENT_2))
    write_atomically(paths[1], markdown(cost).encode())
    return paths


def summary(cost: Account) -> str:
    """One line: planned, actual, wasted, saved by sharing."""
    total = cost.total
    planned = f"planned {hours(cost.planned)}, " if cost.planned is not None else ""
    return (
        f"{cost.unit}: {planned}actual {hours(total.total)}, of these wasted {hours(total.wasted)}; "
        f"saved by sharing {hours(cost.saved_by_sharing)}"
    )


def table(cost: Account, style: str = "simple") -> str:
    """Hours by stage."""
    return _table("stage", {**cost.stages, "all": cost.total}, style)


def markdown(cost: Account) -> str:
    """All of it, for people."""
    runs = [
        [run, hours(own.total), hours(own.wasted), hours(cost.with_shares[run] if run != SHARED else None)]
        for run, own in cost.runs.items()
    ]
    return "\n\n".join(
        [
            "# Cost",
            summary(cost) + ".",
            "Wasted are stages and attempts that ended without a result; at most, for what they had saved was not lost.",
            f"## By stage ({cost.unit})",
            table(cost, "github"),
            f"## By run ({cost.unit})",
            tabulate(
                runs, ["run", "own", "wasted", "with its share of what is shared"], tablefmt="github", disable_numparse=True
            ),
            "",
        ]
    )


def _table(heading: str, rows: Mapping[str, Hours], style: str) -> str:
    cells = [[name, *(hours(value) for value in (*asdict(row).values(), row.total))] for name, row in rows.items()]
    align = ["left", *["right"] * (len(Hours.__dataclass_fields__) + 1)]
    text: str = tabulate(
        cells, [heading, *Hours.__dataclass_fields__, "total"], tablefmt=style, disable_numparse=True, colalign=align
    )
    return text


def _naive_factors(plan: Plan) -> dict[str, float]:
    """For each shared task, its work if every run did its own part of it, in proportion to the work as it is."""
    work = Workload(plan, Sizes(), {})
    needs = work.needs()
    factors = {}
    for task in plan.tasks:
        if len(task.runs) > 1:
            parts = needs.get(task.id, {})
            whole = work.amount(task)
            factors[task.id] = sum(work.amount(task, parts.get(run)) for run in task.runs) / whole if whole else 1.0
    return factors


def _gpus(event: Event) -> bool:
    return event["event"] in ("attempt", "done") and bool(event.get("gpus"))
