"""What a stage asks an OpenAI-compatible server: every answer is on disk before it is used, and none is paid for twice.

WORK/answers/rank-0.jsonl    the answers, as in inference/completion_cache.py
WORK/answered-0              a byte for each of them: whoever runs the stage sees that it gets on

A request is known by its model, messages and parameters, the seed among them: never by its place among others. So a stage
that failed, was stopped or killed asks only for what is lacking, and with the same answers in hand comes to the same texts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_hpc.config.creator import OpenAIEvolver
from eva_hpc.config.reward import OpenAIScorer
from eva_hpc.inference.engine import Message
from eva_hpc.inference.server_environment import api_key, base_url
from eva_hpc.stages.contract import Context, StageFailed, StageUnavailable

if TYPE_CHECKING:
    from eva_hpc.inference.completion_cache import Record
    from eva_hpc.inference.openai_client import ApiFailure, Completion

_LEAVE_S = 5.0
"""Seconds that leaving takes once no request is waited for any more."""
_KEPT = "what was answered is kept, and the same command asks only for the rest"


class Answer(NamedTuple):
    """The text of an answer; or None, and the problem in words that are the same for all of its kind, with details."""

    text: str | None
    problem: str = ""
    detail: str = ""


class Server:
    """A server, with what it has answered this stage so far, in earlier attempts too."""

    def __init__(self, settings: OpenAIScorer | OpenAIEvolver, context: Context) -> None:
        from eva_hpc.inference.completion_cache import CompletionCache

        self._settings = settings
        self._context = context
        self._base_url = base_url(settings)
        self._name = f"{settings.model} at {self._base_url}"
        self._cache = CompletionCache(context.work / "answers", writer=f"rank-{context.rank}")
        self._mark = context.work / f"answered-{context.rank}"
        self._has_answered = False

    def ask(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[Answer]:
        """The next turn of every conversation, each with a seed of its own.

        An answer without text, and a refusal that is about one request alone (e.g. HTTP 400, 413, 422), are that one's problem.

        Raises:
            StageFailed: the server refuses all requests, or cannot be used.
            StageUnavailable: it gave no answer to some requests within all attempts, but may another time.
            Interrupted: the stage was told to stop.
        """
        from eva_hpc.inference.completion_cache import completion_key

        wanted = [(messages, self._parameters(seed)) for messages, seed in zip(conversations, seeds, strict=True)]
        keys = [completion_key(self._settings.model, messages, parameters, 0) for messages, parameters in wanted]
        outcomes: dict[str, Record | ApiFailure] = dict(self._cache.find(keys))
        self._has_answered = self._has_answered or bool(outcomes)
        missing = {key: want for key, want in zip(keys, wanted, strict=True) if key not in outcomes}
        if missing:
            outcomes |= self._send(missing)
        answers = [_answer(outcomes[key]) for key in keys]
        # Once a server has answered, the client takes 403 to be about one request; it may also be a key that holds no more.
        if len(answers) > 1 and all(answer.detail.startswith("HTTP 403") for answer in answers):
            raise StageFailed(f"{self._name} refuses all {len(answers)} requests: {answers[0].detail}; {_KEPT}")
        return answers

    def _parameters(self, seed: int) -> dict[str, Any]:
        settings = self._settings
        return {"temperature": settings.temperature, "max_tokens": settings.max_new_tokens, "seed": seed}

    def _send(self, wanted: Mapping[str, tuple[Sequence[Message], Mapping[str, Any]]]) -> dict[str, Record | ApiFailure]:
        """The outcome of every request, by key; answers are kept as they come."""
        from eva_hpc.inference.openai_client import (
            ApiFailure,
            ChatRequest,
            RetryPolicy,
            ServerGone,
            ServerRefuses,
            UnusableServer,
            chat,
        )

        keys = list(wanted)
        outcomes: dict[str, Record | ApiFailure] = {}

        def received(index: int, outcome: Completion | ApiFailure) -> None:
            key = keys[index]
            outcomes[key] = outcome if isinstance(outcome, ApiFailure) else self._keep(key, *wanted[key], outcome)

        call = chat(
            self._base_url,
            self._settings.model,
            api_key(self._settings),
            [ChatRequest(*want) for want in wanted.values()],
            received,
            concurrency=self._settings.concurrency,
            retry=RetryPolicy(drain_s=max(1.0, self._context.grace_s - _LEAVE_S)),
            stop=self._context.stop,
            say=_say,
            proven=self._has_answered,
        )
        try:
            asyncio.run(call)
        except ServerRefuses as error:
            raise StageFailed(f"{self._name} refuses all requests: {error}; {_KEPT}") from None
        except UnusableServer as error:
            raise StageFailed(f"{self._name} cannot be asked: {error}") from None
        except ServerGone as error:
            why = f"{error.failure.reason}: {error.failure.detail}"
            raise StageUnavailable(f"{self._name} does not answer: {why}; {_KEPT}") from None
        if lost := [one for one in outcomes.values() if isinstance(one, ApiFailure) and one.transient]:
            why = f"{lost[0].reason}: {lost[0].detail}"
            count = f"{len(lost)} of {len(wanted)} requests"
            raise StageUnavailable(f"{count} to {self._name} got no answer, the first: {why}; {_KEPT}")
        return outcomes

    def _keep(self, key: str, messages: Sequence[Message], parameters: Mapping[str, Any], completion: Completion) -> Record:
        from eva_hpc.inference.completion_cache import Record, json_sha256

        record = Record(
            key=key,
            model=self._settings.model,
            parameters=parameters,
            repeat=0,
            messages_sha256=json_sha256(list(messages)),
            served_model=completion.model,
            system_fingerprint=completion.system_fingerprint,
            usage=completion.usage,
            choice=completion.choice,
            time=time.time(),
        )
        self._cache.add(record)
        self._has_answered = True
        with self._mark.open("ab") as file:
            file.write(b".")
        return record


def _answer(outcome: Record | ApiFailure) -> Answer:
    from eva_hpc.inference.openai_client import ApiFailure, text_of

    if isinstance(outcome, ApiFailure):
        # Half of a surrogate pair can stand in JSON, but in no file of what is set aside.
        return Answer(None, outcome.reason, outcome.detail.encode(errors="replace").decode())
    text = text_of(outcome.choice)
    if not text.strip():
        return Answer(None, "empty", f"the completion has no text, finish reason {outcome.choice.get('finish_reason')}")
    return Answer(text)


def _say(line: str) -> None:
    print(line, flush=True)
