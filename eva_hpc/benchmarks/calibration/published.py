"""Published numbers of models, from the official leaderboards or from any CSV file with a column of models.

alpaca_eval   ,win_rate,…,length_controlled_winrate      the official leaderboard: models in the first column, without a heading
arena_hard    model,score,rating_q025,…                  the official leaderboard
mt_bench      model,average,turn_1,turn_2                there is no official file
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eva_hpc.benchmarks.calibration.numbers import Source
from eva_hpc.benchmarks.files import read_csv
from eva_hpc.benchmarks.official import data_folder
from eva_hpc.config.benchmark import OFFICIAL_JUDGES
from eva_hpc.config.errors import ConfigError

COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "alpaca_eval": {
        "win_rate": ("win_rate", "official_win_rate"),
        "lc_win_rate": ("lc_win_rate", "length_controlled_winrate", "official_lc"),
    },
    "arena_hard": {"win_rate": ("win_rate", "score")},
    "mt_bench": {"average": ("average",), "turn_1": ("turn_1",), "turn_2": ("turn_2",)},
}
"""By benchmark and metric, the headings under which its published numbers may stand."""

_MODEL = ("model", "")


@dataclass(frozen=True)
class Published:
    """Published numbers by metric and model, of which file, and by which judge."""

    path: Path
    numbers: Mapping[str, Mapping[str, float]]
    judge: str

    @property
    def models(self) -> list[str]:
        """That have any number."""
        return list(dict.fromkeys(model for values in self.numbers.values() for model in values))


def published_numbers(benchmark: str, set_: str, path: Path | None = None) -> Published:
    """Of a file, by default the official leaderboard of a set of official files.

    Raises:
        ConfigError: there is none or it is not at hand, or as :func:`read_published`.
    """
    if path is None:
        try:
            path = data_folder.official(set_, "leaderboard")
        except LookupError:
            columns = ", ".join(("model", *COLUMNS[benchmark]))
            raise ConfigError(
                f"--published: missing; there is no official file for {set_}: must be a CSV file with columns {columns}"
            ) from None
    return Published(path, read_published(path, benchmark), OFFICIAL_JUDGES[set_])


def official_set_of(benchmark: str, sources: Sequence[Source], edition: str | None = None) -> str:
    """The name of the official files that judgments belong to.

    Raises:
        ConfigError: the judgments are of several editions, or of another one.
    """
    if benchmark != "arena_hard":
        return benchmark
    from eva_hpc.benchmarks.arena_hard.judgments import judgments_from, version_of

    found = version_of([judgment for source, rows in sources for judgment in judgments_from(rows, source)])
    if edition not in (None, found):
        raise ConfigError(f"--version: found {edition}; the judgments are of {found}")
    return "arena_hard_v2" if found == "v2.0" else "arena_hard"


def read_published(path: Path, benchmark: str) -> dict[str, dict[str, float]]:
    """Metric -> model -> published number. Columns that are no metric are passed over; an empty cell is no number.

    Raises:
        ConfigError: the file cannot be read, has no column of models or none of a metric, names a model twice, or a cell is no
            number.
    """
    rows = read_csv(path)
    headings = list(rows[0])
    model_column = next((name for name in _MODEL if name in headings), None)
    if model_column is None:
        raise ConfigError(
            f"{path}:1: found no column of models among {', '.join(headings)}; must have the heading model, or none"
        )
    metrics = {
        metric: column
        for metric, names in COLUMNS[benchmark].items()
        if (column := next((name for name in names if name in headings), None)) is not None
    }
    if not metrics:
        allowed = ", ".join(name for names in COLUMNS[benchmark].values() for name in names)
        raise ConfigError(f"{path}:1: found no column of numbers among {', '.join(headings)}; must have one of {allowed}")
    published: dict[str, dict[str, float]] = {metric: {} for metric in metrics}
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        model = row[model_column]
        if (first := seen.setdefault(model, line)) != line:
            raise ConfigError(f"{path}:{line}: model {model} stands in line {first} too; must be there once")
        for metric, column in metrics.items():
            if row[column].strip():
                published[metric][model] = _number(row[column], f"{path}:{line}: {column}")
    return published


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{place}: found {text!r}; must be a number, or empty")
    return value
