"""Intervals of the length-controlled win rate and of its difference between two models: questions resampled, the fit repeated.

The length-controlled win rate is not a mean of judgments, so its noise cannot be read from per-question values: each resample
of the questions is fitted anew, with the C of the full data. The official standard error only measures how predictions vary
between instructions, not how the fit varies with the judgments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eva_hpc.benchmarks.alpaca_eval.length_control import Array, Gamed, LengthControlled, Rows, length_controlled

RESAMPLES = 200


@dataclass(frozen=True)
class Arm:
    """A model's rows, the question of each, and the C of its fit. The baseline itself has 50 by construction."""

    rows: Rows
    questions: Sequence[str]
    C: float
    is_baseline: bool = False

    def fit(self, gamed: Gamed, counts: Array | None = None) -> LengthControlled:
        """The length-controlled fit; `counts` says how often each row was drawn."""
        return length_controlled(self.rows, gamed, self.C, counts)

    def win_rate(self, gamed: Gamed, counts: Array | None = None) -> float:
        """Length-controlled, in percent."""
        return 50.0 if self.is_baseline else self.fit(gamed, counts).win_rate


class Difference(NamedTuple):
    """Difference of length-controlled win rates in points, its interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


def length_controlled_interval(
    arm: Arm, gamed: Gamed, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval in percent; None for fewer than two questions or resamples."""
    if len(set(arm.questions)) < 2 or resamples < 2:
        return None
    values = [arm.win_rate(gamed, counts) for (counts,) in _resampled([arm], resamples, seed)]
    return _percentiles(values, level)


def length_controlled_difference(
    one: Arm, other: Arm, gamed: Gamed, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Difference | None:
    """`one` minus `other`, both under the same resamples of their questions; None for fewer than two questions.

    Two-sided p-value: twice the share of resamples on the other side of 0, and never below 2 / (resamples + 1).
    """
    if len({*one.questions, *other.questions}) < 2:
        return None
    values = [
        one.win_rate(gamed, counts) - other.win_rate(gamed, other_counts)
        for counts, other_counts in _resampled([one, other], resamples, seed)
    ]
    beyond = min(sum(value <= 0 for value in values), sum(value >= 0 for value in values))
    return Difference(
        one.win_rate(gamed) - other.win_rate(gamed), *_percentiles(values, level), min(1.0, 2 * (beyond + 1) / (resamples + 1))
    )


def _resampled(arms: Sequence[Arm], resamples: int, seed: int) -> Iterator[list[Array]]:
    """How often each row of each arm is drawn, for every resample of the questions of all arms together."""
    number = {name: place for place, name in enumerate(dict.fromkeys(name for arm in arms for name in arm.questions))}
    places = [np.array([number[name] for name in arm.questions]) for arm in arms]
    random = np.random.default_rng(seed)
    equal = np.full(len(number), 1 / len(number))
    done = 0
    while done < resamples:
        drawn: npt.NDArray[np.int64] = random.multinomial(len(number), equal)
        counts = [drawn[place].astype(np.float64) for place in places]
        if all(count.any() for count in counts):  # with very few questions an arm can come out empty
            done += 1
            yield counts


def _percentiles(values: Sequence[float], level: float) -> tuple[float, float]:
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
