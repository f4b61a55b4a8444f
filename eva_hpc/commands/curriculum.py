"""``eva-hpc curriculum FILE``: what the prompts of a sweep are like, round by round, as data files and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands import asking
from eva_hpc.commands.options import WORK_FAILED, File, NoSharing, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from collections.abc import Callable

    from eva_hpc.config.benchmark import Judge
    from eva_hpc.plan.plan import Plan
    from eva_hpc.report.curriculum.collect import Collector
    from eva_hpc.report.curriculum.judging import Ratings

_SHOWN = 5
_FIGURES = (".pdf", ".png")


def curriculum(
    file: File,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    embedder: Annotated[
        Optional[str],  # noqa: UP045 - typer reads it at run time
        typer.Option("--embedder", metavar="MODEL", help="a model of sentence-transformers; default: the words of prompts"),
    ] = None,
    topics: Annotated[int, typer.Option("--topics", min=2, help="clusters of prompts, for the shift of topics")] = 20,
    judge: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--judge", metavar="MODEL", help="rates complexity and quality of a sample of the prompts"),
    ] = None,
    judged: Annotated[int, typer.Option("--judged", min=1, help="prompts of each set that the judge rates")] = 100,
    base_url: asking.BaseUrl = None,
    api_key_env: asking.ApiKeyEnv = "OPENAI_API_KEY",
    parameter: asking.Parameters = [],  # noqa: B006
    concurrency: asking.Concurrency = 16,
    cache: asking.CacheFolder = None,
    price: asking.PriceOption = None,
    dry_run: asking.DryRun = False,
) -> None:
    """Write length, complexity, diversity, topic shift, rewards and informativeness of base and evolved prompts, per round.

    Works on what is there and says what is not. Exit codes: 0 written, 1 nothing is there yet or the judge cannot be used or
    reached, 2 a mistake in what was asked, 130 interrupted.
    """
    with told_plainly():
        from eva_hpc.config.errors import ConfigError
        from eva_hpc.report.curriculum.collect import Collector
        from eva_hpc.report.curriculum.embeddings import open_embedder
        from eva_hpc.report.curriculum.write import write_curriculum
        from eva_hpc.request import Request, open_request

        if dry_run and judge is None:
            raise ConfigError("--dry-run: says what a judge would cost; needs --judge")
        sweep = open_request(Request(file, site, recipe, tuple(set_), quick, sharing=not no_sharing))
        vectors = open_embedder(embedder)
        collector = Collector(sweep.store)
        ratings: Ratings = {}
        rated = "no judge was asked (--judge MODEL): judged_complexity and judged_quality are empty"
        if judge is not None:
            asked_of = asking.judge_of(judge, base_url, api_key_env, parameter, 1, concurrency, price)
            ratings = _ratings(sweep.plan, collector, judged, asked_of, cache, dry_run, typer.echo)
            rated = f"{judge}, at most {judged} prompts of each set, {sum(map(len, ratings.values())):,} rated"
        if dry_run:
            return
        folder = sweep.results / "curriculum"
        paths = write_curriculum(sweep.plan, collector, vectors, topics, ratings, rated, sweep.experiment.recipe.name, folder)
        missing = list(collector.missing)
        if missing:
            typer.echo(f"{len(missing):,} things are not there yet, among them:", err=True)
            for what in missing[:_SHOWN]:
                typer.echo(f"  {what}", err=True)
        if not paths:
            typer.echo("There are no prompts yet: nothing was written. eva-hpc sweep makes them.", err=True)
            raise typer.Exit(WORK_FAILED)
        for path in paths:
            if path.suffix not in _FIGURES:
                typer.echo(path)
        typer.echo(f"{sum(path.suffix == '.pdf' for path in paths)} figures, each as PDF and PNG, are in {folder}")


def _ratings(
    plan: Plan,
    collector: Collector,
    count: int,
    judge: Judge,
    cache_folder: Path | None,
    dry_run: bool,
    say: Callable[[str], None],
) -> Ratings:
    """Ratings of a sample of every set; none of a dry run. A prompt in several sets is asked about once.

    Raises:
        ConfigError: the environment has no key.
        typer.Exit: the judge cannot be used or reached; the message is on stderr, answers are kept.
    """
    from eva_hpc.benchmarks.judging.consult import JudgeUnfit, JudgeUnreachable, consult, probe
    from eva_hpc.benchmarks.judging.cost import describe_usage, estimate
    from eva_hpc.benchmarks.judging.servers import server_of
    from eva_hpc.benchmarks.official.data_folder import data_folder
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.inference.completion_cache import CompletionCache
    from eva_hpc.inference.server_environment import key_problem
    from eva_hpc.report.curriculum.collect import parts_of
    from eva_hpc.report.curriculum.judging import PromptRating, items_of, ratings_of, sample

    sources = {part.pair.inputs[role] for run in plan.runs for part in parts_of(plan, run) for role in part.roles}
    samples = {source: sample(collector.prompts(source) or [], count) for source in sources}
    prompts = {prompt["id"]: prompt for of_set in samples.values() for prompt in of_set}
    items = items_of(prompts[name] for name in sorted(prompts))
    rating, server, prices = PromptRating(), server_of(judge), asking.price_of(judge)
    cache = CompletionCache(cache_folder.expanduser() if cache_folder else data_folder().parent / "judge_cache")
    before = estimate(rating, items, server, cache, price=prices)
    say(before.describe())
    if dry_run or not items:
        return {}
    if before.calls and (problem := key_problem(judge)):
        raise ConfigError(problem)
    try:
        probed = probe(rating, items, server, cache, say=say)
        result = consult(rating, items, server, cache, judge=judge.model, probed=probed, say=say)
    except (JudgeUnreachable, JudgeUnfit) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WORK_FAILED) from None
    for note in (*probed.notes, *result.warnings):
        say(f"note: {note}")
    say(describe_usage(result.asked, result.from_cache, prices))
    rated = ratings_of(result.rows)
    return {
        source: {prompt["id"]: rated[prompt["id"]] for prompt in of_set if prompt["id"] in rated}
        for source, of_set in samples.items()
    }
