"""Judging files of answers outside a sweep: which official files go with them, what is asked, and the file of judgments."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judging.consult import Item
from eva_hpc.benchmarks.judging.protocol import JudgedBenchmark, JudgedQuestion, ModelAnswer
from eva_hpc.benchmarks.official import data_folder
from eva_hpc.benchmarks.registry import JUDGED
from eva_hpc.config import benchmark as config
from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.store.artifacts import write_atomically


@dataclass(frozen=True)
class Assignment:
    """What a judge is asked about: the questions, and how. `beyond` are ids of questions beyond the limit."""

    section: config.JudgedBenchmark
    files: Mapping[str, Path]
    questions: Sequence[JudgedQuestion]
    beyond: frozenset[str]
    judging: JudgedBenchmark


@dataclass(frozen=True)
class Answered:
    """One model's answers to the questions of an assignment.

    `items` has every question: `unanswered` of them with an answer of null turns. `set_aside` counts, by reason, answers that
    are not judged.
    """

    model: str
    items: list[Item]
    unanswered: int
    set_aside: Mapping[str, int]


def edition_of(section: config.JudgedBenchmark) -> str:
    """The version of Arena-Hard; "" for the others."""
    return section.version if isinstance(section, config.ArenaHard) else ""


def assignment(section: config.JudgedBenchmark) -> Assignment:
    """Read what a section of a recipe names, and the official files that it takes for the rest.

    Raises:
        ConfigError: a file is missing or malformed.
    """
    named: Mapping[str, str | None] = section.files.model_dump()
    official = config.official_roles(section)
    files: dict[str, Path] = {}
    problems: list[str] = []
    for role in ("questions", *config.JUDGED_WITH):
        if text := named.get(role):
            files[role] = Path(text).expanduser()
        elif role in official:
            try:
                files[role] = data_folder.official(config.official_set(section), role)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*problems)
    benchmark, edition = JUDGED[section.kind], edition_of(section)
    questions = benchmark.questions(edition, files)
    alpaca = section if isinstance(section, config.AlpacaEval) else config.AlpacaEval()
    return Assignment(
        section=section,
        files=files,
        questions=questions[: section.limit],
        beyond=frozenset(question["id"] for question in questions[len(questions[: section.limit]) :]),
        judging=benchmark.judging(edition, files, alpaca.both_orders, alpaca.labels),
    )


def answered(work: Assignment, path: Path, model: str | None = None) -> Answered:
    """The answers of one model in a file, question by question.

    Args:
        work: what is judged.
        path: answers in the benchmark's official format.
        model: whose answers to take; needed where the file has those of several.

    Raises:
        ConfigError: the file is malformed, has several models or not the named one, or answers none of the questions.
    """
    rows = JUDGED[work.section.kind].answers(path)
    models = Counter(row["model"] for row in rows)
    if model is None and len(models) > 1:
        raise ConfigError(f"{path}: has answers of several models: {', '.join(models)}; must be of one, or --model name it")
    if model is not None and model not in models:
        raise ConfigError(f"{path}: found no answers of {model!r}; has {', '.join(models)}{did_you_mean(model, models)}")
    model = model or next(iter(models))
    asked = {question["id"] for question in work.questions}
    given: dict[str, ModelAnswer] = {}
    aside: Counter[str] = Counter()
    for row in rows:
        name = row["question_id"]
        if row["model"] != model:
            aside[f"of {row['model']}"] += 1
        elif name in work.beyond:
            aside["to questions beyond the limit"] += 1
        elif name not in asked:
            aside["to none of the questions"] += 1
        else:
            aside["followed by another to the same question"] += name in given
            given[name] = row
    if not given:
        raise ConfigError(
            f"{path}: answers none of the {len(asked)} questions of {work.files['questions']}; "
            "must be answers to these, or --questions must name the others"
        )
    items: list[Item] = []
    for question in work.questions:
        none = ModelAnswer(question_id=question["id"], model=model, turns=[None] * len(question["turns"]))
        items.append((question, given.get(question["id"], none)))
    return Answered(model, items, len(asked) - len(given), {why: count for why, count in aside.items() if count})


def write_judgments(path: Path, rows: Sequence[Row]) -> None:
    """Write judgments, whole or not at all: a JSON list if the name ends in .json, else JSON lines; packed if it ends in .gz.

    Raises:
        OSError: the disk is full.
    """
    # Escaped to ASCII: half a surrogate pair in an answer must not lose the judgments.
    if path.name.removesuffix(".gz").endswith(".json"):
        text = json.dumps(rows, indent=2) + "\n"
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    content = text.encode("ascii")
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def scoring_command(work: Assignment, judgments: Path, model: str) -> list[str]:
    """The command line that makes numbers of a file of judgments."""
    kind = work.section.kind
    words = ["eva-hpc", "score", kind]
    if kind == "alpaca_eval":
        words += ["--annotations", str(judgments)]
        if "gamed" in config.official_roles(work.section):
            roles = {role: data_folder.official_or_none("alpaca_eval", role) for role in config.SCORED_WITH}
            if all(roles.values()):
                words += [word for role, path in roles.items() for word in (f"--{role}", str(path))]
    else:
        words += ["--judgments", str(judgments)]
    if kind == "arena_hard":
        words += ["--model", model]
    # Of official questions all count, not only those up to the limit.
    return [*words, "--force"] if work.beyond else [*words, "--questions", str(work.files["questions"])]
