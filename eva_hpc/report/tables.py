"""The files of a finished, or half-finished, table: table.tex, table.md and table.csv; and the same table in the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_hpc.config.sweep import Experiment
from eva_hpc.report.aggregate import Aggregate
from eva_hpc.report.comparisons import Comparison
from eva_hpc.report.latex import render
from eva_hpc.report.layout import Layout, lay_out

if TYPE_CHECKING:
    from rich.console import RenderableType


def write_tables(
    aggregate: Aggregate, experiment: Experiment, folder: Path, comparisons: Sequence[Comparison] = ()
) -> dict[str, Path]:
    """Write table.tex, table.md and table.csv to `folder`, each as a whole or not at all; returns {"tex": path, …}."""
    layout = lay_out(aggregate, experiment, comparisons)
    label = experiment.sweep.table.label or f"tab:{experiment.name}"
    texts = {"tex": render(layout, label), "md": markdown(layout), "csv": to_csv(aggregate, experiment)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for suffix, text in texts.items():
        paths[suffix] = folder / f"table.{suffix}"
        partial = folder / f"table.{suffix}.partial"
        partial.write_text(text, encoding="utf-8", newline="")
        partial.rename(paths[suffix])
    return paths


def markdown(layout: Layout) -> str:
    """Caption, pipe table and notes as GitHub Markdown."""
    from tabulate import tabulate

    headings = [*layout.leading, *(f"{group} {heading}".strip() for group, heading in layout.columns)]
    table = tabulate(
        [[_escape_markdown(cell) for cell in row] for row in _all_rows(layout)],
        headers=[_escape_markdown(heading) for heading in headings],
        tablefmt="pipe",
        colalign=["right" if numeric else "left" for numeric in layout.numeric] + ["right"] * len(layout.columns),
        disable_numparse=True,
    )
    notes = "".join(f"- {_escape_markdown(note)}\n" for note in layout.notes)
    beside = f"\n{markdown(layout.beside)}" if layout.beside is not None else ""
    return f"{_escape_markdown(layout.caption)}\n\n{table}\n" + (f"\n{notes}" if notes else "") + beside


def _all_rows(layout: Layout) -> list[tuple[str, ...]]:
    """All rows from top to bottom."""
    return [row for number, ours in enumerate(layout.body) for row in (ours, layout.paper.get(number)) if row is not None]


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]~$&#])", r"\\\1", " ".join(text.split()))


def to_csv(aggregate: Aggregate, experiment: Experiment) -> str:
    """One line for each grid point and metric, in full precision.

    The axes come first; `values` are SEED=VALUE joined by semicolons, `coverage` is the lowest among them. What is not known
    is empty.
    """
    axes = list(experiment.sweep.axes)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*axes, "benchmark", "metric", "mean", "std", "n", "values", "missing_seeds", "coverage", "judge"])
    for line in aggregate.lines:
        for column, cell in zip(aggregate.columns, line.cells, strict=True):
            writer.writerow(
                [
                    *(line.point[name] for name in axes),
                    column.benchmark,
                    column.metric,
                    cell.mean,
                    cell.std,
                    cell.n,
                    ";".join(f"{seed}={value}" for seed, value in cell.values.items()),
                    ";".join(map(str, cell.missing)),
                    cell.coverage,
                    ";".join(aggregate.judges.get(column.benchmark, ())),
                ]
            )
    return file.getvalue()


def terminal_table(aggregate: Aggregate, experiment: Experiment, comparisons: Sequence[Comparison] = ()) -> RenderableType:
    """The table for `rich`: caption above, notes below, nothing in it read as markup."""
    from rich.console import Group

    layout = lay_out(aggregate, experiment, comparisons)
    return Group(*(_terminal_table(one) for one in (layout, layout.beside) if one is not None))


def _terminal_table(layout: Layout) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(layout.caption), caption=Text("\n".join(layout.notes)), caption_justify="left", title_justify="left"
    )
    for heading, numeric in zip(layout.leading, layout.numeric, strict=True):
        table.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold")
    for group, heading in layout.columns:
        table.add_column(Text(f"{group}\n{heading}" if group else heading), justify="right", overflow="fold")
    for number, row in enumerate(layout.body):
        table.add_row(*map(Text, row))
        if number in layout.paper:
            table.add_row(*map(Text, layout.paper[number]), style="dim")
    return table
