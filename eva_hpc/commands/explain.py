"""``eva-hpc explain FILE RUN``: for each stage of a run, when and by whom it was done, or why it is not or will run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eva_hpc.commands.options import File, NoSharing, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eva_hpc.cluster.history import History
    from eva_hpc.plan.explain import Change
    from eva_hpc.plan.plan import Plan, Task
    from eva_hpc.request import Opened
    from eva_hpc.store.artifacts import Artifact, Store

State = Literal["done", "not needed", "at work", "failed", "to do"]


@dataclass(frozen=True)
class Explanation:
    """Why a stage is where it is. `because` names the first stage upstream to blame, if it is not this one."""

    task: str
    part: str
    state: State
    why: str
    because: str | None = None
    changes: tuple[Change, ...] = field(default=())

    @property
    def stage(self) -> str:
        """Its stage."""
        return self.task.partition("/")[0]


def explain(
    file: File,
    run: Annotated[str, typer.Argument(help="run by its name or by what is enough of it, e.g. 6,1 or k=6 seed 1")],
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Why stages of a run are done, not done, or will be done again: which setting, file, model or code changed."""
    import sys

    from rich.console import Console

    from eva_hpc.commands.run_names import one_run
    from eva_hpc.plan.index import index_of
    from eva_hpc.request import Request, open_request

    with told_plainly():
        opened = open_request(Request(file, site, recipe, tuple(set_), quick, not no_sharing))
        name = one_run(run, index_of(opened.plan).runs).name
        found = explanations(opened, name)
        if as_json:
            import orjson

            sys.stdout.write(orjson.dumps({"run": name, "stages": found}, option=orjson.OPT_INDENT_2).decode() + "\n")
        else:
            Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(_screen(name, found))


def explanations(opened: Opened, run: str) -> list[Explanation]:
    """Every stage of a run explained, in the order of the plan."""
    from eva_hpc.cluster.history import history_of
    from eva_hpc.cluster.ledger import Ledger

    started = (opened.results / "ledger").is_dir()
    past = history_of(Ledger(opened.results).events() if started else [])
    return list(_Explainer(opened, run, past).all())


class _Explainer:
    def __init__(self, opened: Opened, run: str, past: History) -> None:
        from eva_hpc.plan.explain import changes

        self.plan: Plan = opened.plan
        self.run = run
        self.past = past
        self.store: Store = opened.store
        self.root = opened.root
        self.results = opened.results
        self.tasks = self.plan.tasks_of(run)
        self.artifacts: dict[str, Artifact | None] = {task.id: self.store.find(task.identity) for task in self.tasks}
        before = _earlier_plan(opened, run)
        self.before = before[0] if before else ""
        self.changes: Mapping[str, tuple[Change, ...]] = changes(self.plan, before[1], run) if before else {}
        self.status = self._statuses()

    def _statuses(self) -> tuple[str, bool]:
        """Where the run is in words, and whether something is at work on it."""
        from eva_hpc.cluster.sweep_status import RunState, status_of

        status = status_of(self.results)
        one = next((one for one in status.runs if one.name == self.run), None) if status else None
        if one is None:
            return "not submitted yet", False
        return f"{one.state.value}{f': {one.why}' if one.why else ''}", one.state in (RunState.RUNNING, RunState.WAITING)

    def all(self) -> Iterator[Explanation]:
        from eva_hpc.plan.jobs import pending_tasks

        alone = self.plan.model_copy(update={"runs": tuple(run for run in self.plan.runs if run.name == self.run)})
        needed = {task.id for task in pending_tasks(alone, lambda identity: self.store.find(identity) is not None)}
        blamed: dict[str, str] = {}
        told: dict[Change, str] = {}
        for task in sorted(self.tasks, key=lambda task: task.part == "evaluation"):
            artifact = self.artifacts[task.id]
            if artifact is not None:
                yield Explanation(task.id, task.part, "done", self._how_done(task, artifact))
            elif task.id not in needed:
                yield Explanation(task.id, task.part, "not needed", "all that reads it is done")
            else:
                upstream = next((blamed[one.id] for one in self.plan.parents(task) if one.id in blamed), None)
                one = self._why_not(task, upstream, told)
                blamed[task.id] = one.because or task.id
                yield one

    def _how_done(self, task: Task, artifact: Artifact) -> str:
        manifest = artifact.manifest
        when = datetime.fromtimestamp((artifact.folder / "manifest.json").stat().st_mtime, timezone.utc)
        words = f"{_day(when)} in {_seconds(manifest.get('seconds', 0))}"
        if artifact.identity != task.identity:
            words += f", as part of {artifact.folder.name.partition('.')[2]}"
        if done := self.past.done.get(task.id):
            return f"{words} by job {done['job']}" if done.get("job") else f"{words} on this machine"
        other = self._other_sweep(f"{artifact.identity.stage}/{artifact.identity.name}")
        return f"{words}, reused from {other}" if other else f"{words}, reused from the store"

    def _other_sweep(self, task: str) -> str | None:
        """The sweep that did a task, by the ledgers of all sweeps of this site."""
        words = f'"event":"done","task":"{task}"'.encode()
        for folder in sorted(self.root.glob("*/ledger")):
            if folder.parent != self.results and any(words in path.read_bytes() for path in folder.glob("*.jsonl")):
                return folder.parent.name
        return None

    def _why_not(self, task: Task, upstream: str | None, told: dict[Change, str]) -> Explanation:

        event = self.past.task.get(task.id, {})
        said = event.get("event")
        changes = self.changes.get(task.id, ())
        own: tuple[Change, ...] = tuple(
            one for one in changes if one.kind != "input" or one.before is None or one.after is None
        )
        aside = sorted(self.store.folder(task.identity).parent.glob(f"corrupt-*-{task.identity.name}"))
        if said == "failed":
            cause, reason = event.get("cause", "failed"), str(event.get("reason", "")).strip().partition("\n")[0]
            if upstream and cause == "missing_input":
                return Explanation(task.id, task.part, "to do", "what it reads is not there", upstream, changes)
            return Explanation(task.id, task.part, "failed", f"{cause}: {reason}", changes=changes)
        if said in ("started", "retried") and self.status[1]:
            return Explanation(task.id, task.part, "at work", _since(event), changes=changes)
        first = next((told[one] for one in own if one in told), None)
        if own and task.id not in self.past.started and not (upstream and first):
            told.update(dict.fromkeys(own, task.id))
            return Explanation(task.id, task.part, "to do", "; ".join(self._in_words(one) for one in own), changes=changes)
        if aside:
            return Explanation(
                task.id, task.part, "to do", f"set aside: {_what_is_wrong(aside[-1], self.store)}", changes=changes
            )
        if task.id in self.past.done:
            when = _day(datetime.fromisoformat(self.past.done[task.id]["time"]))
            return Explanation(
                task.id, task.part, "to do", f"was done {when}, but its artifact has been removed", changes=changes
            )
        if upstream:
            return Explanation(task.id, task.part, "to do", "follows", upstream, changes)
        if said in ("stopped", "requeued", "ended", "started"):
            return Explanation(task.id, task.part, "to do", f"was interrupted; {self.status[0]}", changes=changes)
        return Explanation(task.id, task.part, "to do", f"never ran ({self.status[0]})", changes=changes)

    def _in_words(self, change: Change) -> str:
        if change.kind == "field":
            return f"{change.what} was {_value(change.before)}, now {_value(change.after)}{self.before}"
        if change.kind == "content":
            return f"the content of {change.what} has changed{self.before}"
        if change.kind == "more":
            return f"asks for {change.what}={change.after}, what was made has {change.before}{self.before}"
        if change.kind == "code":
            return f"the code of the stage {change.what} has changed (another version){self.before}"
        if change.kind == "input":
            return f"it {'reads' if change.before is None else 'no longer reads'} {change.what}{self.before}"
        return f"new: nothing stood in its place{self.before}"


