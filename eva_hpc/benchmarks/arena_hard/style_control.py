"""Style control: the win rate with the effect of length and markdown taken out, by a joint fit over all models.

    P(model wins) = sigmoid(s * d_model + z . w),     style-controlled win rate = sigmoid(s * d_model)

d is a model's strength above the baseline's, z the four differences in style to the baseline's answer, standardised over all
battles.

v0.1: s = ln 10, difference (m - b) / (m + b + 1) of each count, standard deviation of the population. scikit-learn's
LogisticRegression with its default L2 penalty, C = 1, on battles that stand twice; the baseline's own strength is penalised
too, which leaves sum(d^2) - sum(d)^2 / (models + 1) once it is fitted. The official solver stops a little before the optimum.
v2.0: s = 1, length (m - b) / (m + b), the others by density p = count / (tokens + 1), (p_m - p_b) / (p_m + p_b + 1), sample
standard deviation, no penalty. The official fit takes at most 50 steps of LBFGS in single precision, and the median of 100
bootstraps; here the maximum itself is found, of all battles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eva_hpc.benchmarks.arena_hard.bradley_terry import OFFICIAL_ROUNDS, OFFICIAL_SEED, Table, win_rates
from eva_hpc.benchmarks.arena_hard.newton import Array, minimise
from eva_hpc.benchmarks.arena_hard.style import Style
from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.config.errors import ConfigError

FEATURES = ("length", "header", "list", "bold")
QUESTION_ROUNDS = 1_000
Styles = Mapping[tuple[str, str], Style]
"""(model, question id) -> style of its answer."""


@dataclass(frozen=True)
class StyleControl:
    """Percent for each model of the table (the baseline, model 0, has 50); intervals have shape (models, 2)."""

    win_rate: Array
    interval: Array
    official_interval: Array
    coefficients: Mapping[str, float]


def control(table: Table, styles: Styles, version: Version) -> StyleControl:
    """Fit, interval over questions (95 %), and the interval of the official procedure (95 % in v0.1, 90 % in v2.0).

    Raises:
        ConfigError: an answer's style is not known.
    """
    if not table.against_baseline:
        raise ConfigError("style control needs every battle to be against the baseline")
    fit = _Fit(table, styles, version)
    best = fit.solve(np.ones(len(table.question)), fit.nothing)
    random = np.random.default_rng(0)
    size = len(table.questions)
    drawn = random.multinomial(size, np.full(size, 1 / size), size=QUESTION_ROUNDS)
    over_questions = np.array([fit.solve(counts[table.question].astype(np.float64), best) for counts in drawn])
    official = np.array([fit.solve(counts, best) for counts in _official_draws(table, version)])
    tail = 2.5 if version == "v0.1" else 5.0
    return StyleControl(
        win_rate=fit.win_rates(best),
        interval=np.percentile(fit.win_rates(over_questions), [2.5, 97.5], axis=0).T,
        official_interval=np.percentile(fit.win_rates(official), [tail, 100 - tail], axis=0).T,
        coefficients=dict(zip(FEATURES, best[-len(FEATURES) :].tolist(), strict=True)),
    )


def features(table: Table, styles: Styles, version: Version) -> Array:
    """The standardised style differences of each battle, model against baseline: shape (battles, 4).

    A difference that is the same in every battle explains nothing and is 0.

    Raises:
        ConfigError: an answer's style is not known.
    """
    models, questions = table.models, table.questions
    players = table.a + table.b  # one of them is the baseline, number 0
    pairs, inverse = np.unique(np.stack([players, table.question], axis=1), axis=0, return_inverse=True)
    _check(styles, [(models[m], questions[q]) for m, q in pairs] + [(models[0], question) for question in questions])
    of_model = np.array([styles[models[m], questions[q]] for m, q in pairs], dtype=np.float64)
    of_baseline = np.array([styles[models[0], questions[q]] for _, q in pairs], dtype=np.float64)
    if version == "v0.1":
        gap = (of_model - of_baseline) / (of_model + of_baseline + 1)
    else:
        density = of_model / (of_model[:, :1] + 1)
        base = of_baseline / (of_baseline[:, :1] + 1)
        gap = (density - base) / (density + base + 1)
        length = of_model[:, 0] + of_baseline[:, 0]
        gap[:, 0] = (of_model[:, 0] - of_baseline[:, 0]) / np.where(length > 0, length, 1)
    gap = gap[inverse.reshape(-1)]
    total = table.weight.sum()
    mean = (table.weight @ gap) / total
    square = table.weight @ (gap - mean) ** 2
    deviation = np.sqrt(square / (total if version == "v0.1" else max(total - 1, 1)))
    return np.asarray(np.where(deviation > 1e-12, (gap - mean) / np.where(deviation > 1e-12, deviation, 1), 0.0))


def _check(styles: Styles, needed: Sequence[tuple[str, str]]) -> None:
    missing: dict[str, list[str]] = {}
    for model, question in needed:
        if (model, question) not in styles:
            missing.setdefault(model, []).append(question)
    if missing:
        raise ConfigError(
            *(
                f"style control needs every answer: {model} has none to {len(questions)} questions, such as {questions[0]}; "
                "give --answers FILE"
                for model, questions in missing.items()
            )
        )


class _Fit:
    """The penalised likelihood of one table; battles may be weighed anew."""

    def __init__(self, table: Table, styles: Styles, version: Version) -> None:
        self.features = features(table, styles, version)
        self.model = (table.a + table.b) - 1
        self.share = np.where(table.b > 0, table.share_of_b, 1 - table.share_of_b)
        self.weight = table.weight.astype(np.float64)
        self.models = len(table.models) - 1
        size = self.models + len(FEATURES)
        self.nothing = np.zeros(size)
        self.penalty = np.zeros((size, size))
        self.scale, self.copies = 1.0, 1
        if version == "v0.1":
            self.scale, self.copies = math.log(10), 2
            self.penalty = np.eye(size)
            self.penalty[: self.models, : self.models] -= 1 / (self.models + 1)

    def solve(self, counts: Array, start: Array) -> Array:
        """Strengths of the models and the four coefficients, where battle i stands `counts[i]` times."""
        weight = self.copies * self.weight * counts
        model, z, models = self.model, self.features, self.models

        def loss(at: Array) -> tuple[float, Array, Array]:
            logit = self.scale * at[model] + z @ at[models:]
            chance = 0.5 * (1 + np.tanh(logit / 2))
            pull = self.penalty @ at
            value = float(weight @ (np.logaddexp(0, logit) - self.share * logit) + at @ pull / 2)
            error, curve = weight * (chance - self.share), weight * chance * (1 - chance)
            gradient = np.concatenate([self.scale * np.bincount(model, error, models), error @ z]) + pull
            hessian = self.penalty.copy()
            hessian[range(models), range(models)] += self.scale**2 * np.bincount(model, curve, models)
            cross = np.stack([self.scale * np.bincount(model, curve * column, models) for column in z.T], axis=1)
            hessian[:models, models:] += cross
            hessian[models:, :models] += cross.T
            hessian[models:, models:] += (z * curve[:, None]).T @ z
            return value, gradient, hessian

        return minimise(loss, start)

    def win_rates(self, solutions: Array) -> Array:
        """Percent against the baseline, with the baseline's own 50 first; shape (…, models + 1)."""
        odds = self.scale * solutions[..., : self.models]
        return win_rates(np.concatenate([np.zeros((*odds.shape[:-1], 1)), odds], axis=-1))


def _official_draws(table: Table, version: Version) -> list[Array]:
    """How often each battle was drawn, in each round of the official bootstrap over rows of its battle table.

    v0.1 seeds numpy with 42, so these are its draws for the same rows in the same order; v2.0 has no seed.
    """
    random = np.random.RandomState(OFFICIAL_SEED if version == "v0.1" else 0)
    owner: npt.NDArray[np.intp] = np.repeat(np.arange(len(table.weight)), table.weight)
    draws = []
    for _ in range(OFFICIAL_ROUNDS):
        drawn = np.bincount(owner[random.randint(0, len(owner), size=len(owner))], minlength=len(table.weight))
        draws.append(drawn / table.weight)
    return draws
