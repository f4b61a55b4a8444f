from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eva_hpc.config.optimiser import DPO, IPO, ORPO, RPO, SPPO, Optimiser, SimPO

# logp(w), logp(l), their lengths, the reference's log-probs, the win probabilities
Numbers = tuple[Any, Any, int, int, Any, Any, Any, Any]


def d(number: float) -> Decimal:
    return Decimal(number)


def log_sigmoid(x: Decimal) -> Decimal:
    return -(1 + (-x).exp()).ln()


def log_odds(log_p: Decimal) -> Decimal:
    p = log_p.exp()
    return (p / (1 - p)).ln()


def written_dpo(s: DPO, c: Any, r: Any, m: int, n: int, rc: Any, rr: Any, pc: Any, pr: Any) -> Decimal:
    h = d(s.beta) * ((c - rc) - (r - rr))
    return -(1 - d(s.label_smoothing)) * log_sigmoid(h) - d(s.label_smoothing) * log_sigmoid(-h)


def written_ipo(s: IPO, c: Any, r: Any, m: int, n: int, rc: Any, rr: Any, pc: Any, pr: Any) -> Decimal:
    if s.length_normalised:
        return (c / m - rc / m - r / n + rr / n - 1 / (2 * d(s.beta))) ** 2
    return (c - r - rc + rr - 1 / (2 * d(s.beta))) ** 2


def written_sppo(s: SPPO, c: Any, r: Any, m: int, n: int, rc: Any, rr: Any, pc: Any, pr: Any) -> Decimal:
    if s.win_probability == "hard":
        pc, pr = d(1), d(0)
    half = Decimal("0.5")
    return ((c - rc - (pc - half) / d(s.beta)) ** 2 + (r - rr - (pr - half) / d(s.beta)) ** 2) / 2


def written_rpo(s: RPO, c: Any, r: Any, m: int, n: int, rc: Any, rr: Any, pc: Any, pr: Any) -> Decimal:
    return -log_sigmoid(d(s.beta) * (c - rc - r + rr)) + d(s.alpha) * (-c / m)


def written_simpo(s: SimPO, c: Any, r: Any, m: int, n: int, rc: Any, rr: Any, pc: Any, pr: Any) -> Decimal:
    return -log_sigmoid(d(s.beta) * c / m - d(s.beta) * r / n - d(s.gamma_beta_ratio) * d(s.beta))


def written_orpo(s: ORPO, c: Any, r: Any, m: int, n: int, rc: Any, rr: Any, pc: Any, pr: Any) -> Decimal:
    return -c / m - d(s.weight) * log_sigmoid(log_odds(c / m) - log_odds(r / n))


WRITTEN: list[tuple[Optimiser, Callable[..., Decimal]]] = [
    (DPO(), written_dpo),
    (DPO(beta=0.5, label_smoothing=0.2), written_dpo),
    (IPO(), written_ipo),
    (IPO(length_normalised=False), written_ipo),
    (SPPO(), written_sppo),
    (SPPO(win_probability="hard", beta=0.02), written_sppo),
    (RPO(alpha=0.7), written_rpo),
    (SimPO(), written_simpo),
    (ORPO(), written_orpo),
]

log_probs = st.floats(-3000, -1e-4)
probabilities = st.floats(0, 1)
lengths = st.integers(1, 2000)


