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
from transformers import PreTrainedModel

from eva_hpc.training.attention import TREE_ATTENTION
from eva_hpc.training.packing import Batch

CHUNK_ELEMENTS = 2**27
"""Logits in memory at once: 512 MB of float32."""

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
        size = max(1, CHUNK_ELEMENTS // self.weight.shape[0])
        logps: torch.Tensor = _ChunkedLogProbs.apply(hidden, self.weight, self.bias, targets, self.softcap, size)
        return logps


class _ChunkedLogProbs(torch.autograd.Function):
    """Of each target y the log-prob z_y - log sum exp z, for logits z = W h + b, or c tanh((W h + b) / c) if they are capped.

    By the logits its gradient is that of y minus the softmax, times 1 - (z / c)^2 under the cap. Gradients of all chunks are
    added up in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        softcap: float | None,
        size: int,
    ) -> torch.Tensor:
        sums = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        logps = torch.empty_like(sums)
        for chunk in _chunks(len(targets), size):
            logits = _logits(hidden[chunk], weight, bias, softcap)
            sums[chunk] = logits.logsumexp(1)
            logps[chunk] = logits.gather(1, targets[chunk, None]).squeeze(1) - sums[chunk]
        ctx.save_for_backward(hidden, weight, bias, targets, sums)
        ctx.softcap, ctx.size = softcap, size
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, sums = ctx.saved_tensors
        (gradient,) = gradients
        wanted = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if wanted[0] else None
        of_weight = torch.zeros_like(weight) if wanted[1] else None
        of_bias = torch.zeros_like(bias) if wanted[2] else None
        for chunk in _chunks(len(targets), ctx.size):
            logits = _logits(hidden[chunk], weight, bias, ctx.softcap)
            slope = None if ctx.softcap is None else 1 - (logits / ctx.softcap).square_()
            of_logits = logits.sub_(sums[chunk, None]).exp_().neg_()
            of_logits.scatter_add_(1, targets[chunk, None], torch.ones_like(of_logits[:, :1]))
            of_logits.mul_(gradient[chunk, None])
            if slope is not None:
                of_logits.mul_(slope)
            part = of_logits.to(weight.dtype)
            if of_hidden is not None:
                torch.mm(part, weight, out=of_hidden[chunk])
            if of_weight is not None:
                of_weight.addmm_(part.t(), hidden[chunk])
            if of_bias is not None:
                of_bias += part.sum(0)
        return of_hidden, of_weight, of_bias, None, None, None


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _logits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, softcap: float | None) -> torch.Tensor:
    """[tokens, vocabulary], float32 and nobody else's."""
    product = F.linear(hidden, weight, bias)
    logits = product.float()
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


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
