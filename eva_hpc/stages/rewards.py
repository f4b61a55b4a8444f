"""The reward of a recipe as a function: pointwise ones of conversations, pairwise ones of prompts with their responses.

A model is loaded at the first call: a resumed stage with nothing left to do loads none. After every batch that it has read the
stage shows that it lives, as the answers of a server do that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from eva_hpc.config.reward import (
    ArmoRM,
    Ensemble,
    LabChecker,
    OpenAIScorer,
    PairRM,
    Reward,
    SequenceClassification,
    is_pairwise,
    model_paths,
)
from eva_hpc.stages.chunks import SignOfLife
from eva_hpc.stages.contract import Context, Parallel, StageFailed
from eva_hpc.stages.engines import limits
from eva_hpc.stages.server import Server
from eva_hpc.stages.unchanged import check_unchanged

_AT_ONCE = 2048
"""Texts that are in memory as tokens, up to what one prompt needs: those that are sorted by length together."""
_NO_PROBLEMS: Mapping[int, str] = MappingProxyType({})

Item = TypeVar("Item")


class Conversation(NamedTuple):
    """One conversation to score: its messages, the last one the assistant's, and whether that was finished."""

    messages: list[dict[str, str]]
    finished: bool


class Candidates(NamedTuple):
    """A prompt and the responses to compare, each with whether it was finished."""

    prompt: str
    responses: list[tuple[str, bool]]


class Rated(NamedTuple):
    """A reward for each conversation, or None where there is none; `cut` texts were too long for the model and lost a part.

    `problems` say why there is none, by the index of the conversation.
    """

    rewards: list[float | None]
    cut: int = 0
    problems: Mapping[int, str] = _NO_PROBLEMS


class Compared(NamedTuple):
    """A k x k matrix for each prompt, P(response i is better than j); `cut` as in :class:`Rated`."""

    preferences: list[list[list[float]]]
    cut: int = 0


Rate = Callable[[Sequence[Conversation]], Rated]
Compare = Callable[[Sequence[Candidates]], Compared]


def parallel_of(reward: Reward) -> Parallel:
    """A model is sharded; rules and requests to a server need one process."""
    return "shards" if model_paths(reward) else "one"


def asks_servers_alone(reward: Reward) -> bool:
    """Whether a server, or several, give the whole reward."""
    members = reward.members if isinstance(reward, Ensemble) else (reward,)
    return all(isinstance(member, OpenAIScorer) for member in members)


def check_models(reward: Reward, fingerprint: str, fingerprints: Sequence[str], context: Context) -> None:
    """Compare models with the plan: `fingerprint` is the hash of the only model, `fingerprints` of several, in their order.

    Raises:
        StageFailed: one is not the one planned with any more.
    """
    if context.rank == 0:
        for (_, path), planned in zip(model_paths(reward), fingerprints or [fingerprint], strict=False):
            check_unchanged(path, planned)


def open_reward(reward: Reward, context: Context) -> Rate:
    """A pointwise reward as a function of conversations that end with an answer.

    The function raises :class:`StageFailed` when a reward is not a finite number (JSON has no such numbers) or a server refuses
    all requests, and :class:`StageUnavailable` when a server does not answer now.

    Raises:
        StageFailed: the reward is pairwise: it has none for one response alone.
    """
    if is_pairwise(reward):
        raise StageFailed(f"found the pairwise reward {reward.kind}, which has no reward for an answer alone; use another")
    if isinstance(reward, Ensemble):
        return _ensemble(reward, [open_reward(member, context) for member in reward.members])
    if isinstance(reward, LabChecker):
        return _by_checker(reward)
    if isinstance(reward, OpenAIScorer):
        return _by_server(reward, context)
    assert isinstance(reward, SequenceClassification | ArmoRM)
    return _by_model(reward, context)


def open_preferences(reward: Reward, context: Context) -> Compare:
    """A pairwise reward as a function of prompts with their responses.

    The function raises :class:`StageFailed` when a preference is not a number.

    Raises:
        StageFailed: the reward is pointwise.
    """
    if isinstance(reward, PairRM):
        return _by_pairwise_model(reward, context)
    if isinstance(reward, LabChecker) and reward.pairwise:
        return _by_pairwise_checker(reward)
    raise StageFailed(f"found the pointwise reward {reward.kind}, which compares no responses; use pairrm")


# ---------------------------------------------------------------------------- the lab's checker


