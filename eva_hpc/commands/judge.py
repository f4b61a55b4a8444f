"""``eva-hpc judge``: have a file of answers judged by any OpenAI-compatible server, outside a sweep."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from eva_hpc.commands import asking
from eva_hpc.commands.options import told_plainly

if TYPE_CHECKING:
    from collections.abc import Callable

    from eva_hpc.benchmarks.judging.answer_files import Answered
    from eva_hpc.benchmarks.judging.consult import Consultation
    from eva_hpc.config.benchmark import Judge


def judge(
    benchmark: asking.BenchmarkName,
    answers: Annotated[Path, typer.Option("--answers", help="a model's answers, in the benchmark's official format")],
    judge: Annotated[str, typer.Option("--judge", metavar="MODEL", help="the name that the server knows the judge by")],
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option("--out", help="judgments in the official format: a JSON list if the name ends in .json, else JSON lines"),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", metavar="NAME", help="whose answers, if the file has those of several models"),
    ] = None,
    base_url: asking.BaseUrl = None,
    api_key_env: asking.ApiKeyEnv = "OPENAI_API_KEY",
    parameter: asking.Parameters = [],  # noqa: B006
    repeats: asking.Repeats = 1,
    both_orders: asking.BothOrders = False,
    labels: asking.LabelsOption = "logprobs",
    concurrency: asking.Concurrency = 16,
    edition: asking.Version = None,
    questions: asking.QuestionsFile = None,
    baseline: asking.BaselineFile = None,
    prompt: asking.PromptFile = None,
    reference: asking.ReferenceFile = None,
    config: asking.ConfigFile = None,
    creative_baseline: asking.CreativeFile = None,
    limit: asking.Limit = None,
    cache: asking.CacheFolder = None,
    price: asking.PriceOption = None,
    dry_run: asking.DryRun = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over what lies at --out")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="what came of it, as one JSON object")] = False,
) -> None:
    """Judge a model's answers. Answers of the judge are cached: the same command again asks only for what is missing.

    Exit codes: 0 judged, 1 the judge cannot be used or reached, 2 a mistake in what was asked, 130 interrupted.
    """
    with told_plainly():
        from eva_hpc.benchmarks.judging.answer_files import answered, assignment, scoring_command, write_judgments
        from eva_hpc.benchmarks.judging.cost import describe_usage
        from eva_hpc.config.benchmark import judge_in_words

        say: Callable[[str], None] = lambda text: typer.echo(text, err=as_json)  # noqa: E731
        _check_out(out, answers, overwrite, dry_run)
        asked_of = asking.judge_of(judge, base_url, api_key_env, parameter, repeats, concurrency, price)
        section = asking.section(
            benchmark,
            edition,
            both_orders,
            limit,
            labels,
            questions=questions,
            baseline=baseline,
            prompt=prompt,
            reference=reference,
            config=config,
            creative_baseline=creative_baseline,
        )
        work = assignment(section)
        found = answered(work, answers, model)
        say(f"{found.model} on {benchmark}, judged by {judge_in_words(section, asked_of)}")
        for line in notes(found):
            say(line)
        asked = asking.ask(work, found.items, asked_of, cache, dry_run, say)
        told: dict[str, Any] = {
            "benchmark": benchmark,
            "model": found.model,
            "judge": asked_of.model,
            "questions": len(found.items),
            "unanswered": found.unanswered,
            "set_aside": dict(found.set_aside),
            "estimate": asked.estimate.to_json(),
        }
        if asked.consultation is not None and out is not None:
            write_judgments(out, asked.consultation.rows)
            command = shlex.join(scoring_command(work, out, found.model))
            say(describe_usage(asked.consultation.asked, asked.consultation.from_cache, asking.price_of(asked_of)))
            for line in served(asked.consultation):
                say(line)
            say(f"{len(asked.consultation.rows):,} judgments are in {out}. The numbers:\n  {command}")
            told |= {"out": str(out), "rows": len(asked.consultation.rows), "notes": asked.notes, "score_with": command}
            told |= asked.consultation.to_json() | {"price": spent(asked.consultation, asked_of)}
        if as_json:
            import orjson

            typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def notes(found: Answered) -> list[str]:
    """What there is to know about a file of answers, one line each."""
    lines = [f"answers {why}: {count:,} set aside" for why, count in found.set_aside.items()]
    if found.unanswered:
        lines.append(f"{found.unanswered:,} of {len(found.items):,} questions have no answer: they count as not judged")
    return lines


def served(consultation: Consultation) -> list[str]:
    """Who answered, and what went wrong, one line each."""
    lines = []
    for what, counts in (("model", consultation.served_models), ("fingerprint", consultation.fingerprints)):
        if counts:
            listed = ", ".join(f"{name or '(no name)'} ({count:,})" for name, count in counts.items())
            lines.append(f"{what} that the server names: {listed}")
    status = [row["status"] for row in consultation.rows]
    lost = {name: status.count(name) for name in ("unparsed", "failed", "no_answer") if name in status}
    if lost:
        lines.append(
            f"without a verdict: {', '.join(f'{count:,} {name}' for name, count in lost.items())} of {len(status):,} rows"
        )
    return lines + [f"warning: {text}" for text in consultation.warnings]


def spent(consultation: Consultation, judge: Judge) -> float | None:
    """The price of what was asked now; None without prices."""
    price = asking.price_of(judge)
    return None if price is None else price.of(consultation.asked.prompt_tokens, consultation.asked.completion_tokens)


def _check_out(out: Path | None, answers: Path, overwrite: bool, dry_run: bool) -> None:
    """Before anything is paid for."""
    from eva_hpc.config.errors import ConfigError

    if out is None:
        if not dry_run:
            raise ConfigError("--out: missing; must name the file for the judgments")
        return
    if not out.parent.is_dir():
        raise ConfigError(f"--out: there is no folder {out.parent}")
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; must be a file")
    if out.exists() and answers.exists() and out.samefile(answers):
        raise ConfigError(f"--out: {out} has the answers to be judged; must be another file")
    if out.exists() and not overwrite and not dry_run:
        raise ConfigError(f"--out: {out} is there already; --overwrite writes over it")
