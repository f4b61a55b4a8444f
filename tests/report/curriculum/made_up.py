"""A store with the prompts, responses and rewards of a planned run, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.method.informativeness import a_min
from eva_hpc.plan.plan import Plan, PlannedRun, make_plan
from eva_hpc.report.curriculum.collect import ADMISSION_STAGES, Part, parts_of
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity
from eva_hpc.store.records import write_jsonl
from eva_hpc.store.seeds import content_id
from tests.recipes import LAB

BASE = ("Reverse: kapol", "Upper: tugas", "Flip: 4 1 7", "Largest: 3 5")
EVOLVED = ("Reverse then Upper: kapolim", "Upper then Rotate: tugas", "Flip then First: 4 1 7 2", "no task at all")


def plan_of(seeds: tuple[int, ...] = (1,), **recipe: Any) -> Plan:
    """A lab sweep over one value of the ratio, with other top-level keys of the recipe."""
    resolved = Recipe.model_validate({**LAB, "evolved_ratio": 0.5, **recipe})
    ratio = resolved.evolved_ratio
    sweep = Sweep(name="test", recipe="recipe.yaml", axes={"evolved_ratio": (ratio,)}, seeds=seeds)
    return make_plan(
        Experiment(sweep=sweep, recipe=resolved, points=(({"evolved_ratio": ratio}, resolved),), fingerprints={"p.jsonl": "f0"})
    )


def prompt(text: str, parent: str | None = None, depth: int = 0) -> dict[str, Any]:
    return {
        "id": content_id(text),
        "prompt": text,
        "source": "made up",
        "parent": parent,
        "operator": "deepen" if parent else None,
        "depth": depth,
        "round": depth,
    }


def commit(store: Store, identity: Identity, name: str, records: Sequence[Any], **counts: Any) -> None:
    if store.find(identity) is None:
        store.folder(identity).mkdir(parents=True)
        write_jsonl(store.folder(identity) / name, records)
        store.commit(identity, {"records": {"in": len(records), "out": len(records), "set_aside": {}, **counts}})


def fill(store: Store, plan: Plan, run: PlannedRun, texts: Mapping[str, Sequence[str]] | None = None) -> None:
    """What the curriculum reads of a run. Response j of a prompt has j + 1 tokens and reward j; the last one has no reward."""
    texts = texts or {"base": BASE, "evolved": EVOLVED}
    for part in parts_of(plan, run):
        for role in part.roles:
            fill_set(store, part, role, texts[role])
        for task in (part.select,) if part.select else ():
            values = [
                {"prompt_id": content_id(text), "informativeness": a_min([0.0, 4.0]), "weight": 0.25, "selected": index == 0}
                for index, text in enumerate(texts["base"])
            ]
            commit(store, task.identity, "informativeness.jsonl", values)
    for task in plan.tasks_of(run.name):
        if task.stage in ADMISSION_STAGES:
            aside = {"empty": 2, "duplicate of a base prompt": 1}
            commit(store, task.identity, "prompts.jsonl", [], **{"in": 7, "out": 4, "set_aside": aside})


def fill_set(store: Store, part: Part, role: str, texts: Sequence[str], rewards: bool = True) -> None:
    parent = content_id(BASE[0]) if role == "evolved" else None
    prompts = [prompt(text, parent, 1 if parent else 0) for text in texts]
    inputs = part.pair.inputs
    count = dict(inputs[f"{role}_responses"].nested)["responses"]
    commit(store, inputs[role], "prompts.jsonl", prompts)
    responses = [
        {
            "prompt_id": one["id"],
            "prompt": one["prompt"],
            "prompt_tokens": [1] * 9,
            "responses": [{"text": "x", "tokens": [5] * (j + 1), "finish": "stop", "logprob": -1.0} for j in range(count)],
        }
        for one in prompts
    ]
    commit(store, inputs[f"{role}_responses"], "responses.jsonl", responses)
    if rewards:
        given = [*map(float, range(count - 1)), None]
        records = [{"prompt_id": one["id"], "rewards": given} for one in prompts]
        commit(store, inputs[f"{role}_rewards"], "rewards.jsonl", records)
