"""The table as text, before any markup: headings, cells, caption and notes, the same for LaTeX, Markdown and the terminal.

A cell reads "61.2 ± 0.8", "61.2" for a single seed and "—" without a value. When runs are missing, a column n after the axes
says how many seeds each row has; a cell with fewer than that says so itself: "61.2 ± 0.8 (n=2)".

Where the sweep asks for the paper's numbers, they stand in rows beneath ours: "paper 60.1 8.90 55.35†"; and if no column is
the paper's, as at lab scale, in a layout of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from eva_hpc.config.recipe import LabChecker, LabPolicy, LabPrompts
from eva_hpc.config.sweep import Experiment, Value
from eva_hpc.plan.grid import run_name
from eva_hpc.report.aggregate import Aggregate, Cell, readable
from eva_hpc.report.collect import TOO_FEW
from eva_hpc.report.comparisons import SIGNIFICANT, Comparison
from eva_hpc.report.paper import COLUMNS, RECALLED, SOURCE, comparable, find_row, paper_tables

MISSING = "—"
NAMED_RUNS = 8  # a note names at most so many runs; table.csv names all


@dataclass(frozen=True)
class Layout:
    """Plain text of a table: `leading` columns (the axes, and n) with their headings and whether they hold numbers, then the
    metric `columns` with (group, heading). `paper` has the paper's rows by the number of the row of ours that they stand
    beneath; `beside` is the paper's table if it has no column of ours."""

    leading: tuple[str, ...]
    numeric: tuple[bool, ...]
    columns: tuple[tuple[str, str], ...]
    body: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...]
    paper: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    beside: Layout | None = None


def lay_out(aggregate: Aggregate, experiment: Experiment, comparisons: Sequence[Comparison] = ()) -> Layout:
    """The text of the table, its caption and its notes. A star marks what the comparisons find beyond noise."""
    starred = {(run_name(one.point, 0), one.benchmark, one.metric) for one in comparisons if one.beyond_noise}
    axes = experiment.sweep.axes
    runs_are_missing = bool(aggregate.missing_runs)
    body = []
    missing = set(aggregate.missing_runs)
    for line in aggregate.lines:
        seeds = sum(run_name(line.point, seed) not in missing for seed in aggregate.seeds)
        row = [_axis_value(line.point[name]) for name in axes] + [str(seeds)] * runs_are_missing
        for cell, column in zip(line.cells, aggregate.columns, strict=True):
            star = "*" if (run_name(line.point, 0), column.benchmark, column.metric) in starred else ""
            row.append(_cell(cell, column.decimals, seeds) + star)
        body.append(tuple(row))
    paper = _paper_rows(aggregate, experiment, runs_are_missing)
    return Layout(
        leading=tuple(readable(name) for name in axes) + ("n",) * runs_are_missing,
        numeric=tuple(not any(isinstance(value, bool | str) for value in values) for values in axes.values())
        + (True,) * runs_are_missing,
        columns=tuple((column.group, column.heading) for column in aggregate.columns),
        body=tuple(body),
        caption=_caption(aggregate, experiment),
        notes=(*_notes(aggregate, experiment), *_about(comparisons), *_about_paper(paper)),
        paper=paper,
        beside=_papers_table(experiment) if not paper else None,
    )