def _earlier_plan(opened: Opened, run: str) -> tuple[str, Plan] | None:
    """Where and what the run was when it was last another: in this sweep, else in the same sweep with other settings."""
    import orjson

    from eva_hpc.plan.explain import of_run

    def latest(folder: Path) -> list[Path]:
        return sorted(folder.glob("plans/*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)

    siblings = [folder for folder in opened.root.glob(f"{opened.experiment.sweep.name}-*") if folder != opened.results]
    others = sorted((path for folder in siblings for path in latest(folder)), key=lambda path: -path.stat().st_mtime_ns)
    now = {task.id for task in opened.plan.tasks_of(run)}
    for path in (*latest(opened.results), *others):
        plan = of_run(orjson.loads(path.read_bytes()), run)
        if plan is not None and {task.id for task in plan.tasks} != now:
            own = path.is_relative_to(opened.results)
            return ("" if own else f" (against {path.parents[1].name})"), plan
    return None


def _what_is_wrong(folder: Path, store: Store) -> str:
    """Why an artifact was set aside, as far as it shows."""
    from eva_hpc.store.artifacts import CorruptArtifact

    kept = f"kept as {folder.name}"
    artifact = store.at(folder)
    if artifact is None:
        return f"a file of it was missing or cut; {kept}"
    for role, made_from in artifact.manifest.get("inputs", {}).items():
        source = store.at(store.root / made_from["artifact"])
        if source is not None and source.content != made_from["content"]:
            return f"its input {role} was made again since, with another content; {kept}"
    try:
        artifact.verify()
    except CorruptArtifact as error:
        return f"{str(error).replace(f'{folder}/', '')}; {kept}"
    return f"it could not be built on; {kept}"


def _screen(run: str, found: list[Explanation]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    styles = {"done": "green", "not needed": "dim", "at work": "yellow", "failed": "bold red", "to do": "cyan"}
    named = {one.task: f"{one.stage} ({one.part})" for one in found}
    causes = [one for one in found if one.state not in ("done", "not needed") and one.because is None]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("part", "stage", "", ""):
        table.add_column(column, no_wrap=bool(column), overflow="fold")
    for one in found:
        why = f"after {named[one.because]}" if one.because else one.why
        table.add_row(one.part, one.stage, Text(one.state, styles[one.state]), Text(why, "dim" if one.because else ""))
    done = sum(one.state in ("done", "not needed") for one in found)
    head = Text(f"{run.replace(',', ', ')}: {done} of {len(found)} stages done", "bold")
    if causes and len(found) - done > 1:
        first = causes[0]
        after = sum(one.because == first.task for one in found)
        head.append(f"\nfirst of what is left: {named[first.task]}: {first.why}", "not bold")
        head.append(f"; {after} more follow from it" if after else "", "not bold")
    return Group(head, Text(), table)


def _since(event: Mapping[str, Any]) -> str:
    return f"since {_day(datetime.fromisoformat(event['time']))}{f', job {job}' if (job := event.get('job')) else ''}"


def _day(when: datetime) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M}"


def _seconds(seconds: float) -> str:
    from eva_hpc.cluster.live import clock

    return clock(seconds)


def _value(value: Any) -> str:
    return "not set" if value is None else repr(value) if isinstance(value, str) else str(value)
