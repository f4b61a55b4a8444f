"""The win rate, its standard error and the discrete win rate of a model against the baseline, by the official arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva_hpc.benchmarks.alpaca_eval.preference import TIE


@dataclass(frozen=True)
class WinRate:
    """In percent, over `n` judged rows. `n_losses` is what the official tool calls n_wins_base. NaN where undefined."""

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    n_wins: int
    n_losses: int
    n_draws: int
    n: int


def win_rate(preferences: Sequence[float]) -> WinRate:
    """From preferences in [1, 2]; NaN ones are left out. A draw is a preference of exactly 1.5.

    The standard error is the sample's (n - 1) over the root of n. The discrete win rate rounds each preference to the nearer
    of the two models, draws counting half.
    """
    valid = np.asarray([value for value in preferences if not math.isnan(value)], dtype=np.float64)
    n = len(valid)
    draws = valid == TIE
    wins = valid > TIE
    return WinRate(
        win_rate=100 * float(np.mean(valid - 1)) if n else math.nan,
        standard_error=100 * float(np.std(valid - 1, ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        discrete_win_rate=100 * float(np.mean(np.where(draws, 0.5, wins))) if n else math.nan,
        n_wins=int(wins.sum()),
        n_losses=int((valid < TIE).sum()),
        n_draws=int(draws.sum()),
        n=n,
    )


def average_length(outputs: Sequence[str]) -> int | None:
    """Mean number of characters, cut to an integer as on the leaderboard; None without outputs."""
    return int(np.mean([len(output) for output in outputs])) if outputs else None
