from __future__ import annotations

import math
import random

import pytest


def test_dpo_and_its_gradient_are_the_formula_computed_in_float64() -> None:
    import torch

    from eva_hpc.training.losses import LOSSES

    draw = random.Random(0)
    rows = [[draw.uniform(-90, -1) for _ in range(4)] for _ in range(50)]
    beta = 0.05
    columns = [torch.tensor(column, dtype=torch.float32, requires_grad=True) for column in zip(*rows, strict=True)]

    losses = LOSSES["dpo"](*columns, beta)
    losses.sum().backward()

    for index, (chosen, rejected, reference_chosen, reference_rejected) in enumerate(rows):
        logit = beta * (chosen - rejected - reference_chosen + reference_rejected)
        slope = -beta / (1 + math.exp(logit))
        assert losses[index].item() == pytest.approx(math.log(1 + math.exp(-logit)), rel=1e-5)
        assert columns[0].grad[index].item() == pytest.approx(slope, rel=1e-5)
        assert columns[1].grad[index].item() == pytest.approx(-slope, rel=1e-5)


def test_dpo_is_log_2_where_policy_and_reference_agree_and_finite_where_they_are_far_apart() -> None:
    import torch

    from eva_hpc.training.losses import dpo

    same = torch.tensor([-3.0, -70.0])
    far = torch.tensor([1e4])

    assert dpo(same, 2 * same, same, 2 * same, 0.1).tolist() == pytest.approx([math.log(2)] * 2)
    assert dpo(-far, far, far, -far, 1.0).item() == pytest.approx(4e4)
    assert dpo(far, -far, -far, far, 1.0).item() == 0.0
