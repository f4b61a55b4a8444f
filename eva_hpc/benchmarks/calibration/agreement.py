"""How a substitute judge compares with published numbers of the same models: in level and in rank.

Level: is the judge milder or stricter than the one of the published numbers? Rank: does it put models in the same order?
Published numbers are taken as fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from eva_hpc.benchmarks.calibration.numbers import ModelNumbers, Number
from eva_hpc.benchmarks.statistics.intervals import interval
from eva_hpc.benchmarks.statistics.paired import compare

FEW = 5
"""With fewer models even the same order in both has p > 0.05."""
_SOME = 10
SAME = 0.01
"""Published numbers are rounded: so far the official judgments' own number may be from the published one, to be its source."""
_ALL_ORDERS = 7
"""Up to so many models p-values are from all their orders: 7! = 5040."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One model's number by the judge, its published one, and their difference, ours minus published.

    The interval of the difference is over questions. `interval_of` "questions": of our number alone, so it counts the noise of
    questions that both numbers share and is too wide; "pairs": of the differences question by question to the judgments that
    the published number was made of. `counts` says whether the model is part of the agreement, `reason` why not.
    """

    model: str
    ours: float | None
    published: float
    difference: float | None
    low: float | None
    high: float | None
    interval_of: str | None
    coverage: float
    counts: bool
    reason: str | None


@dataclass(frozen=True)
class Level:
    """Differences ours minus published over models. The interval is a bootstrap over models; None with fewer than three."""

    mean_difference: float
    low: float | None
    high: float | None
    mean_absolute_difference: float
    root_mean_square: float


@dataclass(frozen=True)
class Swapped:
    """Two models that the two judges order differently, and how far they lie apart; both distances are positive."""

    higher_published: str
    higher_here: str
    apart_published: float
    apart_here: float


@dataclass(frozen=True)
class Rank:
    """Rank agreement; a coefficient is None where all numbers of one side are equal. Exact p-values are no approximations."""

    kendall_tau_b: float | None
    kendall_p: float | None
    kendall_exact: bool
    spearman_rho: float | None
    spearman_p: float | None
    spearman_exact: bool
    pairs: int
    tied: int
    swapped: tuple[Swapped, ...]


@dataclass(frozen=True)
class Agreement:
    """What one metric says; `level` is None without a model that counts, `rank` with fewer than two."""

    models: tuple[Compared, ...]
    level: Level | None
    rank: Rank | None
    conclusion: str

    @property
    def n(self) -> int:
        """Models that count."""
        return sum(model.counts for model in self.models)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"n": self.n, **asdict(self)}


def agreement(
    metric: str,
    ours: Mapping[str, ModelNumbers],
    published: Mapping[str, float],
    official: Mapping[str, ModelNumbers] = {},
) -> Agreement:
    """Compare one metric over the models that have both numbers.

    Args:
        metric: its name.
        ours: by model.
        published: by model.
        official: numbers from judgments of the published numbers' judge, for paired intervals.
    """
    models = [
        _compared(
            numbers, numbers.metrics[metric], published[name], official[name].metrics.get(metric) if name in official else None
        )
        for name, numbers in ours.items()
        if name in published and metric in numbers.metrics
    ]
    counted = [(one.model, one.ours, one.published) for one in models if one.counts and one.ours is not None]
    names = [name for name, _, _ in counted]
    here, there = np.array([value for _, value, _ in counted]), np.array([value for _, _, value in counted])
    return Agreement(
        models=tuple(models),
        level=_level(here - there) if names else None,
        rank=_rank(names, here, there) if len(names) > 1 else None,
        conclusion=_conclusion(there),
    )


def _compared(numbers: ModelNumbers, ours: Number, published: float, official: Number | None) -> Compared:
    low = high = interval_of = difference = None
    reason = "the baseline against itself: so by construction" if numbers.by_construction else ours.reason
    if ours.value is not None:
        difference = ours.value - published
        if ours.low is not None and ours.high is not None:
            low, high, interval_of = ours.low - published, ours.high - published, "questions"
        if official is not None and official.value is not None and abs(official.value - published) <= SAME:
            paired = compare(ours.per_question, official.per_question, ours.weights, official.weights)
            if paired.low is not None:
                low, high, interval_of = paired.low, paired.high, "pairs"
    return Compared(
        model=numbers.model,
        ours=ours.value,
        published=published,
        difference=difference,
        low=low,
        high=high,
        interval_of=interval_of,
        coverage=numbers.coverage,
        counts=ours.value is not None and not numbers.by_construction,
        reason=reason,
    )


