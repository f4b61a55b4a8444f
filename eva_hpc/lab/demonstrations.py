"""Demonstrations: what the start policy imitates. Careful ones are right; the others are of mixed quality.

Those are right with a probability that falls from 0.75 for short contents to 0.2 for long ones, else flawed as a careless
writer's are: the input echoed, the answer cut, mistyped, repeated, or wrapped in chat. A policy that has seen both can give
the right answer but often does not: that is what preference optimisation can then bring out.

    [("Reverse: kapol", "lopak")]
    [("Reverse: kapol", "Sure! lopak")]
    [("Flip: 4 1 7", "7 1 4"), ("Now Largest it", "7")]
"""

from __future__ import annotations

import random
from collections.abc import Callable

from eva_hpc.lab.families import LETTERS
from eva_hpc.lab.tasks import LEVELS, draw_dialogue, draw_task, parse, parse_follow_up
from eva_hpc.store.seeds import derive_seed

CHAT = ("Sure! ", "Okay: ", "I say ")

_DIALOGUES = 0.2
_LEVELS = (*LEVELS["easy"], *LEVELS["medium"], *LEVELS["hard"])
_LEVEL_WEIGHTS = (0.4 / 3,) * 3 + (0.35 / 3,) * 3 + (0.25 / 3,) * 3


def demonstration(seed: int, index: int, careful: bool = False) -> list[tuple[str, str]]:
    """The demonstration of this index: the turns of a conversation, each a prompt of the train split and what to say.

    In a dialogue the first turn is context and right; only the last turn is meant to be imitated.

    Args:
        careful: whether the last turn is right for certain.
    """
    rng = random.Random(derive_seed("demonstration", seed, index))
    if rng.random() < _DIALOGUES:
        prompt, follow_up = draw_dialogue("train", rng)
    else:
        prompt, follow_up = draw_task(rng.choices(_LEVELS, _LEVEL_WEIGHTS)[0], "train", rng).prompt, ""
    task = parse(prompt)
    if not follow_up:
        return [(prompt, task.answer if careful else imperfect(task.answer, task.content, rng))]
    exact = parse_follow_up(follow_up).solve(task.answer)
    return [(prompt, task.answer), (follow_up, exact if careful else imperfect(exact, task.answer, rng))]


def chance_of_right(length: int) -> float:
    """The probability that a demonstration is right whose content or answer, whichever is longer, has this many characters."""
    return min(0.75, max(0.2, 0.75 - 0.55 * (length - 3) / 9))


def imperfect(exact: str, content: str, rng: random.Random) -> str:
    """The exact answer or a flawed one."""
    if rng.random() < chance_of_right(max(len(exact), len(content))):
        return exact
    return rng.choices(list(FLAWS), list(FLAWS.values()))[0](exact, content, rng)


def _echo(exact: str, content: str, rng: random.Random) -> str:
    return content


def _cut(exact: str, content: str, rng: random.Random) -> str:
    return exact[: max(1, len(exact) - rng.randint(1, 3))]


def _typo(exact: str, content: str, rng: random.Random) -> str:
    place = rng.randrange(len(exact))
    wrong = rng.choice("0123456789" if exact[place].isdigit() else LETTERS)
    return exact[:place] + wrong + exact[place + 1 :]


def _repetition(exact: str, content: str, rng: random.Random) -> str:
    place = rng.randrange(len(exact))
    return exact[: place + 1] + exact[place : place + 3]


def _chat(exact: str, content: str, rng: random.Random) -> str:
    return rng.choice(CHAT) + exact


FLAWS: dict[Callable[[str, str, random.Random], str], float] = {
    _echo: 0.25,
    _cut: 0.2,
    _typo: 0.15,
    _repetition: 0.15,
    _chat: 0.25,
}
