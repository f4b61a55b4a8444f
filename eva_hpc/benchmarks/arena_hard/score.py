"""From judgments or battles to the numbers of Arena-Hard, in percent of games won against the baseline.

``win_rate`` is what the official script prints. v0.1: the Bradley-Terry fit, which against one baseline is the weighted share
of games won. v2.0: the mean that its unseeded bootstrap tends to, per category. ``ci_low`` and ``ci_high`` are the 95 %
interval over questions; ``official_ci_low`` and ``official_ci_high`` that of the official procedure over rows (95 % in v0.1,
90 % in v2.0), too narrow because it takes the games of a question as independent. Style control adds ``sc_win_rate`` and so on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from eva_hpc.benchmarks.arena_hard.battles import Battle, battle_rows, battles_from, find_baseline
from eva_hpc.benchmarks.arena_hard.bradley_terry import Table
from eva_hpc.benchmarks.arena_hard.judgments import BASELINES, V01_CATEGORY, Judgment, version_of
from eva_hpc.benchmarks.arena_hard.model_numbers import Numbers
from eva_hpc.benchmarks.arena_hard.style_control import Styles
from eva_hpc.benchmarks.arena_hard.tally import Tally
from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.benchmarks.statistics.coverage import LEAST_COVERAGE, Coverage
from eva_hpc.config.errors import ConfigError, did_you_mean

HEADLINE = "hard_prompt"
"""The v2.0 category whose numbers stand for the benchmark, as on the official leaderboard."""

POOLED = "all categories"
"""The category of the games of several categories together: what stands for own categories, where there is no `HEADLINE`."""

_OFFICIAL_SIZE = {V01_CATEGORY: 500, "hard_prompt": 500, "creative_writing": 250}
_Item = TypeVar("_Item", Judgment, Battle)


@dataclass(frozen=True)
class Score:
    """The numbers of one model in one category; None where refused.

    `n` questions have at least one of the `games` that count; `coverage` is of games, and `failed` counts the others by reason.
    `per_question` is percent won by question, `weights` how many games that rests on, a strong verdict counted three times: the
    win rate against one baseline is their weighted mean. `categories` has the scores of all categories where there are several;
    this score is then that of ``hard_prompt`` if it is there, else of all games together (`POOLED`).
    """

    model: str
    baseline: str
    judge: str
    version: Version
    category: str
    numbers: dict[str, float | None]
    n: int
    coverage: Coverage
    refusal: str | None
    warnings: tuple[str, ...]
    per_question: dict[str, dict[str, float]]
    weights: dict[str, float]
    games: int
    failed: Mapping[str, int]
    style_coefficients: Mapping[str, float] | None = None
    categories: Mapping[str, Score] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether there are no numbers, in this or any other category."""
        return any(score.refusal for score in (self, *self.categories.values()))

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        found: dict[str, Any] = {
            "model": self.model,
            "baseline": self.baseline,
            "judge": self.judge,
            "version": self.version,
            "category": self.category,
            **self.numbers,
            "n": self.n,
            "coverage": self.coverage.share,
            "games": self.games,
            "n_battles": round(sum(self.weights.values())),
            "failed": dict(self.failed),
        }
        if self.style_coefficients is not None:
            found["style_coefficients"] = dict(self.style_coefficients)
        if self.refusal:
            found["reason"] = self.refusal
        if self.warnings:
            found["warnings"] = list(self.warnings)
        if self.categories:
            found["categories"] = {name: score.to_json() for name, score in self.categories.items()}
        return found


@dataclass(frozen=True)
class Options:
    """How to score.

    `expected` maps the ids of the questions that should be judged to their category; None: those of the judgments. `styles`
    turn style control on. `category` is one of v2.0, None is all. `judge` is needed where there are several.
    """

    model: str | None = None
    baseline: str | None = None
    judge: str | None = None
    category: str | None = None
    expected: Mapping[str, str] | None = None
    styles: Styles | None = None
    least: float = LEAST_COVERAGE
    force: bool = False

    def with_styles(self, styles: Styles | None) -> Options:
        """The same with these answer styles."""
        return replace(self, styles=styles)


_DEFAULT = Options()


def score_judgments(
    judgments: Sequence[Judgment], options: Options = _DEFAULT, version: Version | None = None, notes: Sequence[str] = ()
) -> dict[str, Score]:
    """Scores by model, from rows of judgments.

    Args:
        judgments: of any number of models.
        options: what to score and how.
        version: whose rules apply; None: told from the rows.
        notes: warnings to add to every score.

    Raises:
        ConfigError: what was asked for is not in the judgments, or the judge or the baseline cannot be told.
    """
    version = version or version_of(judgments)
    kept, more = _expected_only(_by_one_judge(judgments, options.judge), options.expected)
    notes = [*notes, *more]
    _check("--model", options.model, (judgment.model for judgment in kept))
    _check("--category", options.category, (judgment.category for judgment in kept))
    names = {judgment.category for judgment in kept} if options.category is None else {options.category}
    found: dict[str, dict[str, Score]] = {}
    for name in sorted(names, key=lambda name: (name != HEADLINE, name)):
        rows = [judgment for judgment in kept if judgment.category == name]
        for score in _category(rows, name, version, options, notes):
            found.setdefault(score.model, {})[name] = score
    pooled = _pooled(kept, found, version, options, notes)
    return {model: _headline(scores, pooled.get(model)) for model, scores in found.items()}