def _level(differences: Floats) -> Level:
    ends = interval(list(differences)) if len(differences) > 2 else None
    return Level(
        mean_difference=float(differences.mean()),
        low=ends and ends[0],
        high=ends and ends[1],
        mean_absolute_difference=float(np.abs(differences).mean()),
        root_mean_square=float(np.sqrt((differences**2).mean())),
    )


def _rank(names: Sequence[str], here: Floats, there: Floats) -> Rank:
    from scipy.stats import kendalltau, rankdata, spearmanr

    swapped, tied = [], 0
    for i, j in combinations(range(len(names)), 2):
        one, other = here[i] - here[j], there[i] - there[j]
        tied += bool(one == 0 or other == 0)
        if one * other < 0:
            higher, lower = (i, j) if other > 0 else (j, i)
            swapped.append(Swapped(names[higher], names[lower], float(abs(other)), float(abs(one))))
    pairs = len(names) * (len(names) - 1) // 2
    few = len(names) <= _ALL_ORDERS
    if min(len(set(here)), len(set(there))) == 1:
        return Rank(None, None, few, None, None, few, pairs, tied, ())
    tau = kendalltau(here, there)
    rho = spearmanr(here, there) if len(names) > 2 else tau  # of two models both are 1 or -1, and spearmanr has no p-value
    tau_p, rho_p = tau.pvalue, rho.pvalue
    if few:
        ranks, other_ranks = rankdata(here), rankdata(there)
        tau_p = _exact_p(ranks, lambda orders: _concordance(orders, other_ranks))
        rho_p = _exact_p(ranks, lambda orders: (orders - orders.mean(axis=-1, keepdims=True)) @ other_ranks)
    ties = min(len(set(here)), len(set(there))) < len(names)
    return Rank(
        kendall_tau_b=float(tau.statistic),
        kendall_p=float(tau_p),
        kendall_exact=few or (not ties and len(names) <= 33),  # beyond, scipy approximates
        spearman_rho=float(rho.statistic),
        spearman_p=float(rho_p),
        spearman_exact=few,
        pairs=pairs,
        tied=tied,
        swapped=tuple(swapped),
    )


def _exact_p(ranks: Floats, statistic: Callable[[Floats], Floats]) -> float:
    """Two-sided, from all orders of one side."""
    from scipy.stats import permutation_test

    found = permutation_test(
        (ranks,), lambda orders, axis: statistic(orders), permutation_type="pairings", vectorized=True, n_resamples=np.inf
    )
    return float(found.pvalue)


def _concordance(orders: Floats, ranks: Floats) -> Floats:
    """Pairs in the same order minus pairs in the other: the numerator of tau."""
    i, j = np.triu_indices(len(ranks), 1)
    return np.asarray(np.sign(orders[..., i] - orders[..., j]) @ np.sign(ranks[i] - ranks[j]), dtype=np.float64)


def _conclusion(published: Floats) -> str:
    """What the number of models permits to conclude."""
    n = len(published)
    if n == 0:
        return "No model has both numbers: nothing can be concluded."
    if n == 1:
        return "One model: its difference is told, but not whether others differ alike, and nothing about rank."
    by_chance = 2 / math.factorial(n)
    perfect = f"even the same order in both has p = {by_chance:.2g} by chance"
    spread = (
        f"The published numbers lie between {published.min():.4g} and {published.max():.4g}; "
        "models that lie closer together are harder to order."
    )
    if n < FEW:
        return f"{n} models: rank agreement says almost nothing, {perfect}; the mean difference is of these alone. {spread}"
    if n < _SOME:
        return (
            f"{n} models: the same order in both is beyond chance (p = {by_chance:.2g}), but tau and the mean difference are "
            f"rough: one more model may move them a lot. {spread}"
        )
    return f"{n} models: level and rank agreement can be told from chance, for models spread like these. {spread}"
