"""What a sweep will cost: GPU hours of each stage, with and without sharing, and what each number rests on.

A stage's time is what such stages took before, in proportion to the work; without any in the store, it is computed from the
size of the model and the number of tokens. What is charged is the allocation, not the use: a job holds its widest stage's GPUs
during all of its stages. Where a site has no GPUs the same is told in CPU core hours, from measurements only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.model_size import Sizes
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import engines_found_open, job_shape, make_jobs, task_resources
from eva_hpc.plan.plan import Plan, PlannedRun, Task
from eva_hpc.plan.work import PROMPT_TOKENS, RESPONSE_SHARE, Activity, Slice, Workload

GPU_HOURS = "GPU hours"
CORE_HOURS = "CPU core hours"

PEAK_FLOPS = {"a100": 312e12, "h100": 989e12, "h200": 989e12}
"""Dense bf16 operations per second of one GPU, by the makers' data sheets."""
UNKNOWN_GPU = "a100"
UTILISATION: dict[Activity, float] = {
    "training": 0.30,
    "scoring": 0.30,
    "generation (vllm)": 0.06,  # decoding waits for memory, not for arithmetic
    "generation (transformers)": 0.01,
}
"""Shares of the peak that are typical of each activity. Guesses of ours, until the store has measurements."""
START_UP_S = 120.0
"""Seconds until a stage with a model on GPUs computes, if none before it left the model open: imports, weights, compilation."""
SMALL_STAGE_S = 30.0
"""Seconds of a stage without a model."""


@dataclass(frozen=True)
class Rate:
    """Mean seconds of one process, or of one GPU where there are GPUs, for one unit of a kind of work, over `count` tasks."""

    seconds: float
    count: int


@dataclass(frozen=True)
class Measured:
    """What the store tells: rates by kind of work and by whether it ran on GPUs, and the records that finished tasks wrote."""

    rates: Mapping[tuple[str, bool], Rate] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StageCost:
    """One kind of stage: how many there are, and the hours they take; None where that is not known.

    `naive` is for runs that each compute everything for themselves, with their own number of responses; `done` is for what is
    done or not needed any more; `planned` is for what is still to do.
    """

    stage: str
    separate: int
    shared: int
    to_do: int
    naive: float | None
    done: float | None
    planned: float | None
    basis: str


