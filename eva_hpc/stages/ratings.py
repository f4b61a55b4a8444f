"""Ratings of answers by a model behind an OpenAI-compatible server.

An answer that no rating can be read from is one more reason to ask several times: it counts for nothing, and a conversation of
which no answer has a rating has none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_hpc.config.reward import OpenAIScorer
from eva_hpc.stages.contract import Context, StageFailed, StageUnavailable
from eva_hpc.store.seeds import derive_seed

if TYPE_CHECKING:
    from eva_hpc.inference.openai_client import ApiFailure, ChatRequest, Completion

_LEAVE_S = 5.0
"""Seconds that leaving takes once no request is waited for any more."""


def ratings(scorer: OpenAIScorer, conversations: Sequence[Sequence[dict[str, str]]], context: Context) -> list[float | None]:
    """The mean rating, from 1 to 10, of the last answer of each conversation; None where there is none.

    Raises:
        StageFailed: the server refuses all requests, or cannot be used.
        StageUnavailable: it does not answer.
        Interrupted: the stage was told to stop.
    """
    from eva_hpc.inference.openai_client import ChatRequest, Completion, text_of
    from eva_hpc.inference.reward_models.generative import mean_rating, request

    requests = []
    for messages in conversations:
        asked = request(messages)
        for repeat in range(scorer.repeats):
            seed = derive_seed("rating", asked[0]["content"], repeat)
            settings = {"temperature": scorer.temperature, "max_tokens": scorer.max_new_tokens, "seed": seed}
            requests.append(ChatRequest(asked, settings))
    texts = [text_of(one.choice) if isinstance(one, Completion) else "" for one in _ask(scorer, requests, context)]
    each = scorer.repeats
    return [mean_rating(texts[index * each : (index + 1) * each]) for index in range(len(conversations))]


def _ask(scorer: OpenAIScorer, requests: Sequence[ChatRequest], context: Context) -> list[Completion | ApiFailure]:
    """The outcome of every request: an `ApiFailure` is the server's refusal of that one, or an answer that is no completion."""
    from eva_hpc.inference.openai_client import (
        ApiFailure,
        RetryPolicy,
        ServerGone,
        ServerRefuses,
        UnusableServer,
        chat,
    )

    outcomes: dict[int, Completion | ApiFailure] = {}
    named = f"{scorer.model} at {scorer.base_url}"
    try:
        asyncio.run(
            chat(
                scorer.base_url,
                scorer.model,
                os.environ.get(scorer.api_key_env),
                requests,
                outcomes.__setitem__,
                concurrency=scorer.concurrency,
                retry=RetryPolicy(drain_s=max(1.0, context.grace_s - _LEAVE_S)),
                stop=context.stop,
                say=_say,
            )
        )
    except (ServerRefuses, UnusableServer) as error:
        raise StageFailed(f"{named} rates nothing: {error}") from None
    except ServerGone as error:
        raise StageUnavailable(f"{named} does not answer: {error}") from None
    if lost := [one for one in outcomes.values() if isinstance(one, ApiFailure) and one.transient]:
        detail = f"{lost[0].reason}: {lost[0].detail}"
        raise StageUnavailable(f"{len(lost)} of {len(requests)} requests to {named} got no answer: {detail}")
    return [outcomes[index] for index in range(len(requests))]


def _say(line: str) -> None:
    print(line, flush=True)
