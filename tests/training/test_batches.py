from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.store.records import Pair
from eva_hpc.training.batches import epoch_order, micro_batches, optimiser_steps, why_unusable


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> Pair:
    return {
        "prompt_id": "p",
        "prompt": "",
        "prompt_tokens": prompt,
        "chosen": {"text": "", "tokens": chosen, "reward": 1.0},
        "rejected": {"text": "", "tokens": rejected, "reward": 0.0},
    }


sizes = st.integers(1, 9)


@given(count=st.integers(1, 60), batch_size=st.integers(1, 20), epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_epoch_has_every_pair_once_in_full_steps_but_for_the_last(
    count: int, batch_size: int, epochs: int, seed: int
) -> None:
    steps = optimiser_steps(count, batch_size, epochs, seed)
    per_epoch = -(-count // batch_size)

    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        mine = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(index for step in mine for index in step) == list(range(count))
        assert all(len(step) == batch_size for step in mine[:-1])


@given(count=st.integers(1, 60), batch_size=st.integers(1, 20), steps=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_number_of_steps_gives_so_many_full_batches_that_go_through_the_epochs_one_after_the_other(
    count: int, batch_size: int, steps: int, seed: int
) -> None:
    made = optimiser_steps(count, batch_size, 2, seed, steps)
    stream = [index for step in made for index in step]

    assert [len(step) for step in made] == [batch_size] * steps
    for epoch, start in enumerate(range(0, len(stream), count)):
        epochs_part = stream[start : start + count]
        assert epochs_part == epoch_order(count, seed, epoch)[: len(epochs_part)]
    assert made == optimiser_steps(count, batch_size, 1, seed, steps + 1)[:steps]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert epoch_order(30, 1, 0) == epoch_order(30, 1, 0)
    assert len({tuple(epoch_order(30, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    world_size=sizes,
    budget=st.integers(1, 120),
    packed=st.booleans(),
    data=st.data(),
)
def test_over_all_ranks_every_pair_of_a_step_comes_once_and_the_ranks_stay_in_step(
    lengths: list[int], world_size: int, budget: int, packed: bool, data: st.DataObject
) -> None:
    indices = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1))  # one may come twice
    known = dict(enumerate(lengths))
    by_rank = [micro_batches(indices, known, known, rank, world_size, budget, packed) for rank in range(world_size)]

    assert len({len(batches) for batches in by_rank}) == 1
    everything = [[i for i in batch.indices if i >= 0] for batches in by_rank for batch in batches]
    assert Counter(i for part in everything for i in part) == Counter(indices)
    for part in everything:
        held = [lengths[i] for i in part]
        assert len(held) <= 1 or (sum(held) if packed else len(held) * max(held)) <= budget


@given(
    losses=st.lists(st.floats(-5, 5), min_size=1, max_size=30), world_size=sizes, budget=st.integers(1, 9), packed=st.booleans()
)
def test_summed_over_micro_batches_and_averaged_over_ranks_the_weighted_losses_are_the_mean(
    losses: list[float], world_size: int, budget: int, packed: bool
) -> None:
    indices = range(len(losses))
    ones = dict.fromkeys(indices, 1)
    of_ranks = [
        sum(
            weight * (losses[index] if index >= 0 else 1e9)
            for batch in micro_batches(indices, ones, ones, rank, world_size, budget, packed)
            for index, weight in zip(batch.indices, batch.weights, strict=True)
        )
        for rank in range(world_size)
    ]

    assert sum(of_ranks) / world_size == pytest.approx(sum(losses) / len(losses), abs=1e-9)


def test_padded_micro_batches_hold_pairs_of_like_length() -> None:
    lengths = dict(enumerate([3, 40, 5, 42, 4, 41, 6, 43]))

    first, second = micro_batches(range(8), lengths, lengths, 0, 2, 86, packed=False)

    assert first.indices == (7, 5)
    assert second.indices == (6, 4)


@given(lengths=st.lists(st.integers(1, 50), min_size=8, max_size=60), world_size=st.integers(2, 4))
def test_packed_micro_batches_are_as_few_as_fit_and_no_rank_waits_for_more_than_one_pair(
    lengths: list[int], world_size: int
) -> None:
    known = dict(enumerate(lengths))
    by_rank = [
        micro_batches(range(len(lengths)), known, known, rank, world_size, 200, packed=True) for rank in range(world_size)
    ]

    fewest = -(-sum(lengths) // (200 * world_size))
    assert fewest <= len(by_rank[0]) <= fewest + 1
    for together in zip(*by_rank, strict=True):
        work = [sum(lengths[i] for i in batch.indices if i >= 0) for batch in together]
        assert max(work) - min(work) <= max(lengths)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (pair([1] * 4, [1] * 6, [1] * 2), None),
        (pair([1] * 4, [1] * 7, [1] * 2), "pair too long"),
        (pair([1] * 4, [1] * 2, [1] * 7), "pair too long"),
        (pair([1] * 5, [1], [1]), "prompt too long"),
        (pair([1], [], [1]), "empty"),
        (pair([], [1], [1]), "empty"),
    ],
)
def test_a_pair_that_does_not_fit_is_named_so_and_one_that_just_fits_is_used(record: Pair, reason: str | None) -> None:
    assert why_unusable(record, max_length=10, max_prompt_length=4) == reason
