"""Drawing from logits: the right distribution, the nucleus, and uniforms that are nested."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eva_hpc.inference.engine import Sampling
from eva_hpc.inference.sampling import next_tokens, response_uniforms

LOGITS = torch.tensor([0.3, 2.0, -1.0, 1.2, 0.0])


def drawn_shares(sampling: Sampling) -> np.ndarray:
    """Share of each token when the uniforms lie on a fine even grid: equal to its probability up to the grid's width."""
    uniforms = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    tokens, _ = next_tokens(LOGITS.expand(20_000, -1), uniforms, sampling)
    return np.bincount(tokens.numpy(), minlength=5) / 20_000


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    expected = torch.softmax(LOGITS.double() / temperature, dim=-1).numpy()
    assert np.abs(drawn_shares(Sampling(temperature, 1.0, 1)) - expected).max() < 1e-4


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    probabilities = torch.softmax(LOGITS.double(), dim=-1).numpy()  # in falling order: tokens 1, 3, 0, 4, 2
    two = probabilities[1] + probabilities[3]

    shares = drawn_shares(Sampling(1.0, float(two) - 0.01, 1))
    assert set(np.flatnonzero(shares)) == {1, 3}
    assert shares[1] == pytest.approx(probabilities[1] / two, abs=1e-4)

    assert set(np.flatnonzero(drawn_shares(Sampling(1.0, float(two) + 0.01, 1)))) == {0, 1, 3}
    assert set(np.flatnonzero(drawn_shares(Sampling(1.0, 0.01, 1)))) == {1}


def test_the_largest_uniform_never_leaves_the_nucleus() -> None:
    logits = torch.randn(500, 300, generator=torch.Generator().manual_seed(0))
    highest = torch.full((500,), 1 - 2.0**-51, dtype=torch.float64)

    tokens, _ = next_tokens(logits, highest, Sampling(1.0, 0.5, 1))

    ranks = (logits > logits.gather(1, tokens.unsqueeze(1))).sum(dim=1)
    assert int(ranks.max()) < 150


def test_temperature_zero_is_greedy() -> None:
    tokens, _ = next_tokens(LOGITS.unsqueeze(0), torch.tensor([0.99], dtype=torch.float64), Sampling(0, 0.5, 1))
    assert tokens.tolist() == [1]


def test_the_log_probability_is_that_of_temperature_one_before_top_p() -> None:
    tokens, logprobs = next_tokens(LOGITS.unsqueeze(0), torch.tensor([0.5], dtype=torch.float64), Sampling(0.3, 0.2, 1))
    assert logprobs[0].item() == pytest.approx(torch.log_softmax(LOGITS, dim=-1)[tokens[0]].item())


def test_uniforms_depend_on_the_seed_alone_and_longer_rows_start_like_shorter_ones() -> None:
    rows = response_uniforms([5, 6, 5], 10)

    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(response_uniforms([6], 4)[0], rows[1, :4])
    assert float(rows.min()) >= 0
    assert float(rows.max()) < 1


@pytest.mark.parametrize("settings", [(-0.1, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 1.0, 0)])
def test_impossible_settings_are_refused(settings: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match=r"it must be"):
        Sampling(*settings)
