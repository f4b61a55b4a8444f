"""The numbers of every model of one table of battles, in percent of games won against the baseline."""

from __future__ import annotations

import math

import numpy as np

from eva_hpc.benchmarks.arena_hard.bradley_terry import (
    Table,
    log_odds,
    official_interval_v01,
    official_interval_v2,
    question_interval,
    win_rates,
)
from eva_hpc.benchmarks.arena_hard.style_control import StyleControl, Styles, control
from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.benchmarks.statistics.intervals import interval

NAMES = ("win_rate", "ci_low", "ci_high", "official_ci_low", "official_ci_high")
STYLE_NAMES = ("sc_win_rate", "sc_ci_low", "sc_ci_high", "official_sc_ci_low", "official_sc_ci_high")


class Numbers:
    """What is fitted or drawn for all models at once is computed once, here; :meth:`of` picks a model's."""

    def __init__(self, table: Table, version: Version, styles: Styles | None) -> None:
        self.table, self.version = table, version
        self.names = NAMES if styles is None else NAMES + STYLE_NAMES
        self.style: StyleControl | None = None
        if not table.questions:
            return
        self._rates = win_rates(log_odds(table.wins()))
        self._official = official_interval_v01(table) if version == "v0.1" else official_interval_v2(table)
        self._general = None if table.against_baseline else question_interval(table)
        if styles is not None:
            self.style = control(table, styles, version)

    def won(self, model: str) -> tuple[dict[str, float], dict[str, float]]:
        """By question: games won and games counted, a strong verdict three times; without questions that have none."""
        table = self.table
        if model not in table.models:
            return {}, {}
        number = table.models.index(model)
        playing = (table.a == number) | (table.b == number)
        share = np.where(table.b == number, table.share_of_b, 1 - table.share_of_b)
        counted = np.bincount(table.question, table.weight * playing, len(table.questions))
        won = np.bincount(table.question, table.weight * playing * share, len(table.questions))
        names = [(name, i) for i, name in enumerate(table.questions) if counted[i]]
        return {name: float(won[i]) for name, i in names}, {name: float(counted[i]) for name, i in names}

    def of(self, model: str) -> dict[str, float | None]:
        """A model's numbers; None where there is no such number."""
        if model not in self.table.models:
            return dict.fromkeys(self.names)
        number = self.table.models.index(model)
        values = [self._rates[number], *self._interval(model, number), *self._official[number]]
        if self.style is not None:
            values += [self.style.win_rate[number], *self.style.interval[number], *self.style.official_interval[number]]
        found = (None if math.isnan(value) else float(value) for value in values)
        return dict(zip(self.names, found, strict=True))

    def _interval(self, model: str, number: int) -> tuple[float, float]:
        if self._general is not None:
            return float(self._general[number, 0]), float(self._general[number, 1])
        won, counted = self.won(model)
        ends = interval(list(won.values()), list(counted.values()))
        return (100 * ends[0], 100 * ends[1]) if ends else (math.nan, math.nan)
