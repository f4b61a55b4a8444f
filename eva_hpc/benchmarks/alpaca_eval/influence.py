"""What each question contributes to the length-controlled win rate, so that two models can be compared question by question.

The length-controlled win rate comes from a fit and is no mean of judgments. Its pseudo-values are what it would be a mean of:
their mean is the win rate, and how they vary is, to first order, how it varies under resampled questions (infinitesimal
jackknife, Efron & Tibshirani 1993, chapter 20). They come from the derivative of the win rate by the weight a_i of each row,

    (g_i - LC) / n  -  (dLC/dw) H^-1 (sigmoid(x_i w) - p_i) x_i

with g_i the prediction at equal length and H the Hessian of the weighted loss; the L1 penalty is linear near w and has none.
That the deviation of the lengths varies too is left out.
"""

from __future__ import annotations

import numpy as np

from eva_hpc.benchmarks.alpaca_eval.length_control import GAMED_WEIGHT, Array, Gamed, LengthControlled
from eva_hpc.benchmarks.alpaca_eval.resampling import Arm


def pseudo_values(arm: Arm, gamed: Gamed, fit: LengthControlled) -> dict[str, float]:
    """Shares, about 0 to 1, by instruction: the mean over an instruction's rows."""
    features, weights = arm.rows.features(), np.array(fit.weights)
    preferences = arm.rows.preferences
    usable = ~np.isnan(preferences) & ~np.isnan(features[:, 0])
    moving = weights != 0  # a weight that the penalty holds at 0 stays there
    judged = np.where(usable[:, None], features, 0.0)
    errors = np.where(usable, _sigmoid(judged @ weights) - np.where(usable, preferences, 0.0), 0.0)
    hessian = _hessian(judged[usable], weights, 1.0) + _hessian(gamed.features, weights, GAMED_WEIGHT)
    at_equal_length = np.column_stack([np.zeros(len(features)), features[:, 1:]])
    predicted = _sigmoid(at_equal_length @ weights)
    slope = np.mean((predicted * (1 - predicted))[:, None] * at_equal_length, axis=0)
    through_fit = np.linalg.lstsq(hessian[np.ix_(moving, moving)], slope[moving], rcond=None)[0]
    influence = predicted - predicted.mean() - len(features) * errors * (judged[:, moving] @ through_fit)
    values = predicted.mean() + influence - influence.mean()
    by_question: dict[str, list[float]] = {}
    for name, value in zip(arm.questions, values, strict=True):
        by_question.setdefault(name, []).append(float(value))
    return {name: sum(own) / len(own) for name, own in by_question.items()}


def _hessian(features: Array, weights: Array, row_weight: float) -> Array:
    likely = _sigmoid(features @ weights)
    hessian: Array = row_weight * (features.T * (likely * (1 - likely))) @ features
    return hessian


def _sigmoid(values: Array) -> Array:
    likely: Array = np.exp(-np.logaddexp(0, -values))
    return likely
