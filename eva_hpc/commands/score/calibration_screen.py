"""The result of a calibration for people: a table for each metric, level, rank, and what they permit to conclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eva_hpc.config.errors import did_you_mean

if TYPE_CHECKING:
    from eva_hpc.benchmarks.calibration.agreement import Agreement


def screen(told: Mapping[str, Any], metrics: Mapping[str, Agreement], published_models: Sequence[str]) -> str:
    """The result of a calibration for people; `told` is what ``--json`` prints."""
    from tabulate import tabulate

    source = f"published numbers by {told['published_judge']}, from {told['published']}"
    lines = [f"{told['benchmark']}: judged by {told['judge']}; {source}"]
    headings = ["model", "here", "published", "difference", "95% interval", "of", "coverage"]
    for name, found in metrics.items():
        rows = [
            [
                one.model,
                _number(one.ours),
                _number(one.published),
                _number(one.difference, "+"),
                _range(one.low, one.high),
                one.interval_of or "-",
                f"{one.coverage:.1%}",
            ]
            for one in found.models
        ]
        lines += ["", name, tabulate(rows, headers=headings, disable_numparse=True)]
        lines += [f"{one.model}: not counted below: {one.reason}" for one in found.models if not one.counts]
        lines += [*_level(found), *_rank(found), found.conclusion]
    intervals = {one.interval_of for found in metrics.values() for one in found.models}
    if "questions" in intervals:
        lines += ["", "An interval of questions is that of the number here, the published one taken as fixed: it is too wide."]
    if told["questions"]:
        lines += ["", *_by_question(told["questions"])]
    if told["unmatched"]:
        near = [f"{model}{did_you_mean(model, published_models)}" for model in told["unmatched"]]
        lines += ["", f"without a published number, not compared: {', '.join(near)}"]
    if told["published_only"]:
        lines += ["", f"models with published numbers, but without judgments here: {len(told['published_only'])}"]
    return "\n".join([*lines, *(f"warning: {text}" for text in told["warnings"])])


def _level(found: Agreement) -> list[str]:
    level = found.level
    if level is None or found.n < 2:
        return []
    ends = "" if level.low is None else f" {_range(level.low, level.high)} (95% over models)"
    return [
        f"level: mean difference {level.mean_difference:+.2f}{ends}, mean absolute {level.mean_absolute_difference:.2f}, "
        f"root mean square {level.root_mean_square:.2f}, over {found.n} models"
    ]


def _rank(found: Agreement) -> list[str]:
    rank = found.rank
    if rank is None:
        return []
    tau = f"Kendall's tau-b {_number(rank.kendall_tau_b)} ({_p(rank.kendall_p, rank.kendall_exact)})"
    rho = f"Spearman's rho {_number(rank.spearman_rho)} ({_p(rank.spearman_p, rank.spearman_exact)})"
    tied = f", {rank.tied} tied" if rank.tied else ""
    lines = [f"rank: {tau}, {rho}; {len(rank.swapped)} of {rank.pairs} pairs ordered differently{tied}"]
    return lines + [
        f"  {one.higher_published} is {one.apart_published:.2f} above {one.higher_here} in the published numbers, "
        f"here {one.apart_here:.2f} below"
        for one in rank.swapped
    ]


def _by_question(questions: Mapping[str, Any]) -> list[str]:
    from tabulate import tabulate

    names = [name for name in questions["all"] if name not in ("mean_difference_ci", "labels")]
    rows = []
    for model, found in {**questions["models"], "all": questions["all"]}.items():
        cells = [found[name] if name == "n" else _number(found[name]) for name in names]
        rows.append([model, *cells, _range(*(found["mean_difference_ci"] or (None, None)))])
    headings = ["model", *(name.replace("_", " ") for name in names), "95% interval of the difference"]
    lines = [
        f"question by question: {questions['judge']} with {questions['official_judge']}, {questions['unit']} that both gave",
        tabulate(rows, headers=headings, disable_numparse=True),
    ]
    aside = {
        "only by the judge here": questions["only_here"],
        "only by the official judge": questions["only_official"],
        "of other answers, set aside": questions["other_answers"],
    }
    return lines + [f"{count} {questions['unit']} {why}" for why, count in aside.items() if count]


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _p(value: float | None, exact: bool) -> str:
    return "no p" if value is None else f"p = {value:.2g}, {'exact' if exact else 'approximate'}"