def score_battles(battles: Sequence[Battle], options: Options = _DEFAULT, notes: Sequence[str] = ()) -> dict[str, Score]:
    """Scores by model, from an official battle file (v0.1), which names no judge and no category; `notes` are added warnings.

    Raises:
        ConfigError: the model or the baseline asked for is in no battle, or it cannot be told.
    """
    kept, left_out = _expected_only(battles, options.expected)
    notes = [*notes, *left_out]
    baseline = find_baseline(kept, options.baseline, BASELINES[V01_CATEGORY])
    rows: dict[str, Counter[str]] = {}
    for battle in kept:
        for model in {battle.model_a, battle.model_b} - {baseline}:
            rows.setdefault(model, Counter())[battle.question_id] += battle.weight
    _check("--model", options.model, rows)
    expected = set(options.expected or {battle.question_id for battle in kept})
    if options.expected is None:
        notes = [*notes, *_fewer_than_official(len(expected), V01_CATEGORY)]
    numbers = Numbers(Table.of(kept, baseline), "v0.1", options.styles)
    return {
        model: _score(model, V01_CATEGORY, numbers, Tally.of_battle_rows(rows[model]), expected, options, notes)
        for model in _wanted(rows, options)
    }


def write_battles(path: Path, judgments: Sequence[Judgment], version: Version, options: Options) -> None:
    """Write the battles of v0.1 judgments in the form of the official battle file.

    Raises:
        ConfigError: the judgments are of v2.0, which has no such file, the file is there or has no folder, or the judge or the
            baseline cannot be told.
    """
    if version != "v0.1":
        raise ConfigError("--save-battles: only v0.1 has a battle file")
    if path.exists():
        raise ConfigError(f"--save-battles: {path} is there already; must be a new file")
    if not path.parent.is_dir():
        raise ConfigError(f"--save-battles: there is no folder {path.parent}")
    kept = _by_one_judge(judgments, options.judge)
    baseline = _baseline(kept, V01_CATEGORY, options.baseline)
    opponent = _opponent(baseline, {judgment.model for judgment in kept})
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in battle_rows(battles_from(kept, version, opponent))]
    path.write_text("".join(lines), encoding="utf-8")


def _fewer_than_official(questions: int, category: str) -> list[str]:
    """A warning, if the questions of a file are not all there are."""
    size = _OFFICIAL_SIZE.get(category, 0)
    if questions >= size:
        return []
    found = f"coverage is of the {questions} questions in the file; the official set has {size}"
    return [f"{found}: --questions FILE counts those of a file"]


def _category(
    judgments: Sequence[Judgment], category: str, version: Version, options: Options, notes: Sequence[str]
) -> list[Score]:
    if options.expected is None:
        expected = {judgment.question_id for judgment in judgments}
        notes = [*notes, *_fewer_than_official(len(expected), category)]
    else:
        expected = {
            name for name, kind in options.expected.items() if kind == category or category == POOLED or version == "v0.1"
        }
    by_model: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        by_model.setdefault(judgment.model, []).append(judgment)
    baseline = _baseline(judgments, category, options.baseline)
    opponent = _opponent(baseline, by_model)
    numbers = Numbers(Table.of(battles_from(judgments, version, opponent), opponent), version, options.styles)
    return [
        replace(
            _score(model, category, numbers, Tally.of_judgments(by_model[model], version), expected, options, notes),
            baseline=baseline,
        )
        for model in _wanted(by_model, options)
    ]


def _score(
    model: str, category: str, numbers: Numbers, tally: Tally, expected: set[str], options: Options, notes: Sequence[str]
) -> Score:
    coverage = tally.coverage(expected)
    values = numbers.of(model)
    baseline = numbers.table.models[0]
    warnings = [*notes, *tally.warnings()]
    refusal = coverage.refusal(options.least)
    if refusal and options.force and coverage.judged:
        warnings, refusal = [refusal, *warnings], None
    if refusal is None and values["win_rate"] is None:
        refusal = f"no chain of battles connects {model} with {baseline}"
    if numbers.style is not None:
        text = f"style control is one fit over all models judged here, {len(numbers.table.models) - 1} in all"
        warnings.append(f"{text}: with other models beside it, a model's numbers are others")
    won, counted = numbers.won(model)
    return Score(
        model=model,
        baseline=baseline,
        judge=tally.judge,
        version=numbers.version,
        category=category,
        numbers=dict.fromkeys(values) if refusal else values,
        n=tally.questions(expected),
        coverage=coverage,
        refusal=refusal,
        warnings=tuple(warnings),
        per_question={"win_rate": {name: 100 * won[name] / counted[name] for name in counted}},
        weights=counted,
        games=tally.games,
        failed={reason: count for reason, count in tally.failed.items() if count},
        style_coefficients=None if refusal or numbers.style is None else numbers.style.coefficients,
    )


