"""Which metrics of a benchmark a table shows by default, under which headings. All metrics are in the metrics file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from eva_hpc.config.benchmark import Benchmark
from eva_hpc.config.sweep import Column

# metric, heading, group of headings, decimals
_DEFAULT: Mapping[str, tuple[tuple[str, str, str, int], ...]] = {
    "lab": (
        ("win_rate", "WR", "Against start", 1),
        ("gain", "gain", "Against start", 1),
        ("reward", "all", "Sampled reward", 1),
        ("reward_easy", "easy", "Sampled reward", 1),
        ("reward_medium", "medium", "Sampled reward", 1),
        ("reward_hard", "hard", "Sampled reward", 1),
        ("turn_1", "1st", "Turn", 1),
        ("turn_2", "2nd", "Turn", 1),
        ("pairs", "pairs", "Trained", 0),
    ),
    "reward": (
        ("win_rate", "WR", "Against start", 1),
        ("gain", "gain", "Against start", 3),
        ("reward", "mean", "Reward", 3),
        ("pairs", "pairs", "Trained", 0),
    ),
    "arena_hard": (("win_rate", "WR", "Arena-Hard", 1),),
    "mt_bench": (
        ("average", "avg.", "MT-Bench", 2),
        ("turn_1", "1st", "MT-Bench", 2),
        ("turn_2", "2nd", "MT-Bench", 2),
    ),
    "alpaca_eval": (
        ("lc_win_rate", "LC-WR", "AlpacaEval 2.0", 1),
        ("win_rate", "WR", "AlpacaEval 2.0", 1),
    ),
}


def default_columns(benchmarks: Mapping[str, Benchmark]) -> tuple[Column, ...]:
    """The columns of a recipe's benchmarks. Where the groups of two have one heading, the benchmarks' names are before it."""
    kinds = Counter(benchmark.kind for benchmark in benchmarks.values())
    unclear = {kind for kind, count in kinds.items() if count > 1}
    if kinds.keys() >= {"lab", "reward"}:
        unclear |= {"lab", "reward"}
    return tuple(
        Column(
            benchmark=name,
            metric=metric,
            heading=heading,
            group=f"{name}: {group}" if benchmark.kind in unclear else group,
            decimals=decimals,
        )
        for name, benchmark in benchmarks.items()
        for metric, heading, group, decimals in _DEFAULT[benchmark.kind]
    )
