"""Judgment rows in FastChat's format, checked and reduced to what the numbers need.

{"question_id": 81, "model": "zephyr", "judge": ["gpt-4", "single-v1"], "user_prompt": …, "judgment": "… [[7]]", "score": 7,
 "turn": 1}

`question_id`, `model`, `turn` and `score` are needed; `judgment` instead of `score` if scores are computed anew. Files of the
official tool may also hold pairwise rows and rows of several judges: the former are set aside, of the latter one is chosen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.mt_bench.rating import FAILED, rating, why_none
from eva_hpc.config.errors import ConfigError, did_you_mean

UNNAMED = "not named"
"""The judge of rows that do not name one."""

_WHY = {"failed": "API failure", "unparsed": "no rating", "no_answer": "no answer"}


@dataclass(frozen=True)
class Judgment:
    """One rating of one turn; `score` is None where there is none, and `failure` says why. `place` is "FILE: row 7"."""

    place: str
    model: str
    judge: str
    prompt: str
    question: str
    turn: int
    repeat: int
    score: float | None
    stored: float | None
    failure: str | None
    reference: str | None


def read_judgments(
    rows: Sequence[Row], *, source: str = "judgments", judge: str | None = None, reparse: bool = False
) -> tuple[list[Judgment], list[str]]:
    """The judgments of one judge, and warnings about rows that were set aside.

    Args:
        rows: of a judgment file.
        source: its name, for messages.
        judge: whose rows to take; needed where there are several judges.
        reparse: take scores from the judgment texts instead of the stored ones.

    Raises:
        ConfigError: a row lacks a key or has an impossible value, there are several judges and `judge` is None, or none of that
            name, or nothing but pairwise rows.
    """
    judgments = [
        _judgment(f"{source}: row {number}", row, reparse)
        for number, row in enumerate(rows, start=1)
        if "model_1" not in row  # pairwise
    ]
    pairwise = len(rows) - len(judgments)
    if not judgments:
        raise ConfigError(f"{source}: all {pairwise} rows are pairwise judgments; must be single-answer grading")
    warnings = [f"{pairwise} pairwise judgments set aside"] if pairwise else []
    judges = Counter(judgment.judge for judgment in judgments)
    if judge is None:
        if len(judges) > 1:
            raise ConfigError(f"{source}: found judgments of several judges: {_listed(judges)}; name one with --judge")
        return judgments, warnings
    if judge not in judges:
        near = did_you_mean(judge, judges)
        raise ConfigError(f"{source}: found no judgments of {judge!r}; has those of {_listed(judges)}{near}")
    warnings += [f"{count} judgments of {name} set aside" for name, count in judges.items() if name != judge]
    return [judgment for judgment in judgments if judgment.judge == judge], warnings


def _listed(judges: Counter[str]) -> str:
    return ", ".join(f"{name} ({count} rows)" for name, count in judges.items())


def _judgment(place: str, row: Row, reparse: bool) -> Judgment:
    needs = ("question_id", "model", "turn", "judgment" if reparse else "score")
    lacking = [key for key in needs if key not in row]
    if lacking:
        raise ConfigError(f"{place}: has no {', '.join(lacking)}; must have {', '.join(needs)}")
    text = row.get("judgment")
    stored = _number(place, row.get("score"))
    score: float | None = rating(text) if reparse and isinstance(text, str) else None if reparse else stored
    turn = row["turn"]
    if turn not in (1, 2) or isinstance(turn, bool):
        raise ConfigError(f"{place}: turn: found {turn!r}; must be 1 or 2")
    repeat = row.get("repeat", 0)
    if not isinstance(repeat, int):
        raise ConfigError(f"{place}: repeat: found {repeat!r}; must be an integer")
    judge, prompt = _judge(place, row.get("judge"))
    known = _WHY.get(str(row.get("status")))
    return Judgment(
        place=place,
        model=str(row["model"]),
        judge=judge,
        prompt=prompt,
        question=question_name(place, row["question_id"]),
        turn=int(turn),
        repeat=repeat,
        score=score,
        stored=stored,
        failure=None if score is not None else known or why_none(text if isinstance(text, str) else ""),
        reference=row.get("reference"),
    )


def question_name(place: str, question_id: Any) -> str:
    """A question id as text; 81.0 is "81", as pandas makes of some files."""
    if isinstance(question_id, float) and question_id.is_integer():
        return str(int(question_id))
    if isinstance(question_id, (int, str)) and not isinstance(question_id, bool):
        return str(question_id)
    raise ConfigError(f"{place}: question_id: found {question_id!r}; must be a number or text")


def _number(place: str, score: Any) -> float | None:
    """A stored score; None for FastChat's -1, null and NaN (which pandas leaves out of its means)."""
    if score is None or score == FAILED or score != score:
        return None
    if isinstance(score, (int, float)) and not isinstance(score, bool) and math.isfinite(score):
        return float(score)
    raise ConfigError(f"{place}: score: found {score!r}; must be a number")


def _judge(place: str, judge: Any) -> tuple[str, str]:
    """Name of the judge and of its prompt."""
    if judge is None:
        return UNNAMED, ""
    if isinstance(judge, str):
        return judge, ""
    if isinstance(judge, list) and judge and all(isinstance(part, str) for part in judge):
        return judge[0], judge[1] if len(judge) > 1 else ""
    raise ConfigError(f'{place}: judge: found {judge!r}; must be like ["gpt-4", "single-v1"]')
