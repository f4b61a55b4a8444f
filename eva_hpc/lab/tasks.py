"""Lab tasks as prompts: their text, how it is read back, how prompts are drawn, and which are held out.

    Reverse: kapol                     -> lopak
    Reverse then Upper: kapol          -> LOPAK
    Count a: banana                    -> 3
    Flip then First: 4 1 7             -> 7
    Flip: 4 1 7 / Now Largest it       -> 7 1 4 / 7        (a dialogue of two turns)

The level, 1 to 9, sets the length of the content and the chance of a second step.

Held out is what a task is *about*: the hash of its content (``kapol``) decides the split, whatever is asked of it. Every
training stream draws from the "train" split only, so no held-out word or list occurs in any of them, under any task.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from eva_hpc.lab.families import FAMILIES, LETTERS, VOWELS, Family, Kind
from eva_hpc.store.seeds import derive_seed

Split = Literal["train", "tune", "test"]
Difficulty = Literal["easy", "medium", "hard"]
Drawn = TypeVar("Drawn")

LEVELS: dict[Difficulty, tuple[int, ...]] = {"easy": (1, 2, 3), "medium": (4, 5, 6), "hard": (7, 8, 9)}
MAX_STEPS = 2
MAX_LENGTH: dict[Kind, int] = {"word": 12, "list": 8}
MAX_ANSWER = 24
"""Characters of the longest answer: with its end-of-turn token it fits into the 26 new tokens of the lab recipe."""

_HELD_OUT_PERCENT: dict[Split, int] = {"tune": 10, "test": 10}
_CONSONANTS = "".join(letter for letter in LETTERS if letter not in VOWELS)
_PROMPT = re.compile(r"(?P<steps>[A-Z][A-Za-z ]*): (?P<content>[a-z]+|[0-9](?: [0-9])*)")
_FOLLOW_UP = re.compile(r"Now (?P<step>[A-Z][a-z]*(?: [a-z])?) it")


@dataclass(frozen=True)
class Step:
    """One operation of a task: a family and, for Count, the letter."""

    family: str
    letter: str = ""

    @property
    def text(self) -> str:
        """As it stands in a prompt."""
        return f"{self.family} {self.letter}".rstrip()

    def solve(self, content: str) -> str:
        """The exact answer of this step alone."""
        return FAMILIES[self.family].solve(content, self.letter)


@dataclass(frozen=True)
class Task:
    """Steps, applied from left to right, and the content they are applied to."""

    steps: tuple[Step, ...]
    content: str

    @property
    def prompt(self) -> str:
        """The prompt's text."""
        return f"{' then '.join(step.text for step in self.steps)}: {self.content}"

    @property
    def answer(self) -> str:
        """The exact answer."""
        value = self.content
        for step in self.steps:
            value = step.solve(value)
        return value

    @property
    def length(self) -> int:
        """Letters or numbers of the content."""
        return len(self.content.split()) if kind_of(self.content) == "list" else len(self.content)


def kind_of(content: str) -> Kind:
    """Whether content is a word or a list."""
    return "list" if content[0].isdigit() else "word"


def parse(prompt: str) -> Task:
    """Read a prompt back; runs of white space count as one space.

    Raises:
        ValueError: it is no lab task; the message says why.
    """
    match = _PROMPT.fullmatch(" ".join(prompt.split()))
    if match is None:
        raise ValueError(f"{prompt!r} is no lab task: it should look like 'Reverse then Upper: kapol' or 'Flip: 4 1 7'")
    content = match["content"]
    kind = kind_of(content)
    steps = []
    for text in match["steps"].split(" then "):
        step = _parse_step(text, prompt)
        family = FAMILIES[step.family]
        if family.takes != kind:
            raise ValueError(f"{prompt!r} is no lab task: {family.name} takes a {family.takes}, here it would get a {kind}")
        kind = family.gives
        steps.append(step)
    return Task(tuple(steps), content)


def parse_follow_up(prompt: str) -> Step:
    """Read the second turn of a dialogue, e.g. ``Now Upper it``.

    Raises:
        ValueError: it is none; the message says why.
    """
    match = _FOLLOW_UP.fullmatch(" ".join(prompt.split()))
    if match is None:
        raise ValueError(f"{prompt!r} is no second turn of a lab dialogue: it should look like 'Now Upper it'")
    return _parse_step(match["step"], prompt)


def _parse_step(text: str, prompt: str) -> Step:
    name, _, letter = text.partition(" ")
    family = FAMILIES.get(name)
    if family is None:
        raise ValueError(f"{prompt!r} is no lab task: {name!r} is none of {', '.join(FAMILIES)}")
    if family.takes_letter != (len(letter) == 1 and letter in LETTERS) or (letter and not family.takes_letter):
        raise ValueError(f"{prompt!r} is no lab task: {name} takes {'one letter' if family.takes_letter else 'no argument'}")
    return Step(name, letter)


def split_of(prompt: str) -> Split:
    """The split of a prompt: a hash of its content alone.

    Raises:
        ValueError: it is no lab task.
    """
    return _split_of_content(parse(prompt).content)


