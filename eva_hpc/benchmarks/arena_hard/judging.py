"""Asking a judge about an Arena-Hard answer: two games against the baseline, each model being A once.

Rows are those of the official tool of the version, e.g. v0.1 ``{"question_id", "model", "judge", "games": [{"user_prompt",
"judgment", "score"}, …]}``. Added: "baseline", and "status", "detail" of the row and of
each game, "repeat", "replies", and the "follow_up" of a game where the judge was asked a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eva_hpc.benchmarks.arena_hard.judge_prompts import JudgePrompts
from eva_hpc.benchmarks.arena_hard.verdict import OUTCOMES, labels, parse
from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judging.protocol import Ask, JudgedQuestion, Message, ModelAnswer, Reply
from eva_hpc.config.errors import ConfigError

FOLLOW_UP = "Please go on from where you stopped, and end with one of the verdict labels."
"""Said to a judge that gave no verdict. The official sentence asks the same in other words; the prompt files do not have it."""

OWN_WORDING = "own wording"
"""What a game says under "follow_up" where the judge was asked a second time."""

_WORST_FIRST = ("no_answer", "failed", "unparsed", "judged")


class ArenaHard:
    """The judge's side of Arena-Hard, with the official prompts; `temperature` and `max_tokens` replace the official ones."""

    def __init__(self, prompts: JudgePrompts, temperature: float | None = None, max_tokens: int | None = None) -> None:
        self.prompts = prompts
        self.parameters: dict[str, Any] = {
            "temperature": prompts.temperature if temperature is None else temperature,
            "max_tokens": prompts.max_tokens if max_tokens is None else max_tokens,
        }

    def asks(self, question: JudgedQuestion, answer: ModelAnswer) -> list[Ask]:
        """Two games: first the baseline is A, then the model. Nothing where there is no answer.

        Raises:
            ConfigError: the question has no answer of a baseline.
        """
        if not _answered(answer):
            return []
        system = {"role": "system", "content": self.prompts.system_prompt(question["category"])}
        return [
            Ask(f"game {number}", (system, *messages), self.parameters)
            for number, messages in enumerate(self._games(question, answer), start=1)
        ]

    def again(self, ask: Ask, reply: Reply) -> Ask | None:
        """v0.1 asks a judge that gave no label at all once more; never one that gave several."""
        said = sum(message["role"] == "assistant" for message in ask.messages)
        if reply.failure is not None or labels(reply.text, self.prompts.patterns) or said + 1 >= self.prompts.attempts:
            return None
        more = ({"role": "assistant", "content": reply.text}, {"role": "user", "content": FOLLOW_UP})
        return Ask(f"{ask.name} again", (*ask.messages, *more), ask.parameters)

    def rows(self, question: JudgedQuestion, answer: ModelAnswer, replies: Sequence[Reply], judge: str) -> list[Row]:
        """One row with two games; a game without a verdict has score null."""
        user = self._games(question, answer) if _answered(answer) else [(), ()]
        results = [self._result(reply) for reply in replies] or [(None, "no_answer", "the model gave no answer")] * 2
        texts = ["\n".join(text for text in (reply.earlier, reply.text) if text) for reply in replies] or ["", ""]
        system = self.prompts.system_prompt(question["category"])
        v01 = self.prompts.version == "v0.1"
        games: list[Row] = []
        again = [reply.earlier is not None for reply in replies] or [False, False]
        for messages, text, asked_again, (score, status, detail) in zip(user, texts, again, results, strict=True):
            if v01:
                game: Row = {"user_prompt": messages[0]["content"] if messages else "", "judgment": f"\n{text}"}
            else:
                prompt = [{"role": "system", "content": system}, *messages] if messages else []
                game = {"judgment": {"answer": text}, "prompt": prompt}
            games.append({**game, "score": score, "status": status, "detail": detail})
            if asked_again:
                games[-1]["follow_up"] = OWN_WORDING
        worst = min(range(2), key=lambda number: _WORST_FIRST.index(results[number][1]))
        row: Row = {"question_id": question["id"]} if v01 else {"uid": question["id"], "category": question["category"]}
        return [
            {
                **row,
                "model": answer["model"],
                "judge": judge,
                "baseline": question["baseline_model"],
                "games": games,
                "status": results[worst][1],
                "detail": results[worst][2] and f"game {worst + 1}: {results[worst][2]}",
                "repeat": 0,
                "replies": [asdict(reply) for reply in replies],
            }
        ]

    def problem(self, reply: Reply) -> str | None:
        """Why a reply gives no verdict, with the end of its text; None if it gives one."""
        if reply.failure is not None:
            return reply.failure
        label = parse(reply.text, self.prompts.version, self.prompts.patterns)
        if label in OUTCOMES[self.prompts.version]:
            return None
        found = list(dict.fromkeys(labels(reply.text, self.prompts.patterns)))
        if label is not None:
            why = f"unknown label {label}"
        elif found:
            why = f"several labels: {', '.join(found)}"
        elif not reply.text.strip():
            why = "the text is empty"
        else:
            why = "no label such as [[A>B]]"
        if reply.choice.get("finish_reason") == "length":
            why += f"; cut off at max_tokens={self.parameters['max_tokens']}"
        return f"{why}; ends with …{reply.text.strip()[-60:]!r}" if reply.text.strip() else why

    def _result(self, reply: Reply) -> tuple[str | None, str, str | None]:
        """Score, status, detail."""
        if reply.failure is not None:
            return None, "failed", reply.failure
        score = parse(reply.text, self.prompts.version, self.prompts.patterns)
        problem = self.problem(reply)
        return score, "unparsed" if problem else "judged", problem

    def _games(self, question: JudgedQuestion, answer: ModelAnswer) -> list[tuple[Message, ...]]:
        """The user's messages of both games."""
        baseline = question["baseline"]
        if not baseline:
            raise ConfigError(f"question {question['id']}: has no answer of the baseline to compare with")
        asked, model_said, baseline_said = question["turns"][0], answer["turns"][0] or "", baseline[0]
        return [self._user(asked, baseline_said, model_said), self._user(asked, model_said, baseline_said)]

    def _user(self, asked: str, a: str, b: str) -> tuple[Message, ...]:
        if self.prompts.version == "v0.1":
            places = {"question_1": asked, "answer_1": a, "answer_2": b}
        else:
            places = {"QUESTION": asked, "ANSWER_A": a, "ANSWER_B": b}
        return tuple({"role": "user", "content": template.format(**places)} for template in self.prompts.templates)


def _answered(answer: ModelAnswer) -> bool:
    return all(turn is not None for turn in answer["turns"])
