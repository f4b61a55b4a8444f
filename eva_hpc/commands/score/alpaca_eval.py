"""``eva-hpc score alpaca_eval``: AlpacaEval 2.0 numbers from an annotations file of the official tool, or of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from eva_hpc.commands.options import told_plainly
from eva_hpc.commands.score.options import DEFAULT_COVERAGE, AsJson, Force, MinCoverage, Questions, answer

if TYPE_CHECKING:
    from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl
    from eva_hpc.benchmarks.alpaca_eval.score import Score

OptionalFile = Optional[Path]  # noqa: UP045 - typer reads it at run time


def alpaca_eval(
    annotations: Annotated[Path, typer.Option("--annotations", help="annotations.json: one judged row per question")],
    outputs: Annotated[OptionalFile, typer.Option("--outputs", help="model_outputs.json: each should be judged")] = None,
    difficulty: Annotated[
        OptionalFile, typer.Option("--difficulty", help="instruction_difficulty.csv; default: those in the gamed file")
    ] = None,
    gamed: Annotated[
        OptionalFile, typer.Option("--gamed", help="df_gamed.csv; without it there is no length-controlled win rate")
    ] = None,
    difficulty_by: Annotated[
        Literal["instruction", "position"],
        typer.Option("--difficulty-by", help="join by instruction, or by the row's position as the official tool does"),
    ] = "instruction",
    C: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--C", help="inverse strength of the L1 penalty; default: chosen by cross-validation"),
    ] = None,
    questions: Questions = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="preferences from the raw completions")] = False,
    min_coverage: MinCoverage = DEFAULT_COVERAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """AlpacaEval 2.0: win rate and length-controlled win rate of a model's judged outputs, with intervals.

    Exit codes: 0 printed, 1 refused because too little was judged, 2 a mistake in what was asked.
    """
    with told_plainly():
        from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
        from eva_hpc.benchmarks.alpaca_eval.questions import read_outputs
        from eva_hpc.benchmarks.alpaca_eval.score import score

        asked = list(read_outputs(questions)) if questions else None
        scored = score(
            read_annotations(annotations),
            _length_control(difficulty, gamed, difficulty_by, C, asked),
            outputs=read_outputs(outputs) if outputs else None,
            questions=asked,
            recompute_preferences=recompute,
            least=min_coverage,
            force=force,
        )
        refused = bool(scored.refusal) or bool(gamed and scored.lc_refusal)
        answer(scored.to_json(), as_json, _text(scored), refused)


def _length_control(
    difficulty: Path | None, gamed: Path | None, difficulty_by: str, C: float | None, questions: list[str] | None
) -> LengthControl | None:
    from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl
    from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
    from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
    from eva_hpc.benchmarks.official.data_folder import notes_on
    from eva_hpc.config.errors import ConfigError

    if gamed is None:
        if difficulty is not None or C is not None:
            raise ConfigError(
                "--difficulty and --C are for the length-controlled win rate, which also needs --gamed df_gamed.csv"
            )
        return None
    return LengthControl(
        difficulties=read_difficulty(difficulty or gamed),  # the gamed rows repeat the difficulties
        gamed=read_gamed(gamed),
        difficulty_by=difficulty_by,
        C=C,
        questions=questions,
        notes=notes_on("alpaca_eval", difficulty=difficulty, gamed=gamed),
    )


def _text(scored: Score) -> str:
    from tabulate import tabulate

    numbers, coverage = scored.numbers, f"{scored.coverage.judged}/{scored.coverage.expected} ({scored.coverage.percent})"

    def line(name: str, value: str, error: str | None, low: str, high: str) -> list[str]:
        return [name, _number(numbers[value]), _number(numbers.get(error or "")), _range(numbers[low], numbers[high]), coverage]

    table = tabulate(
        [
            line("win rate", "win_rate", "standard_error", "ci_low", "ci_high"),
            line("length-controlled win rate", "lc_win_rate", "lc_standard_error", "lc_ci_low", "lc_ci_high"),
            ["discrete win rate", _number(numbers["discrete_win_rate"]), "", "", coverage],
            ["average length", scored.facts["avg_length"], "", "", ""],
        ],
        headers=["AlpacaEval 2.0", "%", "standard error", "95 % interval", "coverage"],
        disable_numparse=True,
    )
    lines = [f"{scored.model or 'model'}, judged by {scored.judge or 'an unnamed judge'}", table]
    lines += [f"no number: {reason}" for reason in (scored.refusal, scored.lc_refusal) if reason]
    return "\n".join([*lines, *(f"warning: {text}" for text in scored.warnings)])


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"