@dataclass(frozen=True)
class Estimate:
    """The cost of a sweep in `unit`; totals leave out what is not known."""

    unit: str
    stages: tuple[StageCost, ...]
    notes: tuple[str, ...]

    @property
    def naive(self) -> float:
        """If every run computed everything for itself."""
        return sum(stage.naive or 0.0 for stage in self.stages)

    @property
    def done(self) -> float:
        """Of what is done or not needed any more."""
        return sum(stage.done or 0.0 for stage in self.stages)

    @property
    def planned(self) -> float:
        """Of what is still to do."""
        return sum(stage.planned or 0.0 for stage in self.stages)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Stages still to do whose cost is not known."""
        return tuple(stage.stage for stage in self.stages if stage.to_do and stage.planned is None)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        totals = {"unit": self.unit, "naive": self.naive, "done": self.done, "planned": self.planned}
        return {**totals, "unknown": self.unknown, "stages": [asdict(stage) for stage in self.stages], "notes": self.notes}


def estimate(plan: Plan, pending: Sequence[Task], site: Site, sizes: Sizes, measured: Measured) -> Estimate:
    """The cost of a plan at a site.

    Args:
        plan: the plan.
        pending: its tasks that are still to do, in order.
        site: where.
        sizes: of the models and prompt files that its recipes name.
        measured: what earlier work of the same kind took.
    """
    on_gpus = any(task_resources(task, site).gpus_per_rank for task in plan.tasks)
    prices = _Prices(plan, site, sizes, measured)
    to_do = {task.id for task in pending}
    places = _places(plan, plan.tasks, site, on_gpus) if len(to_do) < len(plan.tasks) else {}
    places |= _places(plan, pending, site, on_gpus)
    done, planned, naive, separate = _Sums(), _Sums(), _Sums(), dict[str, int]()
    for task in plan.tasks:
        (planned if task.id in to_do else done).add(task.stage, prices.seconds(task, places[task.id]), places[task.id].width)
    needs = prices.work.needs()
    for run, tasks in ((run, plan.tasks_of(run.name)) for run in plan.runs):
        for task, place in zip(tasks, prices.places_alone(run, tasks, on_gpus), strict=True):
            part = needs[task.id].get(run.name) if task.id in needs else None
            naive.add(task.stage, prices.seconds(task, place, part), place.width)
            separate[task.stage] = separate.get(task.stage, 0) + 1
    tasks_of: dict[str, list[Task]] = {}
    for task in plan.tasks:
        tasks_of.setdefault(task.stage, []).append(task)
    stages = tuple(
        StageCost(
            stage=stage,
            separate=separate.get(stage, 0),
            shared=len(tasks),
            to_do=sum(task.id in to_do for task in tasks),
            naive=naive.hours(stage),
            done=done.hours(stage),
            planned=planned.hours(stage),
            basis="; ".join(dict.fromkeys(prices.basis(task) for task in tasks)),
        )
        for stage, tasks in tasks_of.items()
    )
    return Estimate(GPU_HOURS if on_gpus else CORE_HOURS, stages, tuple(prices.notes()))


def check_budget(cost: Estimate, limit: float) -> None:
    """Refuse a sweep that would take more than `limit` GPU hours.

    Raises:
        ConfigError: it would, or it cannot be told.
    """
    if cost.unit != GPU_HOURS:
        return
    if cost.unknown:
        why = "; ".join(f"{stage.stage}: {stage.basis}" for stage in cost.stages if stage.stage in cost.unknown)
        raise ConfigError(f"--max-gpu-hours: found {limit:g}, but the cost of {', '.join(cost.unknown)} is not known ({why})")
    if cost.planned <= limit:
        return
    most = sorted(cost.stages, key=lambda stage: stage.planned or 0.0, reverse=True)[:3]
    raise ConfigError(
        f"--max-gpu-hours: found {limit:g}; what is to do takes about {hours(cost.planned)} GPU hours, most of it "
        + ", ".join(f"{stage.stage} {hours(stage.planned)} ({stage.basis})" for stage in most if stage.planned)
    )


def hours(value: float | None) -> str:
    """Hours for people: three digits at most where they are few, "?" where they are not known."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


class _Place(NamedTuple):
    """The GPUs, or CPU cores, that are held while a task runs, and whether it finds its engine open."""

    width: int
    engine_open: bool


class _Sums:
    """Hours by stage; not known as soon as one addend is not."""

    def __init__(self) -> None:
        self._hours: dict[str, float | None] = {}

    def add(self, stage: str, seconds: float | None, width: int) -> None:
        before = self._hours.get(stage, 0.0)
        new = 0.0 if not width else None if seconds is None else seconds * width / 3600
        self._hours[stage] = None if before is None or new is None else before + new

    def hours(self, stage: str) -> float | None:
        return self._hours.get(stage, 0.0)