def _split_of_content(content: str) -> Split:
    place = derive_seed("lab split", content) % 100
    for split, percent in _HELD_OUT_PERCENT.items():
        if place < percent:
            return split
        place -= percent
    return "train"


# ---------------------------------------------------------------------------- drawing


def draw_content(kind: Kind, length: int, rng: random.Random) -> str:
    """A word or a list of this length. A word's letters are consonants and vowels in turn, with a few slips."""
    if kind == "list":
        return " ".join(str(rng.randrange(10)) for _ in range(length))
    odd_vowels = rng.random() < 0.5
    letters = []
    for place in range(length):
        slip = rng.random() < 0.1
        letters.append(rng.choice(VOWELS if ((place % 2 == 1) == odd_vowels) != slip else _CONSONANTS))
    return "".join(letters)


def draw_step(kind: Kind, rng: random.Random, content: str = "") -> Step:
    """A step that takes this kind. Count asks for one of the content's letters in two of three draws."""
    family = rng.choice([family for family in FAMILIES.values() if family.takes == kind])
    if not family.takes_letter:
        return Step(family.name)
    return Step(family.name, rng.choice(content) if content and rng.random() < 2 / 3 else rng.choice(LETTERS))


def draw_task(level: int, split: Split, rng: random.Random) -> Task:
    """A sensible task of this level and split."""
    while True:
        family = rng.choice(list(FAMILIES.values()))
        task = draw_for(family, level, rng)
        if rng.random() < (level - 1) / 12:
            task = deepen(task, rng)
        if sensible(task) and _split_of_content(task.content) == split:
            return task


def draw_for(family: Family, level: int, rng: random.Random) -> Task:
    """A task of one step of this family."""
    shortest = 3 + 2 * level // 3 if family.takes == "word" else 2 + (level + 1) // 3
    content = draw_content(family.takes, shortest + rng.randrange(2), rng)
    letter = ""
    if family.takes_letter:
        letter = rng.choice(content if rng.random() < 2 / 3 else LETTERS)
    return Task((Step(family.name, letter),), content)


def deepen(task: Task, rng: random.Random) -> Task:
    """The task with one more step; the same task if its answer is a number, which no step takes."""
    kind = FAMILIES[task.steps[-1].family].gives
    if kind == "number":
        return task
    return replace(task, steps=(*task.steps, draw_step(kind, rng, task.content)))


def sensible(task: Task) -> bool:
    """Whether a task is worth asking: not too long, its answer not empty, no step that changes nothing or is undone."""
    names = [step.family for step in task.steps]
    return (
        len(names) <= MAX_STEPS
        and task.length <= MAX_LENGTH[kind_of(task.content)]
        and len(set(names)) == len(names)
        and (len(names) == 1 or "Copy" not in names)
        and 0 < len(task.answer) <= MAX_ANSWER
    )


def make_prompts(count: int, levels: Sequence[int], seed: int) -> list[str]:
    """`count` distinct prompts of the train split, levels drawn uniformly; fewer prompts are a prefix of more.

    Raises:
        ValueError: there is no level, or one is not 1 to 9.
    """
    return _take(count, _prompts("train", tuple(levels), derive_seed("lab prompts", seed)))


def held_out(split: Literal["tune", "test"], difficulty: Difficulty, count: int) -> list[str]:
    """`count` distinct prompts of a held-out split, always the same; fewer prompts are a prefix of more."""
    return _take(count, _prompts(split, LEVELS[difficulty], derive_seed("lab held out", split, difficulty)))


def held_out_dialogues(split: Literal["tune", "test"], count: int) -> list[tuple[str, str]]:
    """`count` distinct dialogues of a held-out split, always the same: a task, and a step to apply to its answer."""
    rng = random.Random(derive_seed("lab held-out dialogues", split))
    return _take(count, iter(lambda: draw_dialogue(split, rng), None))


def draw_dialogue(split: Split, rng: random.Random) -> tuple[str, str]:
    """Two turns: a task of one step, and ``Now … it``."""
    while True:
        task = draw_task(rng.choice(LEVELS["easy"] + LEVELS["medium"]), split, rng)
        both = deepen(task, rng)
        if len(task.steps) == 1 and len(both.steps) == 2 and sensible(both):
            return task.prompt, f"Now {both.steps[1].text} it"


def _prompts(split: Split, levels: tuple[int, ...], seed: int) -> Iterator[str]:
    wrong = [level for level in levels if level not in range(1, 10)]
    if wrong or not levels:
        raise ValueError(f"levels are 1 to 9, got {list(levels)}")
    rng = random.Random(seed)
    while True:
        yield draw_task(rng.choice(levels), split, rng).prompt


def _take(count: int, stream: Iterator[Drawn]) -> list[Drawn]:
    """The first distinct ones. Level 1 alone has more than 50,000 prompts: more than a run asks for."""
    found: dict[Drawn, None] = {}
    while len(found) < count:
        found[next(stream)] = None
    return list(found)
