"""Sums of completion log-probs without the logits of a whole batch in memory.

A vocabulary of 256,000 makes 1 GB of float32 logits of 1,000 tokens. Here only the positions that predict a completion token
are projected, a chunk of tokens at a time, and each chunk's logits are computed again in the backward pass instead of kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from eva_hpc.training.attention import TREE_ATTENTION
from eva_hpc.training.packing import Batch

CHUNK_ELEMENTS = 2**26
"""Logits in memory at once: 256 MB of float32."""

# Models that scale their logits after the head under these names would get wrong log-probs here.
_UNSUPPORTED = ("logit_scale", "logits_scaling", "lm_head_multiplier")


class CompletionHead(nn.Module):
    """Log-probs of target tokens from hidden states, with the weight of the language model's own head.

    The weight is registered here too, so that calling this module makes ZeRO-3 gather it, tied to the embeddings or not.
    """

    def __init__(self, head: nn.Linear, softcap: float | None) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias = head.bias
        self.softcap = softcap

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probs [tokens] (float32) of `targets` [tokens] given `hidden` [tokens, width]."""
        vocabulary = self.weight.shape[0]
        size = max(1, CHUNK_ELEMENTS // vocabulary)
        if len(targets) <= size or not torch.is_grad_enabled():
            chunks = [self._chunk(h, t) for h, t in zip(hidden.split(size), targets.split(size), strict=True)]
        else:
            chunks = [
                checkpoint(self._chunk, h, t, use_reentrant=False, preserve_rng_state=False)
                for h, t in zip(hidden.split(size), targets.split(size), strict=True)
            ]
        return torch.cat(chunks)

    def _chunk(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = F.linear(hidden, self.weight, self.bias).float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return -F.cross_entropy(logits, targets, reduction="none")


class SequenceLogProbs(nn.Module):
    """A causal language model that returns, for each completion of a batch, the sum of the log-probs of its tokens."""

    def __init__(self, policy: PreTrainedModel) -> None:
        """Wrap a model.

        Raises:
            ValueError: the model transforms its logits in a way that is not reproduced here.
        """
        super().__init__()
        config = policy.config.get_text_config()
        for name in _UNSUPPORTED:
            if getattr(config, name, None) not in (None, 1, 1.0):
                raise ValueError(f"{type(policy).__name__} scales its logits by {name}, which the trainer does not support")
        self.policy = policy
        self.head = CompletionHead(policy.get_output_embeddings(), getattr(config, "final_logit_softcapping", None))
        self._own_attention = config._attn_implementation

    def forward(self, batch: Batch) -> torch.Tensor:
        """Sums of completion log-probs, [completions] float32, natural log."""
        # Not set back afterwards: with gradient checkpointing the layers run again in the backward pass.
        config = self.policy.config.get_text_config()
        arguments: dict[str, Any] = {"input_ids": batch.tokens, "use_cache": False}
        if batch.branches is None:
            # Under a causal mask real tokens never see what is on their right, so padding needs no attention mask.
            config._attn_implementation = self._own_attention
        else:
            config._attn_implementation = TREE_ATTENTION
            arguments |= {"position_ids": batch.positions, "branches": batch.branches}
        hidden = self.policy.base_model(**arguments).last_hidden_state
        logps = self.head(hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.predictors), batch.targets)
        # Rows that are padded and summed: adding up in place would not be deterministic on GPUs.
        return pad_sequence(logps.split(batch.lengths), batch_first=True).sum(1)
