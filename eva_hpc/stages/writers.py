"""Whoever writes text on request in a round: the current policy, another model run here, or a server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eva_hpc.config.creator import ModelEvolver, OpenAIEvolver, PolicyEvolver
from eva_hpc.inference.engine import ModelSource, Request, Sampling
from eva_hpc.stages.contract import Context, StageFailed
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.unchanged import check_unchanged

if TYPE_CHECKING:
    from eva_hpc.inference.openai_client import ApiFailure

# What a server refuses because of the one request it is about; other refusals (no such model, no access) are about all of them.
_ONE_REQUEST = ("HTTP 400", "HTTP 413", "HTTP 422")


class Written(NamedTuple):
    """The text of an answer; or None, and the problem in words that are the same for all of its kind, with details."""

    text: str | None
    problem: str = ""
    detail: str = ""


Write = Callable[[Sequence[str], Sequence[int]], list[Written]]
"""From requests, and a seed for each, to answers in their order."""


@contextmanager
def open_writer(writer: PolicyEvolver | OpenAIEvolver, planned: str, policy: Path | None, context: Context) -> Iterator[Write]:
    """Someone to write to; a model is loaded at the first request.

    Args:
        writer: who.
        planned: fingerprint of a model in the plan.
        policy: artifact of the current policy, if that is the writer.
        context: of the stage.

    Raises:
        StageFailed: the model is not the one planned with any more.
    """
    if isinstance(writer, OpenAIEvolver):
        yield lambda requests, seeds: _by_server(writer, requests, seeds)
        return
    if isinstance(writer, ModelEvolver):
        if context.rank == 0:
            check_unchanged(writer.path, planned)
        model = ModelSource(path=writer.path, revision=writer.revision, dtype=writer.dtype)
    else:
        assert policy is not None, "a stage whose writer is the policy reads one"
        model = read_policy(policy)
    sampling = Sampling(writer.temperature, writer.top_p, writer.max_new_tokens)
    with LazyEngine(writer.engine, model, context) as lazy:
        yield lambda requests, seeds: _by_engine(lazy, sampling, requests, seeds)


def _by_engine(lazy: LazyEngine, sampling: Sampling, requests: Sequence[str], seeds: Sequence[int]) -> list[Written]:
    engine = lazy.get()
    asked = [Request(engine.render(_message(text)), (seed,)) for text, seed in zip(requests, seeds, strict=True)]
    fits = [len(request.prompt_tokens) < engine.longest for request in asked]
    answers = iter(engine.generate(list(compress(asked, fits)), sampling))
    return [
        _readable(next(answers)[0]["text"])
        if fit
        else Written(None, "too long for the writer", f"{len(request.prompt_tokens)} tokens with the instruction")
        for fit, request in zip(fits, asked, strict=True)
    ]


def _by_server(writer: OpenAIEvolver, requests: Sequence[str], seeds: Sequence[int]) -> list[Written]:
    from eva_hpc.inference.openai_client import ApiFailure, complete

    answers = asyncio.run(
        complete(
            writer.base_url,
            writer.model,
            os.environ.get(writer.api_key_env),
            [_message(text) for text in requests],
            temperature=writer.temperature,
            max_tokens=writer.max_new_tokens,
            concurrency=writer.concurrency,
            seeds=seeds,
        )
    )
    failures = [answer for answer in answers if isinstance(answer, ApiFailure)]
    if hopeless := [failure for failure in failures if not _is_about_one_request(failure)]:
        detail = f"{hopeless[0].reason}: {hopeless[0].detail}"
        raise StageFailed(f"{len(hopeless)} of {len(answers)} requests to {writer.base_url} failed: {detail}")
    return [
        Written(None, answer.reason, answer.detail) if isinstance(answer, ApiFailure) else _readable(answer)
        for answer in answers
    ]


def _is_about_one_request(failure: ApiFailure) -> bool:
    return failure.reason in ("malformed", "empty") or failure.detail.startswith(_ONE_REQUEST)


def _readable(answer: str) -> Written:
    """An answer, unless it cannot be written to a file: half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        answer.encode()
    except UnicodeEncodeError:
        return Written(None, "not valid Unicode")
    return Written(answer)


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
