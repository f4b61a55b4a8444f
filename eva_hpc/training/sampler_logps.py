"""Reference log-probs for nothing: those that the reference policy noted when it sampled the responses.

They are the sampler's, of other kernels than the trainer's, and so off by rounding. A random part is computed again by the
trainer; if the two differ by more than the loss can bear, none is taken.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eva_hpc.config.optimiser import DPO, IPO, RPO, SPPO
from eva_hpc.store.records import Pair

TRIED = 64
"""Pairs that are computed again."""
MEAN_ERROR = 0.01
LARGEST_ERROR = 0.1
"""Of what the loss sees: for DPO and RPO of the margin, beta times the difference of the log-ratios of chosen and rejected, so
that near 0, where they start, the gradient changes by half a percent on average and by 5 percent at most. IPO aims at a
difference of 1 / (2 beta), SPPO at log-ratios up to 1 / (2 beta): theirs is a share of that."""


@dataclass(frozen=True)
class Agreement:
    """How far the sampler's log-probs are from the trainer's: the errors of what the loss sees of the pairs that were tried."""

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

    `tokens` [2, pairs] are those of the responses, `settings` the loss that the log-probs are for.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    tokens: torch.Tensor
    settings: DPO | IPO | SPPO | RPO

    @classmethod
    def of(cls, pairs: Sequence[Pair], policy: str, settings: DPO | IPO | SPPO | RPO) -> Sampled:
        """Of pairs whose responses the policy of key `policy` sampled, and nobody wrote anew."""

        def noted(pair: Pair) -> tuple[float, float]:
            sides = (pair["chosen"], pair["rejected"])
            known = pair.get("policy") == policy and not any(side.get("rewritten") for side in sides)
            chosen, rejected = (side.get("logprob", torch.nan) if known else torch.nan for side in sides)
            return chosen, rejected

        values = torch.tensor([noted(pair) for pair in pairs], dtype=torch.float32).reshape(-1, 2)
        tokens = torch.tensor([[len(pair["chosen"]["tokens"]), len(pair["rejected"]["tokens"])] for pair in pairs])
        return cls(values[:, 0].clone(), values[:, 1].clone(), tokens.reshape(-1, 2).t(), settings)

    def to_try(self, keys: torch.Tensor) -> list[int]:
        """The pairs to compute again: those with the smallest of the hashes `keys` [pairs], the same in every attempt."""
        known = torch.nonzero(~(torch.isnan(self.chosen) | torch.isnan(self.rejected))).flatten().tolist()
        return sorted(heapq.nsmallest(TRIED, known, key=lambda index: int(keys[index])))

    def compare(self, chosen: torch.Tensor, rejected: torch.Tensor, tried: Sequence[int]) -> Agreement:
        """How far the sampler's log-probs are from the trainer's, `chosen` and `rejected` [pairs], by the pairs `tried`."""
        index = torch.tensor(tried, dtype=torch.int64)
        off = torch.stack([chosen - self.chosen, rejected - self.rejected]).double()[:, index]
        settings = self.settings
        if isinstance(settings, SPPO):  # the two log-ratios count each for itself
            errors = 2 * settings.beta * off.abs().amax(0)
        elif isinstance(settings, IPO):
            per = self.tokens[:, index] if settings.length_normalised else torch.ones_like(off)
            errors = 2 * settings.beta * (off[0] / per[0] - off[1] / per[1]).abs()
        else:
            errors = settings.beta * (off[0] - off[1]).abs()
        found = errors.tolist()
        return Agreement(len(found), statistics.fmean(found or [math.inf]), max(found, default=math.inf))
