"""``eva-hpc score arena_hard``: games won against the baseline, from battles or from raw judgments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands.options import told_plainly
from eva_hpc.commands.score.options import DEFAULT_COVERAGE, AsJson, Force, MinCoverage, Questions, answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eva_hpc.benchmarks.arena_hard.score import Options, Score

Battles = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--battles", help="the official v0.1 battle file"),
]
Judgments = Annotated[list[Path], typer.Option("--judgments", help="raw rows of the official judge; may be repeated")]
Answers = Annotated[
    list[Path], typer.Option("--answers", help="answers of a model or of the baseline, for style control; may be repeated")
]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", help="the model to print; default: all in the files"),
]
Version = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--version", help="whose rules: v0.1 or v2.0; default: told from the rows"),
]
Baseline = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--baseline", help="the model compared with; default: told from the files"),
]
Judge = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--judge", help="whose judgments to take, where the files have those of several judges"),
]
Category = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--category", help="only this category of v2.0; default: all"),
]
StyleControl = Annotated[bool, typer.Option("--style-control", help="also the win rate with length and markdown taken out")]
Reparse = Annotated[bool, typer.Option("--reparse", help="take the verdicts from the judgment texts")]
SaveBattles = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--save-battles", help="write the battles of v0.1 judgments here, in the official form"),
]


def arena_hard(
    battles: Battles = None,
    judgments: Judgments = [],  # noqa: B006
    model: Model = None,
    version: Version = None,
    baseline: Baseline = None,
    judge: Judge = None,
    category: Category = None,
    style_control: StyleControl = False,
    answers: Answers = [],  # noqa: B006
    reparse: Reparse = False,
    save_battles: SaveBattles = None,
    questions: Questions = None,
    min_coverage: MinCoverage = DEFAULT_COVERAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Arena-Hard v0.1 and v2.0: percent of games won against the baseline, by the official arithmetic.

    --json gives one object for --model or a file with one model, and an object by model name for several. win_rate is what the
    official script prints, ci_low to ci_high the 95 % interval over questions. Of several categories of v2.0 it is that of
    hard_prompt, as on the leaderboard; of own ones without it, that of all games together, if they have one baseline.

    Exit codes: 0 all numbers, 1 some were refused, 2 a mistake in what was asked.
    """
    with told_plainly():
        from eva_hpc.benchmarks.arena_hard.battles import read_battles
        from eva_hpc.benchmarks.arena_hard.questions import read_questions, read_styles
        from eva_hpc.benchmarks.arena_hard.score import Options, score_battles
        from eva_hpc.benchmarks.arena_hard.verdict import check_version

        rules = None if version is None else check_version(version)
        _check(battles, judgments, answers, style_control, reparse or judge or category or version or save_battles)
        options = Options(
            model=model,
            baseline=baseline,
            judge=judge,
            category=category,
            expected=None if questions is None else {row["id"]: row["category"] for row in read_questions(questions)},
            least=min_coverage,
            force=force,
        )
        if battles is not None:
            styles, notes = read_styles(answers, "v0.1") if style_control else (None, [])
            scores = score_battles(read_battles(battles), options.with_styles(styles), notes)
        else:
            scores = _from_judgments(judgments, options, rules, answers, style_control, reparse, save_battles)
        found = {name: score.to_json() for name, score in scores.items()}
        flat = next(iter(found.values())) if len(found) == 1 else found
        answer(flat, as_json, "" if as_json else _table(scores), any(score.refused for score in scores.values()))


def _check(battles: Path | None, judgments: Sequence[Path], answers: Sequence[Path], style: bool, of_judgments: object) -> None:
    from eva_hpc.config.errors import ConfigError

    if (battles is None) == (not judgments):
        raise ConfigError("give either --battles FILE or --judgments FILE")
    if battles is not None and of_judgments:
        raise ConfigError("--version, --judge, --category, --reparse and --save-battles need --judgments, not --battles")
    if style != bool(answers):
        raise ConfigError(
            "--style-control and --answers FILE go together: the answers of every model judged and of the baseline"
        )


def _from_judgments(
    files: Sequence[Path],
    options: Options,
    rules: str | None,
    answers: Sequence[Path],
    style_control: bool,
    again: bool,
    save_battles: Path | None,
) -> dict[str, Score]:
    from eva_hpc.benchmarks.arena_hard.judgments import read_judgments, reparse, version_of
    from eva_hpc.benchmarks.arena_hard.questions import read_styles
    from eva_hpc.benchmarks.arena_hard.score import score_judgments, write_battles
    from eva_hpc.benchmarks.arena_hard.verdict import check_version

    judgments = read_judgments(files)
    version = version_of(judgments) if rules is None else check_version(rules)
    notes = []
    if again:
        judgments, changed = reparse(judgments, version)
        notes.append(f"verdicts are read from the texts: {changed} games differ from the stored score")
    if save_battles is not None:
        write_battles(save_battles, judgments, version, options)
    styles, about_styles = read_styles(answers, version) if style_control else (None, [])
    return score_judgments(judgments, options.with_styles(styles), version, [*notes, *about_styles])


def _table(scores: Mapping[str, Score]) -> str:
    from tabulate import tabulate

    shown = [part for score in scores.values() for part in {score.category: score, **score.categories}.values()]
    styled = any("sc_win_rate" in score.numbers for score in shown)
    headings = ["model", "category", "win rate", *(["style-controlled"] if styled else [])]
    headings += ["coverage", "n", "games", "baseline", "judge"]
    rows = []
    for score in shown:
        row = [score.model, score.category, _number(score, "")]
        row += [_number(score, "sc_")] if styled else []
        row += [score.coverage.percent, str(score.n), str(score.games), score.baseline, score.judge]
        rows.append(row)
    notes = [f"{score.model}, {score.category}: no number: {score.refusal}" for score in shown if score.refusal]
    notes += [f"{score.model}, {score.category}: warning: {text}" for score in shown for text in score.warnings]
    return "\n".join([tabulate(rows, headers=headings, disable_numparse=True), *notes])


def _number(score: Score, kind: str) -> str:
    value, low, high = (score.numbers[f"{kind}{name}"] for name in ("win_rate", "ci_low", "ci_high"))
    if value is None:
        return "-"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