class _Prices:
    """Seconds that tasks take at a site, and why we think so."""

    def __init__(self, plan: Plan, site: Site, sizes: Sizes, measured: Measured) -> None:
        self.plan = plan
        self.site = site
        self.work = Workload(plan, sizes, measured.written)
        self._measured = measured.rates
        self._rates: dict[str, Rate | None] = {}
        self._seconds: dict[tuple[str, bool, Slice | None], float | None] = {}
        self._alone: dict[tuple[tuple[str, str, str | None], ...], list[_Place]] = {}
        self._computed = False
        self._guessed_gpus: dict[str, None] = {}

    def seconds(self, task: Task, place: _Place, part: Slice | None = None) -> float | None:
        """How long a task takes, or would take for the part that one run needs."""
        asked = (task.id, place.engine_open, part)
        if asked not in self._seconds:
            need = task_resources(task, self.site)
            rate = self._rate(task)
            if rate is not None:
                width = need.world_size * max(1, need.gpus_per_rank)
                self._seconds[asked] = rate.seconds * self.work.amount(task, part) / width
            else:
                self._seconds[asked] = self._from_recipe(task, place, part)
        return self._seconds[asked]

    def basis(self, task: Task) -> str:
        """Where that comes from."""
        rate = self._rate(task)
        if rate is not None:
            return f"measured ({rate.count} in the store)"
        operations = self.work.operations(task)
        if not self._has_gpus():
            return "not known: none in the store"
        if operations is None:
            return f"taken as {SMALL_STAGE_S:g} s"
        if operations.size is None:
            return f"not known: the size of {operations.model} is not"
        if not task_resources(task, self.site).gpus_per_rank:
            return "not known: a model without a GPU, none in the store"
        share = UTILISATION[operations.activity]
        parameters = f"{operations.size.count / 1e9:.2g}B parameters by {operations.size.basis}"
        return f"computed: {parameters}, {operations.activity} at {share:.0%} of {self._gpu_type(task.stage)[1]}"

    def places_alone(self, run: PlannedRun, tasks: Sequence[Task], on_gpus: bool) -> list[_Place]:
        """Where each task of a run would be in a sweep of this run only; runs of the same stages are alike."""
        alike = tuple((task.stage, task.parallel, task.policy_engine) for task in tasks)
        if alike not in self._alone:
            own = tuple(task.model_copy(update={"runs": (run.name,)}) for task in tasks)
            alone = Plan(name=self.plan.name, runs=(run,), tasks=own, separate_stages=len(own))
            places = _places(alone, own, self.site, on_gpus)
            self._alone[alike] = [places[task.id] for task in own]
        return self._alone[alike]

    def notes(self) -> list[str]:
        """Assumptions behind what was computed."""
        if not self._computed:
            return []
        return [
            f"computed with prompts of {PROMPT_TOKENS} tokens, responses of {RESPONSE_SHARE:.0%} of max_new_tokens, "
            f"{START_UP_S:g} s to start a model, once for stages of a job that share it; "
            "2 operations per parameter and token forward, 6 in training",
            *(f"assumed: {text}" for text in (*self.work.assumed, *self._guessed_gpus)),
        ]

    def _rate(self, task: Task) -> Rate | None:
        if task.id not in self._rates:
            on_gpus = bool(task_resources(task, self.site).gpus_per_rank)
            self._rates[task.id] = self._measured.get((self.work.kind(task), on_gpus)) if self._measured else None
        return self._rates[task.id]

    def _from_recipe(self, task: Task, place: _Place, part: Slice | None) -> float | None:
        if not self._has_gpus():
            return None
        operations = self.work.operations(task, part)
        if operations is None:
            return SMALL_STAGE_S
        need = task_resources(task, self.site)
        if operations.flops is None or not need.gpus_per_rank:
            return None
        self._computed = True
        speed = PEAK_FLOPS[self._gpu_type(task.stage)[0]] * UTILISATION[operations.activity]
        start = 0.0 if place.engine_open else START_UP_S
        return start + operations.flops / (speed * need.world_size * need.gpus_per_rank)

    def _has_gpus(self) -> bool:
        return any(need.gpus_per_rank for need in (self.site.default, *self.site.stages.values()))

    def _gpu_type(self, stage: str) -> tuple[str, str]:
        """The GPUs of a stage by a name of :data:`PEAK_FLOPS`, and in words."""
        text = self.site.job_options(stage).gpu_type or self.site.name
        for name, peak in PEAK_FLOPS.items():
            if name in text.lower():
                return name, f"{name}'s {peak / 1e12:g} TFLOP/s"
        said = f"what GPUs {text!r} means is not known (site.slurm.gpu_type)"
        self._guessed_gpus[f"{said}; taken as {UNKNOWN_GPU}"] = None
        return UNKNOWN_GPU, f"{UNKNOWN_GPU}'s {PEAK_FLOPS[UNKNOWN_GPU] / 1e12:g} TFLOP/s"


def _places(plan: Plan, tasks: Iterable[Task], site: Site, on_gpus: bool) -> dict[str, _Place]:
    """Tasks by id: what is held is that of their job; on this machine their own, and there no engine is left open."""
    if site.executor == "local":
        needs = {task.id: task_resources(task, site) for task in tasks}
        return {
            name: _Place(need.world_size * (need.gpus_per_rank if on_gpus else need.threads), engine_open=False)
            for name, need in needs.items()
        }
    places: dict[str, _Place] = {}
    for job in make_jobs(plan, tasks, site):
        shape = job_shape(plan, job, site)
        width = shape.nodes * (shape.gpus_per_node if on_gpus else shape.cpus_per_node)
        found = engines_found_open((plan.by_id[name] for name in job.tasks), site)
        places |= {name: _Place(width, name in found) for name in job.tasks}
    return places
