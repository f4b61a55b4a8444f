"""From annotations to the rows of the length-controlled fit: each row's difficulty, the lengths, and the C of the fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva_hpc.benchmarks.alpaca_eval import annotated
from eva_hpc.benchmarks.alpaca_eval.difficulty import positions
from eva_hpc.benchmarks.alpaca_eval.length_control import Array, Gamed, Rows, choose_C
from eva_hpc.benchmarks.alpaca_eval.preference import stored
from eva_hpc.benchmarks.alpaca_eval.resampling import RESAMPLES, Arm
from eva_hpc.benchmarks.files import Row
from eva_hpc.config.errors import ConfigError


@dataclass(frozen=True)
class LengthControl:
    """What the fit needs besides a model's rows.

    `questions` are the instructions of an own evaluation set, in the order of `difficulties`. `C` None is chosen by
    cross-validation. `resamples` of the questions give the interval. `notes` on the files become warnings of the score.
    """

    difficulties: Array
    gamed: Gamed
    difficulty_by: str = "instruction"
    C: float | None = None
    questions: Sequence[str] | None = None
    resamples: int = RESAMPLES
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError for a C that is not a positive number."""
        if self.C is not None and not (math.isfinite(self.C) and self.C > 0):
            raise ConfigError(f"C is {self.C}; must be a positive number")


@dataclass(frozen=True)
class Joined:
    """Rows with their difficulty: those that have one, in the order of the fit."""

    rows: Rows
    questions: tuple[str, ...]
    is_baseline: bool

    @property
    def judged(self) -> int:
        """Rows that the fit learns from: with a preference and both outputs."""
        return int((~np.isnan(self.rows.preferences) & ~np.isnan(self.rows.length_differences)).sum())


def joined(rows: Sequence[Row], preferences: Sequence[float], control: LengthControl) -> tuple[Joined, list[str]]:
    """Give each row its difficulty, and say what was set aside or assumed.

    By instruction the rows are put in the order of the questions, so that a file in another order gives the same fit.

    Raises:
        ConfigError: see :func:`difficulty.positions`.
    """
    instructions = [row["instruction"] for row in rows]
    n = len(control.difficulties)
    right = positions(instructions, n, "instruction", control.questions)
    warnings = list(control.notes)
    if control.difficulty_by == "position":
        places: list[int | None] = positions(instructions, n, "position")
        wrong = sum(other is not None and other != place for place, other in zip(places, right, strict=True))
        if wrong:
            warnings.append(
                f"{wrong} of {len(rows)} rows get another instruction's difficulty: it is looked up by the row's position"
            )
    else:
        places = right
        if without := sum(place is None for place in places):
            warnings.append(f"{without} of {len(rows)} rows have no difficulty: set aside in the length-controlled fit")
    known = sorted((place, number) for number, place in enumerate(places) if place is not None)
    difficulties = np.array([control.difficulties[place] for place, _ in known])
    kept = [number for _, number in known]
    if any(rows[number].get("annotator") not in {None, *annotated.OFFICIAL_JUDGES} for number in kept):
        warnings.append("the length-controlled fit is regularised by gamed rows of the official judge, not of this one")
    fitted = Rows(
        length_differences=np.array([_length_difference(rows[number]) for number in kept]),
        difficulties=difficulties,
        preferences=np.array([preferences[number] - 1 for number in kept]),
    )
    return Joined(fitted, tuple(instructions[number] for number in kept), annotated.is_baseline(rows)), warnings


def refusal_of(known: Joined, n: int, least: float) -> str | None:
    """Why there is no length-controlled win rate of `n` rows; None if there is one."""
    if not known.questions:
        return "no row has a difficulty: give the question file in the order of the difficulties, or join by position"
    if len(known.questions) < least * n:
        return f"only {len(known.questions)} of {n} rows have a difficulty: {len(known.questions) / n:.1%}, below {least:.0%}"
    if known.judged < 2:
        return f"only {known.judged} rows have a preference and both outputs; the length-controlled fit needs two"
    return None


def arm_of(known: Joined, control: LengthControl) -> Arm:
    """Rows with their difficulty, and the C of their fit."""
    C = choose_C(known.rows, control.gamed) if control.C is None else control.C
    return Arm(known.rows, known.questions, C, known.is_baseline)


def length_controlled_arm(rows: Sequence[Row], control: LengthControl) -> Arm:
    """A model's annotations as :func:`resampling.length_controlled_difference` takes them.

    Raises:
        ConfigError: no row, or too few, can be used.
    """
    averaged, preferences = annotated.repeats_averaged(rows, [stored(row["preference"]) for row in rows])
    known, _ = joined(averaged, preferences, control)
    if lacking := refusal_of(known, len(averaged), 0.0):
        raise ConfigError(lacking)
    return arm_of(known, control)


def _length_difference(row: Row) -> float:
    """Characters of the baseline's output minus those of the model's; NaN where one is missing."""
    one, two = row.get("output_1"), row.get("output_2")
    return float(len(one) - len(two)) if isinstance(one, str) and isinstance(two, str) else math.nan
