"""Ratings of answers by a model behind an OpenAI-compatible server.

An answer that no rating can be read from is one more reason to ask several times: it counts for nothing, and a conversation of
which no answer has a rating has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eva_hpc.inference.engine import Message
from eva_hpc.stages.server import Answer, Server
from eva_hpc.store.seeds import derive_seed

_SHOWN = 100
"""Characters from the end of an answer without a rating, to show what came in its place."""


class Rating(NamedTuple):
    """The mean rating, from 1 to 10; or None, and why there is none."""

    value: float | None
    problem: str = ""


def ratings(server: Server, conversations: Sequence[Sequence[Message]], repeats: int) -> list[Rating]:
    """The rating of the last answer of each conversation, which is asked for `repeats` times.

    Raises:
        StageFailed, StageUnavailable, Interrupted: as :meth:`~eva_hpc.stages.server.Server.ask`.
    """
    from eva_hpc.inference.reward_models.generative import request

    requests = [request(messages) for messages in conversations]
    answers = server.ask(
        [asked for asked in requests for _ in range(repeats)],
        [derive_seed("rating", asked[0]["content"], repeat) for asked in requests for repeat in range(repeats)],
    )
    return [_rating(answers[start : start + repeats]) for start in range(0, len(answers), repeats)]


def _rating(answers: Sequence[Answer]) -> Rating:
    from eva_hpc.inference.reward_models.generative import mean_rating

    value = mean_rating([answer.text or "" for answer in answers])
    return Rating(value, _problem(answers[0]) if value is None else "")


def _problem(answer: Answer) -> str:
    if answer.text is None:
        return f"{answer.problem}: {answer.detail}"
    return f"no rating from 1 to 10 in the answer that ends with {answer.text[-_SHOWN:]!a}"
