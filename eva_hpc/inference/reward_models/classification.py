"""Reward models of one logit, e.g. Skywork-Reward: a sequence-classification head on the last token of the conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eva_hpc.config.reward import SequenceClassification
from eva_hpc.inference.engine import EngineLimits, Message, ModelSource
from eva_hpc.inference.loading import attention_implementation
from eva_hpc.inference.reward_models.rows import Renderer, length_sorted, load_network, nothing, right_padded


def _renderer(settings: SequenceClassification) -> Renderer:
    source = ModelSource(settings.path, settings.revision, settings.dtype, trust_remote_code=settings.trust_remote_code)
    renderer = Renderer(source, settings.max_length)
    if renderer.config.num_labels != 1:
        raise ValueError(f"{settings.path} has {renderer.config.num_labels} logits: a scalar reward model has exactly 1")
    return renderer


_AT_ONCE = 256
"""Conversations that vLLM reads between two signs of life."""


class TransformersRewardModel:
    """Scores in right-padded batches of similar length; equal to scoring one by one, up to floating-point noise."""

    def __init__(self, settings: SequenceClassification, limits: EngineLimits) -> None:
        """Load the model, on the GPU if there is one.

        Raises:
            ValueError: the model does not have exactly one logit.
            OSError: the model is not there.
        """
        import torch
        from transformers import AutoModelForSequenceClassification

        torch.set_num_threads(limits.threads)
        self.truncated = 0
        self._renderer = _renderer(settings)
        config = self._renderer.config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = load_network(
            AutoModelForSequenceClassification,
            self._renderer.model,
            config=config,
            trust_remote_code=settings.trust_remote_code,
            attn_implementation=attention_implementation(config, "sdpa"),
        ).to(self._device)
        self._batch_tokens = limits.batch_tokens

    def score(self, conversations: Sequence[Sequence[Message]], alive: Callable[[], None] = nothing) -> list[float]:
        """See :class:`~eva_hpc.inference.reward_models.RewardModel`."""
        import torch

        rendered = self._renderer.render(conversations)
        self.truncated += sum(row.removed > 0 for row in rendered)
        rows = [row.tokens for row in rendered]
        rewards = [0.0] * len(rows)
        text_config = self._model.config.get_text_config()
        own_pad = text_config.pad_token_id
        with torch.inference_mode():
            for batch in length_sorted(rows, self._batch_tokens):
                # transformers reads the logit at the last token that is not the padding token. A model without one is read
                # at the very last token, so any id will do that no row ends with.
                pad = own_pad if own_pad is not None else _unused(rows[i][-1] for i in batch)
                text_config.pad_token_id = pad
                ids, mask = right_padded([rows[i] for i in batch], pad)
                logits = self._model(
                    input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
                ).logits
                for i, reward in zip(batch, logits[:, 0].float().tolist(), strict=True):
                    rewards[i] = reward
                alive()
        text_config.pad_token_id = own_pad
        return rewards

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.reward_models.RewardModel`."""
        import torch

        self._model = None
        torch.cuda.empty_cache()


class VllmRewardModel:
    """Scores with vLLM's classification runner."""

    def __init__(self, settings: SequenceClassification, limits: EngineLimits) -> None:
        """Start vLLM. Raises as :class:`TransformersRewardModel`."""
        from eva_hpc.inference.vllm_engine import VllmProcess

        self.truncated = 0
        self._renderer = _renderer(settings)
        own = self._renderer.config.get_text_config().max_position_embeddings
        self._process = VllmProcess(
            self._renderer.model, limits, runner="pooling", max_model_len=min(settings.max_length, limits.max_model_len or own)
        )

    def score(self, conversations: Sequence[Sequence[Message]], alive: Callable[[], None] = nothing) -> list[float]:
        """See :class:`~eva_hpc.inference.reward_models.RewardModel`.

        Raises:
            ValueError: a conversation ends with the padding token; transformers would read the logit before it, vLLM at it.
        """
        from vllm import PoolingParams

        rendered = self._renderer.render(conversations)
        self.truncated += sum(row.removed > 0 for row in rendered)
        pad = self._renderer.config.get_text_config().pad_token_id
        if any(row.tokens[-1] == pad for row in rendered):
            raise ValueError(
                f"{self._renderer.model.path} ends conversations with its padding token: use the transformers engine"
            )
        if not rendered:
            return []
        # vLLM would return sigmoid(logit) otherwise.
        logits: list[float] = []
        for start in range(0, len(rendered), _AT_ONCE):
            outputs = self._process.llm.classify(
                [{"prompt_token_ids": row.tokens} for row in rendered[start : start + _AT_ONCE]],
                pooling_params=PoolingParams(use_activation=False),
                use_tqdm=False,
            )
            logits += [float(output.outputs.probs[0]) for output in outputs]
            alive()
        return logits

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.reward_models.RewardModel`."""
        self._process.close()


def _unused(tokens: Iterator[int]) -> int:
    """The smallest id that is not among `tokens`."""
    taken = set(tokens)
    return next(i for i in range(len(taken) + 1) if i not in taken)
