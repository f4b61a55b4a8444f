"""ArmoRM: rewards for several objectives, weighted by what the prompt asks for (arXiv 2406.12845).

    r = W h(last token of the conversation)                 one reward for each objective (19 in the published model)
    g = softmax(MLP(h(end of the prompt)) / temperature)    their weights, times a learned scale
    reward = g · (r T)                                      T takes the verbosity out of the objectives

The network reads the published checkpoint by its parameter names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel

from eva_hpc.config.reward import ArmoRM
from eva_hpc.inference.engine import EngineLimits, Message, ModelSource
from eva_hpc.inference.loading import attention_implementation
from eva_hpc.inference.reward_models.rows import Renderer, Row, length_sorted, load_network, nothing, right_padded

_GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
"""Where the prompt ends: the weights depend on the hidden state at the first of these tokens."""


class Gating(nn.Module):
    """Weights of the objectives, from the hidden state at the prompt's end."""

    def __init__(self, hidden: int, objectives: int, width: int, depth: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise([hidden, *[width] * depth, objectives]))

    def forward(self, prompt: torch.Tensor) -> torch.Tensor:
        """From (rows, hidden) to (rows, objectives)."""
        *inner, last = self.layers
        for layer in inner:
            prompt = layer(prompt).relu()
        weights: torch.Tensor = self.logit_scale * torch.softmax(last(prompt) / self.temperature, dim=-1)
        return weights


class ArmoRMNetwork(LlamaPreTrainedModel):  # type: ignore[no-untyped-call]
    """Llama with a regression head on the conversation and a gating head on the prompt. The heads compute in float32."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        objectives = getattr(config, "num_objectives", 19)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.zeros(objectives, objectives), requires_grad=False)
        self.gating = Gating(
            config.hidden_size,
            objectives,
            getattr(config, "gating_hidden_dim", 1024),
            getattr(config, "gating_n_hidden", 3),
            getattr(config, "gating_temperature", 10),
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, last: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """The score of every row; `last` and `gate` are the positions that the two heads read."""
        hidden = self.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)
        objectives = self.regression_layer(hidden[rows, last].float())
        weights = self.gating(hidden[rows, gate].float())
        scores: torch.Tensor = (weights * (objectives @ self.reward_transform_matrix)).sum(dim=-1)
        return scores


class ArmoRMRewardModel:
    """Scores in right-padded batches of similar length; equal to scoring one by one, up to floating-point noise."""

    def __init__(self, settings: ArmoRM, limits: EngineLimits) -> None:
        """Load the model, on the GPU if there is one.

        Raises:
            ValueError: the checkpoint is another kind of model, or its tokenizer or chat template is not Llama 3's.
            OSError: the model is not there.
        """
        torch.set_num_threads(limits.threads)
        self.truncated = 0
        self._renderer = Renderer(ModelSource(settings.path, settings.revision, settings.dtype), settings.max_length)
        self._pattern = self._renderer.chat.tokenizer.encode(_GATE, add_special_tokens=False)
        probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        if self._gate(self._renderer.chat.render(probe, add_generation_prompt=False), probe) is None:
            raise ValueError(f"{settings.path}: its chat template does not begin an answer with {_GATE!r}, as ArmoRM's does")
        config = self._renderer.config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network: Any = load_network(
            ArmoRMNetwork, self._renderer.model, config=config, attn_implementation=attention_implementation(config, "sdpa")
        )
        for head in (self._network.regression_layer, self._network.gating):
            head.float()
        self._network.reward_transform_matrix.data = self._network.reward_transform_matrix.data.float()
        self._network.to(self._device)
        self._batch_tokens = limits.batch_tokens

    def score(self, conversations: Sequence[Sequence[Message]], alive: Callable[[], None] = nothing) -> list[float | None]:
        """See :class:`~eva_hpc.inference.reward_models.RewardModel`. None where the end of the prompt had to be cut off."""
        rendered = self._renderer.render(conversations)
        self.truncated += sum(row.removed > 0 for row in rendered)
        gates = [self._gate_in(row, conversation) for row, conversation in zip(rendered, conversations, strict=True)]
        usable = [i for i, gate in enumerate(gates) if gate is not None]
        rows = [rendered[i].tokens for i in usable]
        rewards: list[float | None] = [None] * len(rendered)
        with torch.inference_mode():
            for batch in length_sorted(rows, self._batch_tokens):
                ids, mask = right_padded([rows[i] for i in batch], 0)
                last = torch.tensor([len(rows[i]) - 1 for i in batch])
                gate = torch.tensor([gates[usable[i]] for i in batch])
                scores = self._network(*(tensor.to(self._device) for tensor in (ids, mask, last, gate)))
                for i, score in zip(batch, scores.tolist(), strict=True):
                    rewards[usable[i]] = score
                alive()
        return rewards

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.reward_models.RewardModel`."""
        self._network = None
        torch.cuda.empty_cache()

    def _gate_in(self, row: Row, conversation: Sequence[Message]) -> int | None:
        """Where the prompt ends in a row that may have been cut; None if that was cut off."""
        whole = self._renderer.chat.render(conversation, add_generation_prompt=False) if row.removed else row.tokens
        gate = self._gate(whole, conversation)
        if gate is None or row.kept <= gate < row.kept + row.removed:
            return None
        return gate - row.removed if gate >= row.kept else gate

    def _gate(self, tokens: list[int], conversation: Sequence[Message]) -> int | None:
        """Where the prompt ends: the last place of the pattern that is not in the answer.

        The published code takes the last place of all, so that an answer which spells the pattern chooses its own weights.
        """
        prompt = self._renderer.chat.render(conversation[:-1], add_generation_prompt=True)
        width = len(self._pattern)
        starts = range(min(len(prompt), len(tokens) - width + 1) - 1, -1, -1)
        return next((start for start in starts if tokens[start : start + width] == self._pattern), None)
