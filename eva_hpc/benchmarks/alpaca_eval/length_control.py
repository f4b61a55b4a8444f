"""The length-controlled win rate: what the win rate would be if both models wrote equally long outputs.

For row i with the length difference l_i (baseline minus model, in characters, over its sample standard deviation in this
model's rows) and the instruction's difficulty d_i, the probability that the judge prefers the model is

    sigmoid(w_length * tanh(l_i) + w_difficulty * d_i + w_model)

fitted to the preferences in [0, 1], and the length-controlled win rate is its mean over all rows with the length term at 0
(Dubois et al. 2024, arXiv:2404.04475; official name length_controlled_v1). The rows of two "gamed" outputs of the baseline
model, told to be concise and verbose, are added with weight 0.1 and without w_model. The weights w minimise

    ||w||_1 + C * sum_i a_i * (log(1 + exp(x_i w)) - p_i * x_i w)

Solver: scikit-learn's liblinear at its tolerance of 1e-4, which is what published numbers were computed with. A more accurate
one moves them by up to 0.016; this one gives them to 0.0005. C is chosen by 5-fold cross-validation unless it is given.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eva_hpc.benchmarks.files import read_csv
from eva_hpc.config.errors import ConfigError

Array = npt.NDArray[np.float64]

GAMED_WEIGHT = 0.2 / 2  # the regularisation's strength, over two gamed outputs
CANDIDATES = np.logspace(-4, 4, 10)
FOLDS = 5
SEED = 123


@dataclass(frozen=True)
class Gamed:
    """The regularising rows: features [n, 3] = tanh(length difference), difficulty, 0; preferences [n] in [0, 1]."""

    features: Array
    preferences: Array


def read_gamed(path: Path) -> Gamed:
    """The rows of df_gamed.csv; those without a preference are left out, as officially.

    Raises:
        ConfigError: the file cannot be read, or a value is not a number in its range.
    """
    needs = ("preference", "std_delta_len", "instruction_difficulty")
    values = []
    for line, row in enumerate(read_csv(path, needs=needs), start=2):
        try:
            preference, length, difficulty = (float(row[name] or "nan") for name in needs)
        except (TypeError, ValueError):
            raise ConfigError(f"{path}:{line}: {', '.join(needs)} must be numbers") from None
        if math.isnan(preference):
            continue
        if not (0 <= preference <= 1 and math.isfinite(length) and math.isfinite(difficulty)):
            found = f"{preference}, {length}, {difficulty}"
            raise ConfigError(f"{path}:{line}: found {found}; must be a preference from 0 to 1 and two finite numbers")
        values.append((preference, length, difficulty))
    if not values:
        raise ConfigError(f"{path}: no row has a preference")
    table = np.array(values)
    return Gamed(np.column_stack([np.tanh(table[:, 1]), table[:, 2], np.zeros(len(table))]), table[:, 0])


@dataclass(frozen=True)
class Rows:
    """A model's rows: baseline minus model length [n] in characters, NaN without an output; difficulty [n]; preference [n] in
    [0, 1], NaN if it was not judged."""

    length_differences: Array
    difficulties: Array
    preferences: Array

    def features(self, counts: Array | None = None) -> Array:
        """[n, 3]; with `counts` of a resample the lengths are standardised by its own deviation."""
        return np.column_stack(
            [np.tanh(_standardised(self.length_differences, counts)), self.difficulties, np.ones(len(self.difficulties))]
        )


@dataclass(frozen=True)
class LengthControlled:
    """The result of a fit, in percent. `weights` are those of length, difficulty and model."""

    win_rate: float
    standard_error: float
    C: float
    weights: tuple[float, float, float]


def length_controlled(rows: Rows, gamed: Gamed, C: float, counts: Array | None = None) -> LengthControlled:
    """Fit with a given C.

    Args:
        rows: at least two, with a preference and an output each in at least one.
        gamed: the regularising rows.
        C: inverse strength of the L1 penalty.
        counts: how often each row was drawn in a resample, [n]; None is once each.

    Raises:
        ConfigError: one side won every row, gamed ones included.
    """
    features, preferences, row_weights = _training(rows, gamed, counts)
    weights = _fit(features, preferences, row_weights, C, SEED)
    predicted = _sigmoid(rows.difficulties * weights[1] + weights[2])
    n = len(predicted)
    return LengthControlled(
        win_rate=100 * float(np.average(predicted, weights=counts)),
        standard_error=100 * float(np.std(predicted, ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        C=C,
        weights=(float(weights[0]), float(weights[1]), float(weights[2])),
    )


def choose_C(rows: Rows, gamed: Gamed, folds: npt.NDArray[np.int64] | None = None) -> float:
    """The official choice of C: best mean log loss over five folds, each row weighted as in the fit.

    Args:
        rows: see :func:`length_controlled`.
        gamed: the regularising rows.
        folds: fold of each training row, gamed ones first; None is :func:`published_folds`.

    Raises:
        ConfigError: there are fewer rows than folds, or one side won all of them.
    """
    features, preferences, row_weights = _training(rows, gamed, None)
    if len(preferences) < FOLDS:
        raise ConfigError(f"C is chosen in {FOLDS} folds; found {len(preferences)} judged and gamed rows: give C")
    folds = published_folds(len(preferences)) if folds is None else folds
    scores = np.empty((FOLDS, len(CANDIDATES)))
    for fold in range(FOLDS):
        held_out = folds == fold
        train = ~held_out
        random = np.random.RandomState(SEED)  # goes on from one C to the next, as in scikit-learn's LogisticRegressionCV
        for place, C in enumerate(CANDIDATES):
            weights = _fit(features[train], preferences[train], row_weights[train], C, random)
            predicted = np.clip(_sigmoid(features[held_out] @ weights), 1e-15, 1 - 1e-15)
            truth = preferences[held_out]
            losses = -(truth * np.log(predicted) + (1 - truth) * np.log(1 - predicted))
            scores[fold, place] = -np.mean(row_weights[held_out] * losses)
    return float(CANDIDATES[np.argmax(scores.mean(axis=0))])


def published_folds(n: int) -> npt.NDArray[np.int64]:
    """Fold of each of `n` rows as in the published leaderboard, [n].

    scikit-learn's GroupKFold deals groups out in the order of a sort by size that is not stable. All groups here are equally
    large, so the order is whatever the sort leaves, and it differs between processors: numpy sorts real numbers with vector
    instructions where there are any. It has none for complex numbers, which give the order of the plain sort everywhere: the
    one from which most of the published choices of C come out.
    """
    order = np.argsort(np.zeros(n, dtype=np.complex128))[::-1]
    folds = np.empty(n, dtype=np.int64)
    folds[order] = np.arange(n) % FOLDS
    return folds


def is_plausible(win_rate: float, length_controlled_win_rate: float) -> bool:
    """False where the official tool warns that the two are so far apart that the fit may have failed. Both in percent."""
    low = min(win_rate - win_rate / 4, win_rate - 10)
    high = max(win_rate + (100 - win_rate) / 4, win_rate + 10)
    return low <= length_controlled_win_rate <= high


def _training(rows: Rows, gamed: Gamed, counts: Array | None) -> tuple[Array, Array, Array]:
    features = rows.features(counts)
    usable = ~np.isnan(rows.preferences) & ~np.isnan(features[:, 0])
    weights = np.ones(len(features)) if counts is None else counts
    preferences = np.concatenate([gamed.preferences, rows.preferences[usable]])
    if np.all(preferences == 0) or np.all(preferences == 1):
        raise ConfigError(f"all {len(preferences)} judged and gamed rows have preference {preferences[0]:g}: nothing to fit")
    return (
        np.concatenate([gamed.features, features[usable]]),
        preferences,
        np.concatenate([np.full(len(gamed.preferences), GAMED_WEIGHT), weights[usable]]),
    )


def _standardised(differences: Array, counts: Array | None) -> Array:
    """Differences over their sample standard deviation, not centred; where that is 0, infinite, as dividing gives, or 0."""
    known = ~np.isnan(differences)
    weights = (np.ones(len(differences)) if counts is None else counts)[known]
    deviation = 0.0
    if weights.sum() > 1:
        centred = differences[known] - np.average(differences[known], weights=weights)
        deviation = math.sqrt(float(np.sum(weights * centred**2)) / (weights.sum() - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(differences == 0, 0.0, differences / deviation)


def _fit(features: Array, preferences: Array, row_weights: Array, C: float, random: Any) -> Array:
    """Weights [3]. A preference p is two rows: the model wins with weight p, the baseline with 1 - p."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, solver="liblinear", fit_intercept=False, random_state=random, **_l1(LogisticRegression))
    model.fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(preferences)),
        sample_weight=np.concatenate([row_weights * preferences, row_weights * (1 - preferences)]),
    )
    return np.asarray(model.coef_[0], dtype=np.float64)


@lru_cache
def _l1(estimator: Any) -> dict[str, Any]:
    """How the installed scikit-learn wants to be asked for the L1 penalty: `penalty` is deprecated from 1.8 on."""
    parameter = inspect.signature(estimator).parameters.get("penalty")
    return {"penalty": "l1"} if parameter is not None and parameter.default == "l2" else {"l1_ratio": 1.0}


def _sigmoid(values: Array) -> Array:
    probabilities: Array = np.exp(-np.logaddexp(0, -values))
    return probabilities
