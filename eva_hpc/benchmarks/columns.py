"""Which metrics of a benchmark a table shows by default, under which headings. All metrics are in the metrics file."""

from __future__ import annotations

from collections.abc import Mapping

from eva_hpc.config.recipe import Benchmark
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
}


def default_columns(benchmarks: Mapping[str, Benchmark]) -> tuple[Column, ...]:
    """The columns of a recipe's benchmarks. With several benchmarks the groups carry their names."""
    return tuple(
        Column(
            benchmark=name,
            metric=metric,
            heading=heading,
            group=group if len(benchmarks) == 1 else f"{name}: {group}",
            decimals=decimals,
        )
        for name, benchmark in benchmarks.items()
        for metric, heading, group, decimals in _DEFAULT[benchmark.kind]
    )
