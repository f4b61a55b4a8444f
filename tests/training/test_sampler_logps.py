from __future__ import annotations

import pytest

from eva_hpc.config.optimiser import DPO, IPO, SPPO
from eva_hpc.store.records import Pair
from tests.training.scenarios import random_pairs

torch = pytest.importorskip("torch")


def noted(index: int, pair: Pair, policy: str = "theta") -> Pair:
    sides = {side: {**pair[side], "logprob": -index - offset} for side, offset in (("chosen", 1.0), ("rejected", 2.0))}  # type: ignore[literal-required]
    return {**pair, **sides, "policy": policy}  # type: ignore[typeddict-item]


def test_only_what_the_reference_itself_sampled_is_known() -> None:
    from eva_hpc.training.sampler_logps import Sampled

    plain, ours, others, rewritten, half = random_pairs(5)
    pairs = [plain, noted(1, ours), noted(2, others, "earlier"), noted(3, rewritten), noted(4, half)]
    pairs[3]["rejected"]["rewritten"] = True
    del pairs[4]["chosen"]["logprob"]

    sampled = Sampled.of(pairs, "theta", DPO(beta=0.1))

    assert sampled.to_try(torch.arange(5)) == [1]
    assert (sampled.chosen[1].item(), sampled.rejected[1].item()) == (-2.0, -3.0)


def test_the_pairs_that_are_tried_depend_on_their_hashes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from eva_hpc.training import sampler_logps

    monkeypatch.setattr(sampler_logps, "TRIED", 2)
    pairs = [noted(index, pair) for index, pair in enumerate(random_pairs(4))]
    sampled = sampler_logps.Sampled.of(pairs, "theta", DPO(beta=0.1))

    assert sampled.to_try(torch.tensor([40, 10, 30, 20])) == [1, 3]


@pytest.mark.parametrize(
    ("errors", "taken"),
    [
        ([0.05, -0.05, 0.1, 0.0], True),
        ([0.3, -0.3, 0.3, 0.3], False),  # 0.03 on average
        ([0.0, 0.0, 0.0, 1.2], False),  # one response that was not what the sampler says
        ([0.0, float("nan"), 0.0, 0.0], False),
    ],
)
def test_the_sampler_is_refused_when_the_margins_of_the_loss_are_off(errors: list[float], taken: bool) -> None:
    from eva_hpc.training.sampler_logps import Sampled

    pairs = [noted(index, pair) for index, pair in enumerate(random_pairs(4))]
    sampled = Sampled.of(pairs, "theta", DPO(beta=0.1))

    found = sampled.compare(sampled.chosen + torch.tensor(errors), sampled.rejected, [0, 1, 2, 3])

    assert found.taken is taken
    assert not sampled.compare(sampled.chosen, sampled.rejected, []).taken


def test_what_each_loss_sees_decides() -> None:
    from eva_hpc.training.sampler_logps import Sampled

    pairs = [noted(index, pair) for index, pair in enumerate(random_pairs(4))]
    for settings, shift, taken in (
        (DPO(beta=0.1), 3.0, True),  # both responses are off alike: the margin is not
        (SPPO(beta=0.1), 3.0, False),
        (SPPO(beta=0.001), 3.0, True),
        (IPO(beta=0.6), 0.02, True),  # per token
        (IPO(beta=0.6, length_normalised=False), 0.05, True),
    ):
        sampled = Sampled.of(pairs, "theta", settings)
        assert sampled.compare(sampled.chosen + shift, sampled.rejected + shift, [0, 1, 2, 3]).taken is taken, settings
    normalised, plain = (Sampled.of(pairs, "theta", IPO(beta=0.6, length_normalised=one)) for one in (True, False))
    found = [one.compare(one.chosen + 1, one.rejected, [0, 1, 2, 3]).mean_error for one in (normalised, plain)]
    assert found[0] < found[1] == pytest.approx(1.2, rel=1e-3)
