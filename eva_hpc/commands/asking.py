"""Asking a judge from the command line: the options about it, the estimate before, a bar meanwhile, and what Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from eva_hpc.commands.options import INTERRUPTED, WORK_FAILED

if TYPE_CHECKING:
    from types import FrameType

    from eva_hpc.benchmarks.judging.answer_files import Assignment
    from eva_hpc.benchmarks.judging.consult import Consultation, Item
    from eva_hpc.benchmarks.judging.cost import Estimate, Price
    from eva_hpc.config import benchmark as config

Benchmark = Literal["alpaca_eval", "arena_hard", "mt_bench"]
BenchmarkName = Annotated[Benchmark, typer.Argument(metavar="BENCHMARK", help="alpaca_eval, arena_hard or mt_bench")]
BaseUrl = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time
    typer.Option("--base-url", metavar="URL", help="of the API, ending in /v1; default: OPENAI_BASE_URL, else OpenAI's"),
]
ApiKeyEnv = Annotated[str, typer.Option("--api-key-env", metavar="NAME", help="the environment variable that holds the key")]
Parameters = Annotated[
    list[str],
    typer.Option("--parameter", metavar="KEY=VALUE", help="of the API, in place of the benchmark's own; null leaves it out"),
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="how often everything is judged")]
LabelsOption = Annotated[
    Literal["logprobs", "text"],
    typer.Option("--labels", help="alpaca_eval: text takes the label the judge writes, where there are no log-probabilities"),
]
BothOrders = Annotated[bool, typer.Option("--both-orders", help="alpaca_eval: judge each pair in both orders; costs twice")]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="requests open at once")]
Version = Annotated[
    Optional[Literal["v0.1", "v2.0"]],  # noqa: UP045
    typer.Option("--version", help="arena_hard: v0.1 (default) or v2.0"),
]
_File = Optional[Path]  # noqa: UP045
QuestionsFile = Annotated[_File, typer.Option("--questions", help="own questions; default: the official ones")]
BaselineFile = Annotated[_File, typer.Option("--baseline", help="arena_hard: answers of the model to compare with")]
PromptFile = Annotated[_File, typer.Option("--prompt", help="the judge's prompts; default: the official ones")]
ReferenceFile = Annotated[_File, typer.Option("--reference", help="mt_bench: reference answers")]
ConfigFile = Annotated[_File, typer.Option("--config", help="arena_hard v2.0: its configuration")]
CreativeFile = Annotated[_File, typer.Option("--creative-baseline", help="arena_hard v2.0: --baseline of creative writing")]
Limit = Annotated[Optional[int], typer.Option("--limit", min=1, help="only the first so many questions")]  # noqa: UP045
CacheFolder = Annotated[
    _File,
    typer.Option("--cache", metavar="DIR", help="answers of judges; default: judge_cache beside the data folder"),
]
PriceOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--price", metavar="IN,OUT", help="per million tokens, in any currency: for the estimate and the bill"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what it would cost, and ask nothing")]


@dataclass(frozen=True)
class Asked:
    """What came of asking: the estimate before, what the first try showed, and the judgments; None of a dry run."""

    estimate: Estimate
    notes: list[str]
    consultation: Consultation | None


def section(
    benchmark: Benchmark,
    edition: str | None,
    both_orders: bool,
    limit: int | None,
    labels: Literal["logprobs", "text"] = "logprobs",
    **files: Path | None,
) -> config.JudgedBenchmark:
    """The section of a recipe that says the same as the options; `files` by role.

    Raises:
        ConfigError: an option is not of this benchmark, or a file is missing that cannot be told from the others.
    """
    from eva_hpc.config import benchmark as config
    from eva_hpc.config.errors import ConfigError

    kinds = {"alpaca_eval": config.AlpacaEval, "arena_hard": config.ArenaHard, "mt_bench": config.MtBench}
    given: dict[str, str] = {role: str(path) for role, path in files.items() if path is not None}
    known = list(kinds[benchmark]().files.model_dump())
    if edition != "v2.0":
        known = [role for role in known if role not in ("config", "creative_baseline")]
    problems = [
        f"{_option(role)}: {benchmark} {edition or ''}".rstrip() + " has no such file" for role in given if role not in known
    ]
    if edition is not None and benchmark != "arena_hard":
        problems.append(f"--version: is for arena_hard only; found benchmark {benchmark}")
    if both_orders and benchmark != "alpaca_eval":
        problems.append(f"--both-orders: is for alpaca_eval only; found benchmark {benchmark}")
    if labels != "logprobs" and benchmark != "alpaca_eval":
        problems.append(f"--labels: is for alpaca_eval only; found benchmark {benchmark}")
    if benchmark == "arena_hard" and "questions" in given and "baseline" not in given:
        problems.append("--baseline: missing; own questions need the answers of the model to compare with")
    if problems:
        raise ConfigError(*problems)
    about: dict[str, Any] = {"limit": limit, "files": given}
    if benchmark == "alpaca_eval":
        return config.AlpacaEval(both_orders=both_orders, labels=labels, **about)
    if benchmark == "arena_hard":
        return config.ArenaHard(version="v2.0" if edition == "v2.0" else "v0.1", **about)
    return config.MtBench(**about)


def judge_of(
    model: str,
    base_url: str | None,
    api_key_env: str,
    parameters: Sequence[str],
    repeats: int,
    concurrency: int,
    price: str | None,
) -> config.Judge:
    """The judge that the options describe.

    Raises:
        ConfigError: an option has an impossible value.
    """
    from pydantic import ValidationError

    from eva_hpc.config import benchmark as config
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.config.yaml_file import found, read_value
    from eva_hpc.inference.openai_client import RESERVED

    values: dict[str, Any] = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--parameter {text}: must be KEY=VALUE, e.g. max_tokens=4096")
        if name.strip() in RESERVED:
            raise ConfigError(f"--parameter {text}: must not be one of {', '.join(RESERVED)}")
        values[name.strip()] = read_value(value, f"--parameter {text}")
    try:
        return config.Judge(
            model=model,
            base_url=base_url,
            api_key_env=api_key_env,
            parameters=values,
            repeats=repeats,
            concurrency=concurrency,
            price=None if price is None else _price(price),
        )
    except ValidationError as error:
        problems = [
            f"--{'judge' if one['loc'][0] == 'model' else str(one['loc'][0]).rstrip('s')}: found {found(one['input'])}; "
            f"{one['msg'][:1].lower()}{one['msg'][1:]}"
            for one in error.errors(include_url=False)
        ]
        raise ConfigError(*problems) from None


def _price(text: str) -> config.Price:
    from eva_hpc.config import benchmark as config
    from eva_hpc.config.errors import ConfigError

    try:
        of_input, of_output = (float(part) for part in text.split(","))
        return config.Price(input=of_input, output=of_output)
    except ValueError:  # pydantic's too
        raise ConfigError(f"--price: found {text}; must be two numbers, per million tokens in and out: 2.0,8.0") from None


def price_of(judge: config.Judge) -> Price | None:
    """The judge's price, as the estimate takes it."""
    from eva_hpc.benchmarks.judging.cost import Price

    return None if judge.price is None else Price(judge.price.input, judge.price.output)


