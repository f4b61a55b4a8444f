"""Bradley-Terry: log odds of winning against the baseline, from battles, and the official intervals.

The official v0.1 script fits it by logistic regression without intercept or penalty on battles that stand twice, a tie once as
a win and once as a loss. The likelihood needs only how often each model beat each other, ties half. Where every battle is
against the baseline its maximum has a closed form, the weighted share of games won. The official v2.0 script takes that share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eva_hpc.benchmarks.arena_hard.battles import Battle
from eva_hpc.benchmarks.arena_hard.newton import Array, minimise

OFFICIAL_ROUNDS = 100
OFFICIAL_SEED = 42
_V2_ROUNDS = 10_000
_GENERAL_ROUNDS = 1_000


@dataclass(frozen=True)
class Table:
    """Battles as arrays, one entry per battle, in order. The baseline is model 0."""

    models: tuple[str, ...]
    questions: tuple[str, ...]
    question: npt.NDArray[np.intp]
    a: npt.NDArray[np.intp]
    b: npt.NDArray[np.intp]
    share_of_b: Array
    weight: npt.NDArray[np.intp]

    @classmethod
    def of(cls, battles: Sequence[Battle], baseline: str) -> Table:
        """The table of these battles; those of a model against itself say nothing and are left out."""
        battles = [battle for battle in battles if battle.model_a != battle.model_b]
        others = dict.fromkeys(name for battle in battles for name in (battle.model_a, battle.model_b) if name != baseline)
        models = {name: number for number, name in enumerate([baseline, *others])}
        questions = {name: number for number, name in enumerate(dict.fromkeys(battle.question_id for battle in battles))}
        return cls(
            models=tuple(models),
            questions=tuple(questions),
            question=np.array([questions[battle.question_id] for battle in battles], dtype=np.intp),
            a=np.array([models[battle.model_a] for battle in battles], dtype=np.intp),
            b=np.array([models[battle.model_b] for battle in battles], dtype=np.intp),
            share_of_b=np.array([battle.share_of_b for battle in battles], dtype=np.float64),
            weight=np.array([battle.weight for battle in battles], dtype=np.intp),
        )

    @property
    def against_baseline(self) -> bool:
        """Whether every battle is against the baseline."""
        return bool(np.all((self.a == 0) | (self.b == 0)))

    def rows(self) -> Table:
        """The same with weights written out: a battle of weight 3 stands three times, as in the official file."""
        return replace(
            self,
            question=np.repeat(self.question, self.weight),
            a=np.repeat(self.a, self.weight),
            b=np.repeat(self.b, self.weight),
            share_of_b=np.repeat(self.share_of_b, self.weight),
            weight=np.ones(int(self.weight.sum()), dtype=np.intp),
        )

    def wins(self, counts: npt.NDArray[np.generic] | None = None) -> Array:
        """How often each model beat each other, ties half: shape (models, models); `counts` weighs battles anew."""
        weight = self.weight * (1.0 if counts is None else counts.astype(np.float64))
        size = len(self.models)
        won_a = np.bincount(self.a * size + self.b, weight * (1 - self.share_of_b), size * size)
        won_b = np.bincount(self.b * size + self.a, weight * self.share_of_b, size * size)
        return np.asarray((won_a + won_b).reshape(size, size))


def log_odds(wins: Array) -> Array:
    """Natural log odds of each model beating model 0; shape (models,).

    Infinite for a model that never lost, or never won, as far as chains of battles connect it; NaN where none does.
    """
    if _is_star(wins):
        with np.errstate(divide="ignore", invalid="ignore"):
            odds: Array = np.log(wins[:, 0]) - np.log(wins[0])
        odds[0] = 0.0
        return odds
    return _general(wins)


def win_rates(odds: Array) -> Array:
    """Log odds as percent of games won, without overflow."""
    return np.asarray(50.0 * (1.0 + np.tanh(odds / 2)))


def official_interval_v01(table: Table) -> Array:
    """The 95 % interval of the official v0.1 script, percent: shape (models, 2).

    It draws rows of its battle file, of all models together, 100 times, from numpy's generator seeded with 42: for the same
    rows in the same order these are its draws.
    """
    rows = table.rows()
    random = np.random.RandomState(OFFICIAL_SEED)
    size = len(rows.a)
    odds = np.array(
        [log_odds(rows.wins(np.bincount(random.randint(0, size, size=size), minlength=size))) for _ in range(OFFICIAL_ROUNDS)]
    )
    return _percentiles(odds, 2.5, 97.5)


def official_interval_v2(table: Table) -> Array:
    """The 90 % interval of the official v2.0 script, percent: shape (models, 2); NaN for a model without battles.

    It draws each model's games 100 times without a seed. Here they are drawn 10,000 times with one, which is where it tends to.
    """
    random = np.random.default_rng(0)
    ends = np.full((len(table.models), 2), np.nan)
    rows = table.rows()
    for model in range(1, len(table.models)):
        games = rows.share_of_b[rows.b == model]
        if len(games):
            shares, counts = np.unique(games, return_counts=True)
            drawn = random.multinomial(len(games), counts / len(games), size=_V2_ROUNDS) @ shares / len(games)
            ends[model] = 100 * np.quantile(drawn, [0.05, 0.95])
    return ends


def question_interval(table: Table) -> Array:
    """The 95 % interval over questions where battles are not all against the baseline, percent: shape (models, 2)."""
    random = np.random.default_rng(0)
    size = len(table.questions)
    drawn = random.multinomial(size, np.full(size, 1 / size), size=_GENERAL_ROUNDS)
    return _percentiles(np.array([log_odds(table.wins(counts[table.question])) for counts in drawn]), 2.5, 97.5)


def _percentiles(odds: Array, low: float, high: float) -> Array:
    ends = np.full((odds.shape[1], 2), np.nan)
    known = ~np.isnan(odds).all(axis=0)
    finite = np.clip(odds[:, known], -50, 50)  # percentiles between infinities would be no number
    ends[known] = win_rates(np.nanpercentile(finite, [low, high], axis=0).T)
    return ends


def _is_star(wins: Array) -> bool:
    return not wins[1:, 1:].any()


def _general(wins: Array) -> Array:
    """The fit where models also met each other.

    The likelihood has a maximum within a group of models in which everyone reaches everyone by a chain of wins; models that
    only win against the baseline's group are infinitely far above it, and the reverse.
    """
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    beat = wins > 0
    _, group = connected_components(beat, directed=True, connection="strong")
    above = set(breadth_first_order(beat.T, 0, return_predecessors=False))
    below = set(breadth_first_order(beat, 0, return_predecessors=False))
    odds = np.array([np.inf if model in above else -np.inf if model in below else np.nan for model in range(len(wins))])
    members = np.flatnonzero(group == group[0])
    inside = wins[np.ix_(members, members)]

    def loss(strength: Array) -> tuple[float, Array, Array]:
        full = np.concatenate([[0.0], strength])  # the baseline, which is the first member, stays at 0
        gap = full[:, None] - full[None, :]
        surprise = inside * (0.5 * (1 - np.tanh(gap / 2)))
        value = float((inside * np.logaddexp(0, -gap)).sum())
        gradient = surprise.sum(axis=0) - surprise.sum(axis=1)
        games = (inside + inside.T) * 0.25 * (1 - np.tanh(gap / 2) ** 2)
        hessian = np.diag(games.sum(axis=1)) - games
        return value, gradient[1:], hessian[1:, 1:]

    odds[members] = np.concatenate([[0.0], minimise(loss, np.zeros(len(members) - 1))]) if len(members) > 1 else 0.0
    return odds
