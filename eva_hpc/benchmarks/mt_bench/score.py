"""MT-Bench's numbers from judgment rows, exactly as FastChat's show_result.py gives them, and what it does not say.

Failed judgments (-1) are dropped; `turn_1` and `turn_2` are means over the remaining rows of a turn, `average` is the mean over
ALL remaining rows, so it is not the mean of the two where rows are missing. Rows that stand twice count twice. Added here:
coverage of each number, and no number without it; why judgments failed; duplicates; intervals over questions; categories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean
from typing import Any

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judging.protocol import JudgedQuestion
from eva_hpc.benchmarks.mt_bench.basis import METRICS, Basis, Key, bases, categories, expected_turns
from eva_hpc.benchmarks.mt_bench.judgments import UNNAMED, Judgment, read_judgments
from eva_hpc.benchmarks.mt_bench.questions import reference_warning
from eva_hpc.benchmarks.mt_bench.rating import HIGHEST, LOWEST
from eva_hpc.benchmarks.statistics.coverage import LEAST_COVERAGE, Coverage
from eva_hpc.benchmarks.statistics.intervals import interval
from eva_hpc.config.errors import ConfigError

_EXAMPLES = 3


@dataclass(frozen=True)
class Score:
    """The numbers of one model.

    `numbers` and `intervals` are those of METRICS, ratings on the judge's scale; `categories` are means over all rated turns of
    a category. Each is None if it is refused. `bases` say why, by metric, and what each number rests on; that of a category is
    called ``average_CATEGORY``. `n` counts rated rows, `failed` the others by reason. `per_question` has a question's mean
    rating; under "average" it stands only with all of its turns.
    """

    numbers: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    categories: dict[str, float | None]
    bases: dict[str, Basis]
    n: int
    failed: Mapping[str, int]
    duplicates: int
    judge: str
    warnings: tuple[str, ...]
    per_question: dict[str, dict[str, float]]

    @property
    def coverage(self) -> Coverage:
        """Of all turns."""
        return self.bases["average"].coverage

    @property
    def refusals(self) -> dict[str, str]:
        """Why there is no number, for those of METRICS that are refused."""
        return {metric: refusal for metric in METRICS if (refusal := self.bases[metric].refusal)}

    @property
    def refusal(self) -> str | None:
        """Why there is no average, else why a turn has no number; None if none of METRICS is refused."""
        return self.refusals.get("average") or "; ".join(self.refusals.values()) or None

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints for the model."""
        numbers: dict[str, Any] = {}
        for metric in METRICS:
            numbers |= {metric: self.numbers[metric], f"{metric}_ci": self.intervals[metric]}
        return {
            **numbers,
            "n": self.n,
            "failed": sum(self.failed.values()),
            "failures": dict(self.failed),
            "duplicates": self.duplicates,
            "coverage": self.coverage.share,
            "judge": self.judge,
            "categories": self.categories,
            "by_metric": {metric: _told_of(basis) for metric, basis in self.bases.items()},
            "warnings": list(self.warnings),
            "reason": self.refusal,
        }


def score(
    rows: Sequence[Row],
    *,
    source: str = "judgments",
    questions: Sequence[JudgedQuestion] | None = None,
    judge: str | None = None,
    reparse: bool = False,
    dedupe: bool = False,
    least: float = LEAST_COVERAGE,
    force: bool = False,
) -> dict[str, Score]:
    """The numbers of each model of a judgment file, in the order of the file.

    Args:
        rows: in FastChat's format.
        source: name of the file, for messages.
        questions: what should have been judged. Without them: the 80 official questions in both turns if all ids are official
            ones (81 to 160), else every question and turn that the file has of any model.
        judge: whose rows to take; needed where there are several judges.
        reparse: take the scores from the judgment texts instead of the stored ones.
        dedupe: of rows of one model, question, turn and repeat only the first with a rating counts. Off, as officially.
        least: coverage below which a number is refused; each number by its own.
        force: give them anyway, with the reason as a warning.

    Raises:
        ConfigError: see :func:`read_judgments`; or no row is on any of the `questions`.
    """
    judgments, warnings = read_judgments(rows, source=source, judge=judge, reparse=reparse)
    if questions is not None:
        asked = {question["id"] for question in questions}
        kept = [judgment for judgment in judgments if judgment.question in asked]
        if not kept:
            raise ConfigError(f"{source}: no row is on any of the {len(asked)} questions")
        if len(kept) < len(judgments):
            warnings.append(f"{len(judgments) - len(kept)} judgments of other questions set aside")
        judgments = kept
    expected = expected_turns(judgments, questions)
    by_category = categories(expected, questions)
    by_model: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        by_model.setdefault(judgment.model, []).append(judgment)
    return {
        model: _score(own, expected, by_category, [*warnings, *(_reparsed(own) if reparse else [])], dedupe, least, force)
        for model, own in by_model.items()
    }


