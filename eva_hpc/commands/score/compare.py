"""``eva-hpc score compare``: is model A better than model B beyond noise, on the questions that both were judged on?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from eva_hpc.commands.options import told_plainly
from eva_hpc.commands.score.options import DEFAULT_COVERAGE, AsJson, Force, MinCoverage, Questions, answer
from eva_hpc.config.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from eva_hpc.benchmarks.alpaca_eval.length_control import Gamed
    from eva_hpc.benchmarks.alpaca_eval.resampling import Arm

Benchmark = Literal["alpaca_eval", "arena_hard", "mt_bench"]
Name = Optional[str]  # noqa: UP045 - typer reads it at run time
File = Optional[Path]  # noqa: UP045


@dataclass(frozen=True)
class _Metric:
    """A model's own number, None if refused, and the values by question that it is the (weighted) mean of."""

    value: float | None
    per_question: Mapping[str, float]
    weights: Mapping[str, float] | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class _Side:
    """One of the two models. The length-controlled win rate is no mean over questions: `lc` has its number, or why there is
    none, and `lc_arm` what it is fitted to."""

    model: str
    judge: str
    baseline: str
    metrics: Mapping[str, _Metric]
    warnings: tuple[str, ...]
    lc: _Metric | None = None
    lc_arm: tuple[Arm, Gamed] | None = None


@dataclass(frozen=True)
class _How:
    """What was asked for both sides."""

    questions: Path | None = None
    judge: str | None = None
    difficulty: Path | None = None
    gamed: Path | None = None
    C: float | None = None
    least: float = DEFAULT_COVERAGE
    force: bool = False