def ask(
    work: Assignment,
    items: Sequence[Item],
    judge: config.Judge,
    cache_folder: Path | None,
    dry_run: bool,
    say: Callable[[str], None],
) -> Asked:
    """Estimate, say so, try a few requests, then ask for everything that the cache does not hold.

    Raises:
        ConfigError: the environment has no key.
        typer.Exit: the judge cannot be used or reached, or it was interrupted; the message is on stderr, answers are kept.
    """
    from eva_hpc.benchmarks.judging.consult import JudgeUnfit, JudgeUnreachable, consult, probe
    from eva_hpc.benchmarks.judging.cost import estimate
    from eva_hpc.benchmarks.judging.servers import server_of
    from eva_hpc.benchmarks.official.data_folder import data_folder
    from eva_hpc.config.benchmark import USUAL_TOKENS
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.inference.completion_cache import CompletionCache
    from eva_hpc.inference.server_environment import key_problem
    from eva_hpc.training.interrupt import Interrupted

    server = server_of(judge)
    folder = cache_folder.expanduser() if cache_folder else data_folder().parent / "judge_cache"
    cache = CompletionCache(folder)
    usual = USUAL_TOKENS[work.section.kind][1]
    before = estimate(
        work.judging, items, server, cache, repeats=judge.repeats, usual_completion_tokens=usual, price=price_of(judge)
    )
    say(before.describe())
    if dry_run:
        return Asked(before, [], None)
    if before.calls and (problem := key_problem(judge)):
        raise ConfigError(problem)
    try:
        with _told_to_stop() as stop:
            probed = probe(work.judging, items, server, cache, stop=stop, say=say)
            for note in probed.notes:
                say(f"note: {note}")
            with _bar() as progress:
                consultation = consult(
                    work.judging,
                    items,
                    server,
                    cache,
                    judge=judge.model,
                    repeats=judge.repeats,
                    probed=probed,
                    progress=progress,
                    stop=stop,
                    say=say,
                )
    except (JudgeUnreachable, JudgeUnfit) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WORK_FAILED) from None
    except Interrupted:
        typer.echo(f"Interrupted. Every answer that arrived is in {folder}: the same command asks only for the rest.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    return Asked(before, probed.notes, consultation)


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second one ends at once."""
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        # not by print: the signal may have come in the middle of one
        os.write(2, b"Stopping once the answers under way have arrived. Ctrl-C again ends at once.\n")

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; where that is no terminal, a line for every tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        told = 0

        def line(done: int, total: int) -> None:
            nonlocal told
            if total and (tenth := 10 * done // total) > told:
                told = tenth
                typer.echo(f"judged {done:,} of {total:,}", err=True)

        yield line
        return
    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("judging", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _option(role: str) -> str:
    return f"--{role.replace('_', '-')}"
