"""``eva-hpc score calibrate``: how far the numbers of a substitute judge are from published ones, in level and in rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from eva_hpc.commands import asking
from eva_hpc.commands.options import told_plainly
from eva_hpc.commands.score.calibration_screen import screen
from eva_hpc.commands.score.options import DEFAULT_COVERAGE, AsJson, Force, MinCoverage, answer
from eva_hpc.config.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from eva_hpc.benchmarks.calibration.numbers import How, ModelNumbers, Source
    from eva_hpc.benchmarks.calibration.published import Published
    from eva_hpc.benchmarks.judging.answer_files import Answered, Assignment
    from eva_hpc.benchmarks.judging.protocol import JudgedQuestion
    from eva_hpc.config import benchmark as sections

_Files = list[Path]
_File = Optional[Path]  # noqa: UP045 - typer reads it at run time


def calibrate(
    benchmark: asking.BenchmarkName,
    judgments: Annotated[_Files, typer.Option("--judgments", help="by the substitute judge; may be repeated")] = [],  # noqa: B006
    published: Annotated[_File, typer.Option("--published", help="CSV; default: the official leaderboard")] = None,
    official_judgments: Annotated[
        _Files, typer.Option("--official-judgments", help="of the same answers by the official judge; may be repeated")
    ] = [],  # noqa: B006
    judge: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--judge", metavar="MODEL", help="in place of --judgments: have answers judged by this model first"),
    ] = None,
    answers: Annotated[
        _Files, typer.Option("--answers", help="what --judge judges; may be repeated; default: those in the data folder")
    ] = [],  # noqa: B006
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
    difficulty: Annotated[_File, typer.Option("--difficulty", help="alpaca_eval: default: the official one")] = None,
    gamed: Annotated[_File, typer.Option("--gamed", help="alpaca_eval: default: the official one")] = None,
    difficulty_by: Annotated[
        Literal["position", "instruction"],
        typer.Option("--difficulty-by", help="alpaca_eval: by position, as published numbers were made, or by instruction"),
    ] = "position",
    min_coverage: MinCoverage = DEFAULT_COVERAGE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare a substitute judge with published numbers of the same models, in level and in rank.

    With --official-judgments also question by question.

    Exit codes: 0 compared, 1 a number was refused or the judge failed, 2 a mistake in what was asked, 130 interrupted.
    """
    with told_plainly():
        from eva_hpc.benchmarks.calibration.agreement import agreement
        from eva_hpc.benchmarks.calibration.by_question import question_agreement
        from eva_hpc.benchmarks.calibration.numbers import How, judge_of, numbers_of, read_judgments
        from eva_hpc.benchmarks.calibration.published import official_set_of, published_numbers

        if (judge is None) == (not judgments):
            raise ConfigError("give --judgments FILE …, or --judge MODEL to have answers judged: one of the two")
        notes: list[str] = []
        told: dict[str, Any] = {"benchmark": benchmark}
        lc_files = _length_control(benchmark, difficulty, gamed, notes)
        if judge is None:
            if edition is not None and benchmark != "arena_hard":
                raise ConfigError(f"--version: is for arena_hard only; found benchmark {benchmark}")
            _check_alone(
                answers=answers,
                base_url=base_url,
                parameter=parameter,
                repeats=repeats > 1,
                both_orders=both_orders,
                labels=labels != "logprobs",
                baseline=baseline,
                prompt=prompt,
                reference=reference,
                config=config,
                creative_baseline=creative_baseline,
                limit=limit,
                cache=cache,
                price=price,
                dry_run=dry_run,
            )
            sources = read_judgments(benchmark, judgments)
            known = published_numbers(benchmark, official_set_of(benchmark, sources, edition), published)
            how = How(_questions(benchmark, questions), *lc_files, difficulty_by, min_coverage, force)
        else:
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
            from eva_hpc.benchmarks.judging.answer_files import assignment
            from eva_hpc.config.benchmark import official_set

            known = published_numbers(benchmark, official_set(section), published)
            work = assignment(section)
            found = list(_answers(work, official_set(section), answers, known, notes))
            sources, more = _judged(work, found, asked_of, cache, dry_run, as_json, notes)
            told |= more
            if dry_run:
                if as_json:
                    answer(told, as_json, "", refused=False)
                return
            if work.beyond:
                notes.append(f"published numbers are of all questions, these of the first {len(work.questions)}")
            how = How(work.questions, *lc_files, difficulty_by, min_coverage, force)
        ours = numbers_of(benchmark, sources, how)
        official = read_judgments(benchmark, official_judgments)
        theirs = _official_numbers(benchmark, official, how, known, notes) if official else {}
        unmatched = [model for model in ours if model not in known.models]
        if len(unmatched) == len(ours):
            raise ConfigError(*(f"{known.path}: has no {one}{did_you_mean(one, known.models)}" for one in unmatched))
        metrics = {
            name: agreement(name, ours, values, theirs)
            for name, values in known.numbers.items()
            if any(name in one.metrics for one in ours.values())
        }
        told |= {
            "judge": judge_of(benchmark, sources[0][1][0]),
            "published_judge": known.judge,
            "published": str(known.path),
            "metrics": {name: found.to_json() for name, found in metrics.items()},
            "unmatched": unmatched,
            "published_only": [model for model in known.models if model not in ours],
            "questions": question_agreement(benchmark, sources, official) if official else None,
            "warnings": [*notes, *_warnings(ours, known)],
        }
        refused = any(one.ours is None for found in metrics.values() for one in found.models)
        answer(told, as_json, "" if as_json else screen(told, metrics, known.models), refused)


