"""Preference losses of pairs, from the log-probs of whole responses.

Notation: w is the chosen response and l the rejected one; logp(y) = log pi(y | x), the sum over the tokens of y, natural log;
avg(y) = logp(y) / |y|, its mean; d = logp - logp_ref, the log-ratio to the reference policy. A new loss is a section in
`config/optimiser.py`, one function here and one line in :data:`LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from eva_hpc.config.optimiser import DPO, IPO, ORPO, RPO, SPPO, SimPO


@dataclass(frozen=True)
class PairLogProbs:
    """What losses are made of: [pairs] each, of the chosen and of the rejected responses.

    `chosen` and `rejected` are logp, `*_tokens` the lengths |y| in tokens, `reference_*` logp_ref, `*_wins` the probabilities
    with which the response beats the others of its prompt. What a loss does not use may be None.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    reference_chosen: torch.Tensor | None = None
    reference_rejected: torch.Tensor | None = None
    chosen_wins: torch.Tensor | None = None
    rejected_wins: torch.Tensor | None = None

    def log_ratios(self) -> tuple[torch.Tensor, torch.Tensor]:
        """d_w and d_l.

        Raises:
            ValueError: there are no reference log-probs.
        """
        if self.reference_chosen is None or self.reference_rejected is None:
            raise ValueError("this loss needs the log-probs of a reference policy")
        return self.chosen - self.reference_chosen, self.rejected - self.reference_rejected

    def averages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """avg(w) and avg(l)."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


@dataclass(frozen=True)
class PairLoss:
    """Of each pair, [pairs]: the loss, and the margin by which it sees the chosen response preferred."""

    loss: torch.Tensor
    margin: torch.Tensor


def dpo(pairs: PairLogProbs, settings: DPO) -> PairLoss:
    """Direct Preference Optimisation: -(1 - e) log sigmoid(m) - e log sigmoid(-m), m = beta (d_w - d_l).

    e is the label smoothing. Without it, log 2 where policy and reference agree.

    Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7. With e > 0: Mitchell 2023, "A note on DPO with noisy preferences
    and relationship to IPO" (conservative DPO).
    """
    return _sigmoid(pairs, settings.beta, settings.label_smoothing)


def ipo(pairs: PairLogProbs, settings: IPO) -> PairLoss:
    """Identity Preference Optimisation: (d_w - d_l - 1 / (2 beta))^2, each d divided by its |y| if length-normalised.

    Source: Azar et al. 2023, arXiv 2310.12036, equation 17, beta being their tau. The paper writes sums over tokens; eva's
    authors and TRL divide by the length, and their values of beta are for that.
    """
    chosen, rejected = pairs.log_ratios()
    if settings.length_normalised:
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
    difference = chosen - rejected
    return PairLoss((difference - 0.5 / settings.beta) ** 2, settings.beta * difference)


def sppo(pairs: PairLogProbs, settings: SPPO) -> PairLoss:
    """Self-Play Preference Optimisation: ((d_w - (P_w - 1/2) / beta)^2 + (d_l - (P_l - 1/2) / beta)^2) / 2.

    P is the probability with which a response beats those of the current policy: `*_wins`, or 1 for w and 0 for l if hard.

    Source: Wu et al. 2024, arXiv 2405.00675, equation 4.7, 1 / beta being their eta. The half is that of the authors' code; TRL
    leaves it out.

    Raises:
        ValueError: soft, but there are no win probabilities.
    """
    chosen, rejected = pairs.log_ratios()
    chosen_wins, rejected_wins = torch.ones_like(chosen), torch.zeros_like(rejected)
    if settings.win_probability == "soft":
        if pairs.chosen_wins is None or pairs.rejected_wins is None:
            raise ValueError("soft SPPO needs the win probabilities of both responses")
        chosen_wins, rejected_wins = pairs.chosen_wins, pairs.rejected_wins
    errors = (chosen - (chosen_wins - 0.5) / settings.beta) ** 2 + (rejected - (rejected_wins - 0.5) / settings.beta) ** 2
    return PairLoss(errors / 2, settings.beta * (chosen - rejected))


def rpo(pairs: PairLogProbs, settings: RPO) -> PairLoss:
    """DPO with a likelihood term: -log sigmoid(beta (d_w - d_l)) - alpha avg(w).

    Source: Pang et al. 2024, "Iterative Reasoning Preference Optimization", arXiv 2404.19733, equation 1, with the weight on
    the likelihood instead of on DPO, and |y| the length of the response: as TRL. The trainer of eva's authors divides this mean
    by the number of tokens once more, which leaves next to nothing of the term.
    """
    preference = _sigmoid(pairs, settings.beta, 0.0)
    return PairLoss(preference.loss - settings.alpha * pairs.averages()[0], preference.margin)


def simpo(pairs: PairLogProbs, settings: SimPO) -> PairLoss:
    """Simple Preference Optimisation: -log sigmoid(beta (avg(w) - avg(l)) - gamma), gamma = gamma_beta_ratio x beta.

    Source: Meng et al. 2024, arXiv 2405.14734, equation 6.
    """
    chosen, rejected = pairs.averages()
    margin = settings.beta * (chosen - rejected)
    return PairLoss(-F.logsigmoid(margin - settings.gamma_beta_ratio * settings.beta), margin)


def orpo(pairs: PairLogProbs, settings: ORPO) -> PairLoss:
    """Odds Ratio Preference Optimisation: -avg(w) - weight log sigmoid(log odds(w) - log odds(l)).

    odds(y) = p / (1 - p) with p = exp(avg(y)).

    Source: Hong et al. 2024, arXiv 2403.07691, equations 4, 6 and 7. TRL's likelihood term covers the prompt too.
    """
    chosen, rejected = pairs.averages()
    margin = _log_odds(chosen) - _log_odds(rejected)
    return PairLoss(-chosen - settings.weight * F.logsigmoid(margin), margin)


def _sigmoid(pairs: PairLogProbs, beta: float, label_smoothing: float) -> PairLoss:
    chosen, rejected = pairs.log_ratios()
    margin = beta * (chosen - rejected)
    return PairLoss(-(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin), margin)


def _log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of log p < 0. A p that rounds to 1 counts as a little less, to have finite odds."""
    below = log_probability.clamp(max=-torch.finfo(log_probability.dtype).eps)
    return below - torch.log(-torch.expm1(below))


LOSSES: dict[str, Callable[[PairLogProbs, Any], PairLoss]] = {
    "dpo": dpo,
    "ipo": ipo,
    "sppo": sppo,
    "rpo": rpo,
    "simpo": simpo,
    "orpo": orpo,
}
