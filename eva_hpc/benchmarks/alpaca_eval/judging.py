"""What AlpacaEval's judge is asked about an output, and the row of annotations that its reply makes.

The prompt is the official template file, in which <|im_start|>role … <|im_end|> separates the messages and {instruction},
{output_1}, {output_2} stand for texts. Official settings: one token, temperature 1, its five likeliest alternatives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from eva_hpc.benchmarks.alpaca_eval import preference
from eva_hpc.benchmarks.files import Row, read_text
from eva_hpc.benchmarks.judging.protocol import Ask, JudgedQuestion, Message, ModelAnswer, Reply
from eva_hpc.config.errors import ConfigError

Labels = Literal["logprobs", "text"]
PLACEHOLDERS = ("instruction", "output_1", "output_2")
PARAMETERS: Mapping[str, Any] = {"max_tokens": 1, "temperature": 1, "top_p": 1, "logprobs": True, "top_logprobs": 5}

_MESSAGE = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")


def read_template(path: Path) -> tuple[Message, ...]:
    """The messages of a prompt template, with their placeholders.

    Raises:
        ConfigError: it cannot be read, has no messages, or lacks a placeholder or has it twice.
    """
    text = read_text(path)
    messages = tuple({"role": role.strip(), "content": content.strip()} for role, content in _MESSAGE.findall(text))
    if not messages:
        raise ConfigError(f"{path}: has no message; must be of the form <|im_start|>role … <|im_end|>")
    found = [name for message in messages for name in _PLACEHOLDER.findall(message["content"])]
    if sorted(found) != sorted(PLACEHOLDERS):
        wanted = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ConfigError(
            f"{path}: found {', '.join(f'{{{name}}}' for name in found) or 'no placeholder'}; must have {wanted} once"
        )
    return messages


class AlpacaEvalJudging:
    """The official judge's prompt and reading, for any judge.

    Args:
        template: of :func:`read_template`.
        parameters: of the chat completion, in place of those in PARAMETERS.
        both_orders: ask a second time with the outputs traded; the preference is the mean of the two.
        labels: "logprobs" reads the first token's probabilities, as officially; "text" takes the label that the judge wrote
            as 1 or 2, for a server without log-probabilities.
    """

    def __init__(
        self,
        template: Sequence[Message],
        parameters: Mapping[str, Any] | None = None,
        both_orders: bool = False,
        labels: Labels = "logprobs",
    ) -> None:
        """See the class."""
        self.template = tuple(template)
        self.both_orders = both_orders
        self.labels = labels
        self.parameters = {**PARAMETERS, **(parameters or {})}
        if labels == "text":
            self.parameters = {name: value for name, value in self.parameters.items() if "logprobs" not in name}

    def asks(self, question: JudgedQuestion, answer: ModelAnswer) -> list[Ask]:
        """One request, or two with both orders; none for a missing answer or one that equals the baseline's."""
        baseline, output = _baseline(question), answer["turns"][0]
        if output is None or output == baseline:
            return []
        slots = (output, baseline) if preference.is_switched(question["turns"][0]) else (baseline, output)
        asks = [self._ask("official order", question, *slots)]
        return [*asks, self._ask("other order", question, *reversed(slots))] if self.both_orders else asks

    def again(self, ask: Ask, reply: Reply) -> Ask | None:
        """Never: a reply without a label stays without one, as officially."""
        return None

    def rows(self, question: JudgedQuestion, answer: ModelAnswer, replies: Sequence[Reply], judge: str) -> list[Row]:
        """One row. With both orders it has "orders", the preference from each, and "consistent": they name the same winner."""
        instruction, output = question["turns"][0], answer["turns"][0]
        row: Row = {
            "instruction": instruction,
            "output_1": _baseline(question),
            "generator_1": question["baseline_model"],
            "dataset": question["category"],
            "output_2": output,
            "generator_2": answer["model"],
            "annotator": judge,
            "preference": None,
            "price_per_example": None,
            "time_per_example": None,
            "raw_completion": None,
            "status": "judged",
            "detail": None,
            "labels": self.labels,
            "replies": [asdict(reply) for reply in replies],
        }
        if output is None:
            return [row | {"status": "no_answer", "detail": "the model gave no answer"}]
        if output == row["output_1"]:
            return [row | {"preference": preference.TIE, "status": "identical", "detail": "both outputs are equal"}]
        failures = [reply.failure for reply in replies if reply.failure is not None]
        if failures or not replies:
            return [row | {"status": "failed", "detail": failures[0] if failures else "the judge was not asked"}]
        row["raw_completion"] = _official(replies[0])
        if len(replies) > 1:
            row["raw_completion_other_order"] = _official(replies[1])
        problems = [problem for reply in replies if (problem := self.problem(reply))]
        if problems:
            return [row | {"status": "unparsed", "detail": problems[0]}]
        orders = preference.of_orders([self._slot_preference(reply) for reply in replies], instruction)
        row["preference"] = sum(orders) / len(orders)
        if len(orders) > 1:
            row |= {"orders": orders, "consistent": (orders[0] - preference.TIE) * (orders[1] - preference.TIE) >= 0}
        return [row]

    def problem(self, reply: Reply) -> str | None:
        """Why a reply says nothing about the outputs; None if it does."""
        if reply.failure is not None:
            return reply.failure
        if not math.isnan(self._slot_preference(reply)):
            return None
        if self.labels == "text":
            return f"wrote {reply.text[:80]!r}; must be m or M"
        tokens = preference.first_tokens(reply.choice)
        if not tokens:
            return (
                "no log-probabilities of the first token: use a server that gives them, or the label it writes (labels: text)"
            )
        return f"neither m nor M among the likeliest first tokens: {', '.join(repr(token) for token in tokens)}"

    def _slot_preference(self, reply: Reply) -> float:
        if self.labels == "text":
            return preference.label_preference(reply.text)
        return preference.slot_preference(reply.choice)

    def _ask(self, name: str, question: JudgedQuestion, first: str, second: str) -> Ask:
        texts = {"instruction": question["turns"][0], "output_1": first, "output_2": second}
        return Ask(
            name=name,
            # all placeholders at once: a text that contains one, or the marks of a message, is a text like any other
            messages=tuple(
                {"role": message["role"], "content": _PLACEHOLDER.sub(lambda found: texts[found[1]], message["content"])}
                for message in self.template
            ),
            parameters=self.parameters,
        )


def _baseline(question: JudgedQuestion) -> str:
    if not question["baseline"]:
        raise ConfigError(f"question {question['id']} has no baseline output to compare with")
    return question["baseline"][0]


def _official(reply: Reply) -> Row:
    """The first choice in the official shape, from which the preference can be computed again."""
    tokens = reply.prompt_tokens + reply.completion_tokens
    given = {name: reply.choice.get(name) for name in ("finish_reason", "index", "logprobs", "message")}
    return {**given, "text": reply.text, "total_tokens": tokens}
