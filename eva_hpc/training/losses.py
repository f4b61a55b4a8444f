"""Preference losses, per pair, on summed completion log-probs.

A new loss is one function with the arguments of :func:`dpo` and one line in :data:`LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def dpo(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Direct Preference Optimisation: -log sigmoid(beta ((chosen - ref chosen) - (rejected - ref rejected))).

    Source: Rafailov et al. 2023, "Direct Preference Optimization", arXiv 2305.18290, equation 7.

    Args:
        chosen_logps: [pairs], sum of log pi(token) over the chosen response, natural log.
        rejected_logps: [pairs], the same of the rejected response.
        reference_chosen_logps: [pairs], chosen response under the reference policy.
        reference_rejected_logps: [pairs], rejected response under the reference policy.
        beta: strength of the pull to the reference.

    Returns:
        [pairs], the loss of each pair; log 2 where policy and reference agree.
    """
    margins = (chosen_logps - reference_chosen_logps) - (rejected_logps - reference_rejected_logps)
    return -F.logsigmoid(beta * margins)


LOSSES: dict[str, Loss] = {"dpo": dpo}
