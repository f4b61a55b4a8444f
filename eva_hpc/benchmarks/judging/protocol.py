"""What the three judged benchmarks have in common: questions, what to ask a judge about an answer, and rows of judgments.

Each benchmark is a folder with the same files:

* ``judging.py``: a class with the methods of :class:`JudgedBenchmark`
* ``score.py``: the official arithmetic from rows in the official format to numbers

A judgment row is a row of the official tool's own format, so that its scripts and viewers read our files, with keys added::

    "status"    "judged", "unparsed" (the judge answered, but gave no verdict), "failed" (no answer from the judge),
                "no_answer" (the policy gave none), "identical" (AlpacaEval: equal outputs tie without asking)
    "detail"    one line on what went wrong, or null
    "repeat"    0, 1, … where a judge was asked several times
    "replies"   of the judge, as :class:`Reply` in JSON: raw text, tokens, the model and fingerprint that the server named
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from eva_hpc.benchmarks.files import Row

Message = dict[str, str]


class JudgedQuestion(TypedDict):
    """A question of a judged benchmark.

    `baseline` are the turns of the model that answers are compared with (AlpacaEval, Arena-Hard), `reference` those of a
    reference answer that the judge is shown (MT-Bench: math, reasoning, coding); null where there is none.
    """

    id: str
    category: str
    turns: list[str]
    baseline: list[str] | None
    baseline_model: str | None
    reference: list[str] | None


class ModelAnswer(TypedDict):
    """A model's answer to a question: its turns; null for a turn that it could not answer."""

    question_id: str
    model: str
    turns: list[str | None]


@dataclass(frozen=True)
class Ask:
    """One request to a judge. `name` tells the requests about one answer apart, e.g. "game 1"; `parameters` are those of the
    chat completion API: temperature, max_tokens, logprobs, …"""

    name: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """What a judge's server answered to an :class:`Ask`, or why it did not: then `failure` says so, and the rest is empty.

    `choice` is the first choice of the chat completion as the server sent it, log-probabilities included; `earlier` the text of
    the reply to the first request, where this is the one to a second (:meth:`JudgedBenchmark.again`).
    """

    text: str = ""
    choice: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    system_fingerprint: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str | None = None
    earlier: str | None = None


class JudgedBenchmark(Protocol):
    """How one benchmark asks a judge about an answer, and what it reads from the replies."""

    def asks(self, question: JudgedQuestion, answer: ModelAnswer) -> list[Ask]:
        """What to ask; nothing where the row follows without a judge (no answer, equal outputs)."""
        ...

    def again(self, ask: Ask, reply: Reply) -> Ask | None:
        """A second request after a reply without a verdict, where the benchmark has one (Arena-Hard v0.1); else None."""
        ...

    def rows(self, question: JudgedQuestion, answer: ModelAnswer, replies: Sequence[Reply], judge: str) -> list[Row]:
        """Judgment rows in the official format; `replies` are in the order of :meth:`asks`, final ones where it asked again."""
        ...

    def problem(self, reply: Reply) -> str | None:
        """What a probe found wrong with a reply, e.g. "no log-probabilities", in words for the user; None if it is usable."""
        ...
