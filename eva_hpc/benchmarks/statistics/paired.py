"""Is arm A better than arm B beyond noise? Paired comparison of two arms that were judged on the same questions.

An arm is its values by question id, e.g. {"81": 7.5, "82": 9.0}. Where a metric is a weighted mean (Arena-Hard: some verdicts
count three times) weights by question id go with them: the metric is sum(weight * value) / sum(weight).

* :func:`compare`: one run of each arm, or several that are averaged question by question (:func:`over_seeds`). The questions
  are the only source of chance: says whether these models differ on questions of this kind.
* :func:`across_seeds`: several seeds of each arm. Seeds and questions are both sources of chance: says whether methods differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
_BATCH = 500

Arm = Mapping[str, float]
Weights = Mapping[str, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """`difference` is A minus B over the `n` questions judged in both arms, with its 95 % interval and two-sided p-value.

    `unmatched` questions were judged in one arm only. With too little to compare, `reason` says so and the numbers are None.
    """

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    unmatched: int
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One JSON object; `beyond_noise` is p < 0.05."""
        return {
            "difference": self.difference,
            "ci": None if self.low is None else [self.low, self.high],
            "p_value": self.p_value,
            "n": self.n,
            "unmatched": self.unmatched,
            "beyond_noise": None if self.p_value is None else self.p_value < 0.05,
            "reason": self.reason,
        }


