"""Reference log-probs for nothing: those that the reference policy noted when it sampled the responses.

They are the sampler's, of other kernels than the trainer's, and so off by rounding. A random part is computed again by the
trainer; if the two differ by more than a loss can bear, none is taken.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eva_hpc.store.records import Pair

TRIED = 64
"""Pairs that are computed again."""
MEAN_ERROR = 0.01
LARGEST_ERROR = 0.1
"""Of the margin that the loss sees, beta times the difference of the log-ratios of chosen and rejected: near 0, where DPO
starts, its gradient then changes by half a percent on average, and by 5 percent at most."""


@dataclass(frozen=True)
class Agreement:
    """How far the sampler's log-probs are from the trainer's: the errors of the margins of the pairs that were tried."""

    tried: int
    mean_error: float
    largest_error: float

    @property
    def taken(self) -> bool:
        """Whether the sampler's can stand for the trainer's."""
        return self.mean_error <= MEAN_ERROR and self.largest_error <= LARGEST_ERROR  # NaN is not


@dataclass(frozen=True)
class Sampled:
    """What the sampler says of pairs: sums of log-probs [pairs] float32, NaN where the reference did not sample both responses.

    `beta` is the factor of a log-ratio in the loss.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    beta: float

    @classmethod
    def of(cls, pairs: Sequence[Pair], policy: str, beta: float) -> Sampled:
        """Of pairs whose responses the policy of key `policy` sampled, and nobody wrote anew."""

        def noted(pair: Pair) -> tuple[float, float]:
            sides = (pair["chosen"], pair["rejected"])
            known = pair.get("policy") == policy and not any(side.get("rewritten") for side in sides)
            chosen, rejected = (side.get("logprob", torch.nan) if known else torch.nan for side in sides)
            return chosen, rejected

        values = torch.tensor([noted(pair) for pair in pairs], dtype=torch.float32).reshape(-1, 2)
        return cls(values[:, 0].clone(), values[:, 1].clone(), beta)

    def to_try(self, keys: torch.Tensor) -> list[int]:
        """The pairs to compute again: those with the smallest of the hashes `keys` [pairs], the same in every attempt."""
        known = torch.nonzero(~(torch.isnan(self.chosen) | torch.isnan(self.rejected))).flatten().tolist()
        return sorted(heapq.nsmallest(TRIED, known, key=lambda index: int(keys[index])))

    def compare(self, chosen: torch.Tensor, rejected: torch.Tensor, tried: Sequence[int]) -> Agreement:
        """How far the sampler's log-probs are from the trainer's, `chosen` and `rejected` [pairs], by the pairs `tried`."""
        index = torch.tensor(tried, dtype=torch.int64)
        ours, theirs = (c[index].double() - r[index].double() for c, r in ((chosen, rejected), (self.chosen, self.rejected)))
        errors = (self.beta * (ours - theirs).abs()).tolist()
        return Agreement(len(errors), statistics.fmean(errors or [math.inf]), max(errors, default=math.inf))
