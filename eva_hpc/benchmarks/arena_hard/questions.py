"""Questions and answers in both official layouts::

    question  v0.1  {"question_id", "category", "cluster", "turns": [{"content"}]}
              v2.0  {"uid", "category", "prompt"}
    answer    v0.1  {"question_id", "model_id", "choices": [{"turns": [{"content", "token_len"}]}], "conv_metadata"}
              v2.0  {"uid", "model", "messages": [{user}, {"role": "assistant", "content": {"answer"}}], "metadata"}

Answers are written in the layout of v2.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from eva_hpc.benchmarks.arena_hard.judgments import BASELINES, V01_CATEGORY
from eva_hpc.benchmarks.arena_hard.style import (
    ENCODINGS,
    Style,
    cached_file,
    estimated_tokens,
    has_encoding,
    markdown_counts,
    style_from,
    style_of,
    token_count,
)
from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.benchmarks.judging.protocol import JudgedQuestion, ModelAnswer
from eva_hpc.config.errors import ConfigError

ESTIMATED = (
    "tokens are estimated from characters, four to a token: the official tool counts with tiktoken's {encoding}, whose file is "
    "not at {file} (TIKTOKEN_CACHE_DIR names another folder)"
)


def read_questions(path: Path, answers: Iterable[Path] = (), baseline: str | None = None) -> list[JudgedQuestion]:
    """The questions of a file, with the baseline's answers.

    Args:
        path: question file in either layout.
        answers: answer files with the baselines' answers; without any, questions have no baseline.
        baseline: the model to compare with; by default the official one of each question's category, else the only model in
            `answers` unless that is the official one of another category.

    Raises:
        ConfigError: a file is in neither layout, an id stands twice, or the baseline has no answer to a question.
    """
    given: dict[str, dict[str, list[str | None]]] = {}
    for file in answers:
        for answer in read_answers(file):
            given.setdefault(answer["model"], {})[answer["question_id"]] = answer["turns"]
    questions: dict[str, JudgedQuestion] = {}
    for number, row in enumerate(read_rows(path), start=1):
        question = _question(row, f"{path}: row {number}")
        if question["id"] in questions:
            raise ConfigError(f"{path}: row {number}: question {question['id']} stands twice")
        if given:
            model = _baseline(question, given, baseline, path)
            turns = given[model].get(question["id"])
            if turns is None or any(turn is None for turn in turns):
                raise ConfigError(f"{path}: the baseline {model} has no answer to question {question['id']}")
            question["baseline_model"], question["baseline"] = model, [turn for turn in turns if turn is not None]
        questions[question["id"]] = question
    return list(questions.values())


def read_answers(path: Path) -> list[ModelAnswer]:
    """The answers of a file.

    Raises:
        ConfigError: a row is in neither layout.
    """
    return [_answer(row, f"{path}: row {number}") for number, row in enumerate(read_rows(path), start=1)]


def read_styles(paths: Iterable[Path], version: Version) -> tuple[dict[tuple[str, str], Style], list[str]]:
    """(model, question id) -> style of its answer, and what a reader must know of these.

    Styles are those of the answers' metadata where they have them, else counted from their texts. Where tokens would have to be
    counted and the encoding of the official tool is not at hand, those of all answers are estimated from their characters:
    style control only looks at how lengths compare.

    Raises:
        ConfigError: a row is in neither layout.
    """
    rows = [(f"{path}: row {number}", row) for path in paths for number, row in enumerate(read_rows(path), start=1)]
    told = [isinstance(row.get("conv_metadata") or row.get("metadata"), Mapping) for _, row in rows]
    uncounted = sum(not known and _token_len(row) is None for known, (_, row) in zip(told, rows, strict=True))
    estimated = bool(uncounted) and not has_encoding(version)
    styles = {}
    for known, (place, row) in zip(told, rows, strict=True):
        answer = _answer(row, place)
        text = answer["turns"][0] or ""
        if estimated:
            style = style_of(text, version, estimated_tokens(text))
        elif known:
            style = style_from(row.get("conv_metadata") or row["metadata"], place)
        else:
            style = style_of(text, version, _token_len(row))
        styles[answer["model"], answer["question_id"]] = style
    return styles, [ESTIMATED.format(encoding=ENCODINGS[version], file=cached_file(ENCODINGS[version]))] if estimated else []


def answer_rows(answers: Iterable[ModelAnswer], questions: Sequence[JudgedQuestion]) -> list[Row]:
    """Answers as rows of the v2.0 layout, with their style where tokens can be counted.

    An answer with a turn that the model did not give has no row, as in official files.
    """
    by_id = {question["id"]: question for question in questions}
    rows = []
    for answer in answers:
        question = by_id[answer["question_id"]]
        if any(turn is None for turn in answer["turns"]):
            continue
        messages: list[dict[str, Any]] = []
        for asked, said in zip(question["turns"], answer["turns"], strict=True):
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": {"answer": said}}]
        said = str(answer["turns"][-1])
        name = sha256("\x00".join([answer["model"], answer["question_id"], said]).encode()).hexdigest()[:22]
        row: Row = {"uid": answer["question_id"], "ans_id": name, "model": answer["model"], "messages": messages}
        version: Version = "v0.1" if question["category"] == V01_CATEGORY else "v2.0"
        if has_encoding(version):
            row["metadata"] = {"token_len": token_count(said, version), **markdown_counts(said)}
        rows.append(row)
    return rows


def _question(row: Row, place: str) -> JudgedQuestion:
    if "uid" in row and isinstance(row.get("prompt"), str):
        name, turns, category = row["uid"], [row["prompt"]], row.get("category") or "hard_prompt"
    elif "question_id" in row and isinstance(row.get("turns"), list):
        name, category = row["question_id"], row.get("category") or V01_CATEGORY
        turns = [turn.get("content") if isinstance(turn, Mapping) else turn for turn in row["turns"]]
    else:
        raise ConfigError(f"{place}: must have uid and prompt, or question_id and turns")
    if len(turns) != 1 or not isinstance(turns[0], str):
        raise ConfigError(f"{place}: turns: must be one text, or one object with a text as content")
    return JudgedQuestion(id=str(name), category=str(category), turns=turns, baseline=None, baseline_model=None, reference=None)


def _baseline(question: JudgedQuestion, given: Mapping[str, object], wanted: str | None, path: Path) -> str:
    official = wanted or BASELINES.get(question["category"])
    if official in given:
        return str(official)
    if wanted is None and len(given) == 1 and not set(given) & set(BASELINES.values()):  # not the baseline of another category
        return next(iter(given))
    name = wanted or official or "the baseline"
    raise ConfigError(f"{path}: no answer file has answers of {name}; found {', '.join(given)}")


def _answer(row: Row, place: str) -> ModelAnswer:
    try:
        if "uid" in row:
            said = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
            name, model, turns = row["uid"], row["model"], [c["answer"] if isinstance(c, Mapping) else c for c in said]
        else:
            name, model = row["question_id"], row["model_id"]
            turns = [turn["content"] for turn in row["choices"][0]["turns"]]
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"{place}: lacks {error}; must have uid, model and messages, or question_id, model_id and choices"
        ) from None
    if not turns or not all(turn is None or isinstance(turn, str) for turn in turns):
        raise ConfigError(f"{place}: the answer must be a text, or null")
    return ModelAnswer(question_id=str(name), model=str(model), turns=turns)


def _token_len(row: Row) -> int | None:
    """Older v0.1 answers have the number of tokens beside the text."""
    length = row["choices"][0]["turns"][0].get("token_len") if "choices" in row else None
    return length if isinstance(length, int) else None