def compare(
    a: Arm,
    b: Arm,
    a_weights: Weights | None = None,
    b_weights: Weights | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """A minus B over the questions that both arms have; questions of no weight do not count as judged.

    The interval is the percentile interval of the paired bootstrap: questions are drawn with replacement, the same for both
    arms. The p-value is that of the permutation test that swaps the arms within questions (for plain means: flips the signs of
    the differences), with all swaps if there are no more than `resamples`, else with that many random ones and the observed one
    added (Phipson & Smyth 2010). Neither depends on the order of the questions, and swapping the arms only changes signs.

    Raises:
        ValueError: a value or a weight is not finite, or a weight is negative or missing.
    """
    names, unmatched = _matched([_judged(a, a_weights)], [_judged(b, b_weights)])
    if len(names) < 2:
        return _too_little(f"fewer than 2 questions are judged in both arms: {len(names)}", len(names), unmatched)
    sums, weights = _sums([a, b], [a_weights, b_weights], names)
    observed = _difference(sums, weights)
    random = np.random.default_rng(seed)
    low, high = _bootstrap(sums, weights, level, resamples, random)
    p_value = _permutation(sums, weights, float(observed), resamples, random)
    return Difference(float(observed), low, high, p_value, len(names), unmatched)


def over_seeds(
    a: Mapping[int, Arm],
    b: Mapping[int, Arm],
    a_weights: Mapping[int, Weights] | None = None,
    b_weights: Mapping[int, Weights] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """:func:`compare` of arms by seed: values are means over the seeds that both arms have and in which both have the question.

    Raises:
        ValueError: as :func:`compare`.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return _too_little("the arms share no seed", 0, len({name for arm in (*a.values(), *b.values()) for name in arm}))
    pooled: list[dict[str, list[float]]] = [{}, {}, {}, {}]  # sums and weights of A, then of B
    for s in seeds:
        names, _ = _matched([_judged(a[s], _of(a_weights, s))], [_judged(b[s], _of(b_weights, s))])
        sums, weights = _sums([a[s], b[s]], [_of(a_weights, s), _of(b_weights, s)], names)
        for pool, values in zip(pooled, (sums[0], weights[0], sums[1], weights[1]), strict=True):
            for name, value in zip(names, values, strict=True):
                pool.setdefault(name, []).append(float(value))
    a_sums, a_total, b_sums, b_total = ({name: sum(values) for name, values in pool.items()} for pool in pooled)
    times = {name: len(values) for name, values in pooled[0].items()}
    everything = {name for s in seeds for name in (*_judged(a[s], _of(a_weights, s)), *_judged(b[s], _of(b_weights, s)))}
    found = compare(
        {name: a_sums[name] / a_total[name] for name in times},
        {name: b_sums[name] / b_total[name] for name in times},
        None if a_weights is None else {name: a_total[name] / times[name] for name in times},
        None if b_weights is None else {name: b_total[name] / times[name] for name in times},
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return replace(found, unmatched=len(everything) - found.n)


def across_seeds(
    a: Mapping[int, Arm],
    b: Mapping[int, Arm],
    a_weights: Mapping[int, Weights] | None = None,
    b_weights: Mapping[int, Weights] | None = None,
    *,
    level: float = 0.95,
) -> Difference:
    """A minus B with both seeds and questions as random, for the seeds that both arms have.

    Seeds are too few to be resampled: with two of them a bootstrap interval would end at the two seeds' differences, and miss
    every other time. So the variance is that of two crossed random factors, estimated from the effect of each seed and question
    on the difference: V = V_seed + V_question - V_rest, at least the larger of the first two, with Student's t at
    Satterthwaite's degrees of freedom. For weighted means the effects are the linear ones (delta method). Only questions with a
    value in every shared seed of both arms count.

    Raises:
        ValueError: as :func:`compare`.
    """
    seeds = sorted(a.keys() & b.keys())
    a_judged = [_judged(a[s], _of(a_weights, s)) for s in seeds]
    b_judged = [_judged(b[s], _of(b_weights, s)) for s in seeds]
    names, unmatched = _matched(a_judged, b_judged)
    if len(seeds) < 2:
        return _too_little(f"the arms share fewer than 2 seeds: {len(seeds)}", len(names), unmatched)
    if len(names) < 2:
        return _too_little(f"fewer than 2 questions are judged in all seeds of both arms: {len(names)}", len(names), unmatched)
    pairs = [_sums([a[s], b[s]], [_of(a_weights, s), _of(b_weights, s)], names) for s in seeds]
    sums, weights = (np.stack(parts, axis=1) for parts in zip(*pairs, strict=True))  # (arm, seed, question)
    means = sums.sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    effects = (sums - means[:, None, None] * weights) / weights.sum(axis=(1, 2))[:, None, None]
    error, freedom = _crossed(effects[0] - effects[1])
    difference = float(means[0] - means[1])
    half, p_value = _student(difference, error, freedom, level)
    return Difference(difference, difference - half, difference + half, p_value, len(names), unmatched)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm 1979): below 0.05 together with a chance of at most 5 % of any false one."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def _of(weights: Mapping[int, Weights] | None, seed: int) -> Weights | None:
    return None if weights is None else weights[seed]


def _judged(arm: Arm, weights: Weights | None) -> set[str]:
    return set(arm) if weights is None else {name for name in arm if weights.get(name, 1) != 0}


def _matched(a: Sequence[set[str]], b: Sequence[set[str]]) -> tuple[list[str], int]:
    """Questions judged everywhere, in an order that does not depend on that of the arms, and the number of the others."""
    everywhere = [*a, *b]
    if not everywhere:
        return [], 0
    common = set.intersection(*everywhere)
    return sorted(common), len(set.union(*everywhere) - common)


def _too_little(reason: str, n: int, unmatched: int) -> Difference:
    return Difference(None, None, None, None, n, unmatched, reason)


def _sums(arms: Sequence[Arm], weights: Sequence[Weights | None], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Weighted values and weights, each of shape (arm, question)."""
    if any(own is not None and name not in own for own in weights for name in names):
        raise ValueError("every question must have a weight")
    values = np.array([[arm[name] for name in names] for arm in arms], dtype=np.float64)
    under = np.array([[1.0 if own is None else own[name] for name in names] for own in weights], dtype=np.float64)
    if not (np.isfinite(values).all() and np.isfinite(under).all() and (under >= 0).all()):
        raise ValueError("values and weights must be finite, weights not negative")
    return values * under, under


def _difference(sums: Floats, weights: Floats) -> np.float64:
    """Of the two weighted means."""
    means = sums.sum(axis=1) / weights.sum(axis=1)
    return np.float64(means[0] - means[1])


def _bootstrap(sums: Floats, weights: Floats, level: float, resamples: int, random: np.random.Generator) -> tuple[float, float]:
    n = sums.shape[1]
    found = []
    for start in range(0, resamples, _BATCH):
        drawn = random.multinomial(n, np.full(n, 1 / n), size=min(_BATCH, resamples - start))
        means = (drawn @ sums.T) / (drawn @ weights.T)
        found.append(means[:, 0] - means[:, 1])
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)


def _permutation(sums: Floats, weights: Floats, observed: float, resamples: int, random: np.random.Generator) -> float:
    n = sums.shape[1]
    exact = n < 31 and 2**n <= resamples
    count = 2**n if exact else resamples
    # sums that are equal but for rounding count as equal
    least = abs(observed) - 1e-12 * float(np.abs(sums).sum() / weights.sum())
    extreme = 0
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        if exact:
            swapped = ((np.arange(start, start + size)[:, None] >> np.arange(n)) & 1).astype(np.float64)
        else:
            swapped = random.integers(0, 2, size=(size, n)).astype(np.float64)
        a_means = _swapped_sum(swapped, sums) / _swapped_sum(swapped, weights)
        b_means = _swapped_sum(swapped, sums[::-1]) / _swapped_sum(swapped, weights[::-1])
        extreme += int((np.abs(a_means - b_means) >= least).sum())
    return extreme / count if exact else (extreme + 1) / (count + 1)


def _swapped_sum(swapped: Floats, values: Floats) -> Floats:
    """The first arm's sum where the arms are swapped in the questions that `swapped`, of shape (swaps, question), marks."""
    return np.asarray(values[0].sum() + swapped @ (values[1] - values[0]), dtype=np.float64)


def _crossed(effects: Floats) -> tuple[float, float]:
    """Standard error of the sum of effects, of shape (seed, question), and its degrees of freedom."""
    seeds, questions = effects.shape
    by_seed, by_question = effects.sum(axis=1), effects.sum(axis=0)
    rest = effects - by_seed[:, None] / questions - by_question / seeds  # the effects sum to 0
    seed = seeds / (seeds - 1) * float((by_seed**2).sum())
    question = questions / (questions - 1) * float((by_question**2).sum())
    both = seeds * questions / ((seeds - 1) * (questions - 1)) * float((rest**2).sum())
    variance = max(seed + question - both, seed, question)
    if variance == 0:
        return 0.0, 1.0
    parts = ((seed, seeds - 1), (question, questions - 1), (both, (seeds - 1) * (questions - 1)))
    return variance**0.5, 1 / sum((part / variance) ** 2 / freedom for part, freedom in parts)


def _student(difference: float, error: float, freedom: float, level: float) -> tuple[float, float]:
    """Half the width of the interval, and the two-sided p-value."""
    from scipy.special import stdtr, stdtrit

    if error == 0:
        return 0.0, 1.0 if difference == 0 else 0.0
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return half, float(2 * stdtr(freedom, -abs(difference) / error))
