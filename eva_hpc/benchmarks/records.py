"""The records of an evaluation: questions, answers and judgments, one JSON object per line.

{"id": "77a0…", "category": "easy", "turns": ["Reverse: kapol"]}
{"question_id": "77a0…", "greedy": [{"text": "lopak", "finish": "stop", "prompt_sha256": "5e…"}], "samples": [[…], …]}
{"question_id": "77a0…", "category": "easy", "greedy": [1.0], "samples": [[0.58], …]}
"""

from __future__ import annotations

from typing import Literal, TypedDict

from typing_extensions import NotRequired


class Question(TypedDict):
    """A question of one or more turns."""

    id: str
    category: str
    turns: list[str]


class Turn(TypedDict):
    """The answer to one turn. `finish` is "no room" where the conversation fills the model's context: then there is no answer.

    `prompt_sha256` is the hash of the prompt as the model saw it, in its own chat template: of its token ids, as JSON.
    """

    text: str
    finish: Literal["stop", "length", "no room"]
    prompt_sha256: str


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
    """One number of a benchmark. `n` counts the questions, or turns, it rests on; `coverage` is how much was judged of what
    should have been: of questions, games or turns.

    `low` and `high` are a 95 % interval over questions; `reason` says why there is no value, `notes` what one must know of it.
    """

    metric: str
    value: float | None
    n: int
    coverage: float
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    reason: NotRequired[str]
    notes: NotRequired[list[str]]


class QuestionValue(TypedDict):
    """What a metric is at one question: the metric is the mean over questions, weighted by `weight`."""

    metric: str
    question_id: str
    value: float
    weight: float
