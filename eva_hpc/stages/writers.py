"""Whoever writes text on request in a round: the current policy, another model run here, or a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

from eva_hpc.config.creator import ModelEvolver, OpenAIEvolver, PolicyEvolver
from eva_hpc.inference.engine import ModelSource, Request, Sampling
from eva_hpc.stages.contract import Context
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.server import Answer, Server
from eva_hpc.stages.unchanged import check_unchanged

Written = Answer
"""What came of a request to a writer."""

Write = Callable[[Sequence[str], Sequence[int]], list[Written]]
"""From requests, and a seed for each, to answers in their order."""


@contextmanager
def open_writer(writer: PolicyEvolver | OpenAIEvolver, planned: str, policy: Path | None, context: Context) -> Iterator[Write]:
    """Someone to write to; a model is loaded at the first request, and what a server answers is kept at once.

    Args:
        writer: who.
        planned: fingerprint of a model in the plan.
        policy: artifact of the current policy, if that is the writer.
        context: of the stage.

    Writing to a server raises as :meth:`~eva_hpc.stages.server.Server.ask` does.

    Raises:
        StageFailed: the model is not the one planned with any more.
    """
    if isinstance(writer, OpenAIEvolver):
        server = Server(writer, context)
        yield lambda requests, seeds: _by_server(server, requests, seeds)
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


def _by_server(server: Server, requests: Sequence[str], seeds: Sequence[int]) -> list[Written]:
    answers = server.ask([_message(text) for text in requests], seeds)
    return [answer if answer.text is None else _readable(answer.text) for answer in answers]


def _readable(answer: str) -> Written:
    """An answer, unless it cannot be written to a file: half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        answer.encode()
    except UnicodeEncodeError:
        return Written(None, "not valid Unicode")
    return Written(answer)


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
