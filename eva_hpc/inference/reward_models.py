"""Scalar reward models: a sequence-classification model with one logit reads a conversation and gives a reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from eva_hpc.inference.chat import ChatTokenizer
from eva_hpc.inference.engine import EngineLimits, Message, ModelSource
from eva_hpc.inference.loading import attention_implementation, load_config

if TYPE_CHECKING:
    from eva_hpc.config.recipe import SequenceClassification


class RewardModel(Protocol):
    """A loaded reward model. `truncated` counts the conversations that were too long and lost the beginning of their prompt."""

    truncated: int

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """The reward of every conversation, each ending with the assistant's turn: the raw logit, without a sigmoid.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses a conversation.
        """
        ...

    def close(self) -> None:
        """Give back the memory of the model."""
        ...


def open_reward_model(settings: SequenceClassification, limits: EngineLimits) -> RewardModel:
    """Load a reward model on the engine that its settings name.

    Raises:
        ValueError: the model does not have exactly one logit.
        OSError: the model is not there.
    """
    return VllmRewardModel(settings, limits) if settings.engine == "vllm" else TransformersRewardModel(settings, limits)


class _Renderer:
    """Conversations to tokens in the reward model's own chat template, cut to its length."""

    def __init__(self, settings: SequenceClassification) -> None:
        self.model = ModelSource(settings.path, settings.revision, settings.dtype)
        self.config = load_config(self.model)
        if self.config.num_labels != 1:
            raise ValueError(f"{settings.path} has {self.config.num_labels} logits: a scalar reward model has exactly 1")
        self._chat = ChatTokenizer(self.model)
        own = self.config.get_text_config().max_position_embeddings
        self._max_length = min(settings.max_length, own)

    def render(self, conversations: Sequence[Sequence[Message]]) -> tuple[list[list[int]], int]:
        """Tokens of every conversation, and how many were cut. A leading BOS survives: scores without it mean nothing."""
        rows, cut = [], 0
        for conversation in conversations:
            row = self._chat.render(conversation, add_generation_prompt=False)
            if len(row) > self._max_length:
                cut += 1
                first = row[:1] if row[0] == self._chat.tokenizer.bos_token_id and self._max_length > 1 else []
                row = first + row[len(row) - self._max_length + len(first) :]
            rows.append(row)
        return rows, cut


class TransformersRewardModel:
    """Scores in right-padded batches of similar length; equal to scoring one by one, up to floating-point noise."""

    def __init__(self, settings: SequenceClassification, limits: EngineLimits) -> None:
        """Load the model, on the GPU if there is one. Raises as :func:`open_reward_model`."""
        import torch
        from transformers import AutoModelForSequenceClassification

        torch.set_num_threads(limits.threads)
        self.truncated = 0
        self._renderer = _Renderer(settings)
        config = self._renderer.config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(
            settings.path,
            revision=settings.revision,
            config=config,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=attention_implementation(config, "sdpa"),
        )
        self._model.to(self._device).eval()
        self._batch_tokens = limits.batch_tokens

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """See :class:`RewardModel`."""
        import torch

        rows, cut = self._renderer.render(conversations)
        self.truncated += cut
        rewards = [0.0] * len(rows)
        text_config = self._model.config.get_text_config()
        own_pad = text_config.pad_token_id
        with torch.inference_mode():
            for batch in _length_sorted(rows, self._batch_tokens):
                # transformers reads the logit at the last token that is not the padding token. A model without one is read
                # at the very last token, so any id will do that no row ends with.
                pad = own_pad if own_pad is not None else _unused(rows[i][-1] for i in batch)
                text_config.pad_token_id = pad
                width = len(rows[batch[0]])
                ids = torch.tensor([rows[i] + [pad] * (width - len(rows[i])) for i in batch])
                lengths = torch.tensor([len(rows[i]) for i in batch])
                mask = (torch.arange(width) < lengths.unsqueeze(1)).long()
                logits = self._model(
                    input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
                ).logits
                for i, reward in zip(batch, logits[:, 0].float().tolist(), strict=True):
                    rewards[i] = reward
        text_config.pad_token_id = own_pad
        return rewards

    def close(self) -> None:
        """See :class:`RewardModel`."""
        import torch

        self._model = None
        torch.cuda.empty_cache()


class VllmRewardModel:
    """Scores with vLLM's classification runner."""

    def __init__(self, settings: SequenceClassification, limits: EngineLimits) -> None:
        """Start vLLM. Raises as :func:`open_reward_model`."""
        from eva_hpc.inference.vllm_engine import VllmProcess

        self.truncated = 0
        self._renderer = _Renderer(settings)
        own = self._renderer.config.get_text_config().max_position_embeddings
        self._process = VllmProcess(
            self._renderer.model, limits, runner="pooling", max_model_len=min(settings.max_length, limits.max_model_len or own)
        )

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """See :class:`RewardModel`.

        Raises:
            ValueError: a conversation ends with the padding token; transformers would read the logit before it, vLLM at it.
        """
        from vllm import PoolingParams

        rows, cut = self._renderer.render(conversations)
        self.truncated += cut
        pad = self._renderer.config.get_text_config().pad_token_id
        if any(row[-1] == pad for row in rows):
            raise ValueError(
                f"{self._renderer.model.path} ends conversations with its padding token: use the transformers engine"
            )
        if not rows:
            return []
        # vLLM would return sigmoid(logit) otherwise.
        outputs = self._process.llm.classify(
            [{"prompt_token_ids": row} for row in rows], pooling_params=PoolingParams(use_activation=False), use_tqdm=False
        )
        return [float(output.outputs.probs[0]) for output in outputs]

    def close(self) -> None:
        """See :class:`RewardModel`."""
        self._process.close()


def _length_sorted(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows in batches, longest first, each of at most `batch_tokens` tokens with padding (or of one row)."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    while order:
        size = max(1, batch_tokens // len(rows[order[0]]))
        yield order[:size]
        order = order[size:]


def _unused(tokens: Iterator[int]) -> int:
    """The smallest id that is not among `tokens`."""
    taken = set(tokens)
    return next(i for i in range(len(taken) + 1) if i not in taken)
