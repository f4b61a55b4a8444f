"""The rule-based rewriter: the creator's evolver in the lab world.

    Reverse: kapol  --deepen-->    Reverse then Upper: kapol
                    --lengthen-->  Reverse: kapolim
                    --switch-->    Rotate: kapol
                    --renew-->     Reverse: tugas
                    --invent-->    Largest: 6 0 2

The first two go in depth (harder), the next two in breadth (another task of the same size); the last has nothing of its parent
but the size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from eva_hpc.lab.families import FAMILIES
from eva_hpc.lab.tasks import MAX_LENGTH, Task, deepen, draw_content, draw_step, kind_of, parse, sensible, split_of
from eva_hpc.store.seeds import derive_seed

OPERATOR_FAMILIES = {
    "evol_instruct": ("deepen", "lengthen", "switch", "renew"),
    "evol_complexity": ("deepen", "lengthen"),
    "evol_quality": ("switch", "renew"),
    "self_instruct": ("invent",),
}
"""What stands in the lab for the families of `method.evolving`."""

_ATTEMPTS = 200


def rewrite(prompt: str, seed: int, operators: Sequence[str] = OPERATOR_FAMILIES["evol_instruct"]) -> tuple[str | None, str]:
    """Another prompt made from this one, and the name of the operator that made it.

    The result is a sensible task, differs from its parent and is of the train split; one that is not is drawn again. It is None
    if that does not help: a task can be as hard as `deepen` and `lengthen` can make it.

    Raises:
        ValueError: the prompt is no lab task.
    """
    task = parse(prompt)
    for attempt in range(_ATTEMPTS):
        rng = random.Random(derive_seed("rewrite", task.prompt, seed, attempt))
        operator = rng.choice(operators)
        child = OPERATORS[operator](task, rng)
        if child != task and sensible(child) and split_of(child.prompt) == "train":
            return child.prompt, operator
    return None, operator


def _lengthen(task: Task, rng: random.Random) -> Task:
    kind = kind_of(task.content)
    more = draw_content(kind, rng.randint(1, 2), rng)
    return replace(task, content=f"{task.content} {more}" if kind == "list" else task.content + more)


def _switch(task: Task, rng: random.Random) -> Task:
    place = rng.randrange(len(task.steps))
    old = task.steps[place]
    new = draw_step(FAMILIES[old.family].takes, rng, task.content)
    steps = (*task.steps[:place], new, *task.steps[place + 1 :])
    last = place == len(task.steps) - 1
    return replace(task, steps=steps) if last or FAMILIES[new.family].gives == FAMILIES[old.family].gives else task


def _renew(task: Task, rng: random.Random) -> Task:
    return replace(task, content=draw_content(kind_of(task.content), task.length, rng))


def _invent(task: Task, rng: random.Random) -> Task:
    kind = rng.choice(list(FAMILIES.values())).takes
    characters = len(task.content)
    length = characters if kind == "word" else (characters + 1) // 2
    content = draw_content(kind, min(max(2, length), MAX_LENGTH[kind]), rng)
    child = Task((draw_step(kind, rng, content),), content)
    return deepen(child, rng) if len(task.steps) > 1 else child


OPERATORS: dict[str, Callable[[Task, random.Random], Task]] = {
    "deepen": deepen,
    "lengthen": _lengthen,
    "switch": _switch,
    "renew": _renew,
    "invent": _invent,
}