def _score(
    judgments: Sequence[Judgment],
    expected: set[Key],
    by_category: Mapping[str, set[str]],
    warnings: list[str],
    dedupe: bool,
    least: float,
    force: bool,
) -> Score:
    duplicates = len(judgments) - len({(j.question, j.turn, j.repeat) for j in judgments})
    if dedupe:
        judgments = _first_rated(judgments)
    rated = [(j, j.score) for j in judgments if j.score is not None]
    failed = Counter(j.failure for j in judgments if j.failure is not None)
    found = bases(judgments, expected, by_category, least, force)
    if failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in failed.items())
        warnings.append(f"{failed.total()} of {len(judgments)} judgments failed and do not count: {reasons}")
    if duplicates:
        told = "only the first with a rating counts" if dedupe else "all count, as in the official script"
        warnings.append(f"{duplicates} judgments of turns that were judged before: {told}")
    outside = [j for j, value in rated if not LOWEST <= value <= HIGHEST]
    if outside:
        examples = ", ".join(f"{j.score:g} (question {j.question}, turn {j.turn})" for j in outside[:_EXAMPLES])
        warnings.append(f"{len(outside)} ratings outside {LOWEST} to {HIGHEST} count, as in the official script: {examples}")
    warnings += filter(None, [_about_references(judgments)])
    if judgments[0].judge == UNNAMED:
        warnings.append("the rows do not name their judge")

    if force:
        refusals = [found[metric].coverage.refusal(least) for metric in reversed(METRICS) if found[metric].n]
        warnings += filter(None, refusals)
    values = {
        "turn_1": _by_question(rated, turns=(1,)),
        "turn_2": _by_question(rated, turns=(2,)),
        "average": _by_question(rated, turns=(1, 2)),
    }
    of_category = {
        name: {question: ratings for question, ratings in values["average"].items() if question in questions}
        for name, questions in by_category.items()
    }
    turns_of = Counter(question for question, _ in expected)
    judged_turns_of = Counter(question for question, _ in {(j.question, j.turn) for j, _ in rated} & expected)
    per_question = {
        metric: {
            question: fmean(ratings)
            for question, ratings in questions.items()
            if metric != "average" or judged_turns_of[question] == turns_of[question]
        }
        for metric, questions in values.items()
    }
    return Score(
        numbers={metric: None if found[metric].refusal else _mean(values[metric]) for metric in METRICS},
        intervals={metric: None if found[metric].refusal else _interval(values[metric]) for metric in METRICS},
        categories={
            name: None if found[f"average_{name}"].refusal else _mean(ratings) for name, ratings in of_category.items()
        },
        bases=found,
        n=len(rated),
        failed=failed,
        duplicates=duplicates,
        judge=judgments[0].judge,
        warnings=tuple(warnings),
        per_question=per_question,
    )


def _first_rated(judgments: Sequence[Judgment]) -> list[Judgment]:
    """One judgment for each question, turn and repeat: the first with a rating, or if there is none the first."""
    chosen: dict[tuple[str, int, int], Judgment] = {}
    for judgment in judgments:
        key = (judgment.question, judgment.turn, judgment.repeat)
        if key not in chosen or (chosen[key].score is None and judgment.score is not None):
            chosen[key] = judgment
    return list(chosen.values())


def _by_question(rated: Sequence[tuple[Judgment, float]], turns: tuple[int, ...]) -> dict[str, list[float]]:
    ratings: dict[str, list[float]] = {}
    for judgment, value in rated:
        if judgment.turn in turns:
            ratings.setdefault(judgment.question, []).append(value)
    return ratings


def _mean(ratings: Mapping[str, Sequence[float]]) -> float | None:
    """Over all rows, not over questions."""
    return fmean(value for values in ratings.values() for value in values) if ratings else None


def _interval(ratings: Mapping[str, Sequence[float]]) -> tuple[float, float] | None:
    by_question = [values for _, values in sorted(ratings.items())]  # the same whatever the order of the rows
    return interval([fsum(values) for values in by_question], [len(values) for values in by_question])


def _told_of(basis: Basis) -> dict[str, Any]:
    share = basis.coverage.share if basis.coverage.expected else None
    return {"n": basis.n, "coverage": share, "reason": basis.refusal}


def _about_references(judgments: Sequence[Judgment]) -> str | None:
    """FastChat shows the judge the reference file that is named after the judge; rows of ours name it."""
    with_reference = [j for j in judgments if j.reference is not None or "math" in j.prompt]
    shown_by_gpt4 = [j.question for j in with_reference if (j.reference or j.judge) == "gpt-4"]
    return reference_warning(shown_by_gpt4, "gpt-4")


def _reparsed(judgments: Sequence[Judgment]) -> list[str]:
    """What taking the scores from the texts changed."""
    changed = [j for j in judgments if j.score != j.stored]
    if not changed:
        return []
    examples = ", ".join(
        f"{_told(j.stored)} -> {_told(j.score)} (question {j.question}, turn {j.turn})" for j in changed[:_EXAMPLES]
    )
    return [f"{len(changed)} stored scores differ from the judgment texts, which count: {examples}"]


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