def compare(
    benchmark: Annotated[Benchmark, typer.Argument(help="whose files these are")],
    file_a: Annotated[Path, typer.Argument(help="what `eva-hpc score BENCHMARK` takes: annotations, judgments or battles")],
    file_b: Annotated[Path, typer.Argument(help="the same for B; may be the same file")],
    model_a: Annotated[Name, typer.Option("--model-a", help="needed if FILE_A has several models")] = None,
    model_b: Annotated[Name, typer.Option("--model-b", help="needed if FILE_B has several models")] = None,
    judge: Annotated[Name, typer.Option("--judge", help="mt_bench: whose judgments to take")] = None,
    difficulty: Annotated[File, typer.Option("--difficulty", help="alpaca_eval: for the length-controlled win rate")] = None,
    gamed: Annotated[File, typer.Option("--gamed", help="alpaca_eval: for the length-controlled win rate")] = None,
    C: Annotated[Optional[float], typer.Option("--C", help="alpaca_eval: of the length-controlled fit")] = None,  # noqa: UP045
    questions: Questions = None,
    min_coverage: MinCoverage = DEFAULT_COVERAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Differences A minus B over the questions judged for both, with their 95 % interval and two-sided p-value.

    A's and B's own numbers are over all that was judged for each: where questions are unmatched, their difference is another.

    Exit codes: 0 compared, 1 refused for lack of judgments, 2 a mistake in what was asked.
    """
    with told_plainly():
        how = _How(questions, judge, difficulty, gamed, C, min_coverage, force)
        _check_options(benchmark, how)
        a = _SIDES[benchmark](file_a, model_a, "--model-a", how)
        b = _SIDES[benchmark](file_b, model_b, "--model-b", how)
        both = [text for text in a.warnings if text in b.warnings]
        warnings = [f"{side.model}: {text}" for side in (a, b) for text in side.warnings if text not in both]
        warnings += [f"both: {text}" for text in both] + _unlike(a, b, force)
        metrics = {name: _compared(a, b, name) for name in a.metrics if name in b.metrics}
        warnings += [f"only one of the two has {name}" for name in sorted(a.metrics.keys() ^ b.metrics.keys())]
        if a.lc is not None and b.lc is not None:
            metrics["lc_win_rate"] = _length_controlled(a, b, a.lc, b.lc)
        numbers = {
            "benchmark": benchmark,
            "model_a": a.model,
            "model_b": b.model,
            "judge": a.judge,
            "metrics": metrics,
            "warnings": warnings,
        }
        refused = any(metric["p_value"] is None for metric in metrics.values())
        answer(numbers, as_json, "" if as_json else _table(numbers), refused)


def _check_options(benchmark: str, how: _How) -> None:
    if (how.difficulty is None) != (how.gamed is None):
        raise ConfigError("--difficulty and --gamed: the length-controlled win rate needs both")
    for name, value, owner in (
        ("--judge", how.judge, "mt_bench"),
        ("--difficulty", how.difficulty, "alpaca_eval"),
        ("--C", how.C, "alpaca_eval"),
    ):
        if value is not None and benchmark != owner:
            raise ConfigError(f"{name}: is for {owner} only; found benchmark {benchmark}")


def _unlike(a: _Side, b: _Side, force: bool) -> list[str]:
    """Judgments of different judges, or against different baselines, are not comparable: an error, or forced a warning."""
    unlike = [
        f"{what} differ: {a.model} has {ours}, {b.model} has {theirs}"
        for what, ours, theirs in (("judges", a.judge, b.judge), ("baselines", a.baseline, b.baseline))
        if ours != theirs
    ]
    if unlike and not force:
        raise ConfigError(*(f"{text}; the numbers are not comparable, --force compares them all the same" for text in unlike))
    return unlike


def _compared(a: _Side, b: _Side, name: str) -> dict[str, Any]:
    from eva_hpc.benchmarks.statistics.paired import Difference
    from eva_hpc.benchmarks.statistics.paired import compare as paired

    ours, theirs = a.metrics[name], b.metrics[name]
    found = paired(ours.per_question, theirs.per_question, ours.weights, theirs.weights)
    refusal = _refusals((a, ours), (b, theirs))
    if refusal is not None:
        found = Difference(None, None, None, None, found.n, found.unmatched, refusal)
    return {"a": ours.value, "b": theirs.value, **found.to_json()}


def _length_controlled(a: _Side, b: _Side, ours: _Metric, theirs: _Metric) -> dict[str, Any]:
    """Of the length-controlled win rates, each fitted to all rows of its model."""
    from eva_hpc.benchmarks.alpaca_eval.resampling import length_controlled_difference
    from eva_hpc.benchmarks.statistics.paired import Difference

    difference = Difference(None, None, None, None, 0, 0, _refusals((a, ours), (b, theirs)))
    if a.lc_arm is not None and b.lc_arm is not None:
        (one, gamed), (other, _) = a.lc_arm, b.lc_arm
        n, unmatched = len({*one.questions} & {*other.questions}), len({*one.questions} ^ {*other.questions})
        found = length_controlled_difference(one, other, gamed)
        if found is None:
            difference = Difference(None, None, None, None, n, unmatched, "fewer than 2 questions")
        else:
            difference = Difference(found.difference, found.low, found.high, found.p, n, unmatched)
    return {"a": ours.value, "b": theirs.value, **difference.to_json()}


def _refusals(*sides: tuple[_Side, _Metric]) -> str | None:
    return "; ".join(f"{side.model}: {metric.refusal}" for side, metric in sides if metric.refusal is not None) or None


def _chosen(models: Mapping[str, Any], wanted: str | None, option: str, file: Path) -> str:
    if wanted is not None and wanted not in models:
        raise ConfigError(f"{option}: found {wanted}; {file} has {', '.join(models)}{did_you_mean(wanted, models)}")
    if wanted is None and len(models) > 1:
        raise ConfigError(f"{file} has several models: {', '.join(models)}; name one with {option}")
    return wanted if wanted is not None else next(iter(models))


def _mt_bench(file: Path, wanted: str | None, option: str, how: _How) -> _Side:
    from eva_hpc.benchmarks.files import read_rows
    from eva_hpc.benchmarks.mt_bench.questions import read_questions
    from eva_hpc.benchmarks.mt_bench.score import score

    questions = None if how.questions is None else read_questions(how.questions)
    scores = score(read_rows(file), source=str(file), questions=questions, judge=how.judge, least=how.least, force=how.force)
    model = _chosen(scores, wanted, option, file)
    found = scores[model]
    metrics = {
        name: _Metric(value, found.per_question[name], refusal=found.refusals.get(name))
        for name, value in found.numbers.items()
        if found.per_question[name] or name in found.refusals
    }
    return _Side(model, found.judge, "", metrics, found.warnings)


def _arena_hard(file: Path, wanted: str | None, option: str, how: _How) -> _Side:
    from eva_hpc.benchmarks.arena_hard.battles import read_battles
    from eva_hpc.benchmarks.arena_hard.judgments import judgments_from
    from eva_hpc.benchmarks.arena_hard.questions import read_questions
    from eva_hpc.benchmarks.arena_hard.score import Options, score_battles, score_judgments
    from eva_hpc.benchmarks.files import read_rows

    rows = read_rows(file)
    expected = None if how.questions is None else {one["id"]: one["category"] for one in read_questions(how.questions)}
    options = Options(expected=expected, least=how.least, force=how.force)
    if "winner" in rows[0]:
        scores = score_battles(read_battles(file), options)
    else:
        scores = score_judgments(judgments_from(rows, file), options)
    model = _chosen(scores, wanted, option, file)
    found = scores[model]
    metrics = {
        "win_rate" if one.category == found.category else f"win_rate_{one.category}": _Metric(
            one.numbers["win_rate"], one.per_question["win_rate"], one.weights, one.refusal
        )
        for one in {found.category: found, **found.categories}.values()
    }
    return _Side(model, found.judge, found.baseline, metrics, found.warnings)


def _alpaca_eval(file: Path, wanted: str | None, option: str, how: _How) -> _Side:
    from eva_hpc.benchmarks.alpaca_eval.annotated import found as values_of
    from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
    from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, length_controlled_arm
    from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
    from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
    from eva_hpc.benchmarks.alpaca_eval.questions import read_questions
    from eva_hpc.benchmarks.alpaca_eval.score import score
    from eva_hpc.benchmarks.official.data_folder import notes_on

    rows = read_annotations(file)
    questions = None if how.questions is None else [one["turns"][0] for one in read_questions(how.questions)]
    if how.difficulty is None or how.gamed is None:
        control = None
    else:  # 0 resamples: the interval of one model alone is not asked for
        control = LengthControl(
            read_difficulty(how.difficulty),
            read_gamed(how.gamed),
            C=how.C,
            questions=questions,
            resamples=0,
            notes=notes_on("alpaca_eval", difficulty=how.difficulty, gamed=how.gamed),
        )
    found = score(rows, control, questions=questions, least=how.least, force=how.force)
    model = _chosen({found.model or file.name: None}, wanted, option, file)
    values = {name: 100 * share for name, share in found.per_question["win_rate"].items()}
    metrics = {"win_rate": _Metric(found.numbers["win_rate"], values, refusal=found.refusal)}
    baseline = ", ".join(values_of(rows, "generator_1"))
    side = _Side(model, found.judge or "not named", baseline, metrics, found.warnings)
    if control is None:
        return side
    lc = _Metric(found.numbers["lc_win_rate"], {}, refusal=found.refusal or found.lc_refusal)
    if lc.value is None:
        return replace(side, lc=lc)
    kept = rows if questions is None else [row for row in rows if row["instruction"] in set(questions)]
    arm = length_controlled_arm(kept, replace(control, C=found.facts.get("C", how.C)))  # C is not chosen again
    return replace(side, lc=lc, lc_arm=(arm, control.gamed))


_SIDES = {"alpaca_eval": _alpaca_eval, "arena_hard": _arena_hard, "mt_bench": _mt_bench}


def _table(numbers: Mapping[str, Any]) -> str:
    from tabulate import tabulate

    rows = [
        [
            name,
            *(_number(found[key]) for key in ("a", "b", "difference")),
            "-" if found["ci"] is None else f"[{found['ci'][0]:.2f}, {found['ci'][1]:.2f}]",
            "-" if found["p_value"] is None else f"{found['p_value']:.4f}",
            {None: "-", True: "yes", False: "no"}[found["beyond_noise"]],
            found["n"],
            found["unmatched"],
        ]
        for name, found in numbers["metrics"].items()
    ]
    headings = ["metric", "A", "B", "A - B", "95% interval", "p", "beyond noise", "n", "unmatched"]
    lines = [
        f"{numbers['benchmark']}, judged by {numbers['judge']}: A is {numbers['model_a']}, B is {numbers['model_b']}",
        tabulate(rows, headers=headings, disable_numparse=True),
    ]
    lines += [f"{name}: no number: {found['reason']}" for name, found in numbers["metrics"].items() if found["reason"]]
    lines += [f"warning: {text}" for text in numbers["warnings"]]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
