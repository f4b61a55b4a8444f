"""The numbers of the eva paper (arXiv 2411.00062), to stand beside ours: gemma-2-9b-it, six columns, a row for each experiment.

paper_tables.csv    table,row,arena_hard_wr,mt_bench_avg,…,alpaca_eval_wr,verified
                    main,DPO + eva,60.1,8.90,9.04,8.75,55.35,55.53,arena_hard_wr mt_bench_avg alpaca_eval_wr

`verified` names the numbers of a row that a second source confirms ("all": every one); the others are recalled.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eva_hpc.benchmarks.columns import default_columns
from eva_hpc.config.benchmark import AlpacaEval, ArenaHard, Benchmark, JudgedBenchmark, MtBench
from eva_hpc.config.sweep import Column

SOURCE = "arXiv 2411.00062"
RECALLED = "†"
FILE = Path(__file__).with_name("paper_tables.csv")
COLUMNS: Mapping[str, Column] = dict(
    zip(
        ("arena_hard_wr", "mt_bench_avg", "mt_bench_1st", "mt_bench_2nd", "alpaca_eval_lc_wr", "alpaca_eval_wr"),
        default_columns({"arena_hard": ArenaHard(), "mt_bench": MtBench(), "alpaca_eval": AlpacaEval()}),
        strict=True,
    )
)
"""By heading in the file, what the numbers are: `benchmark` is a kind."""


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables: its numbers as printed, by kind of benchmark and metric. "8.90†" is recalled."""

    name: str
    numbers: Mapping[tuple[str, str], str]


@cache
def paper_tables() -> Mapping[str, tuple[PaperRow, ...]]:
    """The rows of each table, in the paper's order."""
    tables: dict[str, tuple[PaperRow, ...]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            confirmed = COLUMNS.keys() if record["verified"] == "all" else record["verified"].split()
            numbers = {
                (column.benchmark, column.metric): record[name] + ("" if name in confirmed else RECALLED)
                for name, column in COLUMNS.items()
            }
            tables[record["table"]] = (*tables.get(record["table"], ()), PaperRow(record["row"], numbers))
    return tables


def find_row(table: str, values: Iterable[str], names: Mapping[str, str]) -> PaperRow | None:
    """The row named by the values of the axes, each in the paper's words; None if the table has no such row."""
    name = " ".join(word for word in (names.get(value, value) for value in values) if word)
    return next((row for row in paper_tables()[table] if row.name == name), None)


def comparable(column: Column, benchmarks: Mapping[str, Benchmark]) -> tuple[str, str] | None:
    """The paper's name of a column of ours, or None where it has no such number."""
    benchmark = benchmarks.get(column.benchmark)
    if not isinstance(benchmark, JudgedBenchmark) or benchmark.files.questions is not None:
        return None
    if isinstance(benchmark, ArenaHard) and benchmark.version != ArenaHard().version:
        return None
    name = (benchmark.kind, column.metric)
    return name if name in {(one.benchmark, one.metric) for one in COLUMNS.values()} else None
