"""What makes a run's work another than it was: two plans compared, stage by stage, from the evaluations back to the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eva_hpc.plan.plan import Plan, Task
from eva_hpc.stages.contract import NOT_IN_KEYS

FINGERPRINT = "fingerprint"


@dataclass(frozen=True)
class Change:
    """One difference between a task and the one that stood in its place.

    `field`: a field of the spec; `content`: the content of what the spec names (a prompt file, a model); `more`: more of the
    same is asked for; `input`: another artifact comes in as `what`; `code`: the stage's version; `new`: nothing stood there.
    """

    kind: Literal["field", "content", "more", "input", "code", "new"]
    what: str
    before: Any = None
    after: Any = None


def of_run(content: Mapping[str, Any], run: str) -> Plan | None:
    """A run and its tasks alone, of a plan as JSON; None if the plan has no such run."""
    runs = [one for one in content["runs"] if one["name"] == run]
    if not runs:
        return None
    tasks = [task for task in content["tasks"] if run in task["runs"]]
    return Plan.model_validate({**content, "runs": runs, "tasks": tasks})


def changes(new: Plan, old: Plan, run: str) -> dict[str, tuple[Change, ...]]:
    """Why tasks of a run are not those of an earlier plan, by the id of the new task; those that are the same are left out."""
    found: dict[str, tuple[Change, ...]] = {}
    for task, before in _side_by_side(new, old, run):
        if before is None:
            found.setdefault(task.id, (Change("new", task.stage),))
        elif before.identity != task.identity:
            found[task.id] = tuple(_differences(task, before))
    return found


def _side_by_side(new: Plan, old: Plan, run: str) -> Iterator[tuple[Task, Task | None]]:
    """Every task of a run with the one that has its place in the old plan: the same way of roles from the same benchmark."""
    ends = {one.name: one.evaluations for one in old.runs}.get(run, {})
    (planned,) = (one for one in new.runs if one.name == run)
    waiting: list[tuple[Task, Task | None]] = [
        (new.provider(identity), old.provider(ends[benchmark]) if benchmark in ends else None)
        for benchmark, identity in planned.evaluations.items()
    ]
    seen: set[tuple[str, str | None]] = set()
    while waiting:
        task, before = waiting.pop()
        if (pair := (task.id, before.id if before else None)) in seen:
            continue
        seen.add(pair)
        yield task, before
        for role, identity in task.inputs.items():
            known = before.inputs.get(role) if before else None
            waiting.append((new.provider(identity), old.provider(known) if known else None))


def _differences(task: Task, before: Task) -> Iterator[Change]:
    """What of a task's own, and which of its inputs, is not as before."""
    if task.identity.family == before.identity.family:
        held = dict(before.identity.nested)
        yield from (
            Change("more", name, held.get(name), value) for name, value in task.identity.nested if held.get(name) != value
        )
        return
    count = 0
    now, then = dict(_flat(task.spec)), dict(_flat(before.spec))
    for name in [*now, *(name for name in then if name not in now)]:
        if now.get(name) != then.get(name):
            count += 1
            content = name.rpartition(".")[2] == FINGERPRINT
            what = next((str(value) for key, value in named(task.spec)), task.stage) if content else name
            yield Change("content" if content else "field", what, then.get(name), now.get(name))
    for role in [*task.inputs, *(role for role in before.inputs if role not in task.inputs)]:
        new, old = task.inputs.get(role), before.inputs.get(role)
        if new is None or old is None or new.family != old.family:
            count += 1
            yield Change("input", role, f"{old.stage}/{old.name}" if old else None, f"{new.stage}/{new.name}" if new else None)
    if not count:
        yield Change("code", task.stage)


def named(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The files and models that a spec names, by their dotted fields."""
    for name, value in _flat(spec, locations=True):
        if name.rpartition(".")[2] in ("path", "name") and value:
            yield name, value


def _flat(value: Any, prefix: str = "", locations: bool = False) -> Iterator[tuple[str, Any]]:
    """The values of a spec by their dotted names; those that are no part of a key only if asked for."""
    if not isinstance(value, dict):
        yield prefix.rstrip("."), value
        return
    for name, item in value.items():
        if locations or name not in NOT_IN_KEYS:
            yield from _flat(item, f"{prefix}{name}.", locations)
