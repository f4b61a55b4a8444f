"""The three judged benchmarks, each by the same four questions. A new one is a folder, a class here and a line in JUDGED."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judged import JudgedBenchmark, JudgedQuestion, ModelAnswer
from eva_hpc.benchmarks.records import Metric, QuestionValue

Files = Mapping[str, Path]
"""By role, as a recipe's `files` and the catalogue name them."""


@dataclass(frozen=True)
class Options:
    """Of the arithmetic; see the benchmarks' sections of a recipe."""

    min_coverage: float
    difficulty_by: str = "instruction"


@dataclass(frozen=True)
class Scored:
    """The numbers of one model: as metric rows, by question for paired comparisons, and all that the benchmark tells."""

    metrics: list[Metric]
    per_question: list[QuestionValue]
    told: dict[str, Any]


class Benchmark(Protocol):
    """What the stages and commands need of a judged benchmark. `edition` is "" where there is but one."""

    def questions(self, edition: str, files: Files) -> list[JudgedQuestion]:
        """The questions, with baseline and reference answers as far as `files` has them."""
        ...

    def answers(self, path: Path) -> list[ModelAnswer]:
        """A model's answers from a file in the official format."""
        ...

    def judging(self, edition: str, files: Files, both_orders: bool) -> JudgedBenchmark:
        """How a judge is asked."""
        ...

    def score(
        self, edition: str, rows: Sequence[Row], questions: Sequence[JudgedQuestion], files: Files, options: Options
    ) -> Scored:
        """The numbers of the one model that `rows` judge. All questions count for the coverage."""
        ...


class _MTBench:
    def questions(self, edition: str, files: Files) -> list[JudgedQuestion]:
        from eva_hpc.benchmarks.mt_bench.questions import read_questions, read_references

        return read_questions(files["questions"], read_references(files["reference"]) if "reference" in files else None)

    def answers(self, path: Path) -> list[ModelAnswer]:
        from eva_hpc.benchmarks.mt_bench.questions import read_answers

        return read_answers(path)

    def judging(self, edition: str, files: Files, both_orders: bool) -> JudgedBenchmark:
        from eva_hpc.benchmarks.mt_bench.judging import MTBench
        from eva_hpc.benchmarks.mt_bench.questions import read_references

        return MTBench(files["prompt"], read_references(files["reference"]).model if "reference" in files else None)

    def score(
        self, edition: str, rows: Sequence[Row], questions: Sequence[JudgedQuestion], files: Files, options: Options
    ) -> Scored:
        from eva_hpc.benchmarks.mt_bench.score import METRICS, score

        (found,) = score(rows, questions=questions, least=options.min_coverage).values()
        metrics = []
        for name in METRICS:
            low, high = found.intervals[name] or (None, None)
            metrics.append(
                _metric(name, found.numbers[name], found.coverage.judged, found.coverage.share, low, high, found.refusal)
            )
        for name, value in found.categories.items():
            metrics.append(_metric(f"average_{name}", value, found.coverage.judged, found.coverage.share))
        return Scored(metrics, _values(found.per_question), found.to_json())


class _ArenaHard:
    def questions(self, edition: str, files: Files) -> list[JudgedQuestion]:
        from eva_hpc.benchmarks.arena_hard.questions import read_questions

        return read_questions(files["questions"], [files[role] for role in ("baseline", "creative_baseline") if role in files])

    def answers(self, path: Path) -> list[ModelAnswer]:
        from eva_hpc.benchmarks.arena_hard.questions import read_answers

        return read_answers(path)

    def judging(self, edition: str, files: Files, both_orders: bool) -> JudgedBenchmark:
        from eva_hpc.benchmarks.arena_hard.judge_prompts import read_v01, read_v2
        from eva_hpc.benchmarks.arena_hard.judging import ArenaHard

        return ArenaHard(read_v2(files["config"], files["prompt"]) if edition == "v2.0" else read_v01(files["prompt"]))

    def score(
        self, edition: str, rows: Sequence[Row], questions: Sequence[JudgedQuestion], files: Files, options: Options
    ) -> Scored:
        from eva_hpc.benchmarks.arena_hard import score as arithmetic
        from eva_hpc.benchmarks.arena_hard.judgments import judgments_from
        from eva_hpc.benchmarks.arena_hard.verdict import check_version

        expected = {question["id"]: question["category"] for question in questions}
        asked = arithmetic.Options(expected=expected, least=options.min_coverage)
        (found,) = arithmetic.score_judgments(judgments_from(rows), asked, check_version(edition)).values()
        metrics = []
        for category, score in (found.categories or {found.category: found}).items():
            name = "win_rate" if score.category == found.category else f"win_rate_{category}"
            numbers = score.numbers
            metrics.append(
                _metric(
                    name,
                    numbers["win_rate"],
                    score.coverage.judged,
                    score.coverage.share,
                    numbers["ci_low"],
                    numbers["ci_high"],
                    score.refusal,
                )
            )
        return Scored(metrics, _values(found.per_question, {"win_rate": found.weights}), found.to_json())


JUDGED: Mapping[str, Benchmark] = {"arena_hard": _ArenaHard(), "mt_bench": _MTBench()}


def _metric(
    name: str,
    value: float | None,
    n: int,
    coverage: float,
    low: float | None = None,
    high: float | None = None,
    reason: str | None = None,
) -> Metric:
    return Metric(metric=name, value=value, n=n, coverage=coverage, low=low, high=high, reason=reason or "")


def _values(
    per_question: Mapping[str, Mapping[str, float]], weights: Mapping[str, Mapping[str, float]] = {}
) -> list[QuestionValue]:
    return [
        QuestionValue(metric=metric, question_id=name, value=value, weight=weights[metric][name] if metric in weights else 1.0)
        for metric, values in per_question.items()
        for name, value in values.items()
    ]
