"""Drawing tokens from logits with uniforms that were drawn beforehand, one for each step of each response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from eva_hpc.inference.engine import Sampling

# The largest uniform: a little below 1, so that its product with a total stays below that total after rounding.
_BELOW_ONE = 1 - 2.0**-51


def response_uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Uniforms in [0, 1) of shape [seeds, steps], float64. A row depends on its seed only, and starts like a shorter row."""
    rows = np.empty((len(seeds), steps))
    for row, seed in zip(rows, seeds, strict=True):
        np.random.Generator(np.random.PCG64(seed)).random(out=row)
    return torch.from_numpy(rows.clip(max=_BELOW_ONE, out=rows))


def next_tokens(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """One token for each row, by inversion of the cumulative distribution in the order of the vocabulary.

    Args:
        logits: [rows, vocabulary], float32.
        uniforms: [rows], float64 in [0, 1). Not read at temperature 0.
        sampling: temperature and top_p.

    Returns:
        Tokens [rows] and their log-probabilities [rows] (float32) at temperature 1, before top-p.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1, keepdim=True)
    else:
        scaled = logprobs if sampling.temperature == 1 else torch.log_softmax(logits / sampling.temperature, dim=-1)
        probabilities = scaled.exp()
        if sampling.top_p < 1:
            probabilities = _keep_nucleus(probabilities, sampling.top_p)
        cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
        targets = uniforms.unsqueeze(1) * cumulative[:, -1:]
        # Logits that are not finite would give an id behind the last; their log-probability tells the caller.
        tokens = torch.searchsorted(cumulative, targets, right=True).clamp(max=logits.shape[-1] - 1)
    return tokens.squeeze(1), logprobs.gather(1, tokens).squeeze(1)


def _keep_nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero every token outside the smallest set of probability `top_p` (Holtzman et al. 2020, section 3.1).

    Tokens that tie with the last one of the set stay, so that the result does not depend on how a sort breaks ties.
    """
    descending, _ = probabilities.sort(dim=-1, descending=True)
    before = descending.cumsum(dim=-1, dtype=torch.float64) - descending
    last = (before[:, 1:] < top_p).sum(dim=-1, keepdim=True)
    return torch.where(probabilities >= descending.gather(1, last), probabilities, 0.0)
