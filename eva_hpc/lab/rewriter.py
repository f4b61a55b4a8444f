"""The rule-based rewriter: the creator's evolver in the lab world.

    Reverse: kapol  --deepen-->    Reverse then Upper: kapol
                    --lengthen-->  Reverse: kapolim
                    --switch-->    Rotate: kapol
                    --renew-->     Reverse: tugas

The first two go in depth (harder), the last two in breadth (another task of the same size).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from eva_hpc.lab.families import FAMILIES
from eva_hpc.lab.tasks import Task, deepen, draw_content, draw_step, kind_of, parse, sensible, split_of
from eva_hpc.store.seeds import derive_seed


def rewrite(prompt: str, seed: int) -> tuple[str, str]:
    """Another prompt made from this one, and the name of the operator that made it.

    The result is a sensible task, differs from its parent and is of the train split; one that is not is drawn again.

    Raises:
        ValueError: the prompt is no lab task.
    """
    task = parse(prompt)
    attempt = 0
    while True:
        rng = random.Random(derive_seed("rewrite", task.prompt, seed, attempt))
        operator = rng.choice(list(OPERATORS))
        child = OPERATORS[operator](task, rng)
        if child != task and sensible(child) and split_of(child.prompt) == "train":
            return child.prompt, operator
        attempt += 1


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


OPERATORS: dict[str, Callable[[Task, random.Random], Task]] = {
    "deepen": deepen,
    "lengthen": _lengthen,
    "switch": _switch,
    "renew": _renew,
}
