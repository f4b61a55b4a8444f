"""``eva-hpc score mt_bench``: turn 1, turn 2 and average of each model in a file of judgments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands.options import told_plainly
from eva_hpc.commands.score.options import DEFAULT_COVERAGE, AsJson, Force, MinCoverage, Questions, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eva_hpc.benchmarks.mt_bench.score import Score

Judge = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time
    typer.Option("--judge", help="whose judgments to take, where a file has those of several judges"),
]


def mt_bench(
    judgments: Annotated[Path, typer.Option("--judgments", help="FastChat's judgment rows, e.g. gpt-4_single.jsonl")],
    questions: Questions = None,
    judge: Judge = None,
    reparse: Annotated[bool, typer.Option("--reparse", help="take the scores from the judgment texts")] = False,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="of repeated rows only the first with a rating counts")] = False,
    min_coverage: MinCoverage = DEFAULT_COVERAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """MT-Bench: means of the ratings of each model, exactly as FastChat's show_result gives them.

    Each number needs enough judgments of its own: below --min-coverage of the second turns there is no turn 2.

    Exit codes: 0 all numbers, 1 some were refused, 2 a mistake in what was asked.
    """
    with told_plainly():
        from eva_hpc.benchmarks.files import read_rows
        from eva_hpc.benchmarks.mt_bench.questions import read_questions
        from eva_hpc.benchmarks.mt_bench.score import score

        scores = score(
            read_rows(judgments),
            source=str(judgments),
            questions=None if questions is None else read_questions(questions),
            judge=judge,
            reparse=reparse,
            dedupe=dedupe,
            least=min_coverage,
            force=force,
        )
        numbers = {model: found.to_json() for model, found in scores.items()}
        refused = any(found.refusal is not None for found in scores.values())
        answer(numbers, as_json, "" if as_json else _table(scores), refused)


def _table(scores: Mapping[str, Score]) -> str:
    from tabulate import tabulate

    from eva_hpc.benchmarks.mt_bench.basis import METRICS

    rows = [
        [
            model,
            *(_number(found.numbers[metric], found.intervals[metric]) for metric in METRICS),
            _coverage(found),
            found.n,
            sum(found.failed.values()),
            found.duplicates,
            found.judge,
        ]
        for model, found in scores.items()
    ]
    headings = ["model", "turn 1", "turn 2", "average", "coverage", "n", "failed", "duplicates", "judge"]
    notes = [f"{model}: no number: {why}" for model, found in scores.items() for why in reversed(found.refusals.values())]
    notes += [f"{model}: warning: {text}" for model, found in scores.items() for text in found.warnings]
    return "\n".join([tabulate(rows, headers=headings, disable_numparse=True), *notes])


def _coverage(found: Score) -> str:
    """Of all turns, and of the first and the second where they differ."""
    turns = [found.bases[metric].coverage for metric in ("turn_1", "turn_2")]
    shares = [coverage.percent for coverage in turns if coverage.expected]
    both = found.coverage.percent
    return both if set(shares) == {both} else f"{both} ({', '.join(shares)})"


def _number(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if interval is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
