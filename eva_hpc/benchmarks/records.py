"""The records of an evaluation: questions, answers and judgments, one JSON object per line.

{"id": "77a0…", "category": "easy", "turns": ["Reverse: kapol"]}
{"question_id": "77a0…", "greedy": [{"text": "lopak", "finish": "stop"}], "samples": [[{"text": …}], …]}
{"question_id": "77a0…", "category": "easy", "greedy": [1.0], "samples": [[0.58], …]}
"""

from __future__ import annotations

from typing import Literal, TypedDict


class Question(TypedDict):
    """A question of one or more turns."""

    id: str
    category: str
    turns: list[str]


class Turn(TypedDict):
    """The answer to one turn."""

    text: str
    finish: Literal["stop", "length"]


class Answers(TypedDict):
    """All answers to a question: one list of turns per sampled answer, and the greedy one if it was asked for."""

    question_id: str
    greedy: list[Turn] | None
    samples: list[list[Turn]]


class Judgments(TypedDict):
    """A reward for every turn of every answer, in the layout of :class:`Answers`."""

    question_id: str
    category: str
    greedy: list[float] | None
    samples: list[list[float]]


class Metric(TypedDict):
    """One number of a benchmark. `n` counts questions, `coverage` is the share of them that was judged."""

    metric: str
    value: float
    n: int
    coverage: float
