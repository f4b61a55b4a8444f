"""The numbers of every model in judgments of one benchmark, in one form for all three, by each one's own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.benchmarks.judging.protocol import JudgedQuestion
from eva_hpc.benchmarks.statistics.coverage import LEAST_COVERAGE
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.seeds import content_id

Source = tuple[str, Sequence[Row]]
"""Rows of judgments and where they are from, for messages."""


@dataclass(frozen=True)
class Number:
    """One metric of one model with its 95 % interval over questions; `reason` says why there is no value.

    `per_question` are the values that it is the mean of, weighted where there are `weights`; empty where it is no mean.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str | None
    per_question: Mapping[str, float] = field(default_factory=dict, repr=False)
    weights: Mapping[str, float] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ModelNumbers:
    """What is known of one model. `by_construction`: it is the baseline, compared with itself."""

    model: str
    judge: str
    coverage: float
    metrics: Mapping[str, Number]
    warnings: tuple[str, ...]
    by_construction: bool = False


@dataclass(frozen=True)
class How:
    """How numbers are made.

    `questions` should all have been judged; None: those that the judgments tell. `difficulty` and `gamed` give AlpacaEval's
    length-controlled win rate; None leaves it out.
    """

    questions: Sequence[JudgedQuestion] | None = None
    difficulty: Path | None = None
    gamed: Path | None = None
    difficulty_by: Literal["position", "instruction"] = "position"
    least: float = LEAST_COVERAGE
    force: bool = False


def read_judgments(benchmark: str, paths: Sequence[Path]) -> list[Source]:
    """Files of judgments in the official format.

    Raises:
        ConfigError: a file cannot be read, or, of AlpacaEval, is about several models.
    """
    from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations

    return [(str(path), read_annotations(path) if benchmark == "alpaca_eval" else read_rows(path)) for path in paths]


def model_of(benchmark: str, row: Row) -> str:
    """The judged model of a row."""
    return str(row.get("generator_2" if benchmark == "alpaca_eval" else "model") or "model")


def judge_of(benchmark: str, row: Row) -> str:
    """The judge of a row."""
    judge = row.get("annotator" if benchmark == "alpaca_eval" else "judge")
    return str((judge[0] if isinstance(judge, list) and judge else judge) or "not named")


def numbers_of(benchmark: str, sources: Sequence[Source], how: How) -> dict[str, ModelNumbers]:
    """By model, in the order of the sources.

    Raises:
        ConfigError: rows are malformed, by several judges, or a model is in several sources.
    """
    where: dict[str, str] = {}
    judges: dict[str, str] = {}
    for source, rows in sources:
        for row in rows:
            judges.setdefault(judge_of(benchmark, row), source)
        for model in dict.fromkeys(model_of(benchmark, row) for row in rows):
            if model in where:
                raise ConfigError(f"{source}: has judgments of {model}, as {where[model]} has; must be in one file only")
            where[model] = source
    if len(judges) > 1:
        listed = ", ".join(f"{judge} ({source})" for judge, source in judges.items())
        raise ConfigError(f"judgments of several judges: {listed}; must be of one judge")
    return _NUMBERS[benchmark](sources, how)


def _alpaca_eval(sources: Sequence[Source], how: How) -> dict[str, ModelNumbers]:
    from eva_hpc.benchmarks.alpaca_eval.annotated import is_baseline, second_judgments
    from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl
    from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
    from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
    from eva_hpc.benchmarks.alpaca_eval.score import score
    from eva_hpc.benchmarks.official.data_folder import notes_on

    notes = notes_on("alpaca_eval", difficulty=how.difficulty, gamed=how.gamed)
    difficulties = None if how.difficulty is None else read_difficulty(how.difficulty)
    gamed = None if how.gamed is None else read_gamed(how.gamed)
    asked = None if how.questions is None else [question["turns"][0] for question in how.questions]
    found: dict[str, ModelNumbers] = {}
    for _, rows in sources:
        instructions = [str(row["instruction"]) for row in rows]
        kept, by, warnings = list(rows), how.difficulty_by, list[str]()
        if by == "position" and second_judgments(rows):
            by = "instruction"
            warnings.append(
                "questions are judged several times: difficulties by instruction, not by position as in published numbers"
            )
        elif by == "position":
            kept = _as_published(rows)
        control = None
        if difficulties is not None and gamed is not None:
            control = LengthControl(difficulties, gamed, difficulty_by=by, questions=asked)
        expected = asked if asked is not None or len(kept) == len(rows) else instructions
        scored = score(kept, control, questions=expected, least=how.least, force=how.force)
        numbers = scored.numbers
        values = {
            metric: {name: 100 * value for name, value in by_question.items()}
            for metric, by_question in scored.per_question.items()
        }
        metrics = {
            "win_rate": Number(numbers["win_rate"], numbers["ci_low"], numbers["ci_high"], scored.refusal, values["win_rate"])
        }
        if control is not None:
            warnings += notes
            metrics["lc_win_rate"] = Number(
                numbers["lc_win_rate"],
                numbers["lc_ci_low"],
                numbers["lc_ci_high"],
                scored.refusal or scored.lc_refusal,
                values.get("lc_win_rate", {}),
            )
        model = model_of("alpaca_eval", rows[0])
        found[model] = ModelNumbers(
            model,
            judge_of("alpaca_eval", rows[0]),
            scored.coverage.share,
            metrics,
            (*scored.warnings, *warnings),
            is_baseline(rows),
        )
    return found


def _as_published(rows: Sequence[Row]) -> list[Row]:
    """Rows as the official tool has them: in the order of the evaluation set, none for an answer that a model did not give."""
    from eva_hpc.benchmarks.alpaca_eval.difficulty import official_order

    order = official_order()
    given = [row for row in rows if row.get("status") != "no_answer"]
    return sorted(given, key=lambda row: order.get(content_id(row["instruction"]), len(order)))


def _arena_hard(sources: Sequence[Source], how: How) -> dict[str, ModelNumbers]:
    from eva_hpc.benchmarks.arena_hard.judgments import judgments_from
    from eva_hpc.benchmarks.arena_hard.score import Options, score_judgments

    judgments = [judgment for source, rows in sources for judgment in judgments_from(rows, source)]
    expected = None if how.questions is None else {question["id"]: question["category"] for question in how.questions}
    scores = score_judgments(judgments, Options(expected=expected, least=how.least, force=how.force))
    return {
        model: ModelNumbers(
            model,
            found.judge,
            found.coverage.share,
            {
                "win_rate": Number(
                    found.numbers["win_rate"],
                    found.numbers["ci_low"],
                    found.numbers["ci_high"],
                    found.refusal,
                    found.per_question["win_rate"],
                    found.weights,
                )
            },
            found.warnings,
            model == found.baseline,
        )
        for model, found in scores.items()
    }


def _mt_bench(sources: Sequence[Source], how: How) -> dict[str, ModelNumbers]:
    from eva_hpc.benchmarks.mt_bench.basis import METRICS
    from eva_hpc.benchmarks.mt_bench.score import score

    numbers = {}
    for source, rows in sources:
        for model, found in score(rows, source=source, questions=how.questions, least=how.least, force=how.force).items():
            metrics = {}
            for name in METRICS:
                low, high = found.intervals[name] or (None, None)
                metrics[name] = Number(found.numbers[name], low, high, found.refusals.get(name), found.per_question[name])
            numbers[model] = ModelNumbers(model, found.judge, found.coverage.share, metrics, found.warnings)
    return numbers


_NUMBERS = {"alpaca_eval": _alpaca_eval, "arena_hard": _arena_hard, "mt_bench": _mt_bench}
