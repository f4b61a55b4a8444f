"""The official files of questions and outputs: JSON lists of instruction and output.

{"dataset": "koala", "instruction": "Name three …", "output": "Three …", "generator": "gpt4_1106_preview"}

The evaluation set is such a file: the baseline's outputs. A question's id is the hash of its instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.benchmarks.judging.protocol import JudgedQuestion, ModelAnswer
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.seeds import content_id


def read_questions(path: Path) -> list[JudgedQuestion]:
    """The questions of an evaluation set with the baseline's answers; the category is the dataset that a question is from.

    Raises:
        ConfigError: the file cannot be read, an instruction is missing or there twice, or the baseline has no answer to it.
    """
    questions = []
    for number, row in enumerate(_read(path), start=1):
        if not isinstance(row["output"], str):
            raise ConfigError(f"{path}:row {number}: the baseline's output is null; must be text")
        questions.append(
            JudgedQuestion(
                id=content_id(row["instruction"]),
                category=str(row.get("dataset") or ""),
                turns=[row["instruction"]],
                baseline=[row["output"]],
                baseline_model=str(row.get("generator") or "baseline"),
                reference=None,
            )
        )
    return questions


def with_baseline(questions: list[JudgedQuestion], path: Path) -> list[JudgedQuestion]:
    """The questions with another model's outputs to compare with, from a file in the format of outputs.

    Raises:
        ConfigError: the file cannot be read, or has no output for a question.
    """
    answers = {answer["question_id"]: answer for answer in read_answers(path)}
    changed = []
    for question in questions:
        answer = answers.get(question["id"])
        if answer is None or answer["turns"][0] is None:
            raise ConfigError(f"{path}: has no output for the instruction {question['turns'][0][:60]!r}")
        changed.append({**question, "baseline": [answer["turns"][0]], "baseline_model": answer["model"]})
    return changed  # type: ignore[return-value]


def read_answers(path: Path) -> list[ModelAnswer]:
    """A model's outputs as answers; a null output is an answer that the model could not give.

    Raises:
        ConfigError: as :func:`read_questions`, but null outputs are allowed.
    """
    return [
        ModelAnswer(
            question_id=content_id(row["instruction"]), model=str(row.get("generator") or "model"), turns=[row["output"]]
        )
        for row in _read(path)
    ]


def read_outputs(path: Path) -> dict[str, str | None]:
    """A model's outputs by instruction, in the order of the file. Raises what :func:`read_answers` raises."""
    return {row["instruction"]: row["output"] for row in _read(path)}


def answer_rows(answers: Iterable[ModelAnswer], questions: Iterable[JudgedQuestion]) -> list[Row]:
    """Answers as rows of model_outputs.json, in the order of the questions.

    A question without an answer gets no row: the official tool joins by instruction, and would judge a null as the text "None".

    Raises:
        ConfigError: an answer is to none of the questions.
    """
    known: Mapping[str, JudgedQuestion] = {question["id"]: question for question in questions}
    given: dict[str, Row] = {}
    for answer in answers:
        question = known.get(answer["question_id"])
        if question is None:
            raise ConfigError(f"answer to question {answer['question_id']}, which is not among the {len(known)} questions")
        if answer["turns"][0] is not None:
            given[question["id"]] = {
                "dataset": question["category"],
                "instruction": question["turns"][0],
                "output": answer["turns"][0],
                "generator": answer["model"],
            }
    return [given[name] for name in known if name in given]


def _read(path: Path) -> list[Row]:
    rows = read_rows(path, needs=("instruction", "output"))
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["instruction"], str) or not isinstance(row["output"], str | None):
            raise ConfigError(f"{path}:row {number}: instruction must be text, and output text or null")
        if (first := seen.setdefault(row["instruction"], number)) != number:
            raise ConfigError(f"{path}:row {number}: the instruction of row {first} again; each must be there once")
    return rows
