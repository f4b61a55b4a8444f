"""Official annotations: one row per question, with both outputs and the judge's preference.

{"instruction": "Name three …", "output_1": "Three …", "generator_1": "gpt4_1106_preview", "dataset": "koala",
 "output_2": "Sure …", "generator_2": "my-model", "annotator": "weighted_alpaca_eval_gpt4_turbo", "preference": 1.03,
 "raw_completion": {…}}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.config.benchmark import OFFICIAL_JUDGES as OFFICIAL_MODELS
from eva_hpc.config.errors import ConfigError

OFFICIAL_JUDGES = frozenset({"weighted_alpaca_eval_gpt4_turbo", OFFICIAL_MODELS["alpaca_eval"]})
"""The official judge by the name of its configuration, in official files, and by that of its model, in ours."""


def read_annotations(path: Path) -> list[Row]:
    """The rows of an annotations file.

    Raises:
        ConfigError: the file cannot be read, a row lacks its instruction or preference, an instruction or output is not text, a
            repeat is not a number, or the rows are about several models.
    """
    rows = read_rows(path, needs=("instruction", "preference"))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["instruction"], str):
            raise ConfigError(f"{path}:row {number}: instruction is {row['instruction']!r}; must be text")
        for name in ("output_1", "output_2"):
            if not isinstance(row.get(name), str | None):
                raise ConfigError(f"{path}:row {number}: {name} is {row[name]!r}; must be text or null")
        if not isinstance(row.get("repeat"), int | None):
            raise ConfigError(f"{path}:row {number}: repeat is {row['repeat']!r}; must be a number: 0, 1, …")
    for key, whose in (("generator_2", "models"), ("generator_1", "baselines")):
        names = found(rows, key)
        if len(names) > 1:
            raise ConfigError(f"{path}: {key}: found {len(names)} {whose}: {', '.join(names)}; must be one per file")
    return rows


def found(rows: Sequence[Row], key: str) -> list[str]:
    """The different values of a key, in the order of the rows."""
    return list(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None))


def is_baseline(rows: Sequence[Row]) -> bool:
    """Whether the rows compare the baseline with itself: with its own outputs. A name alone may be that of another model."""
    names = found(rows, "generator_1")
    if not names or names != found(rows, "generator_2"):
        return False
    pairs = ((row.get("output_1"), row.get("output_2")) for row in rows)
    return all(one == two for one, two in pairs if one is not None and two is not None)


def failures(rows: Sequence[Row], preferences: Sequence[float]) -> Mapping[str, int]:
    """How many rows have no preference, by reason: the row's own status, "no preference", or "not in [1, 2]"."""
    reasons = Counter[str]()
    for row, preference in zip(rows, preferences, strict=True):
        if math.isnan(preference):
            status = str(row.get("status") or "judged")
            if status in ("unparsed", "failed", "no_answer"):
                reasons[status] += 1
            else:
                reasons["no preference" if row.get("preference") is None else "not in [1, 2]"] += 1
    return reasons


def repeat_of(row: Row) -> int:
    """Which repeat of the judge a row is from; official rows do not say, and are the first."""
    return int(row.get("repeat") or 0)


def second_judgments(rows: Sequence[Row]) -> int:
    """Number of rows about a question, and a repeat, that an earlier row is about."""
    return len(rows) - len({(row["instruction"], repeat_of(row)) for row in rows})


def repeats_averaged(rows: Sequence[Row], preferences: Sequence[float]) -> tuple[list[Row], list[float]]:
    """One row for all repeats of the judge about an output, with the mean of the preferences that there are; NaN if none is.

    The official arithmetic takes rows for independent, which repeats are not. Rows of one repeat only stay as they are, those
    about a question that an earlier row is about too.
    """
    if len({repeat_of(row) for row in rows}) < 2:
        return list(rows), list(preferences)
    first: dict[tuple[str, str | None], Row] = {}
    given: dict[tuple[str, str | None], list[float]] = {}
    for row, preference in zip(rows, preferences, strict=True):
        about = (row["instruction"], row.get("output_2"))
        first.setdefault(about, row)
        given.setdefault(about, []).extend([] if math.isnan(preference) else [preference])
    return list(first.values()), [math.fsum(own) / len(own) if own else math.nan for own in given.values()]
