"""What the judge of MT-Bench is asked: single-answer grading, once for each turn, with FastChat's prompts.

The prompts are read from the official judge_prompts.jsonl. Turn 1 is judged alone; for turn 2 the judge sees the whole
conversation. Math, reasoning and coding have prompts with a reference answer. Answers are shown as they stand in the answer
file, outer white space too: FastChat strips answers when it generates them, not when they are judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.benchmarks.judging.protocol import Ask, JudgedQuestion, ModelAnswer, Reply
from eva_hpc.benchmarks.mt_bench.questions import NEED_REFERENCE, check_references, official_id
from eva_hpc.benchmarks.mt_bench.rating import API_ERROR, FAILED, rating
from eva_hpc.config.errors import ConfigError

MAX_TOKENS = 2048
"""Of a judgment."""

_FIRST = {"question", "answer"}
_SECOND = {"question_1", "question_2", "answer_1", "answer_2"}
_PROMPTS: Mapping[str, set[str]] = {  # name -> what may be filled in
    "single-v1": _FIRST,
    "single-math-v1": _FIRST | {"ref_answer_1"},
    "single-v1-multi-turn": _SECOND,
    "single-math-v1-multi-turn": _SECOND | {"ref_answer_1", "ref_answer_2"},
}


class _Prompt(NamedTuple):
    system: str
    template: str


class MTBench:
    """A judged benchmark (:class:`eva_hpc.benchmarks.judging.protocol.JudgedBenchmark`).

    Args:
        prompts: the official judge_prompts.jsonl, or one with prompts of the same names.
        reference_model: who gave the reference answers; written to the rows that were judged with one.
        max_tokens: of a judgment; a judge that thinks aloud needs more.

    Raises:
        ConfigError: a prompt is missing or has an unknown field.
    """

    def __init__(self, prompts: Path, reference_model: str | None = None, max_tokens: int = MAX_TOKENS) -> None:
        self.reference_model = reference_model
        self.max_tokens = max_tokens
        self.prompts = _read_prompts(prompts)

    def asks(self, question: JudgedQuestion, answer: ModelAnswer) -> list[Ask]:
        """One request for each turn that can be judged.

        Raises:
            ConfigError: the category needs a reference answer and there is none.
        """
        return [
            Ask(
                name=f"turn {turn}",
                messages=self._messages(question, answer, turn),
                parameters={"temperature": 0, "max_tokens": self.max_tokens},
            )
            for turn in _judged_turns(question, answer)
        ]

    def again(self, ask: Ask, reply: Reply) -> Ask | None:
        """MT-Bench asks once."""
        return None

    def rows(self, question: JudgedQuestion, answer: ModelAnswer, replies: Sequence[Reply], judge: str) -> list[Row]:
        """One row for each turn of the question, in FastChat's format but for the time stamp, which no number needs."""
        asked = dict(zip(_judged_turns(question, answer), replies, strict=True))
        return [self._row(question, answer, turn, asked.get(turn), judge) for turn in range(1, len(question["turns"]) + 1)]

    def problem(self, reply: Reply) -> str | None:
        """No answer, or none with a rating."""
        if reply.failure is not None:
            return reply.failure
        if rating(reply.text) is not None:
            return None
        if reply.choice.get("finish_reason") == "length":
            return f"no rating within {self.max_tokens} tokens: the judgment was cut off"
        return f"no rating such as [[5]] in {_shortened(reply.text)!r}"

    def _row(self, question: JudgedQuestion, answer: ModelAnswer, turn: int, reply: Reply | None, judge: str) -> Row:
        score, detail = None, None if reply is None else self.problem(reply)
        if reply is None:
            status, judgment, detail = "no_answer", "", f"the model gave no answer to turn {turn}"
        elif reply.failure is not None:
            status, judgment = "failed", API_ERROR
        else:
            score, judgment = rating(reply.text), reply.text
            status = "unparsed" if score is None else "judged"
        row: Row = {
            "question_id": official_id(question["id"]),
            "model": answer["model"],
            "judge": [judge, _prompt_name(question, turn)],
            "user_prompt": "" if reply is None else self._messages(question, answer, turn)[-1]["content"],
            "judgment": judgment,
            "score": FAILED if score is None else score,
            "turn": turn,
            "status": status,
            "detail": detail,
            "repeat": 0,
            "replies": [] if reply is None else [asdict(reply)],
        }
        if question["category"] in NEED_REFERENCE:
            row["reference"] = self.reference_model
        return row

    def _messages(self, question: JudgedQuestion, answer: ModelAnswer, turn: int) -> tuple[dict[str, str], ...]:
        check_references([question])
        prompt = self.prompts[_prompt_name(question, turn)]
        fields = {f"ref_answer_{number}": text for number, text in enumerate(question["reference"] or [], start=1)}
        if turn == 1:
            fields |= {"question": question["turns"][0], "answer": _text(answer, 1)}
        else:
            fields |= {f"question_{number}": text for number, text in enumerate(question["turns"], start=1)}
            fields |= {"answer_1": _text(answer, 1), "answer_2": _text(answer, 2)}
        user = {"role": "user", "content": prompt.template.format(**fields)}  # braces within the fields stay as they are
        return ({"role": "system", "content": prompt.system}, user) if prompt.system else (user,)


def _prompt_name(question: JudgedQuestion, turn: int) -> str:
    name = "single-math-v1" if question["category"] in NEED_REFERENCE else "single-v1"
    return name if turn == 1 else f"{name}-multi-turn"


def _judged_turns(question: JudgedQuestion, answer: ModelAnswer) -> list[int]:
    """Turns with an answer; a turn after one without an answer cannot be shown to the judge."""
    turns = []
    for turn, text in enumerate(answer["turns"][: len(question["turns"])], start=1):
        if text is None:
            break
        turns.append(turn)
    return turns


def _text(answer: ModelAnswer, turn: int) -> str:
    text = answer["turns"][turn - 1]
    assert text is not None  # _judged_turns
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"… {text[-80:]}"


def _read_prompts(path: Path) -> Mapping[str, _Prompt]:
    rows = {row["name"]: row for row in read_rows(path, needs=("name",))}
    lacking = [name for name in _PROMPTS if name not in rows]
    if lacking:
        raise ConfigError(f"{path}: has no prompt {', '.join(lacking)}; found {', '.join(map(str, rows))}")
    return {name: _prompt(f"{path}: {name}", rows[name], allowed) for name, allowed in _PROMPTS.items()}


def _prompt(place: str, row: Row, allowed: set[str]) -> _Prompt:
    system, template = row.get("system_prompt"), row.get("prompt_template")
    if not isinstance(system, str) or not isinstance(template, str):
        raise ConfigError(f"{place}: must have the texts system_prompt and prompt_template")
    try:
        found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{place}: prompt_template: {error}") from None
    if found != allowed:
        wrong = f"found the fields {', '.join(sorted(found)) or 'none'}; must have {', '.join(sorted(allowed))}"
        raise ConfigError(f"{place}: prompt_template: {wrong}")
    return _Prompt(system, template)
