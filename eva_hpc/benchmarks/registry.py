"""The three judged benchmarks, each by the same four questions. A new one is a folder, a class here and a line in JUDGED."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judging.protocol import JudgedBenchmark, JudgedQuestion, ModelAnswer
from eva_hpc.benchmarks.official.data_folder import notes_on
from eva_hpc.benchmarks.records import Metric, QuestionValue
from eva_hpc.config.benchmark import AlpacaEval, ArenaHard, MtBench
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.recipe import Recipe

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

    def judging(self, edition: str, files: Files, both_orders: bool = False, labels: str = "logprobs") -> JudgedBenchmark:
        """How a judge is asked; `both_orders` and `labels` are AlpacaEval's."""
        ...

    def score(
        self, edition: str, rows: Sequence[Row], questions: Sequence[JudgedQuestion], files: Files, options: Options
    ) -> Scored:
        """The numbers of the one model that `rows` judge. All questions count for the coverage."""
        ...


class _AlpacaEval:
    def questions(self, edition: str, files: Files) -> list[JudgedQuestion]:
        from eva_hpc.benchmarks.alpaca_eval.questions import read_questions, with_baseline

        asked = read_questions(files["questions"])
        return with_baseline(asked, files["baseline"]) if "baseline" in files else asked

    def answers(self, path: Path) -> list[ModelAnswer]:
        from eva_hpc.benchmarks.alpaca_eval.questions import read_answers

        return read_answers(path)

    def judging(self, edition: str, files: Files, both_orders: bool = False, labels: str = "logprobs") -> JudgedBenchmark:
        from eva_hpc.benchmarks.alpaca_eval.judging import AlpacaEvalJudging, read_template

        return AlpacaEvalJudging(
            read_template(files["prompt"]), both_orders=both_orders, labels="text" if labels == "text" else "logprobs"
        )

    def score(
        self, edition: str, rows: Sequence[Row], questions: Sequence[JudgedQuestion], files: Files, options: Options
    ) -> Scored:
        from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl
        from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
        from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
        from eva_hpc.benchmarks.alpaca_eval.score import score

        control, notes = None, list[str]()
        if "difficulty" in files and "gamed" in files:
            notes = notes_on("alpaca_eval", difficulty=files["difficulty"], gamed=files["gamed"])
            control = LengthControl(
                difficulties=read_difficulty(files["difficulty"]),
                gamed=read_gamed(files["gamed"]),
                difficulty_by=options.difficulty_by,
                questions=[question["turns"][0] for question in self.questions(edition, files)],
                notes=notes,
            )
        asked = [question["turns"][0] for question in questions]
        found = score(rows, control, questions=asked, least=options.min_coverage)
        n, share = found.facts["n"], found.coverage.share
        numbers = found.numbers
        metrics = [
            _metric("win_rate", numbers["win_rate"], n, share, numbers["ci_low"], numbers["ci_high"], found.refusal),
            _metric(
                "lc_win_rate",
                numbers["lc_win_rate"],
                n,
                share,
                numbers["lc_ci_low"],
                numbers["lc_ci_high"],
                found.refusal or found.lc_refusal,
            ),
            _metric("discrete_win_rate", numbers["discrete_win_rate"], n, share, reason=found.refusal),
            _metric("length", found.facts["avg_length"], n, share),
        ]
        percent = {name: {question: 100 * y for question, y in ys.items()} for name, ys in found.per_question.items()}
        return Scored(metrics, _values(percent), found.to_json())


class _MTBench:
    def questions(self, edition: str, files: Files) -> list[JudgedQuestion]:
        from eva_hpc.benchmarks.mt_bench.questions import read_questions, read_references

        return read_questions(files["questions"], read_references(files["reference"]) if "reference" in files else None)

    def answers(self, path: Path) -> list[ModelAnswer]:
        from eva_hpc.benchmarks.mt_bench.questions import read_answers

        return read_answers(path)

    def judging(self, edition: str, files: Files, both_orders: bool = False, labels: str = "logprobs") -> JudgedBenchmark:
        from eva_hpc.benchmarks.mt_bench.judging import MTBench
        from eva_hpc.benchmarks.mt_bench.questions import read_references

        return MTBench(files["prompt"], read_references(files["reference"]).model if "reference" in files else None)

    def score(
        self, edition: str, rows: Sequence[Row], questions: Sequence[JudgedQuestion], files: Files, options: Options
    ) -> Scored:
        from eva_hpc.benchmarks.mt_bench.score import score

        (found,) = score(rows, questions=questions, least=options.min_coverage).values()
        values = found.numbers | {f"average_{category}": value for category, value in found.categories.items()}
        metrics = []
        for name, basis in found.bases.items():
            low, high = found.intervals.get(name) or (None, None)
            share = (basis.coverage if basis.coverage.expected else found.coverage).share
            metrics.append(_metric(name, values[name], basis.n, share, low, high, basis.refusal))
        return Scored(metrics, _values(found.per_question), found.to_json())


class _ArenaHard:
    def questions(self, edition: str, files: Files) -> list[JudgedQuestion]:
        from eva_hpc.benchmarks.arena_hard.questions import read_questions

        return read_questions(files["questions"], [files[role] for role in ("baseline", "creative_baseline") if role in files])

    def answers(self, path: Path) -> list[ModelAnswer]:
        from eva_hpc.benchmarks.arena_hard.questions import read_answers

        return read_answers(path)

    def judging(self, edition: str, files: Files, both_orders: bool = False, labels: str = "logprobs") -> JudgedBenchmark:
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
        for category, score in {found.category: found, **found.categories}.items():
            name = "win_rate" if score.category == found.category else f"win_rate_{category}"
            numbers = score.numbers
            metrics.append(
                _metric(
                    name,
                    numbers["win_rate"],
                    score.n,
                    score.coverage.share,
                    numbers["ci_low"],
                    numbers["ci_high"],
                    score.refusal,
                )
            )
        return Scored(metrics, _values(found.per_question, {"win_rate": found.weights}), found.to_json())


JUDGED: Mapping[str, Benchmark] = {"alpaca_eval": _AlpacaEval(), "arena_hard": _ArenaHard(), "mt_bench": _MTBench()}


def unreadable(recipes: Iterable[Recipe]) -> list[str]:
    """One line for each mistake in the files of the recipes' judged benchmarks: what a stage would find after hours."""
    problems: dict[str, None] = {}
    seen = set()
    for recipe in recipes:
        for name, section in recipe.benchmarks.items():
            if not isinstance(section, AlpacaEval | ArenaHard | MtBench):
                continue
            named: dict[str, str | None] = section.files.model_dump()
            files = {role: Path(path) for role, path in named.items() if path is not None}
            edition = section.version if isinstance(section, ArenaHard) else ""
            which = (section.kind, edition, *files.values())
            if which in seen:
                continue
            seen.add(which)
            try:
                judging = JUDGED[section.kind].judging(edition, files)
                for question in JUDGED[section.kind].questions(edition, files)[: section.limit]:
                    turns: list[str | None] = ["an answer"] * len(question["turns"])
                    judging.asks(question, ModelAnswer(question_id=question["id"], model="", turns=turns))
            except ConfigError as error:
                problems |= dict.fromkeys(f"benchmarks.{name}: {problem}" for problem in error.problems)
    return list(problems)


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
