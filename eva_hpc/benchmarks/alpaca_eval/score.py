"""What AlpacaEval 2.0 says about a model, from official annotations: win rate, length-controlled win rate, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eva_hpc.benchmarks.alpaca_eval import annotated
from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, arm_of, joined, refusal_of
from eva_hpc.benchmarks.alpaca_eval.difficulty import official_order
from eva_hpc.benchmarks.alpaca_eval.influence import pseudo_values
from eva_hpc.benchmarks.alpaca_eval.length_control import is_plausible
from eva_hpc.benchmarks.alpaca_eval.preference import SAME, recompute, stored
from eva_hpc.benchmarks.alpaca_eval.resampling import length_controlled_interval
from eva_hpc.benchmarks.alpaca_eval.win_rate import average_length, win_rate
from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.statistics.coverage import LEAST_COVERAGE, Coverage
from eva_hpc.benchmarks.statistics.intervals import interval
from eva_hpc.store.seeds import content_id


@dataclass(frozen=True)
class Score:
    """A model's numbers, in percent; null where refused or undefined. `facts` are what they rest on, null or not.

    `per_question` has shares, not percent, by metric and the instruction's content id.
    """

    model: str | None
    judge: str | None
    numbers: dict[str, float | None]
    facts: dict[str, Any]
    coverage: Coverage
    refusal: str | None
    lc_refusal: str | None
    warnings: tuple[str, ...]
    per_question: dict[str, dict[str, float]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "model": self.model,
            "judge": self.judge,
            **self.numbers,
            **self.facts,
            "coverage": self.coverage.share,
            "expected": self.coverage.expected,
            "failed": dict(self.coverage.failed),
            "reason": self.refusal,
            "lc_reason": self.lc_refusal,
            "warnings": list(self.warnings),
        }


NUMBERS = (
    *("win_rate", "standard_error", "ci_low", "ci_high", "discrete_win_rate", "n_wins", "n_losses", "n_draws"),
    *("lc_win_rate", "lc_standard_error", "lc_ci_low", "lc_ci_high"),
)


def score(
    rows: Sequence[Row],
    length_control: LengthControl | None = None,
    *,
    outputs: Mapping[str, str | None] | None = None,
    questions: Sequence[str] | None = None,
    recompute_preferences: bool = False,
    least: float = LEAST_COVERAGE,
    force: bool = False,
) -> Score:
    """Score official annotations of one model.

    Repeats of the judge are averaged question by question first, so that the rest is as for one judgment of each; only the
    coverage is of single judgments. Other rows about a question that an earlier row is about all count, as officially.
    Intervals resample questions.

    Args:
        rows: as :func:`annotated.read_annotations` gives them.
        length_control: None leaves the length-controlled numbers null.
        outputs: the model's outputs by instruction: each should have been judged. The average length is theirs.
        questions: instructions of the evaluation set: each should have been judged, and only they count.
        recompute_preferences: from the raw completions where rows have them.
        least: share of judgments below which there are no numbers.
        force: give numbers whatever the coverage.
    """
    warnings: list[str] = []
    if questions is not None:
        wanted = set(questions)
        rows, before = [row for row in rows if row["instruction"] in wanted], len(rows)
        if len(rows) < before:
            warnings.append(f"{before - len(rows)} rows are not about any of the questions: set aside")
    facts: dict[str, Any] = {}
    preferences = [stored(row["preference"]) for row in rows]
    if recompute_preferences:
        preferences, facts["recomputed"] = _recompute(rows, warnings)
    coverage = _coverage(rows, preferences, outputs, questions)
    warnings += _warnings(rows, outputs, questions)
    if coverage.failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in coverage.failed.items())
        warnings.append(f"{coverage.expected - coverage.judged} of {coverage.expected} {coverage.unit} do not count: {reasons}")
    refusal = coverage.refusal(least)
    if refusal and force and coverage.judged:
        warnings.append(refusal)
        refusal = None

    rows, preferences = annotated.repeats_averaged(rows, preferences)
    overall = win_rate(preferences)
    lengths = outputs if outputs is not None else {row["instruction"]: row.get("output_2") for row in rows}
    facts |= {"n": overall.n, "avg_length": average_length([output for output in lengths.values() if output is not None])}
    numbers = dict.fromkeys(NUMBERS, math.nan)
    lc_refusal = None
    per_question = {"win_rate": _per_question(rows, preferences)}
    if refusal is None:
        numbers |= {name: getattr(overall, name) for name in NUMBERS if hasattr(overall, name)}
        numbers |= _ends("ci", _interval(rows, preferences))
        lc_numbers, lc_facts, lc_refusal, values = _length_controlled(
            rows, preferences, length_control, 0.0 if force else least, warnings
        )
        numbers |= lc_numbers
        per_question |= {"lc_win_rate": values} if values else {}
        facts |= lc_facts
        if lc_refusal is None and not is_plausible(overall.win_rate, numbers["lc_win_rate"]):
            warnings.append(
                f"the length-controlled win rate, {numbers['lc_win_rate']:.1f}, is far from the plain one, "
                f"{overall.win_rate:.1f}: the fit may have failed"
            )
    judges = annotated.found(rows, "annotator")
    return Score(
        model=next(iter(annotated.found(rows, "generator_2")), None),
        judge=", ".join(judges) or None,
        numbers={name: None if math.isnan(value) else value for name, value in numbers.items()},
        facts=facts,
        coverage=coverage,
        refusal=refusal,
        lc_refusal=lc_refusal,
        warnings=tuple(warnings),
        per_question=per_question,
    )


def _recompute(rows: Sequence[Row], warnings: list[str]) -> tuple[list[float], dict[str, Any]]:
    found = recompute(rows)
    if found.differ:
        warnings.append(
            f"{len(found.differ)} of {found.checked} preferences differ from their raw completions by more than {SAME:g}: "
            "those of the raw completions count"
        )
    if found.checked < len(rows):
        warnings.append(f"{len(rows) - found.checked} rows have no raw completion: their preference counts as it is")
    return list(found.values), {"checked": found.checked, "differ": list(found.differ), "largest_difference": found.largest}


def _coverage(
    rows: Sequence[Row],
    preferences: Sequence[float],
    outputs: Mapping[str, str | None] | None,
    questions: Sequence[str] | None,
) -> Coverage:
    there = {row["instruction"] for row in rows}
    absent = len(set(questions if questions is not None else outputs or ()) - there)
    if questions is None and {content_id(one) for one in there} <= official_order().keys():
        absent = len(official_order()) - len(there)
    repeats = len({annotated.repeat_of(row) for row in rows}) or 1
    missing = repeats * (len(there) + absent) - (len(rows) - annotated.second_judgments(rows))
    failed = dict(annotated.failures(rows, preferences))
    if missing:
        failed["not judged"] = missing
    return Coverage(
        expected=len(rows) + missing,
        judged=sum(not math.isnan(value) for value in preferences),
        failed=failed,
        unit="questions" if len(there) == len(rows) else "judgments",
    )


def _warnings(rows: Sequence[Row], outputs: Mapping[str, str | None] | None, questions: Sequence[str] | None) -> Iterator[str]:
    instructions = {row["instruction"] for row in rows}
    if double := annotated.second_judgments(rows):
        yield f"{double} rows are about a question that an earlier row is about: all count, as in the official tool"
    if len(judges := annotated.found(rows, "annotator")) > 1:
        yield f"several judges: {', '.join(judges)}"
    if outputs is not None:
        other = sum(
            row["instruction"] in outputs and row.get("output_2") not in (None, outputs[row["instruction"]]) for row in rows
        )
        if other:
            yield f"{other} rows judge another text than the model's output"
        if unknown := len(instructions - outputs.keys()):
            yield f"{unknown} judged questions have no output among the model's outputs"


def _by_question(rows: Sequence[Row], preferences: Sequence[float]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for row, preference in zip(rows, preferences, strict=True):
        if not math.isnan(preference):
            values.setdefault(content_id(row["instruction"]), []).append(preference - 1)
    return values


def _per_question(rows: Sequence[Row], preferences: Sequence[float]) -> dict[str, float]:
    return {name: math.fsum(values) / len(values) for name, values in _by_question(rows, preferences).items()}


def _interval(rows: Sequence[Row], preferences: Sequence[float]) -> tuple[float, float] | None:
    values = _by_question(rows, preferences).values()
    return interval([100 * math.fsum(one) for one in values], [len(one) for one in values])


def _ends(name: str, ends: tuple[float, float] | None) -> dict[str, float]:
    low, high = ends or (math.nan, math.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def _length_controlled(
    rows: Sequence[Row],
    preferences: Sequence[float],
    control: LengthControl | None,
    least: float,
    warnings: list[str],
) -> tuple[dict[str, float], dict[str, Any], str | None, dict[str, float]]:
    """Numbers, facts, why there are no numbers, and values by question. `least` is of the rows that have a difficulty."""
    if annotated.is_baseline(rows):
        even = dict.fromkeys((content_id(row["instruction"]) for row in rows), 0.5)
        return {"lc_win_rate": 50.0, "lc_standard_error": 0.0, **_ends("lc_ci", (50.0, 50.0))}, {}, None, even
    if control is None:
        return {}, {}, "the length-controlled win rate needs the difficulties and the gamed rows", {}
    facts: dict[str, Any] = {"difficulty_by": control.difficulty_by}
    known, told = joined(rows, preferences, control)
    warnings += told
    if lacking := refusal_of(known, len(rows), least):
        return {}, facts, lacking, {}
    arm = arm_of(known, control)
    fit = arm.fit(control.gamed)
    facts |= {
        "C": fit.C,
        "C_chosen_by": "cross-validation" if control.C is None else "user",
        "lc_weights": dict(zip(("length", "difficulty", "model"), fit.weights, strict=True)),
        "lc_n": len(arm.questions),
    }
    ends = length_controlled_interval(arm, control.gamed, resamples=control.resamples)
    numbers = {"lc_win_rate": fit.win_rate, "lc_standard_error": fit.standard_error, **_ends("lc_ci", ends)}
    values = pseudo_values(arm, control.gamed, fit)
    return numbers, facts, None, {content_id(instruction): value for instruction, value in values.items()}
