"""What each of MT-Bench's numbers rests on: the turns that should have been rated for it, and those that were.

The two turns fail unequally often: an `average` with 95 % of its turns may come with a `turn_2` that lacks a tenth of them. So
each number has its own coverage, and is refused by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eva_hpc.benchmarks.judging.protocol import JudgedQuestion
from eva_hpc.benchmarks.mt_bench.judgments import Judgment
from eva_hpc.benchmarks.statistics.coverage import Coverage
from eva_hpc.config.benchmark import MT_BENCH_TEMPERATURES

METRICS = ("turn_1", "turn_2", "average")

_OFFICIAL_CATEGORY = {
    str(81 + 10 * place + i): category for place, category in enumerate(MT_BENCH_TEMPERATURES) for i in range(10)
}

Key = tuple[str, int]
"""Question and turn."""


@dataclass(frozen=True)
class Basis:
    """Of one number: `n` rated turns, each once however often it was rated; `coverage` is of turns in each repeat of the judge.

    `refusal` says why there is no number.
    """

    n: int
    coverage: Coverage
    refusal: str | None


def expected_turns(judgments: Sequence[Judgment], questions: Sequence[JudgedQuestion] | None) -> set[Key]:
    """What should have been judged: the turns of `questions`, of the official ones, or those that are in the judgments."""
    if questions is not None:
        return {(question["id"], turn) for question in questions for turn in range(1, len(question["turns"]) + 1)}
    if all(judgment.question in _OFFICIAL_CATEGORY for judgment in judgments):
        return {(name, turn) for name in _OFFICIAL_CATEGORY for turn in (1, 2)}
    return {(judgment.question, judgment.turn) for judgment in judgments}


def categories(expected: set[Key], questions: Sequence[JudgedQuestion] | None) -> dict[str, set[str]]:
    """The expected questions of each category; nothing if the categories are not known."""
    known = _OFFICIAL_CATEGORY if questions is None else {question["id"]: question["category"] for question in questions}
    asked = {question for question, _ in expected}
    if not asked <= known.keys():
        return {}
    return {name: {q for q in asked if known[q] == name} for name in dict.fromkeys(known.values())}


def bases(
    judgments: Sequence[Judgment], expected: set[Key], by_category: Mapping[str, set[str]], least: float, force: bool
) -> dict[str, Basis]:
    """By metric: METRICS, and ``average_CATEGORY`` for each category. Forced, only numbers of nothing at all are refused.

    A metric that no turn is expected of, such as `turn_2` of questions with one turn, has no number, but is not refused.
    """
    parts = {
        "turn_1": ({key for key in expected if key[1] == 1}, "first turns"),
        "turn_2": ({key for key in expected if key[1] == 2}, "second turns"),
        "average": (expected, "turns"),
    }
    for name, questions in by_category.items():
        parts[f"average_{name}"] = ({key for key in expected if key[0] in questions}, f"turns of {name}")
    return {metric: _basis(judgments, keys, unit, least, force) for metric, (keys, unit) in parts.items()}


def _basis(judgments: Sequence[Judgment], keys: set[Key], unit: str, least: float, force: bool) -> Basis:
    repeats = {j.repeat for j in judgments}
    slots = {(*key, repeat) for key in keys for repeat in repeats}
    own = [j for j in judgments if (j.question, j.turn) in keys]
    rated = {(j.question, j.turn, j.repeat) for j in own if j.score is not None}
    failed = Counter(j.failure for j in own if j.failure is not None)
    unseen = len(slots - {(j.question, j.turn, j.repeat) for j in own})
    coverage = Coverage(len(slots), len(rated), {**failed, "not in the file": unseen}, unit)
    refusal = coverage.refusal(0.0 if force else least) if slots else None
    return Basis(len({(question, turn) for question, turn, _ in rated}), coverage, refusal)