def _opponent(baseline: str, models: Container[str]) -> str:
    """What the baseline is called in battles: a judged model of the same name is a model like any other."""
    return f"{baseline} (baseline)" if baseline in models else baseline


def _baseline(judgments: Iterable[Judgment], category: str, wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    named = sorted({judgment.baseline for judgment in judgments if judgment.baseline})
    if len(named) > 1:
        raise ConfigError(f"judgments of {category} are against several baselines: {', '.join(named)}; score them apart")
    baseline = named[0] if named else BASELINES.get(category)
    if baseline is None:
        raise ConfigError(f"the baseline of category {category} cannot be told; give --baseline")
    return baseline


def _expected_only(items: Sequence[_Item], expected: Mapping[str, str] | None) -> tuple[list[_Item], list[str]]:
    """Those on expected questions, and a note if there are others."""
    kept = [item for item in items if expected is None or item.question_id in expected]
    if not kept:
        raise ConfigError("none of the judgments is on a question of the --questions file")
    if len(kept) == len(items):
        return kept, []
    return kept, [f"{len(items) - len(kept)} rows are on questions that are not in the --questions file: left out"]


def _by_one_judge(judgments: Sequence[Judgment], wanted: str | None) -> list[Judgment]:
    """Numbers of different judges are never mixed."""
    judges = Counter(judgment.judge for judgment in judgments)
    _check("--judge", wanted, judges)
    if wanted is None and len(judges) > 1:
        names = ", ".join(f"{name} ({count} rows)" for name, count in judges.items())
        raise ConfigError(f"the judgments are by several judges: {names}; give --judge with one of them")
    return [judgment for judgment in judgments if wanted in (None, judgment.judge)]


def _check(option: str, wanted: str | None, allowed: Iterable[str]) -> None:
    names = sorted(set(allowed))
    if wanted is not None and wanted not in names:
        raise ConfigError(f"{option}: found {wanted}; must be one of {', '.join(names)}{did_you_mean(wanted, names)}")


def _wanted(models: Iterable[str], options: Options) -> list[str]:
    return [model for model in models if options.model in (None, model)]


def _pooled(
    judgments: Sequence[Judgment],
    found: Mapping[str, Mapping[str, Score]],
    version: Version,
    options: Options,
    notes: Sequence[str],
) -> dict[str, Score]:
    """The scores over all categories of models that have several, none of which stands for the benchmark.

    Where categories have baselines of their own, a rate over all of them is none of anything, and is refused.
    """
    several = {model for model, scores in found.items() if len(scores) > 1 and HEADLINE not in scores}
    baselines = {score.baseline for model in several for score in found[model].values()}
    if len(baselines) > 1:
        return {model: _apart(found[model]) for model in several}
    rows = [judgment for judgment in judgments if judgment.model in several]
    return {score.model: score for score in (_category(rows, POOLED, version, options, notes) if rows else [])}


def _apart(scores: Mapping[str, Score]) -> Score:
    """Several categories with their counts, but without a common number."""
    first, *_ = scores.values()
    failed = sum((Counter(score.failed) for score in scores.values()), Counter[str]())
    unjudged = sum((Counter(score.coverage.failed) for score in scores.values()), Counter[str]())
    against = ", ".join(f"{name} against {score.baseline}" for name, score in scores.items())
    return replace(
        first,
        baseline=", ".join(dict.fromkeys(score.baseline for score in scores.values())),
        category=POOLED,
        numbers=dict.fromkeys(first.numbers),
        n=sum(score.n for score in scores.values()),
        coverage=Coverage(
            sum(score.coverage.expected for score in scores.values()),
            sum(score.coverage.judged for score in scores.values()),
            unjudged,
            first.coverage.unit,
        ),
        refusal=f"the categories have different baselines, and so no win rate together: {against}",
        warnings=(),
        per_question={"win_rate": {}},
        weights={},
        games=sum(score.games for score in scores.values()),
        failed=dict(failed),
        style_coefficients=None,
    )


def _headline(scores: Mapping[str, Score], pooled: Score | None) -> Score:
    if pooled is not None:
        note = f"the win rate is of the categories {', '.join(scores)} together; each one's own is under categories"
        warnings = pooled.warnings if pooled.refusal else (*pooled.warnings, note)
        return replace(pooled, warnings=warnings, categories=scores)
    first = next(iter(scores.values()))
    return first if len(scores) == 1 else replace(first, categories=scores)