def _check_alone(**given: object) -> None:
    """Options that mean nothing without ``--judge``."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise ConfigError(f"{', '.join(names)}: only with --judge; found --judgments, which are judged already")


def _length_control(
    benchmark: str, difficulty: Path | None, gamed: Path | None, notes: list[str]
) -> tuple[Path | None, Path | None]:
    from eva_hpc.benchmarks.official.data_folder import official_or_none

    if (difficulty or gamed) and benchmark != "alpaca_eval":
        raise ConfigError(f"--difficulty, --gamed: are for alpaca_eval only; found benchmark {benchmark}")
    if benchmark != "alpaca_eval":
        return None, None
    if (difficulty is None) != (gamed is None):
        raise ConfigError("--difficulty and --gamed: the length-controlled win rate needs both")
    if difficulty is None:
        difficulty, gamed = (official_or_none("alpaca_eval", role) for role in ("difficulty", "gamed"))
    if difficulty is None or gamed is None:
        notes.append("no length-controlled win rate: its files are missing; eva-hpc data fetch alpaca_eval gets them")
        return None, None
    return difficulty, gamed


def _questions(benchmark: str, path: Path | None) -> list[JudgedQuestion] | None:
    """The questions that should have been judged."""
    from eva_hpc.benchmarks.registry import JUDGED

    return None if path is None else JUDGED[benchmark].questions("", {"questions": path})


def _answers(work: Assignment, set_: str, paths: Sequence[Path], known: Published, notes: list[str]) -> Iterator[Answered]:
    """Answers to judge, only of models with published numbers: others would cost money for nothing."""
    from eva_hpc.benchmarks.judging.answer_files import answered
    from eva_hpc.benchmarks.official.data_folder import answers

    at_hand = {} if paths else answers(set_)
    without = [model for model in at_hand if model not in known.models]
    if without:
        notes.append(f"not judged, as {known.path} has no number of them: {', '.join(without)}")
    chosen = list(paths) or [path for model, path in at_hand.items() if model in known.models]
    if not chosen:
        raise ConfigError(
            f"{set_}: no answers of models with published numbers are at hand; eva-hpc data fetch {set_} --calibration "
            "gets some, --answers FILE names others"
        )
    for path in chosen:
        one = answered(work, path)
        if one.model not in known.models:
            near = did_you_mean(one.model, known.models)
            raise ConfigError(f"{path}: are answers of {one.model}, of which {known.path} has no number{near}")
        yield one


def _judged(
    work: Assignment,
    found: Sequence[Answered],
    judge: sections.Judge,
    cache: Path | None,
    dry_run: bool,
    as_json: bool,
    notes: list[str],
) -> tuple[list[Source], dict[str, Any]]:
    """Have all answers judged in one go. Returns rows by model, and what to tell of it."""
    from eva_hpc.benchmarks.calibration.numbers import model_of
    from eva_hpc.benchmarks.judging.cost import describe_usage
    from eva_hpc.commands.judge import notes as notes_on
    from eva_hpc.commands.judge import served, spent

    def say(text: str) -> None:
        typer.echo(text, err=as_json)

    say(f"models: {', '.join(one.model for one in found)}")
    notes += [f"{one.model}: {line}" for one in found for line in notes_on(one)]
    asked = asking.ask(work, [item for one in found for item in one.items], judge, cache, dry_run, say)
    told: dict[str, Any] = {"estimate": asked.estimate.to_json()}
    if asked.consultation is None:
        return [], told
    say(describe_usage(asked.consultation.asked, asked.consultation.from_cache, asking.price_of(judge)))
    for line in served(asked.consultation):
        say(line)
    rows = asked.consultation.rows
    by_model = {one.model: [row for row in rows if model_of(work.section.kind, row) == one.model] for one in found}
    told["judging"] = asked.consultation.to_json() | {"notes": asked.notes, "price": spent(asked.consultation, judge)}
    return list(by_model.items()), told


def _official_numbers(
    benchmark: str, official: Sequence[Source], how: How, known: Published, notes: list[str]
) -> dict[str, ModelNumbers]:
    """Numbers from the official judge's own judgments, and a note where they are not the published ones."""
    from eva_hpc.benchmarks.calibration.agreement import SAME
    from eva_hpc.benchmarks.calibration.numbers import numbers_of

    found = numbers_of(benchmark, official, how)
    for model, one in found.items():
        for name, number in one.metrics.items():
            published = known.numbers.get(name, {}).get(model)
            if published is not None and number.value is not None and abs(number.value - published) > SAME:
                notes.append(f"{model}: the official judgments give {name} {number.value:.2f}, published is {published:.2f}")
    return found


def _warnings(ours: Mapping[str, ModelNumbers], known: Published) -> list[str]:
    """Each once, with the models that it is about."""
    about: dict[str, list[str]] = {}
    for model, one in ours.items():
        lacking = [name for name in one.metrics if model not in known.numbers.get(name, {})] if model in known.models else []
        for text in (*one.warnings, *(f"{known.path} has no {name} of it" for name in lacking)):
            about.setdefault(text, []).append(model)
    return [f"{', '.join(models) if len(models) < len(ours) else 'all models'}: {text}" for text, models in about.items()]
