"""Confidence intervals by the bootstrap over questions: what is resampled is the question, with all its judgments.

Resampling single judgments, as the official Arena-Hard script does, treats several judgments of one question as independent and
gives intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
_BATCH = 500


def interval(
    sums: Sequence[float],
    counts: Sequence[float] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of sum(sums) / sum(counts) over resampled questions.

    Args:
        sums: one value per question: the (weighted) sum of its judgments.
        counts: its number, or weight, of judgments; None is 1 each, for a plain mean.
        level: confidence.
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        Low and high end; None if fewer than two questions have judgments.
    """
    over = np.asarray(sums, dtype=np.float64)
    under = np.ones_like(over) if counts is None else np.asarray(counts, dtype=np.float64)
    if np.count_nonzero(under) < 2:
        return None
    random = np.random.default_rng(seed)
    equal = np.full(len(over), 1 / len(over))
    values = []
    for start in range(0, resamples, _BATCH):
        drawn = random.multinomial(len(over), equal, size=min(_BATCH, resamples - start))
        weights = drawn @ under
        values.append((drawn @ over)[weights > 0] / weights[weights > 0])
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(np.concatenate(values), [tail, 100 - tail])
    return float(low), float(high)