def _axis_value(value: Value) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _number(value: float, decimals: int) -> str:
    """The rounded number with a true minus sign, and no sign before zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def _cell(cell: Cell, decimals: int, seeds: int) -> str:
    if cell.mean is None:
        return MISSING
    text = _number(cell.mean, decimals)
    if cell.std is not None:
        text += f" ± {_number(cell.std, decimals)}"
    return text if cell.n == seeds else f"{text} (n={cell.n})"


def _is_lab(experiment: Experiment) -> bool:
    recipe = experiment.recipe
    parts = (recipe.policy, recipe.prompts, recipe.reward)
    return any(isinstance(part, LabPolicy | LabPrompts | LabChecker) for part in parts)


def _caption(aggregate: Aggregate, experiment: Experiment) -> str:
    sweep = experiment.sweep
    sentences = [sweep.table.caption.strip() or f"Sweep {sweep.name}, recipe {experiment.recipe.name}"]
    seeds = ", ".join(map(str, aggregate.seeds))
    if len(aggregate.seeds) > 1:
        sentences.append(f"Mean ± standard deviation over n = {len(aggregate.seeds)} seeds ({seeds})")
    else:
        sentences.append(f"One seed ({seeds}), so no spread is known")
    if _is_lab(experiment):
        sentences.append("Lab scale: a tiny policy on tasks with checkable answers, not comparable with published results")
    if experiment.quick:
        sentences.append("Quick run with reduced sizes")
    judges = sorted({judge for names in aggregate.judges.values() for judge in names})
    if len(judges) == 1:
        sentences.append(f"Judge: {judges[0]}")
    elif judges:
        sentences.append("Judges: " + "; ".join(f"{name} by {', '.join(by)}" for name, by in aggregate.judges.items()))
    return " ".join(sentence if sentence[-1] in ".!?" else sentence + "." for sentence in sentences)


def _notes(aggregate: Aggregate, experiment: Experiment) -> list[str]:
    notes = []
    for name, values in experiment.sweep.axes.items():
        if name.split(".")[-1] == "responses_per_prompt" and not isinstance(values, Mapping) and len(values) > 1:
            largest = max(int(value) for value in values)
            notes.append(
                f"{readable(name)}: the responses are nested. k responses are the first k of one sample of {largest}, "
                "so the rows of a seed are not independent."
                if experiment.sharing
                else f"{readable(name)}: every run sampled its own responses, but from the same random numbers, "
                "so the rows of a seed are not independent."
            )
    if experiment.settings:
        notes.append(f"Set on the command line: {'; '.join(sorted(experiment.settings))}.")
    expected = len(aggregate.lines) * len(aggregate.seeds)
    if aggregate.missing_runs:
        notes.append(f"Missing runs, {len(aggregate.missing_runs)} of {expected}: {_named(aggregate.missing_runs)}.")
    notes += _unmeasured(aggregate)
    gaps, thin = _gaps(aggregate)
    if gaps:
        notes.append(f"Missing values of runs that have others: {_named(gaps)}.")
    if aggregate.refused:
        notes.append(f"No number: {_named(aggregate.refused)}.")
    if smaller := [note for note in aggregate.notes if TOO_FEW in note]:
        without_benchmark = dict.fromkeys(note.partition(": ")[2] for note in smaller)
        notes.append(f"Rounds smaller than asked for: {_named(tuple(without_benchmark))}.")
    if of_numbers := [note for note in aggregate.notes if note not in smaller]:
        notes.append(f"Of the judged numbers: {_named(of_numbers)}.")
    if thin:
        notes.append(f"Not all answers were judged: {_named(thin)}.")
    if aggregate.ignored_runs:
        notes.append(f"Left out, because this sweep does not ask for them: {_named(aggregate.ignored_runs)}.")
    if len(aggregate.versions) > 1:
        notes.append(f"The runs were made with different versions of eva_hpc: {_named(aggregate.versions)}.")
    return notes


def _about(comparisons: Sequence[Comparison]) -> list[str]:
    if not any(one.adjusted is not None for one in comparisons):
        return []
    reference = ", ".join(f"{readable(axis)} {_axis_value(value)}" for axis, value in comparisons[0].reference.items())
    tested = [one for one in comparisons if one.adjusted is not None]
    over = "questions and seeds" if all(len(one.seeds) > 1 for one in tested) else "questions"
    test = f"paired test over {over}, p < {SIGNIFICANT} after Holm's correction for {len(tested)} comparisons"
    if any(one.beyond_noise for one in comparisons):
        return [f"* differs from the row {reference} beyond noise: {test}."]
    return [f"No row differs from the row {reference} beyond noise: {test}."]


def _paper_rows(aggregate: Aggregate, experiment: Experiment, with_n: bool) -> dict[int, tuple[str, ...]]:
    """The paper's rows in the columns of ours, by the number of our row."""
    paper, benchmarks = experiment.sweep.table.paper, experiment.recipe.benchmarks
    names = [comparable(column, benchmarks) for column in aggregate.columns]
    if paper is None or not any(names):
        return {}
    blank = ("",) * (len(experiment.sweep.axes) - 1)
    rows = {}
    for number, line in enumerate(aggregate.lines):
        found = find_row(paper.table, [_axis_value(line.point[axis]) for axis in experiment.sweep.axes], paper.names)
        if found is not None:
            rows[number] = (*blank, "paper", *("",) * with_n, *(found.numbers[name] if name else "" for name in names))
    return rows


def _papers_table(experiment: Experiment) -> Layout | None:
    """The paper's table as it is, if the sweep asks for one."""
    paper = experiment.sweep.table.paper
    if paper is None:
        return None
    body = tuple((row.name, *row.numbers.values()) for row in paper_tables()[paper.table])
    return Layout(
        leading=("In the paper",),
        numeric=(False,),
        columns=tuple((column.group, column.heading) for column in COLUMNS.values()),
        body=body,
        caption=f"The paper's table ({SOURCE}, gemma-2-9b-it). Its scale is not ours: only the order of rows can be compared.",
        notes=_recalled(cell for row in body for cell in row),
    )


def _about_paper(rows: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    if not rows:
        return ()
    told = f"Rows named paper: {SOURCE}, judged by GPT-4 models that are retired by now: compare differences, not numbers."
    return (told, *_recalled(cell for row in rows.values() for cell in row))


def _recalled(cells: Iterable[str]) -> tuple[str, ...]:
    marked = any(cell.endswith(RECALLED) for cell in cells)
    return (f"{RECALLED} recalled from the paper, not confirmed by a second source.",) if marked else ()


def _unmeasured(aggregate: Aggregate) -> list[str]:
    """Columns that no run has: most likely a misspelt name."""
    has = ", ".join(" ".join(name) for name in aggregate.measured)
    return [
        f"No run has {column.benchmark} {column.metric}; they have {has}."
        for column in aggregate.columns
        if aggregate.measured and (column.benchmark, column.metric) not in aggregate.measured
    ]


def _gaps(aggregate: Aggregate) -> tuple[list[str], list[str]]:
    """Single missing values, and cells with a coverage below 1."""
    gaps, thin = [], []
    missing = set(aggregate.missing_runs)
    for line in aggregate.lines:
        for column, cell in zip(aggregate.columns, line.cells, strict=True):
            name = f"{column.benchmark} {column.metric}"
            if (column.benchmark, column.metric) in aggregate.measured:
                runs = [run_name(line.point, seed) for seed in cell.missing]
                gaps += [f"{name} of {run}" for run in runs if run not in missing]
            if cell.coverage is not None and cell.coverage < 1:
                point = ",".join(f"{axis}={value}" for axis, value in line.point.items())
                thin.append(f"{name} at {point} (as few as {100 * cell.coverage:.4g} %)")
    return gaps, thin


def _named(names: Sequence[str]) -> str:
    """The names with places to break the line; beyond a few, how many more there are."""
    text = "; ".join(name.replace(",", ", ") for name in names[:NAMED_RUNS])
    more = len(names) - NAMED_RUNS
    return f"{text}; and {more} more" if more > 0 else text
