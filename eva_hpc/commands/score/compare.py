"""``eva-hpc score compare``: is model A better than model B beyond noise, on the questions that both were judged on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from eva_hpc.commands.options import told_plainly
from eva_hpc.commands.score.options import DEFAULT_COVERAGE, AsJson, Force, MinCoverage, Questions, answer

Benchmark = Literal["alpaca_eval", "arena_hard", "mt_bench"]
Model = Optional[str]  # noqa: UP045 - typer reads it at run time


@dataclass(frozen=True)
class _Side:
    """One of the two models: its numbers by metric, and by metric and question what they are made of."""

    model: str
    judge: str
    numbers: Mapping[str, float | None]
    per_question: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float] | None
    refusal: str | None
    warnings: Sequence[str]


def compare(
    benchmark: Annotated[Benchmark, typer.Argument(help="whose files these are")],
    file_a: Annotated[Path, typer.Argument(help="what `eva-hpc score BENCHMARK` takes: annotations, judgments or battles")],
    file_b: Annotated[Path, typer.Argument(help="the same for B; may be the same file")],
    model_a: Annotated[Model, typer.Option("--model-a", help="needed if FILE_A has several models")] = None,
    model_b: Annotated[Model, typer.Option("--model-b", help="needed if FILE_B has several models")] = None,
    judge: Annotated[Model, typer.Option("--judge", help="mt_bench: whose judgments to take")] = None,
    questions: Questions = None,
    min_coverage: MinCoverage = DEFAULT_COVERAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Differences are A minus B, over the questions judged for both, with 95 % interval and p-value (paired, two-sided).

    `a` and `b` are each model's own numbers, over all that was judged; where questions are unmatched they may differ by another amount.

    Exit codes: 0 compared, 1 refused for lack of judgments, 2 a mistake in what was asked.
    """
    with told_plainly():
        how = _How(questions, judge, min_coverage, force)
        a, b = _side(benchmark, file_a, model_a, "--model-a", how), _side(benchmark, file_b, model_b, "--model-b", how)
        warnings = [f"{side.model}: {text}" for side in (a, b) for text in side.warnings]
        warnings += _unlike(a, b, force)
        refusals = [f"{side.model}: {side.refusal}" for side in (a, b) if side.refusal is not None]
        numbers = {
            "benchmark": benchmark,
            "model_a": a.model,
            "model_b": b.model,
            "judge": a.judge,
            "metrics": _metrics(a, b, "; ".join(refusals) or None),
            "warnings": warnings,
        }
        answer(numbers, as_json, "" if as_json else _table(numbers), bool(refusals))