@pytest.mark.parametrize(("section", "written"), WRITTEN)
@given(st.tuples(log_probs, log_probs, lengths, lengths, log_probs, log_probs, probabilities, probabilities))
@settings(max_examples=30, deadline=None)
@example((-1e-4, -3000.0, 1, 1, -3000.0, -1e-4, 1.0, 0.0))
@example((-3000.0, -1e-4, 1, 1, -1e-4, -3000.0, 0.0, 1.0))
@example((-1e-4, -3000.0, 1000, 1, -1.0, -1.0, 0.5, 0.5))
@example((-3000.0, -1e-4, 1, 1000, -1.0, -1.0, 0.5, 0.5))
def test_each_loss_and_its_gradient_are_the_formula_computed_with_60_digits(
    section: Optimiser, written: Callable[..., Decimal], numbers: Numbers
) -> None:
    import torch

    from eva_hpc.training.losses import LOSSES, PairLogProbs

    chosen, rejected, *rest = (torch.tensor([float(number)], dtype=torch.float64) for number in numbers)
    chosen.requires_grad_()
    rejected.requires_grad_()
    loss = LOSSES[section.loss](PairLogProbs(chosen, rejected, *rest), section).loss
    loss.sum().backward()

    with localcontext() as context:
        context.prec = 60
        c, r, *others = (d(number) if isinstance(number, float) else number for number in numbers)
        step = Decimal("1e-20")
        by_chosen = (written(section, c + step, r, *others) - written(section, c - step, r, *others)) / (2 * step)
        by_rejected = (written(section, c, r + step, *others) - written(section, c, r - step, *others)) / (2 * step)
        expected = [float(written(section, c, r, *others)), float(by_chosen), float(by_rejected)]
    assert [loss.item(), chosen.grad.item(), rejected.grad.item()] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def pairs_of(*columns: list[float]) -> Any:
    import torch

    from eva_hpc.training.losses import PairLogProbs

    return PairLogProbs(*(torch.tensor(column) for column in columns))


def test_in_single_precision_the_losses_and_their_gradients_are_finite_however_far_apart_the_log_probs_are() -> None:
    import torch

    from eva_hpc.training.losses import LOSSES

    ends = [0.0, -1e-8, -1e-3, -1.0, -1e4]
    grid = [(c, r, rc, rr) for c in ends for r in ends for rc in ends for rr in ends]
    c, r, rc, rr = (list(column) for column in zip(*grid, strict=True))
    for section, _ in WRITTEN:
        pairs = pairs_of(c, r, [3.0] * len(c), [7.0] * len(c), rc, rr, [0.9] * len(c), [0.2] * len(c))
        pairs.chosen.requires_grad_()
        pairs.rejected.requires_grad_()
        result = LOSSES[section.loss](pairs, section)
        result.loss.sum().backward()

        for values in (result.loss, result.margin, pairs.chosen.grad, pairs.rejected.grad):
            assert torch.isfinite(values).all(), section


def test_where_policy_and_reference_agree_the_loss_is_known_and_the_margin_zero() -> None:
    from eva_hpc.training.losses import LOSSES

    same = pairs_of([-3.0, -70.0], [-6.0, -7.0], [4.0, 5.0], [2.0, 9.0], [-3.0, -70.0], [-6.0, -7.0])
    for section, expected in (
        (DPO(label_smoothing=0.1), [math.log(2)] * 2),
        (IPO(beta=0.25), [4.0] * 2),
        (SPPO(beta=0.05, win_probability="hard"), [100.0] * 2),
        (RPO(alpha=2.0), [math.log(2) + 1.5, math.log(2) + 28.0]),
    ):
        result = LOSSES[section.loss](same, section)
        assert result.loss.tolist() == pytest.approx(expected)
        assert result.margin.tolist() == [0.0, 0.0]


def test_the_margin_is_the_difference_of_implicit_rewards_of_averages_or_of_log_odds() -> None:
    from eva_hpc.training.losses import LOSSES

    # Chosen: log-ratio 2, 4 tokens of probability 1/2. Rejected: log-ratio -1, 2 tokens of probability 1/4.
    half = math.log(0.5)
    pair = pairs_of([4 * half], [4 * half], [4.0], [2.0], [4 * half - 2], [4 * half + 1], [0.8], [0.1])
    for section, expected in (
        (DPO(beta=0.5), 1.5),
        (IPO(beta=0.5), 0.5),
        (IPO(beta=0.5, length_normalised=False), 1.5),
        (SPPO(beta=0.5), 1.5),
        (RPO(beta=0.5), 1.5),
        (SimPO(beta=2.0), -2 * half),
        (ORPO(), math.log(1 / (1 / 3))),
    ):
        assert LOSSES[section.loss](pair, section).margin.item() == pytest.approx(expected)


def test_a_loss_says_what_it_lacks() -> None:
    from eva_hpc.training.losses import LOSSES

    bare = pairs_of([-1.0], [-2.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="needs the log-probs of a reference policy"):
        LOSSES["dpo"](bare, DPO())
    with pytest.raises(ValueError, match="soft SPPO needs the win probabilities"):
        LOSSES["sppo"](pairs_of([-1.0], [-2.0], [1.0], [1.0], [-1.0], [-2.0]), SPPO())