def _by_checker(checker: LabChecker) -> Rate:
    from eva_hpc.lab.checker import checker_reward

    def rate(conversations: Sequence[Conversation]) -> Rated:
        return Rated(
            [
                checker_reward(
                    checker,
                    [message["content"] for message in messages if message["role"] == "user"],
                    [message["content"] for message in messages if message["role"] == "assistant"],
                    finished,
                )
                for messages, finished in conversations
            ]
        )

    return rate


def _by_pairwise_checker(checker: LabChecker) -> Compare:
    from eva_hpc.lab.checker import checker_reward, preference

    def compare(candidates: Sequence[Candidates]) -> Compared:
        matrices = []
        for prompt, responses in candidates:
            rewards = [checker_reward(checker, [prompt], [text], finished) for text, finished in responses]
            matrices.append([[preference(one, other) for other in rewards] for one in rewards])
        return Compared(matrices)

    return compare


# ---------------------------------------------------------------------------- models


def _by_model(reward: SequenceClassification | ArmoRM, context: Context) -> Rate:
    from eva_hpc.inference.reward_models import RewardModel, open_reward_model

    models: list[RewardModel] = []
    alive = SignOfLife(context)

    def rate(conversations: Sequence[Conversation]) -> Rated:
        if not models:
            models.append(open_reward_model(reward, limits(context)))
        before = models[0].truncated
        rewards: list[float | None] = []
        for piece in _pieces(conversations, lambda _: 1):
            rewards += models[0].score([messages for messages, _ in piece], alive)
        _check_finite(reward.path, "rewards", rewards)
        problems = {index: "too little of it fits into the model" for index, one in enumerate(rewards) if one is None}
        return Rated(rewards, models[0].truncated - before, problems)

    return rate


def _by_pairwise_model(reward: PairRM, context: Context) -> Compare:
    from eva_hpc.inference.reward_models import PairwiseModel, open_pairwise_model

    models: list[PairwiseModel] = []
    alive = SignOfLife(context)

    def compare(candidates: Sequence[Candidates]) -> Compared:
        if not models:
            models.append(open_pairwise_model(reward, limits(context)))
        before = models[0].truncated
        matrices: list[list[list[float]]] = []
        for piece in _pieces(candidates, lambda one: len(one.responses) * (len(one.responses) - 1)):
            matrices += models[0].compare(
                [prompt for prompt, _ in piece], [[text for text, _ in responses] for _, responses in piece], alive
            )
        _check_finite(reward.path, "preferences", [value for matrix in matrices for row in matrix for value in row])
        return Compared(matrices, models[0].truncated - before)

    return compare


def _pieces(items: Sequence[Item], texts: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in order, in pieces of at most `_AT_ONCE` texts, or of one item; `texts` counts those of an item."""
    piece: list[Item] = []
    held = 0
    for item in items:
        if piece and held + texts(item) > _AT_ONCE:
            yield piece
            piece, held = [], 0
        piece.append(item)
        held += texts(item)
    if piece:
        yield piece


def _check_finite(path: str, what: str, values: Sequence[float | None]) -> None:
    if bad := [value for value in values if value is not None and not math.isfinite(value)]:
        raise StageFailed(f"{path} gave {len(bad)} of {len(values)} {what} that are no finite numbers: try dtype float32")


# ---------------------------------------------------------------------------- a server


def _by_server(scorer: OpenAIScorer, context: Context) -> Rate:
    from eva_hpc.stages.ratings import ratings

    server = Server(scorer, context)

    def rate(conversations: Sequence[Conversation]) -> Rated:
        rated = ratings(server, [messages for messages, _ in conversations], scorer.repeats)
        problems = {index: one.problem for index, one in enumerate(rated) if one.value is None}
        return Rated([one.value for one in rated], problems=problems)

    return rate


# ---------------------------------------------------------------------------- several


def _ensemble(reward: Ensemble, members: Sequence[Rate]) -> Rate:
    weights = reward.weights or (1.0,) * len(members)

    def combined(values: Iterable[float | None]) -> float | None:
        weighted = []
        for weight, value in zip(weights, values, strict=True):
            if value is None:
                return None
            weighted.append(weight * value)
        return min(weighted) if reward.combine == "min" else math.fsum(weighted) / math.fsum(weights)

    def rate(conversations: Sequence[Conversation]) -> Rated:
        rated = [member(conversations) for member in members]
        each = zip(*(one.rewards for one in rated), strict=True)
        problems = {index: problem for one in reversed(rated) for index, problem in one.problems.items()}
        return Rated([combined(values) for values in each], sum(one.cut for one in rated), problems)

    return rate
