"""MT-Bench's questions, reference answers and model answers, in FastChat's files.

{"question_id": 81, "category": "writing", "turns": ["Compose …", "Rewrite …"]}
{"question_id": 81, "answer_id": "x3F…", "model_id": "zephyr", "choices": [{"index": 0, "turns": ["Aloha! …", "A …"]}]}

A key `reference` in a question is not used, as FastChat does not: the judge is shown the answers of the reference file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.benchmarks.judging.protocol import JudgedQuestion, ModelAnswer
from eva_hpc.benchmarks.mt_bench.judgments import question_name
from eva_hpc.benchmarks.mt_bench.rating import API_ERROR
from eva_hpc.config.errors import ConfigError

NEED_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""Categories whose judge is shown a reference answer. Extraction, greedy too, is judged without one."""

MOST_TURNS = 2

WRONG_REFERENCES = ("104", "105", "109", "111", "113", "114", "120", "122", "124", "125", "126", "128", "130")
"""Questions whose official reference answer, by gpt-4, is wrong (FastChat, pull request 3158)."""


@dataclass(frozen=True)
class References:
    """Reference answers by question id, the model that gave them, and the file's sha256."""

    turns: Mapping[str, Sequence[str]]
    model: str
    sha256: str


def read_questions(path: Path, references: References | None = None) -> list[JudgedQuestion]:
    """The questions of a file, those of categories that need one with their reference answer.

    Raises:
        ConfigError: the file is malformed, an id stands twice, or, if `references` are given, one is missing.
    """
    questions: list[JudgedQuestion] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(read_rows(path, needs=("question_id", "category", "turns")), start=1):
        place = f"{path}: row {number}"
        name = question_name(place, row["question_id"])
        if name in seen:
            raise ConfigError(f"{place}: question_id {name} stands in row {seen[name]} too; must be unique")
        seen[name] = number
        turns = row["turns"]
        if not isinstance(turns, list) or not 1 <= len(turns) <= MOST_TURNS or not all(isinstance(t, str) and t for t in turns):
            raise ConfigError(f"{place}: turns: must be a list of one or two texts")
        category = str(row["category"])
        reference = references.turns.get(name) if references and category in NEED_REFERENCE else None
        questions.append(
            JudgedQuestion(
                id=name,
                category=category,
                turns=turns,
                baseline=None,
                baseline_model=None,
                reference=None if reference is None else list(reference),
            )
        )
    if references is not None:
        check_references(questions)
    return questions


def check_references(questions: Iterable[JudgedQuestion]) -> None:
    """Raise a ConfigError that names the questions which need a reference answer to each of their turns and have none."""
    lacking = [
        question["id"]
        for question in questions
        if question["category"] in NEED_REFERENCE and len(question["reference"] or []) < len(question["turns"])
    ]
    if lacking:
        raise ConfigError(
            f"no reference answer for question {', '.join(lacking)}; "
            f"must have one for each turn in the categories {', '.join(sorted(NEED_REFERENCE))}"
        )


def read_references(path: Path) -> References:
    """The reference answers of a file in the format of answers.

    Raises:
        ConfigError: the file is malformed, or has answers of several models.
    """
    answers = read_answers(path)
    models = list(dict.fromkeys(answer["model"] for answer in answers))
    if len(models) > 1:
        raise ConfigError(f"{path}: found answers of {', '.join(models)}; reference answers must be of one model")
    turns = {answer["question_id"]: [turn or "" for turn in answer["turns"]] for answer in answers}
    empty = [name for name, texts in turns.items() if not all(texts)]
    if empty:
        raise ConfigError(f"{path}: the reference answer to question {', '.join(empty)} has an empty turn")
    return References(turns=turns, model=models[0], sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def read_answers(path: Path) -> list[ModelAnswer]:
    """The first choice of each answer: FastChat judges no other. Of several rows of one model and question the last counts.

    The text that FastChat writes after an API failure is no answer: null.

    Raises:
        ConfigError: the file is malformed.
    """
    answers: dict[tuple[str, str], ModelAnswer] = {}
    for number, row in enumerate(read_rows(path, needs=("question_id", "model_id", "choices")), start=1):
        place = f"{path}: row {number}"
        name, model = question_name(place, row["question_id"]), str(row["model_id"])
        turns = [None if turn == API_ERROR else turn for turn in _first_choice(place, row["choices"])]
        answers[model, name] = ModelAnswer(question_id=name, model=model, turns=turns)
    return list(answers.values())


def _first_choice(place: str, choices: Any) -> list[str | None]:
    turns = choices[0].get("turns") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if not isinstance(turns, list) or not all(turn is None or isinstance(turn, str) for turn in turns):
        raise ConfigError(f'{place}: choices: must be like [{{"index": 0, "turns": ["…", "…"]}}]')
    return turns


def answer_rows(answers: Iterable[ModelAnswer]) -> list[Row]:
    """Answers in FastChat's format. The answer id is a hash of the answer: the same answer gives the same row."""
    return [
        {
            "question_id": official_id(answer["question_id"]),
            "answer_id": hashlib.sha256(repr((answer["model"], answer["question_id"], answer["turns"])).encode()).hexdigest()[
                :22
            ],
            "model_id": answer["model"],
            "choices": [{"index": 0, "turns": list(answer["turns"])}],
        }
        for answer in answers
    ]


def official_id(name: str) -> int | str:
    """The question id as the official files write it: a number where it is one."""
    return int(name) if name.isascii() and name.isdecimal() and str(int(name)) == name else name


def reference_warning(questions: Iterable[str], model: str | None) -> str | None:
    """One line if the judge was shown gpt-4's reference answers to questions where these are known to be wrong.

    Args:
        questions: ids of the judged questions.
        model: whose reference answers the judge was shown.
    """
    wrong = [name for name in WRONG_REFERENCES if name in set(questions)] if model == "gpt-4" else []
    if not wrong:
        return None
    return f"the judge was shown gpt-4's reference answers; those to questions {', '.join(wrong)} are known to be wrong"
