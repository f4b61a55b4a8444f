"""Reward models that run here: a conversation gets a reward, or two responses to a prompt a preference.

Stages call it, through the protocols below; torch, transformers and vLLM load only when a model is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from eva_hpc.config.reward import ArmoRM, PairRM, SequenceClassification
from eva_hpc.inference.engine import EngineLimits, Message


class RewardModel(Protocol):
    """A loaded reward model. `truncated` counts the conversations that were too long and lost the beginning of their prompt."""

    truncated: int

    def score(self, conversations: Sequence[Sequence[Message]], alive: Callable[[], None]) -> Sequence[float | None]:
        """The reward of every conversation, each ending with the assistant's turn: the raw logit, without a sigmoid.

        None where too little of the conversation fits into the model. All of them are sorted by length, so more of them at once
        pad less; `alive` is called after every batch.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses a conversation.
        """
        ...

    def close(self) -> None:
        """Give back the memory of the model."""
        ...


class PairwiseModel(Protocol):
    """A loaded pairwise reward model. `truncated` counts the prompts and responses that lost their end."""

    truncated: int

    def compare(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], alive: Callable[[], None]
    ) -> list[list[list[float]]]:
        """For every prompt the k x k matrix of P(response i is better than j): 1/2 on the diagonal, P(i, j) + P(j, i) = 1.

        Every entry depends on its own two responses only: the first k responses have the matrix's corner. `alive` is called
        after every batch.
        """
        ...

    def close(self) -> None:
        """Give back the memory of the model."""
        ...


def open_reward_model(settings: SequenceClassification | ArmoRM, limits: EngineLimits) -> RewardModel:
    """Load a reward model on the engine that its settings name.

    Raises:
        ValueError: the folder holds another kind of model.
        OSError: the model is not there.
    """
    if isinstance(settings, ArmoRM):
        from eva_hpc.inference.reward_models.armorm import ArmoRMRewardModel

        return ArmoRMRewardModel(settings, limits)
    from eva_hpc.inference.reward_models import classification

    if settings.engine == "vllm":
        return classification.VllmRewardModel(settings, limits)
    return classification.TransformersRewardModel(settings, limits)


def open_pairwise_model(settings: PairRM, limits: EngineLimits) -> PairwiseModel:
    """Load a pairwise reward model.

    Raises:
        ValueError: the folder holds another kind of model.
        OSError: the model is not there.
    """
    from eva_hpc.inference.reward_models.pairrm import PairRMModel

    return PairRMModel(settings, limits)
